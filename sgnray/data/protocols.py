"""Training and test clips by row: the published protocols, or the source's own split.

N clips of a dataset. A clip whose subject, camera or setup is unknown (-1) is in neither part of
a case that splits by it. A dataset with named splits has these cases and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import numpy.typing as npt

from sgnray import seeding
from sgnray.data.datasets import CASE_ALIASES, DATASETS, Column
from sgnray.errors import InputError, UsageError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_COLUMNS: tuple[Column, ...] = get_args(Column)
_FOLD_STRIDE = 5  # about a fifth of the groups validates
_MAX_CAMERA_FOLDS = 5  # a trial of a search trains one model per fold


@dataclass(frozen=True)
class Split:
    """Clip rows of the two parts, each ascending."""

    train: IntArray
    test: IntArray

    @property
    def clips(self) -> IntArray:
        """The rows of both parts."""
        return np.concatenate([self.train, self.test])


@dataclass(frozen=True)
class ClipTable:
    """What is known about each clip: one name and one int64 per column, -1 where unknown.

    `splits` are the parts of each case that the source itself fixes.
    """

    names: tuple[str, ...]
    labels: IntArray
    setups: IntArray
    cameras: IntArray
    subjects: IntArray
    replications: IntArray
    num_frames: IntArray
    splits: Mapping[str, Split] = field(default_factory=dict)


def corrected_labels(dataset: str, clips: ClipTable) -> IntArray:
    """Return the labels (N) of a published dataset, those known to be wrong corrected.

    UsageError if none are known to be wrong.
    """
    published = DATASETS.get(dataset)
    if published is None or not published.exchanged:
        raise UsageError(
            f"{dataset} has no labels that are known to be wrong",
            where="data.corrected_labels",
            now="leave it out",
        )
    labels_N = clips.labels.copy()
    for exchanged in published.exchanged:
        of_clips_N = (clips.subjects == exchanged.subject) & (clips.cameras == exchanged.camera)
        for old, new in (exchanged.labels, exchanged.labels[::-1]):
            labels_N[of_clips_N & (clips.labels == old)] = new
    return labels_N


def cases_of(dataset: str, fixed: Iterable[str] = ()) -> tuple[str, ...]:
    """Name the cases that a dataset has: the `fixed` ones of its source, else the published."""
    cases = tuple(fixed) or _published_cases(dataset)
    if not cases:
        raise InputError(
            f"the dataset {dataset!r} does not define training and test clips",
            where="dataset.json: splits",
            now="prepare it again with --overwrite; if it has no case then, add `splits` to its "
            "description, or `split` to its pickle",
        )
    return cases


def resolve_case(dataset: str, case: str | None, fixed: Iterable[str] = ()) -> str:
    """Return the name that a dataset gives a case; accepts xsub, xview, xset and cs/csub too.

    None is the only case of a dataset that has just one; UsageError lists several.
    """
    fixed = tuple(fixed)
    cases = cases_of(dataset, fixed)
    if case is None and len(cases) > 1:
        raise UsageError(
            f"{dataset} has several cases: {', '.join(cases)}",
            where="--case is missing",
            now=f"name one, for example: --case {cases[0]}",
        )
    case = cases[0] if case is None else case
    for candidate in (case, *CASE_ALIASES.get(case, ())):
        if candidate in cases:
            return candidate
    why = "; its source defines the split, so there are no others" if fixed else ""
    raise UsageError(
        f"{dataset} has no case {case!r}{why}",
        where=f"--case {case}",
        now=f"choose one of {', '.join(cases)}",
    )


def split_clips(dataset: str, case: str, clips: ClipTable) -> Split:
    """Split a dataset's clips by a case; InputError if a part is empty."""
    case = resolve_case(dataset, case, clips.splits)
    if not clips.splits:
        _check_known(dataset, case, clips)
    split = _split(dataset, case, clips)
    for part, rows in (("training", split.train), ("test", split.test)):
        if rows.size == 0:
            raise InputError(
                f"the case {case} leaves no {part} clips: {_seen(dataset, case, clips)}",
                where=f"{dataset}, {len(clips.names)} clips",
                now="choose another --case, or prepare recordings of both parts; skipped.csv lists "
                "the clips that were left out",
            )
    return split


def split_counts(dataset: str, clips: ClipTable) -> dict[str, tuple[int, int]]:
    """Count training and test clips of every case of a dataset; a part may be empty."""
    cases = tuple(clips.splits) or _published_cases(dataset)
    splits = {case: _split(dataset, case, clips) for case in cases}
    return {case: (split.train.size, split.test.size) for case, split in splits.items()}


def validation_folds(dataset: str, case: str, clips: ClipTable) -> tuple[Split, ...]:
    """Cut validation folds from the training clips, in the way that the case cuts the dataset.

    `test` of each returned Split is the validation part. cs, csub: one fold, every fifth training
    subject held out. cset: one fold, every fifth training setup. cv: each of up to five training
    cameras in turn; of more, every fifth in one fold.
    A case that the source fixes is divided by the column that separates its two parts: subjects,
    cameras or setups. If there is none, about every fifth clip is held out at random.
    """
    case = resolve_case(dataset, case, clips.splits)
    split = split_clips(dataset, case, clips)
    if clips.splits:
        held_out, why = _held_out_like(split, clips), f"it trains on {split.train.size} clip"
    else:
        column = DATASETS[dataset].cases[case].column
        groups = _column(column, clips)[split.train]
        held_out = _held_out(column, groups)
        why = f"{_seen(dataset, case, clips)}, of which {np.unique(groups).size} for training"
    if not held_out:
        raise InputError(
            f"the case {case} cannot be validated: {why}",
            where=f"{dataset}, {len(clips.names)} clips",
            now="use train.selection=last, which needs no validation part",
        )
    return tuple(Split(train=split.train[~mask], test=split.train[mask]) for mask in held_out)


def _held_out(word: Column, groups: IntArray) -> list[BoolArray]:
    """Hold out each of few cameras in turn, else every fifth group; nothing if only one exists."""
    present = np.unique(groups)
    if present.size < 2:
        return []
    if word == "camera" and present.size <= _MAX_CAMERA_FOLDS:
        return [np.equal(groups, group) for group in present]
    chosen = present[2::_FOLD_STRIDE] if present.size > 2 else present[-1:]
    return [np.isin(groups, chosen)]


def _held_out_like(split: Split, clips: ClipTable) -> list[BoolArray]:
    """Hold out training clips by the column that separates the two parts of a fixed split."""
    for word in _COLUMNS:
        column = _column(word, clips)
        train, test = column[split.train], column[split.test]
        is_known = bool(np.all(train >= 0) and np.all(test >= 0))
        if is_known and not np.isin(train, test).any() and (masks := _held_out(word, train)):
            return masks
    if split.train.size < 2:
        return []
    draws = seeding.uniform(0, "validation part", 0, (len(clips.names),))[split.train]
    mask = draws < 1 / _FOLD_STRIDE
    if mask.all() or not mask.any():
        mask = np.equal(np.arange(draws.size), draws.argmin())
    return [mask]


def _split(dataset: str, case: str, clips: ClipTable) -> Split:
    if clips.splits:
        return clips.splits[case]
    published = DATASETS[dataset].cases[case]
    trains_N, tests_N = published.masks(_column(published.column, clips))
    return Split(train=np.flatnonzero(trains_N), test=np.flatnonzero(tests_N))


def _column(word: Column, clips: ClipTable) -> IntArray:
    return {"subject": clips.subjects, "camera": clips.cameras, "setup": clips.setups}[word]


def _check_known(dataset: str, case: str, clips: ClipTable) -> None:
    word = DATASETS[dataset].cases[case].column
    if clips.names and not np.any(_column(word, clips) >= 0):
        raise InputError(
            f"the case {case} needs the {word} of each clip, which this source does not record",
            where=f"{dataset}, {len(clips.names)} clips",
            now="choose another --case, or prepare recordings with known numbers",
        )


def _seen(dataset: str, case: str, clips: ClipTable) -> str:
    """Describe what divides the clips."""
    if clips.splits:
        return "its source defines the split"
    column = DATASETS[dataset].cases[case].column
    numbers = np.unique(_column(column, clips))
    listed = ", ".join(str(number) for number in numbers[:12] if number >= 0)
    return f"the recordings have {column} {listed}{', ...' if numbers.size > 12 else ''}"


def _published_cases(dataset: str) -> tuple[str, ...]:
    return tuple(DATASETS[dataset].cases) if dataset in DATASETS else ()
