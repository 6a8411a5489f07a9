"""A jointed body in meters: limb lengths, and from joint angles to joint positions.

A person's own frame has x to the right, y up and z to the back, so a person who faces a sensor that
looks along +z needs no rotation. Angles are in radians and are zero when the person stands straight
with hanging arms. Suffixes: T frames, V joints, C coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import NTU25

Floats = npt.NDArray[np.float64]
Angles = dict[str, Floats]

SIDES = (("left", -1.0), ("right", 1.0))
_JOINT = {name: index for index, name in enumerate(NTU25.joints)}


def joints_ending(*words: str) -> list[int]:
    """List the joints whose names end with one of the words."""
    return [index for name, index in _JOINT.items() if name.split()[-1] in words]


# The position of each joint in its parent's frame when the person stands straight, in body heights
# (segment lengths after Drillis and Contini); sideways lengths are those of the right side.
_TRUNK = {
    "spine middle": (0.0, 0.135, 0.0),
    "spine shoulder": (0.0, 0.145, 0.0),
    "neck": (0.0, 0.045, -0.004),
    "head": (0.0, 0.085, -0.012),
}
_LIMBS = {
    "shoulder": (0.108, -0.022, 0.006),
    "elbow": (0.012, -0.165, 0.0),
    "wrist": (0.003, -0.143, 0.0),
    "hand": (0.0, -0.042, 0.0),
    "hand tip": (0.0, -0.045, 0.0),
    "thumb": (-0.018, -0.022, -0.022),
    "hip": (0.048, -0.018, 0.0),
    "knee": (0.006, -0.236, 0.0),
    "ankle": (0.0, -0.232, 0.004),
    "foot": (0.012, -0.030, -0.072),
}


@dataclass(frozen=True)
class Motion:
    """The motion of a body: joint positions in meters, and the rotation of each joint."""

    joints_TVC: Floats
    turned_TVCC: Floats


def build_offsets(height_m: float, *, leg_share: float, arm_share: float, breadth: float) -> Floats:
    """Build the (V, 3) offsets of one person in meters; shares are relative to the average."""
    offsets_VC = np.zeros((NTU25.num_joints, 3))
    for name, offset in _TRUNK.items():
        offsets_VC[_JOINT[name]] = np.multiply(offset, (1.0, 1.0 - 0.8 * (leg_share - 1.0), 1.0))
    for side, sign in SIDES:
        for name, offset in _LIMBS.items():
            wide = breadth if name in ("shoulder", "hip") else 1.0
            long = leg_share if name in ("knee", "ankle") else 1.0
            long = arm_share if name in ("elbow", "wrist", "hand") else long
            offsets_VC[_JOINT[f"{side} {name}"]] = np.multiply(offset, (sign * wide, long, 1.0))
    return offsets_VC * height_m


def move_body(offsets_VC: Floats, angles: Mapping[str, Floats]) -> Motion:
    """Turn angles over time into joint positions with a foot on the floor (y = 0).

    Trunk: `turn` (to the left), `bend` and `nod` (forwards), `lean` (to the left). For each side:
    `raise` and `aside` of the arm (how far, and from the front to the side), `elbow`, `hip` and
    `hip aside` likewise, `knee`. `forward`, `sideways` (to the right) and `jump` are in meters.
    """
    num_frames = len(angles["turn"])
    local = _local_rotations(angles)
    joints_TVC = np.zeros((num_frames, NTU25.num_joints, 3))
    turned_TVCC = np.zeros((num_frames, NTU25.num_joints, 3, 3))
    turned_TVCC[:, 0] = local["spine base"]
    for child, parent in NTU25.bones:
        joints_TVC[:, child] = joints_TVC[:, parent] + turned_TVCC[:, parent] @ offsets_VC[child]
        rotation = local.get(NTU25.joints[child])
        turned = turned_TVCC[:, parent]
        turned_TVCC[:, child] = turned if rotation is None else turned @ rotation
    joints_TVC += _root_path(joints_TVC, angles)[:, None]
    return Motion(joints_TVC, turned_TVCC)


def turn_about(axis: int, angle: Floats) -> Floats:
    """Build (..., 3, 3) rotations about one axis by `angle` of any shape, in radians."""
    rotation = np.zeros((*angle.shape, 3, 3))
    after, last = (axis + 1) % 3, (axis + 2) % 3
    rotation[..., axis, axis] = 1.0
    rotation[..., after, after] = rotation[..., last, last] = np.cos(angle)
    rotation[..., last, after] = np.sin(angle)
    rotation[..., after, last] = -rotation[..., last, after]
    return rotation


def _local_rotations(angles: Mapping[str, Floats]) -> dict[str, Floats]:
    half_bend = turn_about(0, -0.5 * angles["bend"])
    local = {
        "spine base": turn_about(1, angles["turn"]),
        "spine middle": turn_about(2, angles["lean"]) @ half_bend,
        "spine shoulder": half_bend,
        "neck": turn_about(0, -angles["nod"]),
    }
    for side, sign in SIDES:
        local[f"{side} shoulder"] = _swing(angles[f"{side} raise"], -sign * angles[f"{side} aside"])
        local[f"{side} elbow"] = turn_about(0, angles[f"{side} elbow"])
        local[f"{side} hip"] = _swing(angles[f"{side} hip"], -sign * angles[f"{side} hip aside"])
        local[f"{side} knee"] = turn_about(0, -angles[f"{side} knee"])
        # The foot stays level: the ankle undoes the rotations of hip and knee.
        local[f"{side} ankle"] = turn_about(0, angles[f"{side} knee"] - angles[f"{side} hip"])
    return local


def _swing(how_far: Floats, towards: Floats) -> Floats:
    """Lift a hanging limb by `how_far` in the upright plane `towards`, without twisting it."""
    plane = turn_about(1, towards)
    return plane @ turn_about(0, how_far) @ np.swapaxes(plane, -1, -2)


def _root_path(joints_TVC: Floats, angles: Mapping[str, Floats]) -> Floats:
    feet_TV = joints_TVC[:, joints_ending("ankle", "foot"), 1]
    height = 0.03 - feet_TV.min(axis=1) + angles["jump"]
    return np.stack([angles["sideways"], height, -angles["forward"]], axis=-1)
