"""The inputs of SGN: positions, bones, and the velocities of both.

Legend: B clips, T frames (segments), V joints, C coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from sgnray.config.schema import Input

INPUTS: tuple[str, ...] = get_args(Input)
_OF_BONES = frozenset({"bone", "bone_velocity"})


def check_inputs(names: Sequence[str], bones: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """Return the names in the order of INPUTS, so that the same names make the same model.

    Raises ValueError for no, unknown or repeated names, and for bone inputs without bones.
    """
    if not names or not set(names) <= set(INPUTS) or len(set(names)) < len(names):
        raise ValueError(f"inputs are {list(names)}, not different ones of {', '.join(INPUTS)}")
    if needs_bones(names) and not bones:
        raise ValueError(f"inputs are {list(names)}, but the skeleton has no bones")
    return tuple(name for name in INPUTS if name in names)


def needs_bones(names: Sequence[str]) -> bool:
    """Return whether any of the inputs is derived from bones."""
    return not _OF_BONES.isdisjoint(names)


def parents_of(bones: Sequence[tuple[int, int]], num_joints: int) -> Tensor:
    """Return each joint's parent (V): itself if it has none, the first if it has several."""
    parents_V = torch.arange(num_joints)
    for child, parent in reversed(bones):
        parents_V[child] = parent
    return parents_V


def derive_input(name: str, joints_BTVC: Tensor, parents_V: Tensor) -> Tensor:
    """Return one of INPUTS (B, T, V, C), in the unit of the joints."""
    points_BTVC = joints_BTVC
    if name in _OF_BONES:
        points_BTVC = joints_BTVC - joints_BTVC[:, :, parents_V]
    match name:
        case "position" | "bone":
            return points_BTVC
        case "velocity" | "bone_velocity":
            return velocities(points_BTVC)
    raise AssertionError(name)


def velocities(points_BTVC: Tensor) -> Tensor:
    """Return x[t] - x[t-1], zero in the first frame; taken after sampling."""
    return F.pad(points_BTVC[:, 1:] - points_BTVC[:, :-1], (0, 0, 0, 0, 1, 0))
