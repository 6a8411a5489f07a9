"""Writers of padded clips: one row of frames x (actor 1, actor 2) per clip, and one-hot labels.

Legend: N clips, T frames of the padding, D numbers of a pose, K classes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from sgnray.data.progress import OnProgress, Progress
from sgnray.data.protocols import IntArray, Split
from sgnray.data.store import FloatArray, SkeletonDataset

NUM_BODIES = 2
_NUM_FRAMES = 300
_BLOCK_BYTES = 8 * 2**20


def write_npz(path: Path, dataset: SkeletonDataset, split: Split, on_progress: OnProgress) -> None:
    """Write x_train, y_train, x_test and y_test, as CTR-GCN reads them."""
    num_frames = _padded_length(dataset, split)
    progress = Progress(on_progress, len(split.clips))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for part, clips in (("train", split.train), ("test", split.test)):
            with archive.open(f"x_{part}.npy", "w", force_zip64=True) as stream:
                shape = _shape(dataset, clips, num_frames)
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                npy_format.write_array_header_1_0(stream, header)
                for block in _blocks(dataset, clips, num_frames):
                    stream.write(block.data)
                    progress.add(len(block))
            with archive.open(f"y_{part}.npy", "w", force_zip64=True) as stream:
                npy_format.write_array(stream, _one_hot(dataset, clips), allow_pickle=False)


def write_h5(path: Path, dataset: SkeletonDataset, split: Split, on_progress: OnProgress) -> None:
    """Write x, y, valid_x, valid_y (both empty), test_x and test_y, as SGN reads them."""
    import h5py

    num_frames = _padded_length(dataset, split)
    progress = Progress(on_progress, len(split.clips))
    parts = {"": split.train, "valid_": np.empty(0, np.int64), "test_": split.test}
    with _KeptErrors(path) as stream:
        with h5py.File(stream, "w") as file:
            for prefix, clips in parts.items():
                file.create_dataset(f"{prefix}y", data=_one_hot(dataset, clips))
                shape = _shape(dataset, clips, num_frames)
                # One clip per chunk: padding compresses well, and each clip can be read alone.
                options = {"chunks": (1, *shape[1:]), "compression": "gzip", "compression_opts": 1}
                rows = file.create_dataset(
                    f"{prefix}x", shape, np.float32, **(options if len(clips) else {})
                )
                start = 0
                for block in _blocks(dataset, clips, num_frames):
                    rows[start : start + len(block)] = block
                    start += len(block)
                    stream.check()
                    progress.add(len(block))
        stream.check()


def _padded_length(dataset: SkeletonDataset, split: Split) -> int:
    """Return the padded length in frames: the usual 300, or the longest clip if longer."""
    return max(_NUM_FRAMES, int(last_frames(dataset)[split.clips].max(initial=0)) + 1)


def last_frames(dataset: SkeletonDataset) -> IntArray:
    """Return each clip's last frame that has a pose, -1 where it has none (N)."""
    has_pose_N = np.diff(dataset.offsets) > 0
    last_N = np.full(len(has_pose_N), -1, np.int64)
    last_N[has_pose_N] = dataset.frames_P[dataset.offsets[1:][has_pose_N] - 1]
    return last_N


def _shape(dataset: SkeletonDataset, clips: IntArray, num_frames: int) -> tuple[int, int, int]:
    return len(clips), num_frames, NUM_BODIES * dataset.skeleton.pose_size


def _blocks(dataset: SkeletonDataset, clips: IntArray, num_frames: int) -> Iterator[FloatArray]:
    """Yield some clips padded (N, T, 2D), a few at a time."""
    _, *shape = _shape(dataset, clips, num_frames)
    step = max(1, _BLOCK_BYTES // (4 * num_frames * shape[-1]))
    for start in range(0, len(clips), step):
        chosen = clips[start : start + step]
        block = np.empty((len(chosen), *shape), "<f4")
        for row, clip in enumerate(chosen):
            joints_TMVC = dataset.arrange(clip, num_frames=num_frames, num_bodies=NUM_BODIES)
            block[row] = joints_TMVC.reshape(shape)
        yield block


def _one_hot(dataset: SkeletonDataset, clips: IntArray) -> FloatArray:
    """Return the labels of some clips (N, K)."""
    return np.eye(len(dataset.info.class_names), dtype=np.float32)[dataset.clips.labels[clips]]


class _KeptErrors(io.FileIO):
    """A file whose first error is kept in `error`; nothing is written after it.

    HDF5 crashes if an error is raised inside it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None
        self._size = 0  # as if every write had worked

    def check(self) -> None:
        """Raise the error that was kept, if there is one."""
        if self.error is not None:
            raise self.error

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place; the end is where it would be if every write had worked."""
        if whence == io.SEEK_END:
            return super().seek(self._size + offset)
        return super().seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer; what could not be written reads as zeros."""
        view = memoryview(buffer).cast("B")
        num_read = 0
        while num_read < len(view) and (count := super().readinto(view[num_read:])):
            num_read += count
        view[num_read:] = bytes(len(view) - num_read)
        return len(view)

    def write(self, data: Any, /) -> int:
        """Write all of the data, or keep the error and pretend success."""
        view = memoryview(data).cast("B")
        end = self.tell() + len(view)
        num_written = 0
        while self.error is None and num_written < len(view):
            try:
                num_written += super().write(view[num_written:]) or 0
            except OSError as error:
                self.error = error
        self._size = max(self._size, end)
        self.seek(end)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Set the size, or keep the error and pretend success."""
        self._size = self.tell() if size is None else size
        if self.error is None:
            try:
                super().truncate(self._size)
            except OSError as error:
                self.error = error
        return self._size
