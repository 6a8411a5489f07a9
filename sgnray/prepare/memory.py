"""Clips that a program has in memory, prepared like those of a file.

Legend: T frames, M people, V joints, C coordinates, P poses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import Skeleton
from sgnray.errors import InputError
from sgnray.prepare.clip import Poses
from sgnray.prepare.recording import FloatArray

MOST_PEOPLE = 2


def list_clip(joints: npt.ArrayLike, skeleton: Skeleton) -> Poses:
    """List the poses of a clip, moved to its origin: a joint of the first person's first pose.

    `joints` are (T, V, C) or (T, M, V, C); see `frames_of`. Nobody is taken for noise: that is for
    what recorded them to decide. InputError for another shape, numbers that are not finite, or a
    clip without anybody.
    """
    frames_TMVC = frames_of(joints, skeleton)
    is_there_TM = ~np.isnan(frames_TMVC).all(axis=(2, 3))
    kept_TMVC = frames_TMVC[is_there_TM.any(axis=1)]
    frames, bodies = np.nonzero(~np.isnan(kept_TMVC).all(axis=(2, 3)))
    if frames.size == 0:
        raise InputError(
            "nobody is there in any frame", where="the clip", now="leave out clips without people"
        )
    poses_PVC = kept_TMVC[frames, bodies]
    if skeleton.origin is not None:
        poses_PVC = poses_PVC - poses_PVC[int(np.argmin(bodies)), skeleton.origin]
    return Poses(
        num_frames=len(kept_TMVC),
        values_PD=poses_PVC.reshape(len(poses_PVC), -1),
        frames=frames.astype(np.int32),
        bodies=bodies.astype(np.int8),
    )


def frames_of(joints: npt.ArrayLike, skeleton: Skeleton) -> FloatArray:
    """Lay out the frames of one or two people: float32 (T, M, V, C), NaN where one is not there.

    Somebody whose numbers are all zero is not there either.
    """
    shape = (skeleton.num_joints, skeleton.num_coordinates)
    try:
        frames = np.array(joints, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"these are no numbers of one shape: {error}", where="the joints", now=_expected(shape)
        ) from error
    if frames.ndim == 3:
        frames = frames[:, None]
    is_alike = frames.ndim == 4 and frames.shape[2:] == shape
    if not is_alike or not 1 <= frames.shape[1] <= MOST_PEOPLE or len(frames) == 0:
        raise InputError(
            f"the joints have the shape {np.shape(joints)}",
            where="the joints",
            now=_expected(shape),
        )
    frames[(frames == 0).all(axis=(2, 3))] = np.nan
    is_absent_TM = np.isnan(frames).all(axis=(2, 3))
    is_broken_T = (~np.isfinite(frames).all(axis=(2, 3)) & ~is_absent_TM).any(axis=1)
    if is_broken_T.any():
        raise InputError(
            "a coordinate is not finite",
            where=f"frame {int(is_broken_T.argmax())}",
            now="fill in single joints; somebody who is not there is NaN throughout",
        )
    return frames


def _expected(shape: tuple[int, int]) -> str:
    num_joints, num_coordinates = shape
    return (
        f"give (frames, {num_joints}, {num_coordinates}), "
        f"or (frames, people, {num_joints}, {num_coordinates}) for at most {MOST_PEOPLE} people"
    )
