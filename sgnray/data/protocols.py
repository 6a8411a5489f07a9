"""Who trains and who is tested: the published protocols, over clip rows.

N clips of a dataset. A clip whose subject, camera or setup is unknown (-1) is in neither part of
a case that asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgnray.errors import InputError, UsageError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# NTU RGB+D's own lists (Shahroudy et al. 2016, Liu et al. 2019).
NTU60_TRAIN_SUBJECTS = (
    1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38,
)  # fmt: skip
NTU120_TRAIN_SUBJECTS = (
    *NTU60_TRAIN_SUBJECTS,
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86,
    89, 91, 92, 93, 94, 95, 97, 98, 100, 103,
)  # fmt: skip

_CASES = {
    "ntu60": ("cs", "cv"),
    "ntu120": ("csub", "cset"),
    "nwucla": ("cv",),
    "synth": ("cs", "cv", "cset"),
}
_ALIASES = {"xsub": ("cs", "csub"), "cs": ("csub",), "csub": ("cs",)} | {
    "xview": ("cv",),
    "xset": ("cset",),
}
_FOLD_STRIDE = 5  # about a fifth of the groups validates


@dataclass(frozen=True)
class ClipTable:
    """What is known about each clip: one name and one int64 per column, -1 where unknown."""

    names: tuple[str, ...]
    labels: IntArray
    setups: IntArray
    cameras: IntArray
    subjects: IntArray
    replications: IntArray
    num_frames: IntArray


@dataclass(frozen=True)
class Split:
    """Clip rows of the two parts, each ascending."""

    train: IntArray
    test: IntArray


def cases_of(dataset: str) -> tuple[str, ...]:
    """Name the cases that a dataset has."""
    if dataset not in _CASES:
        raise InputError(
            f"no protocol is known for the dataset {dataset!r}",
            where="dataset.json: dataset",
            now=f"prepare one of {', '.join(_CASES)}",
        )
    return _CASES[dataset]


def resolve_case(dataset: str, case: str) -> str:
    """Give the case its name in this dataset: xsub, xview, xset and cs/csub are understood."""
    cases = cases_of(dataset)
    for candidate in (case, *_ALIASES.get(case, ())):
        if candidate in cases:
            return candidate
    raise UsageError(
        f"{dataset} has no case {case!r}",
        where=f"--case {case}",
        now=f"choose one of {', '.join(cases)}",
    )


def split_clips(dataset: str, case: str, clips: ClipTable) -> Split:
    """Split a dataset's clips by a case; InputError if a part is empty."""
    case = resolve_case(dataset, case)
    split = _split(dataset, case, clips)
    for part, rows in (("training", split.train), ("test", split.test)):
        if rows.size == 0:
            raise InputError(
                f"the case {case} leaves no {part} clips: {_seen(case, clips)}",
                where=f"{dataset}, {len(clips.names)} clips",
                now="choose another --case, or prepare recordings that hold both parts",
            )
    return split


def split_counts(dataset: str, clips: ClipTable) -> dict[str, tuple[int, int]]:
    """Count training and test clips of every case of a dataset; a part may be empty."""
    splits = {case: _split(dataset, case, clips) for case in cases_of(dataset)}
    return {case: (split.train.size, split.test.size) for case, split in splits.items()}


def validation_folds(dataset: str, case: str, clips: ClipTable) -> tuple[Split, ...]:
    """Cut folds from the training clips the way the case cuts the dataset, never a test clip.

    `test` of each returned Split is the validation part. cs, csub: one fold, every fifth training
    subject held out. cset: one fold, every fifth training setup. cv: each training camera in turn.
    """
    case = resolve_case(dataset, case)
    train = split_clips(dataset, case, clips).train
    groups = _group_column(case, clips)[train]
    present = np.unique(groups)
    if present.size < 2:
        raise InputError(
            f"the case {case} cannot be validated: {_seen(case, clips)}, "
            f"of which {present.size} for training",
            where=f"{dataset}, {len(clips.names)} clips",
            now="use selection=last, which needs no validation part",
        )
    if case == "cv":
        held_out = [present[[index]] for index in range(present.size)]
    else:
        held_out = [present[2::_FOLD_STRIDE] if present.size > 2 else present[-1:]]
    masks = [np.isin(groups, group) for group in held_out]
    return tuple(Split(train=train[~mask], test=train[mask]) for mask in masks)


def _split(dataset: str, case: str, clips: ClipTable) -> Split:
    groups = _group_column(case, clips)
    train = _is_training(dataset, case, groups)
    known = groups >= 0
    if case == "cv":
        known &= np.isin(groups, (1, 2, 3))
    return Split(train=np.flatnonzero(train & known), test=np.flatnonzero(~train & known))


def _group_column(case: str, clips: ClipTable) -> IntArray:
    match case:
        case "cs" | "csub":
            return clips.subjects
        case "cv":
            return clips.cameras
        case _:
            return clips.setups


def _is_training(dataset: str, case: str, groups: IntArray) -> BoolArray:
    match case:
        case "cs":
            return np.isin(groups, NTU60_TRAIN_SUBJECTS)
        case "csub":
            return np.isin(groups, NTU120_TRAIN_SUBJECTS)
        case "cv":
            return np.isin(groups, (1, 2) if dataset == "nwucla" else (2, 3))
        case _:
            return np.equal(groups % 2, 0)


def _seen(case: str, clips: ClipTable) -> str:
    word = {"cs": "subject", "csub": "subject", "cv": "camera"}.get(case, "setup")
    numbers = np.unique(_group_column(case, clips))
    listed = ", ".join(str(number) for number in numbers[:12] if number >= 0)
    return f"the recordings have {word} {listed}{', ...' if numbers.size > 12 else ''}"
