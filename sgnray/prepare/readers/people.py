"""Joints and people of pose estimators: which joints are missing, which poses are a person.

Legend: N people of a frame, V joints, C coordinates; NaN marks a missing joint.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import MEDIAPIPE33, Skeleton
from sgnray.data.store import FloatArray
from sgnray.prepare.clip import refusal

Floats = npt.NDArray[np.float64]

MIN_SCORE = 0.2  # a joint with a lower score is missing
MIN_JOINTS = 3  # with fewer it is not a person
MAX_PEOPLE = 200
_MAX_HIP_OFFSET_M = 0.1
_TRUNK = ("left shoulder", "right shoulder", "left hip", "right hip")


def mark_missing(
    joints_NVC: Floats, scores_NV: Floats | None = None, *, number: str = ""
) -> Floats:
    """Put NaN where a joint has a low score, a NaN, or only zeros.

    ClipError if a coordinate is too large; `number`, such as "row {}", says how to name its pose.
    """
    is_large = np.abs(joints_NVC) > np.finfo(np.float32).max
    if is_large.any():
        where = f"{number.format(np.argwhere(is_large)[0][-3] + 1)}: " if number else ""
        raise refusal(f"{where}a coordinate is not finite, or too large for float32")
    is_missing = np.isnan(joints_NVC).any(axis=-1) | np.all(joints_NVC == 0, axis=-1)
    if scores_NV is not None:
        is_missing |= ~(scores_NV >= MIN_SCORE)
    return np.where(is_missing[..., None], np.nan, joints_NVC)


def find_people(joints_NVC: Floats) -> npt.NDArray[np.bool_]:
    """Return which poses have enough joints to be a person (N,)."""
    num_seen_N: npt.NDArray[np.intp] = np.count_nonzero(~np.isnan(joints_NVC[..., 0]), axis=1)
    return num_seen_N >= MIN_JOINTS


def check_world(joints_NVC: Floats) -> None:
    """Raise ClipError for landmarks in the image, whose origin is not between the hips."""
    hips_NC = joints_NVC[:, [MEDIAPIPE33.joints.index(f"{side} hip") for side in ("left", "right")]]
    offsets_m = np.linalg.norm(hips_NC.mean(axis=1), axis=1)
    offsets_m = offsets_m[~np.isnan(offsets_m)]
    if offsets_m.size and np.median(offsets_m) > _MAX_HIP_OFFSET_M:
        raise refusal(
            "these are not world landmarks: their origin is not between the hips; write "
            "pose_world_landmarks, not pose_landmarks"
        )


def upside_down_share(joints_NVC: FloatArray, skeleton: Skeleton) -> float:
    """Return the share of people whose head is below their shoulders and hips, if y is up.

    Below means more than beside: nobody who lies counts. A joint of zeros is missing.
    """
    index = {joint: number for number, joint in enumerate(skeleton.joints)}
    head_NC = joints_NVC[:, index["nose"]]
    trunk_NVC = joints_NVC[:, [index[joint] for joint in _TRUNK]]
    num_seen_N = trunk_NVC.any(axis=2).sum(axis=1)
    is_seen_N = head_NC.any(axis=1) & (num_seen_N > 0)
    if not is_seen_N.any():
        return 0.0
    offset_NC = head_NC - trunk_NVC.sum(axis=1) / np.maximum(num_seen_N, 1)[:, None]
    beside_N = np.linalg.norm(np.delete(offset_NC, 1, axis=1), axis=1)
    return float(np.mean(-offset_NC[is_seen_N, 1] > beside_N[is_seen_N]))
