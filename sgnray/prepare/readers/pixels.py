"""The scale of poses in an image, from the length of limbs.

Legend: P poses, V joints, C coordinates, L limbs; NaN marks a missing joint.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import Skeleton
from sgnray.prepare.clip import refusal
from sgnray.prepare.readers.json_values import read_numbers
from sgnray.prepare.readers.people import Floats, mark_missing

_MAX_NORMALIZED = 1.5  # of points from 0 to 1 or from -1 to 1, with those outside the image
# Lengths of an adult, which turn pixels into meters.
_LENGTHS_M = {("left shoulder", "right shoulder"): 0.36} | {
    (f"{side} {start}", f"{side} {end}"): length_m
    for side in ("left", "right")
    for start, end, length_m in (
        ("shoulder", "elbow", 0.28),
        ("elbow", "wrist", 0.25),
        ("shoulder", "hip", 0.50),
        ("hip", "knee", 0.43),
        ("knee", "ankle", 0.42),
    )
}
NORMALIZED = "the points are normalized, which distorts them"
_WRITE_PIXELS = (
    f"{NORMALIZED}: write pixels (OpenPose without --keypoint_scale, YOLO's to_json without "
    "normalize, others times width and height)"
)
_NO_LIMB = "no frame shows a whole limb, so the size of its people is unknown"
_FORESHORTENED = 75  # percentile: a limb often looks shorter than it is, rarely longer


def meters_per_pixel(frames: npt.ArrayLike, skeleton: Skeleton) -> Floats:
    """Return the factors of x and y that turn pixels into meters with y up, as in recordings.

    `frames` are (T, V, 2) or (T, M, V, 2) of the people; a joint that is NaN or zero is missing.
    Use the same factors for all frames of a clip or stream. ClipError if they have no scale.
    """
    if skeleton.num_coordinates != 2:
        raise refusal(f"the skeleton {skeleton.name} is not in an image")
    points = read_numbers(frames, what="frames")
    if points.ndim < 2 or points.shape[-2:] != (skeleton.num_joints, 2):
        raise refusal(
            f"the pixels have the shape {points.shape}, not ... x {skeleton.num_joints} x 2"
        )
    return estimate_scale(mark_missing(points.reshape(-1, *points.shape[-2:])), skeleton)


def estimate_scale(poses_PVC: Floats, skeleton: Skeleton) -> Floats:
    """Estimate the scale of a clip from limbs that are seen, with the sign that turns y up."""
    if np.isnan(poses_PVC).all():
        raise refusal(_NO_LIMB)
    if np.nanmax(np.abs(poses_PVC)) <= _MAX_NORMALIZED:
        raise refusal(_WRITE_PIXELS)
    index = {joint: number for number, joint in enumerate(skeleton.joints)}
    ratios_LP = np.stack(
        [
            np.hypot(*(poses_PVC[:, index[end]] - poses_PVC[:, index[start]]).T) / length_m
            for (start, end), length_m in _LENGTHS_M.items()
        ]
    )
    seen = ratios_LP[~np.isnan(ratios_LP)]
    pixels_per_meter = float(np.percentile(seen, _FORESHORTENED)) if seen.size else 0.0
    if pixels_per_meter <= 0:
        raise refusal(_NO_LIMB)
    return np.array([1.0, -1.0]) / pixels_per_meter
