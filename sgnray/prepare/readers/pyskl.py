"""Reader of PYSKL's pickles: many clips in one, or the single clip that MMAction2 writes.

Their key points are M actors x T frames x V joints x C coordinates. In 3D, the ntu60_3danno.pkl
family, they are camera coordinates in meters, which are centered here. In 2D, they are COCO's 17
key points in an image, or Halpe's or COCO-WholeBody's, of which these are the first; people are
tracked here. Legend: D = V * C numbers of a pose.
"""

from __future__ import annotations

import logging
import pickle
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeGuard, TypeVar

import numpy as np
import pyarrow as pa

from sgnray.data.datasets import read_missing_names
from sgnray.data.info import NamedSplits
from sgnray.data.skeleton import COCO17, COCO_COUNTS, KINECT, NTU25, Skeleton
from sgnray.data.skipped import Skipped
from sgnray.errors import ClipError, InputError, Problem, count_of, shorten_problems
from sgnray.prepare.clip import NUM_LABELS, Clip, ClipFacts, Recording, refusal, why_left_out
from sgnray.prepare.normalize import center_actors, normalize
from sgnray.prepare.plan import PartJob, RawPlan, cut_blocks, describe_file, find_file, hash_lines
from sgnray.prepare.readers.naming import NO_CASE, name_case, name_classes, name_dataset
from sgnray.prepare.readers.ntu import name_ntu, parse_ntu_names
from sgnray.prepare.readers.people import MAX_PEOPLE, mark_missing
from sgnray.prepare.readers.pickles import (
    PickledArray,
    PickleError,
    load_pickle,
    read_pickle,
    refuse_pickle,
)
from sgnray.prepare.readers.tracks import build_recording
from sgnray.storage.location import Location

log = logging.getLogger(__name__)

Found = TypeVar("Found")
ClipArrays = tuple[PickledArray, PickledArray | None]  # key points and their scores

CLIP_FORMAT = "PYSKL"
SUFFIXES = (".pkl", ".pickle")
_SKELETONS: dict[tuple[int, ...], Skeleton] = {
    **{(skeleton.num_joints, 3): skeleton for skeleton in KINECT},
    **{(count, 2): COCO17 for count in COCO_COUNTS},
}
_CLIP = re.compile(rb"\x80[\x02-\x05](?:\x95.{8})?\}", re.DOTALL)  # begins with a dict
_SPLIT_KEY = re.compile(r"(?:(.*)_)?(train|val|test)([0-9]*)", re.DOTALL)  # train1 of HMDB51
_MAX_ACTORS = 2
_MAX_PROBLEMS = 10


@dataclass(frozen=True)
class PickledClip:
    """One clip as a pickle describes it; its key points are M x T x V x C."""

    facts: ClipFacts
    total_frames: int
    keypoint: PickledArray
    score: PickledArray | None


def plan_pyskl(location: Location) -> RawPlan:
    """Describe a PYSKL pickle; InputError if it is corrupt, not PYSKL's, or could run code.

    If all names are NTU's, they give the classes, and each clip's setup, camera, subject and
    replication; and in 3D the dataset is ntu60 or ntu120.
    """
    entry = find_file(location)
    content = read_pickle(location)
    clips = _read_each(content, location, _read_annotation)
    skeleton = _find_skeleton(clips, location)
    names = (clip.facts.name for clip in clips)
    ntu_facts = parse_ntu_names(names) if skeleton in (NTU25, COCO17) else {}
    num_classes = max(clip.facts.label for clip in clips) + 1
    dataset = published = name_dataset(location, skeleton, num_classes)
    missing: Collection[str] = ()
    if ntu_facts:
        published = name_ntu(ntu_facts.values())
        if skeleton is NTU25:  # the list of missing skeletons is about Kinect's
            dataset, missing = published, read_missing_names()
    class_names = name_classes(published, num_classes)
    kept, skipped = _choose(clips, ntu_facts, missing, len(class_names))
    lines = [f"{clip.facts.name} {clip.facts.label}" for clip in kept]
    blocks = cut_blocks(kept, lambda clip: clip.keypoint.num_bytes)
    return RawPlan(
        dataset=dataset,
        skeleton=skeleton,
        class_names=class_names,
        jobs=tuple(
            PartJob(len(block), partial(_prepare_clips, block, skeleton)) for block in blocks
        ),
        skipped=tuple(skipped),
        source=describe_file(location, entry, content=hash_lines(lines)),
        splits=_read_splits(
            content.get("split") if isinstance(content, dict) else None,
            dataset,
            known={clip.facts.name for clip in clips},
            kept={clip.facts.name for clip in kept},
            location=location,
        ),
    )


def _prepare_clips(clips: Sequence[PickledClip], skeleton: Skeleton) -> Iterator[Clip | Skipped]:
    """Yield one result for each clip."""
    for clip in clips:
        try:
            if skeleton == COCO17:
                poses = normalize(_track_people(clip.keypoint, clip.score), COCO17)
            else:
                poses = center_actors(clip.keypoint.load(), origin_joint=skeleton.origin or 0)
        except ClipError as error:
            yield Skipped(clip.facts.name, error.what)
        else:
            yield Clip(clip.facts, poses)


def _read_each(content: Any, location: Location, read: Callable[[Any], Found]) -> list[Found]:
    """Read a pickle's annotations; InputError lists what is wrong with them."""
    found, problems = [], []
    for index, item in enumerate(_list_annotations(content, location)):
        try:
            found.append(read(item))
        except ValueError as error:
            problems.append(Problem(f"annotations[{index}]", str(error)))
    if problems:
        raise _refuse_annotations(location, problems)
    return found


def _list_annotations(content: Any, location: Location) -> list[Any]:
    if isinstance(content, dict):
        content = [content] if "keypoint" in content else content.get("annotations")
    if not isinstance(content, list) or not content:
        raise refuse_pickle(location, "it has no list of annotations")
    return content


def _read_annotation(item: Any) -> PickledClip:
    """Read one annotation; ValueError with the reason."""
    if not isinstance(item, dict):
        raise ValueError("is not a dict")
    name = item.get("frame_dir")
    if not _is_name(name):
        raise ValueError("frame_dir is not a name")
    label = _read_count(item, "label", limit=NUM_LABELS)
    total_frames = _read_count(item, "total_frames", limit=2**31)
    try:
        return PickledClip(ClipFacts(name, label), total_frames, *_read_arrays(item))
    except ValueError as error:
        raise ValueError(f"{error} (of {name})") from error


def _is_name(name: Any) -> TypeGuard[str]:
    return isinstance(name, str) and name != "" and name.isprintable()


def _read_count(item: dict[Any, Any], key: str, *, limit: int) -> int:
    count = item.get(key)
    if type(count) is not int or not 0 <= count < limit:
        raise ValueError(f"{key} is not a number of at least 0 (of {item['frame_dir']})")
    return count


def _read_arrays(item: Any) -> ClipArrays:
    """Check the key points of an annotation, and the scores of those in 2D; raises ValueError."""
    known = item if isinstance(item, dict) else {}
    keypoint, score = known.get("keypoint"), known.get("keypoint_score")
    if not isinstance(keypoint, PickledArray) or not keypoint.dtype:
        raise ValueError("keypoint is not an array")
    dtype, shape = np.dtype(keypoint.dtype), keypoint.final_shape
    if dtype.kind != "f":
        raise ValueError(f"keypoint contains {dtype}, not floats")
    is_image = len(shape) == 4 and shape[3] == COCO17.num_coordinates
    if len(shape) != 4 or not 1 <= shape[0] <= (MAX_PEOPLE if is_image else _MAX_ACTORS):
        raise ValueError(f"keypoint has the shape {shape}, not 1 or 2 x T x V x C")
    if not is_image or score is None:
        return keypoint, None
    if not isinstance(score, PickledArray) or score.dtype[1:2] != "f":
        raise ValueError("keypoint_score is not an array of floats")
    if score.final_shape != shape[:3]:
        raise ValueError(f"keypoint_score has the shape {score.final_shape}, not {shape[:3]}")
    return keypoint, score


def _track_people(keypoint: PickledArray, score: PickledArray | None) -> Recording:
    """Track the people in an image as bodies, since the pickle may not track them."""
    with np.errstate(invalid="ignore"):
        joints_MTVC = keypoint.load()[:, :, : COCO17.num_joints].astype(np.float64)
        scores_MTV = None
        if score is not None:
            scores_MTV = score.load()[:, :, : COCO17.num_joints].astype(np.float64)
    joints_TMVC = mark_missing(joints_MTVC, scores_MTV, number="frame {}").transpose(1, 0, 2, 3)
    return build_recording(list(joints_TMVC), COCO17)


def detect_clip(head: bytes) -> Skeleton | None:
    """Detect the pickle of one clip, not that of a dataset."""
    is_clip = _CLIP.match(head) and b"keypoint" in head and b"annotations" not in head
    return COCO17 if is_clip else None


def read_pickled_clip(data: bytes, skeleton: Skeleton) -> Recording:
    """Read the pickle of one clip in 2D; ClipError if it is corrupt or holds something else."""
    try:
        keypoint, score = _read_arrays(load_pickle(pa.BufferReader(data)))
        if _SKELETONS.get(keypoint.final_shape[2:]) is not skeleton:
            joints, axes = keypoint.final_shape[2:]
            what = f"not {skeleton.num_joints} x {skeleton.num_coordinates} as {skeleton.name}"
            raise refusal(f"the poses have {joints} x {axes} joints x coordinates, {what}")
        return _track_people(keypoint, score)
    except (PickleError, ValueError) as error:
        raise refusal(f"the pickle cannot be used: {error}") from error


def pickle_clip(arrays: ClipArrays) -> bytes:
    """Make the pickle of one clip, as read_pickled_clip reads it."""
    named = zip(("keypoint", "keypoint_score"), arrays, strict=True)
    return pickle.dumps({key: array.load() for key, array in named if array is not None})


@lru_cache(maxsize=1)
def load_clips(location: Location, changed: int) -> dict[str, ClipArrays]:
    """Return the arrays of each clip in a pickle of 2D clips; InputError for anything else."""
    # Cached, because a pickle can only be read from its start.
    items = _list_annotations(read_pickle(location), location)
    arrays = _read_each(items, location, _read_arrays)
    found: dict[str, ClipArrays] = {}
    for at, item in enumerate(items):
        name = item.get("frame_dir")
        if not _is_name(name):  # not str(name), which may be far larger than the pickle
            name = str(at)
        found[f"{name} ({at})" if name in found else name] = arrays[at]
    for name, (keypoint, _) in found.items():
        if _SKELETONS.get(keypoint.final_shape[2:]) is not COCO17:
            raise InputError(
                "these clips do not have COCO's 17 joints in 2D",
                where=f"{location}, {name}",
                now=f"prepare them first, sgn prepare --raw {shlex.quote(str(location))}, and name "
                "the dataset",
            )
    return found


def _find_skeleton(clips: Sequence[PickledClip], location: Location) -> Skeleton:
    """Return the skeleton of all clips; InputError if it is not one that PYSKL's files have."""
    shapes = {clip.keypoint.final_shape[2:] for clip in clips}
    skeletons = {_SKELETONS.get(shape) for shape in shapes}
    if len(skeletons) == 1 and (skeleton := skeletons.pop()) is not None:
        return skeleton
    unknown = shapes - _SKELETONS.keys()
    shown = sorted(unknown or shapes)[:_MAX_PROBLEMS]
    listed = ", ".join(" x ".join(map(str, shape)) for shape in shown)
    known = " or ".join(f"{joints} x {axes}" for joints, axes in _SKELETONS)
    raise InputError(
        f"the poses have {listed} joints x coordinates, not {known if unknown else 'one skeleton'}",
        where=str(location),
        now="for other skeletons, describe the clips in a YAML file of the custom format (README)",
    )


def _choose(
    clips: Sequence[PickledClip],
    ntu_facts: dict[str, ClipFacts],
    missing: Collection[str],
    num_classes: int,
) -> tuple[list[PickledClip], list[Skipped]]:
    """Separate the clips that will be read from those that are left out already."""
    kept: dict[str, PickledClip] = {}
    skipped: list[Skipped] = []
    for clip in clips:
        name, label, num_frames = clip.facts.name, clip.facts.label, clip.keypoint.final_shape[1]
        facts = ntu_facts.get(name, clip.facts)
        reason = why_left_out(facts, label, num_classes=num_classes, before=kept, missing=missing)
        if reason is None and clip.total_frames != num_frames:
            reason = f"total_frames is {clip.total_frames}, but it has {num_frames}"
        if reason is None:
            kept[name] = replace(clip, facts=facts)
        else:
            skipped.append(Skipped(name, reason))
    return list(kept.values()), skipped


def _read_splits(
    split: Any, dataset: str, *, known: Set[str], kept: Set[str], location: Location
) -> NamedSplits | None:
    """Return the cases that have kept clips in both parts; None if there are no such cases.

    InputError if a clip is in both parts of a case.
    """
    parts: dict[str, dict[str, list[str]]] = {}
    for key, listed in (split if isinstance(split, dict) else {}).items():
        match = _SPLIT_KEY.fullmatch(key) if isinstance(key, str) else None
        names = _read_names(listed)
        if match is None or names is None:
            log.warning("the split %.80r of %s is invalid: left out", key, location)
            continue
        unknown = [name for name in names if name not in known]
        if unknown:
            log.warning(
                "the split %s of %s lists %s not in the file, such as %.80r: left out",
                *(key, location, count_of(len(unknown), "clip"), unknown[0]),
            )
        word, part, number = match[1], match[2], match[3]
        case = name_case(dataset, word) if word else "split" if number else NO_CASE
        parts.setdefault(case + number, {})[part] = [name for name in names if name in kept]
    splits = {
        case: {"train": found["train"], "test": tested}
        for case, found in parts.items()
        if (tested := found.get("test") or found.get("val")) and found.get("train")
    }
    problems = [
        Problem(
            f"split {case}", f"{count_of(len(both), 'clip')} in both parts, such as {min(both)}"
        )
        for case, found in splits.items()
        if (both := set(found["train"]) & set(found["test"]))
    ]
    if problems:
        raise _refuse_annotations(location, problems)
    return splits or None


def _read_names(listed: Any) -> list[str] | None:
    """Return the names of a split, each once."""
    is_list = isinstance(listed, list | tuple | set | frozenset)
    if not is_list or not all(isinstance(name, str) for name in listed):
        return None
    return list(dict.fromkeys(sorted(listed) if isinstance(listed, set | frozenset) else listed))


def _refuse_annotations(location: Location, problems: list[Problem]) -> InputError:
    return InputError(
        "the pickle does not have PYSKL's format",
        where=str(location),
        now="download the file again; for your own clips, describe them in a YAML file (README)",
        problems=shorten_problems(problems),
    )
