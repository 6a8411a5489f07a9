"""Reader of folders of 2s-AGCN, MS-G3D and others: train_data_joint.npy with train_label.pkl.

An array holds N clips x 3 coordinates x T frames x V joints x M actors, and the pickle next to it
their names and labels. These projects put the middle of the main actor's spine at zero in each
frame, turn the clip so that z is up and the main actor's shoulders are along x, and repeat the
frames of each actor until the array is full. Here, y is turned up again, and repeated frames are
left out. A clip that is only padded with zeros, as ST-GCN's are, is centered. Arrays are read by
rows, a few clips at a time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial

import numpy as np

from sgnray.data.datasets import read_missing_names
from sgnray.data.skeleton import KINECT, NTU25
from sgnray.data.skipped import Skipped
from sgnray.errors import ClipError, Problem
from sgnray.prepare.clip import NUM_LABELS, ClipFacts, Poses, refusal, why_left_out
from sgnray.prepare.normalize import center_actors
from sgnray.prepare.plan import PartJob, RawPlan, RawSource, describe_file, find_file, hash_lines
from sgnray.prepare.readers.array_files import (
    Array,
    ArraySpec,
    Row,
    cut_row_jobs,
    describe_array,
    find_array_problem,
    read_header,
    read_rows_at,
    reading_file,
    refuse_file,
)
from sgnray.prepare.readers.naming import find_case, name_classes, name_dataset
from sgnray.prepare.readers.ntu import name_ntu, parse_ntu_names
from sgnray.prepare.readers.pickles import PickledArray, read_pickle, refuse_pickle
from sgnray.storage.location import Location

_PARTS = ("train", "val", "test")
_ARRAYS = {part: (f"{part}_data_joint.npy", f"{part}_data.npy") for part in _PARTS}
TRAINING_ARRAYS = _ARRAYS["train"]
_ARRAY = re.compile(r"train_data.*\.npy")  # also of bones, which are refused
_LABELS = {part: f"{part}_label.pkl" for part in _PARTS}
_SKELETONS = {skeleton.num_joints: skeleton for skeleton in KINECT}
_SPINE, _LEFT_SHOULDER, _RIGHT_SHOULDER = 1, 4, 8  # in both skeletons
_BONE_ROOT = 20  # between the shoulders: 2s-AGCN's bone from this joint to itself is zero
_NUM_CHECKED = 8  # clips
_ALONG, _SAME_M = 1e-4, 1e-5  # more than float32's rounding, less than Kinect's noise

Labels = list[tuple[str, int]]  # the name and the label of each clip


def find_named_arrays(paths: Collection[str]) -> dict[str, str]:
    """Return the folder of each pickle of labels that is next to an array for training."""
    split = [path.rpartition("/") for path in paths]
    with_labels = {folder for folder, _, name in split if name == _LABELS["train"]}
    folders = {folder for folder, _, name in split if _ARRAY.fullmatch(name)} & with_labels
    return {
        f"{folder}/{name}": folder
        for folder, _, name in split
        if folder in folders and name in _LABELS.values()
    }


def plan_named_arrays(folder: Location) -> RawPlan:
    """Describe a folder of arrays; InputError with all problems if they cannot be used.

    If all names are NTU's, they give the dataset, and each clip's setup, camera, subject and
    replication. Else the case of the folder's name, or "fixed", has the parts of the files, of
    which the last one is tested.
    """
    files = _find_files(folder)
    specs = {part: _describe_npy(folder.child(name)) for part, name in files.items()}
    listed = {part: _read_labels(folder.child(_LABELS[part])) for part in files}
    if problems := list(_find_problems(folder, files, specs, listed)):
        raise refuse_file(folder, "the arrays cannot be used", problems)
    skeleton = _SKELETONS[specs["train"].shape[3]]
    clips = [clip for part in listed.values() for clip in part]
    num_classes = max(label for _, label in clips) + 1
    dataset, missing = name_dataset(folder, skeleton, num_classes), frozenset[str]()
    ntu_names = (_without_suffix(name) for name, _ in clips)
    if ntu_facts := parse_ntu_names(ntu_names) if skeleton is NTU25 else {}:
        dataset, missing = name_ntu(ntu_facts.values()), read_missing_names()
        if all(label == ntu_facts[_without_suffix(name)].label + 1 for name, label in clips):
            raise refuse_file(folder, "the labels count from 1, and have to count from 0")
    class_names = name_classes(dataset, num_classes)
    jobs: list[PartJob] = []
    parts: dict[str, list[str]] = {"train": [], "test": []}
    names: set[str] = set()
    for part, labels in listed.items():
        rows = list(_choose(labels, ntu_facts, names, missing, len(class_names)))
        read_rows = partial(_read_npy, folder.child(files[part]))
        read_clip = partial(_read_clip, origin_joint=skeleton.origin or 0)
        jobs += cut_row_jobs(read_rows, specs[part], rows, read_clip)
        is_tested = part == list(listed)[-1]
        parts["test" if is_tested else "train"] += [
            row.name for row in rows if isinstance(row, ClipFacts)
        ]
    return RawPlan(
        dataset=dataset,
        skeleton=skeleton,
        class_names=class_names,
        jobs=tuple(jobs),
        source=_describe_source(folder, files, listed),
        splits=None if ntu_facts else {find_case(dataset, folder): parts},
    )


def _find_files(folder: Location) -> dict[str, str]:
    """Return the name of each part's array."""
    files = {
        part: found[0]
        for part, names in _ARRAYS.items()
        if (found := [name for name in names if folder.child(name).entry() is not None])
    }
    wanted = [part for part in ("train", "val") if part not in files]
    if wanted and not {"train", "test"} <= files.keys():
        problems = [Problem(_ARRAYS[part][0], "is missing") for part in wanted]
        raise refuse_file(folder, "the arrays cannot be used", problems)
    return files


def _read_labels(location: Location) -> Labels:
    """Read the names and labels of clips, (names, labels); InputError if they are something else.

    As in read_pickle, no code is run.
    """
    find_file(location)
    content = read_pickle(location)
    try:
        names, labels = content
        if isinstance(labels, PickledArray):
            labels = labels.load().tolist()
        pairs = list(zip(names, labels, strict=True))
    except (TypeError, ValueError, ClipError) as error:
        raise refuse_pickle(location, "it is not a list of names and a list of labels") from error
    for row, (name, label) in enumerate(pairs):
        if not isinstance(name, str) or not name or not name.isprintable():
            raise refuse_pickle(location, f"the name of clip {row} is not text")
        if type(label) is not int or not 0 <= label < NUM_LABELS:
            raise refuse_pickle(
                location, f"the label of clip {row} is not an integer of at least 0"
            )
    return pairs


def _find_problems(
    folder: Location,
    files: Mapping[str, str],
    specs: Mapping[str, ArraySpec],
    listed: Mapping[str, Labels],
) -> Iterator[Problem]:
    for part, name in files.items():
        shape, num_labels = specs[part].shape, len(listed[part])
        problem = find_array_problem(specs[part], 5, find_file(folder.child(name)))
        if problem is None and (shape[1] != 3 or shape[3] not in _SKELETONS or shape[4] > 2):
            known = " or ".join(map(str, _SKELETONS))
            problem = f"has the shape {shape}, not clips x 3 x frames x {known} x 1 or 2"
        elif problem is None and (others := specs["train"].shape[3:4]) not in ((), shape[3:4]):
            problem = f"has {shape[3]} joints, but {files['train']} has {others[0]}"
        elif problem is None and not 0 < shape[0] == num_labels:
            problem = f"has {shape[0]} clips, and its pickle {num_labels} labels"
        elif problem is None:
            num_rows = min(_NUM_CHECKED, shape[0])
            problem = _find_stream(_read_npy(folder.child(name), 0, num_rows)[..., 0])
        if problem is not None:
            yield Problem(name, problem)


def _find_stream(main_NCTV: Array) -> str | None:
    """Explain that the first clips are bones or motions, which 2s-AGCN makes of joints."""
    has_spine = main_NCTV[..., _SPINE].any()
    is_of_ntu = main_NCTV.shape[3] == NTU25.num_joints
    if has_spine and is_of_ntu and not main_NCTV[..., _BONE_ROOT].any():
        return "has bones, not joints"
    # Motions are differences of frames, so that the last one is zero: 2s-AGCN's joints fill all.
    if not has_spine and main_NCTV[:, :, -2:-1].any() and not main_NCTV[:, :, -1].any():
        return "has motions, not joints"
    return None


def _without_suffix(name: str) -> str:
    return name.removesuffix(".skeleton")


def _choose(
    labels: Labels,
    ntu_facts: Mapping[str, ClipFacts],
    names: set[str],
    missing: Collection[str],
    num_classes: int,
) -> Iterator[Row]:
    """Yield what is known of each clip, or why it is left out; add the names to `names`."""
    for name, label in labels:
        facts = ntu_facts.get(_without_suffix(name), ClipFacts(name, label))
        reason = why_left_out(facts, label, num_classes=num_classes, before=names, missing=missing)
        if reason is None:
            names.add(facts.name)
        yield facts if reason is None else Skipped(facts.name, reason)


def _read_clip(row_CTVM: Array, origin_joint: int) -> Poses:
    """Center one clip without its padding, with y up; ClipError if it has no pose."""
    people_MTVC = row_CTVM.transpose(3, 1, 2, 0)
    if not people_MTVC.any():
        raise refusal("every pose is zero")
    with np.errstate(over="ignore", invalid="ignore"):
        if _is_turned(people_MTVC[0]):
            people_MTVC = people_MTVC[..., [0, 2, 1]] * (1, 1, -1)
        keypoint_MTVC = np.stack([_clear_repeats(person_TVC) for person_TVC in people_MTVC])
    seen = np.flatnonzero((keypoint_MTVC != 0).any(axis=(0, 2, 3)))
    return center_actors(keypoint_MTVC[:, : seen[-1] + 1], origin_joint=origin_joint)


def _is_turned(main_TVC: Array) -> bool:
    """Return whether a clip has z up: its main actor's shoulders are along x in the first frame."""
    is_centered = not main_TVC[:, _SPINE].any()
    across_C = main_TVC[0, _RIGHT_SHOULDER] - main_TVC[0, _LEFT_SHOULDER]
    return is_centered and bool(np.abs(across_C[1:]).max() <= _ALONG * across_C[0])


def _clear_repeats(person_TVC: Array) -> Array:
    """Clear the frames that repeat an actor's first ones, if they fill the array to its end."""
    if not (person_TVC[0].any() and person_TVC[-1].any()):
        return person_TVC
    # Actor 2 is relative to the main actor, who may be repeated after another number of frames.
    poses_TVC = person_TVC - person_TVC[:, _SPINE, None]
    is_first_T = np.abs(poses_TVC - poses_TVC[0]).max(axis=(1, 2)) <= _SAME_M
    for period in np.flatnonzero(is_first_T[1:]) + 1:
        if np.abs(poses_TVC[period:] - poses_TVC[:-period]).max() <= _SAME_M:
            is_own_T = np.arange(len(person_TVC)) < period
            return np.where(is_own_T[:, None, None], person_TVC, 0)
    return person_TVC


def _describe_source(
    folder: Location, files: Mapping[str, str], listed: Mapping[str, Labels]
) -> RawSource:
    sources = [
        describe_file(place, find_file(place), content=hash_lines(map(str, listed[part])))
        for part, name in files.items()
        for place in (folder.child(name), folder.child(_LABELS[part]))
    ]
    return RawSource(
        num_files=len(sources),
        num_bytes=sum(source.num_bytes for source in sources),
        fingerprint=hash_lines(source.fingerprint for source in sources),
        stamp=hash_lines(source.stamp for source in sources),
    )


def _describe_npy(place: Location) -> ArraySpec:
    size_bytes = find_file(place).size_bytes
    with reading_file(place), place.open() as file:
        return describe_array(file, size_bytes, size_bytes)


def _read_npy(place: Location, start: int, stop: int) -> Array:
    """Read some rows of an array; InputError if they are damaged."""
    with reading_file(place), place.open() as file:
        shape, dtype, _ = read_header(file)
        return read_rows_at(file, ArraySpec(shape, dtype), file.tell(), start, stop)
