"""Who trains and who is tested, over clip rows: the published protocols, or the source's own split.

N clips of a dataset. A clip whose subject, camera or setup is unknown (-1) is in neither part of
a case that asks for it. A dataset that carries named splits has these cases and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sgnray import seeding
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
_WORDS = {"cs": "subject", "csub": "subject", "cv": "camera", "cset": "setup"}
_ALIASES = {"xsub": ("cs", "csub"), "cs": ("csub",), "csub": ("cs",)} | {
    "xview": ("cv",),
    "xset": ("cset",),
}
_FOLD_STRIDE = 5  # about a fifth of the groups validates


@dataclass(frozen=True)
class Split:
    """Clip rows of the two parts, each ascending."""

    train: IntArray
    test: IntArray


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


def cases_of(dataset: str, fixed: Iterable[str] = ()) -> tuple[str, ...]:
    """Name the cases that a dataset has: the `fixed` ones of its source, else the published."""
    cases = tuple(fixed) or _CASES.get(dataset, ())
    if not cases:
        raise InputError(
            f"the dataset {dataset!r} does not say which clips train and which are tested",
            where="dataset.json: splits",
            now="add `splits` to its description and prepare it again with --overwrite",
        )
    return cases


def resolve_case(dataset: str, case: str, fixed: Iterable[str] = ()) -> str:
    """Give the case its name in this dataset: xsub, xview, xset and cs/csub are understood."""
    fixed = tuple(fixed)
    cases = cases_of(dataset, fixed)
    for candidate in (case, *_ALIASES.get(case, ())):
        if candidate in cases:
            return candidate
    why = "; its source fixes the split, so there are no others" if fixed else ""
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
            seen = "so its source fixed it" if clips.splits else _seen(case, clips)
            raise InputError(
                f"the case {case} leaves no {part} clips: {seen}",
                where=f"{dataset}, {len(clips.names)} clips",
                now="choose another --case, or prepare recordings that hold both parts",
            )
    return split


def split_counts(dataset: str, clips: ClipTable) -> dict[str, tuple[int, int]]:
    """Count training and test clips of every case of a dataset; a part may be empty."""
    cases = tuple(clips.splits) or _CASES.get(dataset, ())
    splits = {case: _split(dataset, case, clips) for case in cases}
    return {case: (split.train.size, split.test.size) for case, split in splits.items()}


def validation_folds(dataset: str, case: str, clips: ClipTable) -> tuple[Split, ...]:
    """Cut folds from the training clips the way the case cuts the dataset, never a test clip.

    `test` of each returned Split is the validation part. cs, csub: one fold, every fifth training
    subject held out. cset: one fold, every fifth training setup. cv: each training camera in turn.
    A case that the source fixes is cut by what tells its two parts apart: subjects, cameras or
    setups, else by nothing, and then about every fifth clip is held out.
    """
    case = resolve_case(dataset, case, clips.splits)
    split = split_clips(dataset, case, clips)
    if clips.splits:
        held_out, why = _held_out_like(split, clips), f"it trains on {split.train.size} clip"
    else:
        groups = _column(_WORDS[case], clips)[split.train]
        held_out = _held_out(_WORDS[case], groups)
        why = f"{_seen(case, clips)}, of which {np.unique(groups).size} for training"
    if not held_out:
        raise InputError(
            f"the case {case} cannot be validated: {why}",
            where=f"{dataset}, {len(clips.names)} clips",
            now="use selection=last, which needs no validation part",
        )
    return tuple(Split(train=split.train[~mask], test=split.train[mask]) for mask in held_out)


def _held_out(word: str, groups: IntArray) -> list[BoolArray]:
    """Hold out each camera in turn, or every fifth subject or setup; nothing where there is one."""
    present = np.unique(groups)
    if present.size < 2:
        return []
    if word == "camera":
        return [np.equal(groups, group) for group in present]
    chosen = present[2::_FOLD_STRIDE] if present.size > 2 else present[-1:]
    return [np.isin(groups, chosen)]


def _held_out_like(split: Split, clips: ClipTable) -> list[BoolArray]:
    """Hold out training clips by what tells the two parts of a fixed split apart."""
    for word in ("subject", "camera", "setup"):
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
    groups = _column(_WORDS[case], clips)
    train = _is_training(dataset, case, groups)
    known = groups >= 0
    if case == "cv":
        known &= np.isin(groups, (1, 2, 3))
    return Split(train=np.flatnonzero(train & known), test=np.flatnonzero(~train & known))


def _column(word: str, clips: ClipTable) -> IntArray:
    return {"subject": clips.subjects, "camera": clips.cameras, "setup": clips.setups}[word]


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


def _check_known(dataset: str, case: str, clips: ClipTable) -> None:
    word = _WORDS[case]
    if clips.names and not np.any(_column(word, clips) >= 0):
        raise InputError(
            f"the case {case} needs to know the {word} of each clip, "
            "which this source does not tell",
            where=f"{dataset}, {len(clips.names)} clips",
            now="choose another --case, or prepare recordings that tell it",
        )


def _seen(case: str, clips: ClipTable) -> str:
    numbers = np.unique(_column(_WORDS[case], clips))
    listed = ", ".join(str(number) for number in numbers[:12] if number >= 0)
    return f"the recordings have {_WORDS[case]} {listed}{', ...' if numbers.size > 12 else ''}"
