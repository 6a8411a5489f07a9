"""What a PYSKL pickle says of its clips: who trains, who is tested, and where the poses lie."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgnray.data.skeleton import KINECT20, NTU25, Skeleton
from sgnray.errors import InputError, Problem
from sgnray.prepare.plan import Splits
from sgnray.prepare.readers.naming import NO_CASE, name_case
from sgnray.prepare.readers.pickles import ArraySpan, read_pickle, refuse_pickle
from sgnray.storage.location import Location

log = logging.getLogger(__name__)

_LAYOUTS: dict[tuple[int, ...], Skeleton] = {
    (skeleton.num_joints, 3): skeleton for skeleton in (NTU25, KINECT20)
}
_SPLIT_KEY = re.compile(r"(?:(.*)_)?(train|val|test)", re.DOTALL)
_MAX_LABEL = 100_000
_MAX_ACTORS = 2
_MAX_PROBLEMS = 10


@dataclass(frozen=True)
class Annotation:
    """One clip: its name and label, and where its key points are, M x T x V x C."""

    name: str
    label: int
    total_frames: int
    keypoint: ArraySpan


@dataclass(frozen=True)
class PysklIndex:
    """All that a pickle says beside the numbers; `split` is as it stands."""

    skeleton: Skeleton
    annotations: tuple[Annotation, ...]
    split: dict[Any, Any]


def read_index(location: Location) -> PysklIndex:
    """Read a pickle's annotations; InputError if it is not PYSKL's, or of another skeleton."""
    content = read_pickle(location)
    listed = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise refuse_pickle(location, "it has no list of annotations")
    problems = []
    annotations = []
    for index, item in enumerate(listed):
        try:
            annotations.append(_read_annotation(item))
        except ValueError as error:
            problems.append(Problem(f"annotations[{index}]", str(error)))
    if problems:
        raise _refuse_annotations(location, problems)
    shapes = {annotation.keypoint.final_shape[2:] for annotation in annotations}
    if len(shapes) > 1 or not shapes <= _LAYOUTS.keys():
        raise _refuse_skeleton(location, shapes)
    split = content.get("split")
    return PysklIndex(
        skeleton=_LAYOUTS[shapes.pop()],
        annotations=tuple(annotations),
        split=split if isinstance(split, dict) else {},
    )


def read_splits(
    index: PysklIndex, dataset: str, kept: Collection[str], location: Location
) -> Splits | None:
    """Give the cases of a pickle that have both parts, in clips that are kept; None if none has.

    InputError if a clip is in both parts of a case.
    """
    parts: dict[str, dict[str, list[str]]] = {}
    known = {annotation.name for annotation in index.annotations}
    for key, listed in index.split.items():
        match = _SPLIT_KEY.fullmatch(key) if isinstance(key, str) else None
        names = _read_names(listed)
        if match is None or names is None:
            log.warning("the split %.80r of %s is none: left out", key, location)
            continue
        unknown = [name for name in names if name not in known]
        if unknown:
            log.warning(
                "the split %s of %s lists %d clips that are not there, such as %.80r: left out",
                *(key, location, len(unknown), unknown[0]),
            )
        case = name_case(dataset, match[1]) if match[1] else NO_CASE
        parts.setdefault(case, {})[match[2]] = [name for name in names if name in kept]
    splits = {
        case: {"train": found["train"], "test": tested}
        for case, found in parts.items()
        if (tested := found.get("test") or found.get("val")) and found.get("train")
    }
    problems = [
        Problem(f"split {case}", f"{len(both)} clips are in both parts, such as {min(both)}")
        for case, found in splits.items()
        if (both := set(found["train"]) & set(found["test"]))
    ]
    if problems:
        raise _refuse_annotations(location, problems)
    return splits or None


def _read_annotation(item: Any) -> Annotation:
    """Read one annotation; ValueError with the reason."""
    if not isinstance(item, dict):
        raise ValueError("is no dict")
    name, label, keypoint = item.get("frame_dir"), item.get("label"), item.get("keypoint")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError("frame_dir is no name")
    if type(label) is not int or not 0 <= label < _MAX_LABEL:
        raise ValueError(f"label is no number from 0 on (of {name})")
    total_frames = item.get("total_frames")
    if type(total_frames) is not int or not 0 <= total_frames < 2**31:
        raise ValueError(f"total_frames is no number from 0 on (of {name})")
    if not isinstance(keypoint, ArraySpan) or not keypoint.dtype:
        raise ValueError(f"keypoint is no array (of {name})")
    dtype, shape = np.dtype(keypoint.dtype), keypoint.final_shape
    if dtype.kind != "f":
        raise ValueError(f"keypoint holds {dtype}, not floats (of {name})")
    if len(shape) != 4 or not 1 <= shape[0] <= _MAX_ACTORS:
        raise ValueError(f"keypoint has the shape {shape}, not 1 or 2 x T x V x C (of {name})")
    return Annotation(name, label, total_frames, keypoint)


def _read_names(listed: Any) -> list[str] | None:
    """Give the names of a split, each once."""
    is_list = isinstance(listed, list | tuple | set | frozenset)
    if not is_list or not all(isinstance(name, str) for name in listed):
        return None
    return list(dict.fromkeys(sorted(listed) if isinstance(listed, set | frozenset) else listed))


def _refuse_annotations(location: Location, problems: list[Problem]) -> InputError:
    shown = problems[:_MAX_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(Problem("and", f"{len(problems) - len(shown)} more"))
    return InputError(
        "the pickle is not as PYSKL writes it",
        where=str(location),
        now="fetch the file again; for clips of your own, describe them in a YAML file (README)",
        problems=shown,
    )


def _refuse_skeleton(location: Location, shapes: set[tuple[int, ...]]) -> InputError:
    listed = ", ".join(" x ".join(map(str, shape)) for shape in sorted(shapes)[:_MAX_PROBLEMS])
    known = " or ".join(f"{joints} x {axes}" for joints, axes in _LAYOUTS)
    return InputError(
        f"the poses have {listed} joints x coordinates, not {known}",
        where=str(location),
        now="for other skeletons, describe the clips in a YAML file of the custom format (README)",
    )
