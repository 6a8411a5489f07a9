"""Verify a dataset: check the files against everything that dataset.json says.

Legend: N clips, P poses of the dataset, D = V * C numbers of a pose.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from sgnray.data.info import INFO_FILE, REBUILD, DatasetInfo, read_info
from sgnray.data.progress import OnProgress, Progress, ignore_progress
from sgnray.data.skipped import read_skipped
from sgnray.data.store import (
    CLIPS_FILE,
    SKIPPED_FILE,
    checksum_file,
    count_poses,
    find_contradictions,
    find_unknown_names,
    find_wrong_labels,
    find_wrong_poses,
    read_batch,
)
from sgnray.errors import InputError, Problem, count_of, count_problems

_BLOCK_BYTES = 8 << 20
_MIB = 1 << 20


def verify_dataset(folder: Path, on_progress: OnProgress = ignore_progress) -> DatasetInfo:
    """Check every number of a dataset and return its description.

    One InputError lists all problems. clips.arrow is read twice, for its checksum and for its
    numbers, in blocks, and `on_progress` is called with (MiB done, MiB in total).
    """
    info = read_info(folder)
    path = folder / CLIPS_FILE
    if path.is_file():
        progress = Progress(on_progress, 2 * path.stat().st_size, unit=_MIB)
        problems = [*_check_checksum(path, info, progress), *_check_clips(path, info, progress)]
    else:
        problems = [Problem(CLIPS_FILE, "is missing")]
    problems += _check_skipped(folder / SKIPPED_FILE, info)
    if problems:
        raise InputError(
            f"the dataset has {count_problems(problems)}",
            where=str(folder),
            now=REBUILD,
            problems=problems,
        )
    return info


def _check_checksum(path: Path, info: DatasetInfo, progress: Progress) -> Iterator[Problem]:
    found = checksum_file(path, progress)
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


def _check_clips(path: Path, info: DatasetInfo, progress: Progress) -> Iterator[Problem]:
    """Check the columns; if their structure is wrong, the check of the poses is left out."""
    batch = read_batch(path, info.skeleton, full=True)
    if isinstance(batch, str):
        yield Problem(CLIPS_FILE, batch)
        return
    structure = list(find_contradictions(batch, info))
    for what in (*structure, *_check_names(batch), *find_wrong_labels(batch, info)):
        yield Problem(CLIPS_FILE, what)
    for what in find_unknown_names(batch, info):
        yield Problem(INFO_FILE, what)
    if not structure:
        for what in _check_poses(batch, progress):
            yield Problem(CLIPS_FILE, what)


def _check_names(batch: pa.RecordBatch) -> Iterator[str]:
    names = batch.column("name").to_pylist()
    if len(set(names)) < len(names):
        yield f"{count_of(len(names) - len(set(names)), 'clip')} with the same name as another"
    for before, name in pairwise(names):
        if None not in (before, name) and before > name:
            yield f"the clips are not sorted by name: {name} comes after {before}"
            return


def _check_poses(batch: pa.RecordBatch, progress: Progress) -> Iterator[str]:
    poses = batch.column("poses")
    empty = np.flatnonzero(np.diff(poses.offsets.to_numpy()) == 0)
    if empty.size:
        first = batch.column("name")[int(empty[0])]
        yield f"{count_of(empty.size, 'clip')} without poses, the first is {first}"
    values_PD = poses.values.values.to_numpy().reshape(-1, poses.values.type.list_size)
    is_finite_P = np.ones(len(values_PD), np.bool_)
    step = max(1, _BLOCK_BYTES // (4 * values_PD.shape[1]))
    for start in range(0, len(values_PD), step):
        block_PD = values_PD[start : start + step]
        is_finite_P[start : start + step] = np.isfinite(block_PD).all(axis=1)
        progress.add(block_PD.nbytes)
    yield from count_poses(batch, ~is_finite_P, "with numbers that are not finite")
    yield from find_wrong_poses(batch)
