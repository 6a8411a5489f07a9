"""The poses of a dataset clip by clip, laid out as frames with room for several bodies.

Legend: T frames, M bodies, D = V * C numbers of a pose, P poses of a clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sgnray.data.protocols import IntArray
from sgnray.data.store import CLIPS_FILE, SkeletonDataset

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ClipPoses:
    """All poses of a dataset, mapped, with the frame and body of each.

    `last_frames` is each clip's last frame that has a pose, -1 where it has none.
    """

    values_PD: FloatArray
    frames: npt.NDArray[np.int32]
    bodies: npt.NDArray[np.int8]
    offsets: IntArray
    num_frames: IntArray
    last_frames: IntArray

    @property
    def pose_size(self) -> int:
        """Numbers D of a pose."""
        return int(self.values_PD.shape[1])

    @property
    def num_bodies(self) -> int:
        """The most bodies that a clip has."""
        return int(self.bodies.max(initial=0)) + 1

    def lay_out(self, clip: int, *, num_frames: int, num_bodies: int) -> FloatArray:
        """Give a clip as (T, M, D) numbers, zero where nobody is."""
        frames_TMD = np.zeros((num_frames, num_bodies, self.pose_size), np.float32)
        rows = slice(self.offsets[clip], self.offsets[clip + 1])
        frames_TMD[self.frames[rows], self.bodies[rows]] = self.values_PD[rows]
        return frames_TMD

    def count_bodies(self, clip: int) -> int:
        """Tell how many bodies a clip has room for."""
        rows = slice(self.offsets[clip], self.offsets[clip + 1])
        return int(self.bodies[rows].max(initial=0)) + 1

    def count_not_centered(self, *, origin_joint: int, num_coordinates: int) -> int:
        """Count clips whose main actor is nowhere, or first seen with this joint not at zero."""
        main = np.flatnonzero(self.bodies == 0)
        first = main[np.searchsorted(main, self.offsets[:-1]).clip(max=max(len(main) - 1, 0))]
        is_there = (first >= self.offsets[:-1]) & (first < self.offsets[1:])
        columns = slice(origin_joint * num_coordinates, (origin_joint + 1) * num_coordinates)
        is_zero = (self.values_PD[first, columns] == 0).all(axis=1)
        return int((~(is_there & is_zero)).sum())


def open_poses(dataset: SkeletonDataset) -> ClipPoses:
    """Map the poses of an opened dataset."""
    reader = pa.ipc.open_file(pa.memory_map(str(dataset.folder / CLIPS_FILE)))
    batch = reader.get_batch(0)
    frames = batch.column("frame").values.to_numpy()
    last_poses = dataset.offsets[1:] - 1
    is_empty = np.diff(dataset.offsets) == 0
    return ClipPoses(
        values_PD=dataset.poses_PVC.reshape(len(dataset.poses_PVC), -1),
        frames=frames,
        bodies=batch.column("body").values.to_numpy(),
        offsets=dataset.offsets,
        num_frames=dataset.clips.num_frames,
        last_frames=np.where(is_empty, -1, frames[last_poses]).astype(np.int64),
    )
