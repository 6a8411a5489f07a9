"""Is a dataset whole: everything that dataset.json promises, checked against the files.

Legend: N clips, P poses of the dataset, D = V * C numbers of a pose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sgnray.data.info import DatasetInfo, read_info
from sgnray.data.skipped import read_skipped
from sgnray.data.store import CLIPS_FILE, INFO_FILE, SKIPPED_FILE, clips_schema
from sgnray.errors import InputError, Problem, count_problems, first_line
from sgnray.progress import OnProgress

_BLOCK_BYTES = 8 << 20
_MIB = 1 << 20


def verify_dataset(folder: Path, on_progress: OnProgress | None = None) -> DatasetInfo:
    """Check a dataset to the last number and return its description.

    Everything wrong with it is in one InputError. clips.arrow is read twice, for its checksum and
    for its numbers, and `on_progress` is called with (MiB done, MiB). Memory does not grow with the
    number of poses.
    """
    info = read_info(folder)
    path = folder / CLIPS_FILE
    if path.is_file():
        progress = _Progress(2 * path.stat().st_size, on_progress)
        problems = [*_check_checksum(path, info, progress), *_check_clips(path, info, progress)]
    else:
        problems = [Problem(CLIPS_FILE, "is missing")]
    problems += _check_skipped(folder / SKIPPED_FILE, info)
    if problems:
        raise InputError(
            f"the dataset has {count_problems(problems)}",
            where=str(folder),
            now="prepare it again: sgn prepare --raw PATH --overwrite",
            problems=problems,
        )
    return info


class _Progress:
    """Counts bytes, and tells whoever asked in MiB."""

    def __init__(self, num_bytes: int, on_progress: OnProgress | None) -> None:
        self._num_done = 0
        self._num_bytes = num_bytes
        self._on_progress = on_progress

    def add(self, num_bytes: int) -> None:
        self._num_done += num_bytes
        if self._on_progress is not None:
            self._on_progress(self._num_done // _MIB, self._num_bytes // _MIB)


def _check_checksum(path: Path, info: DatasetInfo, progress: _Progress) -> Iterator[Problem]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            progress.add(len(block))
    found = f"sha256:{digest.hexdigest()}"
    if found != info.checksum:
        yield Problem(CLIPS_FILE, f"its checksum is {found}, {INFO_FILE} says {info.checksum}")


def _check_skipped(path: Path, info: DatasetInfo) -> Iterator[Problem]:
    try:
        num_skipped = len(read_skipped(path))
    except InputError as error:
        yield Problem(SKIPPED_FILE, error.what)
        return
    if num_skipped != info.num_skipped:
        yield Problem(SKIPPED_FILE, f"has {num_skipped} rows, {INFO_FILE} says {info.num_skipped}")


def _check_clips(path: Path, info: DatasetInfo, progress: _Progress) -> Iterator[Problem]:
    """Check the columns; where they do not even fit together, what rests on them is left out."""
    batch = _read_batch(path, info)
    if isinstance(batch, str):
        yield Problem(CLIPS_FILE, batch)
        return
    structure = [Problem(CLIPS_FILE, what) for what in _check_structure(batch, info)]
    yield from structure
    for what in (*_check_names(batch), *_check_labels(batch, info)):
        yield Problem(CLIPS_FILE, what)
    for what in _check_splits(batch, info):
        yield Problem(INFO_FILE, what)
    if not structure:
        for what in _check_poses(batch, progress):
            yield Problem(CLIPS_FILE, what)


def _read_batch(path: Path, info: DatasetInfo) -> pa.RecordBatch | str:
    """Open the one record batch, or say why it cannot be opened."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if not reader.schema.equals(clips_schema(info.skeleton)):
            return "has other columns than a dataset of this skeleton"
        if reader.num_record_batches != 1:
            return f"has {reader.num_record_batches} record batches instead of 1"
        batch = reader.get_batch(0)
        batch.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {first_line(error)}"
    return batch


def _check_structure(batch: pa.RecordBatch, info: DatasetInfo) -> Iterator[str]:
    """Check the counts, and that each pose has one frame and one body."""
    poses, frames, bodies = (batch.column(name) for name in ("poses", "frame", "body"))
    if batch.num_rows != info.num_clips:
        yield f"has {batch.num_rows} clips, {INFO_FILE} says {info.num_clips}"
    if len(poses.values) != info.num_poses:
        yield f"has {len(poses.values)} poses, {INFO_FILE} says {info.num_poses}"
    required = [batch.column(field.name) for field in batch.schema if not field.nullable]
    inner = [poses.values, poses.values.values, frames.values, bodies.values]
    if any(column.null_count for column in (*required, *inner)):
        yield "something is null that cannot be"
    offsets = poses.offsets.to_numpy()
    if batch.num_rows and (offsets[0] != 0 or offsets[-1] != len(poses.values)):
        yield "some poses belong to no clip"
    for name, column in (("frame", frames), ("body", bodies)):
        if not column.offsets.equals(poses.offsets) or len(column.values) != len(poses.values):
            yield f"not every pose has one {name}"


def _check_names(batch: pa.RecordBatch) -> Iterator[str]:
    names = batch.column("name").to_pylist()
    if len(set(names)) < len(names):
        yield f"{len(names) - len(set(names))} clips have the name of another one"
    for before, name in pairwise(names):
        if None not in (before, name) and before > name:
            yield f"the clips are not sorted by name: {name} comes after {before}"
            return


def _check_labels(batch: pa.RecordBatch, info: DatasetInfo) -> Iterator[str]:
    labels = batch.column("label").fill_null(0).to_numpy()
    num_classes = len(info.class_names)
    num_wrong = int(np.count_nonzero((labels < 0) | (labels >= num_classes)))
    if num_wrong:
        yield f"{num_wrong} clips have a label that is none of the {num_classes} classes"


def _check_splits(batch: pa.RecordBatch, info: DatasetInfo) -> Iterator[str]:
    names = set(batch.column("name").to_pylist()) if info.splits else set()
    for case, parts in (info.splits or {}).items():
        unknown = sorted(name for part in parts.values() for name in part if name not in names)
        if unknown:
            yield (
                f"the case {case} names {len(unknown)} clips that are not there, "
                f"{unknown[0]} for example"
            )


def _check_poses(batch: pa.RecordBatch, progress: _Progress) -> Iterator[str]:
    """Look at every number, a block of poses at a time."""
    poses, names = batch.column("poses"), batch.column("name")
    offsets, num_frames_N = poses.offsets.to_numpy(), batch.column("num_frames").to_numpy()
    frame_P, body_P = (batch.column(name).values.to_numpy() for name in ("frame", "body"))
    values_PD = poses.values.values.to_numpy().reshape(len(poses.values), -1)
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if empty.size:
        yield f"{empty.size} clips have no pose, the first is {names[int(empty[0])]}"
    wrong = ("hold numbers that are not finite", "are outside of their clip's frames")
    found = [_Found(what) for what in (*wrong, "are of a body below 0")]
    step = max(1, _BLOCK_BYTES // (4 * values_PD.shape[1]))
    for start in range(0, len(values_PD), step):
        block = slice(start, min(start + step, len(values_PD)))
        row_P = np.searchsorted(offsets, np.arange(block.start, block.stop), side="right") - 1
        outside_P = (frame_P[block] < 0) | (frame_P[block] >= num_frames_N[row_P])
        masks = (~np.isfinite(values_PD[block]).all(axis=1), outside_P, body_P[block] < 0)
        for kind, is_wrong_P in zip(found, masks, strict=True):
            kind.add(row_P[is_wrong_P])
        progress.add(values_PD[block].nbytes)
    for kind in found:
        if kind.num_poses:
            yield f"{kind.num_poses} poses {kind.what}, the first in {names[kind.first_row]}"


@dataclass
class _Found:
    """Poses of which one thing is wrong: how many, and the clip of the first."""

    what: str
    num_poses: int = 0
    first_row: int = 0

    def add(self, row_P: npt.NDArray[np.int64]) -> None:
        if row_P.size and not self.num_poses:
            self.first_row = int(row_P[0])
        self.num_poses += row_P.size
