"""What is in a dataset: clips per class and case, who was recorded, and how long the clips are.

Legend: N clips, P poses of the dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sgnray.data.info import DatasetInfo
from sgnray.data.protocols import IntArray, split_counts
from sgnray.data.skipped import Skipped, SkippedContent, count_reasons
from sgnray.data.store import DATASET_FILES, SkeletonDataset

_MAX_BINS = 8


@dataclass(frozen=True)
class ClassContent:
    """How many clips a class has; `label` counts from 0."""

    label: int
    name: str
    num_clips: int


@dataclass(frozen=True)
class Numbers:
    """The different numbers of a column such as `subject`, and how many clips have none."""

    known: tuple[int, ...]
    num_unknown: int


@dataclass(frozen=True)
class LengthBin:
    """How many clips have from `first` to `last` frames, both included."""

    first: int
    last: int
    num_clips: int


@dataclass(frozen=True)
class Lengths:
    """The clips' lengths in frames; the last bin holds all unusually long clips."""

    min: int
    median: float
    mean: float
    max: int
    bins: tuple[LengthBin, ...]


@dataclass(frozen=True)
class DatasetContent:
    """What is in a dataset; `splits` counts (training, test) clips of each case it has."""

    folder: Path
    info: DatasetInfo
    size_bytes: int
    classes: tuple[ClassContent, ...]
    splits: dict[str, tuple[int, int]]
    subjects: Numbers
    cameras: Numbers
    setups: Numbers
    num_two_bodies: int
    lengths: Lengths
    skipped: tuple[SkippedContent, ...]


def describe_dataset(dataset: SkeletonDataset, skipped: Sequence[Skipped]) -> DatasetContent:
    """Describe a dataset and the files left out, without reading the poses."""
    clips, names = dataset.clips, dataset.info.class_names
    num_clips = np.bincount(clips.labels, minlength=len(names))
    files = [dataset.folder / name for name in DATASET_FILES]
    return DatasetContent(
        folder=dataset.folder,
        info=dataset.info,
        size_bytes=sum(path.stat().st_size for path in files if path.exists()),
        classes=tuple(map(ClassContent, range(len(names)), names, num_clips.tolist())),
        splits=split_counts(dataset.info.dataset, clips),
        subjects=_numbers(clips.subjects),
        cameras=_numbers(clips.cameras),
        setups=_numbers(clips.setups),
        num_two_bodies=int(np.count_nonzero(dataset.count_bodies() > 1)),
        lengths=describe_lengths(clips.num_frames),
        skipped=count_reasons(skipped),
    )


def describe_lengths(num_frames_N: IntArray) -> Lengths:
    """Count clips in at most 8 bins as wide as 1, 2 or 5 times a power of ten frames.

    The bins cover all but the longest 1% of the clips. One more bin holds any longer clips, so
    that a single long clip does not push all others into the first bin.
    """
    shortest, longest = int(num_frames_N.min()), int(num_frames_N.max())
    most = int(np.percentile(num_frames_N, 99))
    width = _bin_width(shortest, most)
    starts = list(range(shortest // width * width, most + 1, width))
    if longest >= starts[-1] + width:
        starts.append(starts[-1] + width)
    ends = [*(start - 1 for start in starts[1:]), max(longest, starts[-1] + width - 1)]
    counts, _ = np.histogram(num_frames_N, bins=[*starts, ends[-1] + 1])
    return Lengths(
        min=shortest,
        median=float(np.median(num_frames_N)),
        mean=float(np.mean(num_frames_N)),
        max=longest,
        bins=tuple(
            LengthBin(first, last, int(count))
            for first, last, count in zip(starts, ends, counts, strict=True)
        ),
    )


def _bin_width(shortest: int, longest: int) -> int:
    """Return the smallest width of 1, 2, 5, 10, 20, ... with which `_MAX_BINS` bins suffice."""
    power = 1
    while True:
        for width in (power, 2 * power, 5 * power):
            if longest // width - shortest // width < _MAX_BINS:
                return width
        power *= 10


def _numbers(column_N: IntArray) -> Numbers:
    known = np.unique(column_N[column_N >= 0])
    return Numbers(tuple(known.tolist()), int(np.count_nonzero(column_N < 0)))
