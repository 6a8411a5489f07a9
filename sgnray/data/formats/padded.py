"""Writers of padded clips: one row of frames x (actor 1, actor 2) for each clip, and its one-hot.

Legend: N clips, T frames of the padding, D numbers of a pose, K classes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from sgnray.data.clip_poses import ClipPoses, FloatArray
from sgnray.data.formats.stream import KeptErrors
from sgnray.data.protocols import IntArray, Split
from sgnray.progress import OnProgress

_NUM_FRAMES = 300
_BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True, eq=False)
class PaddedParts:
    """What a padded file holds: the clips of both parts of one case."""

    poses: ClipPoses
    labels: IntArray
    num_classes: int
    split: Split

    @property
    def num_clips(self) -> int:
        """Clips of both parts."""
        return len(self.split.train) + len(self.split.test)

    @property
    def num_frames(self) -> int:
        """Frames of the padding: the field's 300, or those of the longest clip."""
        written = np.concatenate([self.split.train, self.split.test])
        return max(_NUM_FRAMES, int(self.poses.last_frames[written].max(initial=0)) + 1)

    def shape(self, clips: IntArray) -> tuple[int, int, int]:
        """Give the shape N x T x 2D of some clips."""
        return len(clips), self.num_frames, 2 * self.poses.pose_size

    def blocks(self, clips: IntArray) -> Iterator[FloatArray]:
        """Give some clips padded, a few at a time."""
        _, num_frames, width = self.shape(clips)
        step = max(1, _BLOCK_BYTES // (4 * num_frames * width))
        for start in range(0, len(clips), step):
            chosen = clips[start : start + step]
            block = np.empty((len(chosen), num_frames, width), np.float32)
            for row, clip in enumerate(chosen):
                padded_TMD = self.poses.lay_out(clip, num_frames=num_frames, num_bodies=2)
                block[row] = padded_TMD.reshape(num_frames, width)
            yield block

    def one_hot(self, clips: IntArray) -> FloatArray:
        """Give the labels of some clips, N x K."""
        return np.equal(self.labels[clips, None], np.arange(self.num_classes)).astype(np.float32)


def write_npz(path: Path, parts: PaddedParts, on_progress: OnProgress | None) -> None:
    """Write x_train, y_train, x_test and y_test, as CTR-GCN reads them."""
    progress = _Progress(parts.num_clips, on_progress)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for part, clips in (("train", parts.split.train), ("test", parts.split.test)):
            with archive.open(f"x_{part}.npy", "w", force_zip64=True) as stream:
                _write_header(stream, parts.shape(clips))
                for block in parts.blocks(clips):
                    stream.write(block.astype("<f4", copy=False).data)
                    progress.add(len(block))
            with archive.open(f"y_{part}.npy", "w", force_zip64=True) as stream:
                npy_format.write_array(stream, parts.one_hot(clips), allow_pickle=False)


def write_h5(path: Path, parts: PaddedParts, on_progress: OnProgress | None) -> None:
    """Write x, y, valid_x, valid_y (both empty), test_x and test_y, as SGN reads them."""
    import h5py

    progress = _Progress(parts.num_clips, on_progress)
    with KeptErrors(path) as stream:
        with h5py.File(stream, "w") as file:
            for prefix, clips in (
                ("", parts.split.train),
                ("valid_", np.empty(0, np.int64)),
                ("test_", parts.split.test),
            ):
                file.create_dataset(f"{prefix}y", data=parts.one_hot(clips))
                rows = _create_rows(file, f"{prefix}x", parts.shape(clips))
                start = 0
                for block in parts.blocks(clips):
                    rows[start : start + len(block)] = block
                    start += len(block)
                    stream.check()
                    progress.add(len(block))
        stream.check()


def _write_header(stream: IO[bytes], shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(stream, header)


def _create_rows(file: Any, name: str, shape: tuple[int, int, int]) -> Any:
    if shape[0] == 0:
        return file.create_dataset(name, shape, np.float32)
    # One clip a chunk: padding shrinks to nothing, and any clip is read alone.
    chunks = (1, *shape[1:])
    return file.create_dataset(
        name, shape, np.float32, chunks=chunks, compression="gzip", compression_opts=1
    )


class _Progress:
    """Counts clips that are written, and tells whoever asked."""

    def __init__(self, num_clips: int, on_progress: OnProgress | None) -> None:
        self._num_done = 0
        self._num_clips = num_clips
        self._on_progress = on_progress

    def add(self, num_clips: int) -> None:
        self._num_done += num_clips
        if self._on_progress is not None:
            self._on_progress(self._num_done, self._num_clips)
