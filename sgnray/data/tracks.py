"""The poses of one clip, body by body and frame by frame.

Legend: T frames, V joints, C coordinates, P poses of the clip.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgnray.data.clip_poses import open_poses
from sgnray.data.store import SkeletonDataset

FloatArray = npt.NDArray[np.float32]


def clip_tracks(dataset: SkeletonDataset, row: int) -> list[FloatArray]:
    """Return a (T, V, C) array for each body of a clip, in meters, NaN where it is not there."""
    poses = open_poses(dataset)
    rows = slice(dataset.offsets[row], dataset.offsets[row + 1])
    return lay_out_tracks(
        dataset.poses_PVC[rows],
        poses.frames[rows],
        poses.bodies[rows],
        num_frames=int(dataset.clips.num_frames[row]),
    )


def lay_out_tracks(
    poses_PVC: FloatArray,
    frames_P: npt.NDArray[np.int32],
    bodies_P: npt.NDArray[np.int8],
    *,
    num_frames: int,
) -> list[FloatArray]:
    """Lay a list of poses out as one (T, V, C) array for each body, NaN where it is not there."""
    num_bodies = int(bodies_P.max(initial=0)) + 1
    tracks = np.full((num_bodies, num_frames, *poses_PVC.shape[1:]), np.nan, np.float32)
    tracks[bodies_P, frames_P] = poses_PVC
    return list(tracks)
