"""Clips of other skeletons: a description in YAML next to tables of clips, planned and read.

Legend: P poses of a clip, V joints, C coordinates, D = V * C numbers of a pose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sgnray.config.custom import Description, Rule, SplitRule, parse_description
from sgnray.data.datasets import DATASETS
from sgnray.data.info import NamedSplits
from sgnray.data.protocols import IntArray
from sgnray.data.skeleton import ESTIMATED, KINECT20, NTU25, SKELETONS, Skeleton
from sgnray.data.skipped import Skipped
from sgnray.data.store import FloatArray
from sgnray.errors import ClipError, InputError, Problem, count_problems
from sgnray.prepare.clip import (
    CLIP_NUMBERS,
    MAX_CLIP_NUMBER,
    Clip,
    ClipFacts,
    Poses,
    as_float32,
    check_meters,
    refusal,
)
from sgnray.prepare.plan import PartJob, RawPlan, RawSource, hash_lines
from sgnray.prepare.readers.tables import Piece, Table, open_table
from sgnray.storage.location import Location

_MAX_DESCRIPTION_BYTES = 32 * 1024 * 1024
_MAX_NAME = 255
_IN_DATASET = (
    "its poses must be as in the dataset that the model was trained on, in meters with y up"
)
_LIGHT_COLUMNS = ("name", "label", *CLIP_NUMBERS)
_POSE_COLUMNS = ("poses", "frame", "body")
_UNLABELED = ("name", *_POSE_COLUMNS)
_REQUIRED = ("name", "label", "poses")
_NOW = (
    "correct the table or its description; 'Your own skeletons' in .github/docs/data.md shows one"
)


def plan_custom(location: Location) -> RawPlan:
    """Plan the dataset that a description describes, from the light columns of its tables.

    InputError lists all problems of the description or, if it has none, of the tables.
    """
    text = _read_text(location)
    description = parse_description(text, source=str(location))
    skeleton = _skeleton(description, location)
    tables = _open_tables(description, skeleton, location)
    names: set[str] = set()
    clips: list[ClipFacts] = []
    jobs: list[PartJob] = []
    for table in tables:
        rows = tuple(_read_rows(table, description.classes, names))
        clips += [row for row in rows if isinstance(row, ClipFacts)]
        for piece in table.pieces():
            own = rows[piece.start : piece.stop]
            jobs.append(PartJob(len(own), partial(_prepare_rows, piece, skeleton, own)))
    if not jobs:
        raise InputError("the table has no rows", where=str(location), now=_NOW)
    return RawPlan(
        dataset=description.dataset,
        skeleton=skeleton,
        class_names=description.classes,
        jobs=tuple(jobs),
        skipped=(),
        source=_source(location, text, tables),
        splits=_name_splits(description.splits, clips, names, location),
    )


def _prepare_rows(
    piece: Piece, skeleton: Skeleton, rows: Sequence[ClipFacts | Skipped]
) -> Iterator[Clip | Skipped]:
    """Yield one result for each row of a piece, given the facts of each."""
    with piece.table.errors():
        piece.table.check_unchanged()
    for row, (_, found) in zip(rows, read_clips(piece, skeleton), strict=True):
        if isinstance(row, Skipped):
            yield row
        elif isinstance(found, ClipError):
            yield Skipped(row.name, found.what)
        else:
            yield Clip(row, found)


def open_clips(location: Location, skeleton: Skeleton) -> Table:
    """Open a table of clips to recognize, with or without labels; InputError if it is invalid.

    Its poses are those of the skeleton, in the unit of the dataset that a model was trained on.
    """
    table = open_table(location)
    if isinstance(table, Table):
        problems = list(_find_table_problems(table.schema(), skeleton, _UNLABELED))
        if not problems:
            return table
    else:
        problems = [table]
    raise InputError(
        f"this table has no clips of {skeleton.name} skeletons",
        where=str(location),
        now=_NOW,
        problems=[Problem(location.name, what) for what in problems],
    )


def read_clips(piece: Piece, skeleton: Skeleton) -> Iterator[tuple[str, Poses | ClipError]]:
    """Yield the name and the poses of each row, or why it has none."""
    row = piece.start
    for batch in piece.batches(_present(piece.table, _UNLABELED)):
        for index, name in enumerate(batch.column("name").to_pylist()):
            try:
                found: Poses | ClipError = _read_poses(batch, index, skeleton)
            except ClipError as error:
                found = error
            yield name or f"row {row + index} of {piece.table.location.name}", found
        row += batch.num_rows


@lru_cache(maxsize=4)
def _present(table: Table, columns: tuple[str, ...]) -> tuple[str, ...]:
    # Cached, because a table has many pieces.
    known = table.schema().names
    return tuple(name for name in columns if name in known)


def _read_text(location: Location) -> str:
    try:
        with location.open() as file:
            data: bytes = file.read(_MAX_DESCRIPTION_BYTES + 1)
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        what = "the description is not UTF-8 text"
        raise InputError(what, where=str(location), now=_NOW) from error
    except OSError as error:
        what = f"the description cannot be read: {error.strerror or error}"
        raise InputError(what, where=str(location), now="name a .yaml file") from error
    if len(data) > _MAX_DESCRIPTION_BYTES:
        what = f"the description is larger than {_MAX_DESCRIPTION_BYTES >> 20} MiB"
        raise InputError(what, where=str(location), now=_NOW)
    return text


def _skeleton(description: Description, location: Location) -> Skeleton:
    """Return the described skeleton, with the known name if it equals a known one."""
    joints = description.joints
    index = {joint: number for number, joint in enumerate(joints)}
    skeleton = Skeleton(
        name=description.dataset,
        joints=joints,
        bones=tuple((index[child], index[parent]) for child, parent in description.bones),
        origin=None if description.origin is None else index[description.origin],
        num_coordinates=description.coordinates,
    )
    # A description may use the cases of a published dataset if it has its skeleton.
    published = DATASETS.get(description.dataset)
    ours = None if published is None else published.skeleton
    if ours is not None and not _has_shape_of(skeleton, ours):
        raise InputError(
            f"the dataset {description.dataset} has {ours.num_joints} joints of "
            f"{ours.num_coordinates} coordinates, and this one has {skeleton.num_joints} of "
            f"{skeleton.num_coordinates}",
            where=f"{location}: dataset",
            now="give the dataset a different name, such as my-kinect",
        )
    # Not a pose estimator's, because prepared poses have another scale than its files.
    for known in (NTU25, KINECT20) if ours is None else (ours,):
        if ours or (known.joints == joints and _has_shape_of(skeleton, known)):
            return replace(skeleton, name=known.name)
    if skeleton.name in SKELETONS:
        return replace(skeleton, name=f"{skeleton.name}-own")
    return skeleton


def _has_shape_of(one: Skeleton, other: Skeleton) -> bool:
    return (one.num_joints, one.num_coordinates) == (other.num_joints, other.num_coordinates)


def _open_tables(description: Description, skeleton: Skeleton, location: Location) -> list[Table]:
    folder = PurePosixPath(location.path).parent
    tables, problems = [], []
    for name in description.clips:
        table = open_table(location.at(str(folder / name)))
        if isinstance(table, str):
            problems.append(Problem(name, table))
            continue
        tables.append(table)
        found = _find_table_problems(table.schema(), skeleton, (*_LIGHT_COLUMNS, *_POSE_COLUMNS))
        problems += [Problem(name, what) for what in found]
    if problems:
        raise InputError(
            f"the clips of {location.name} have {count_problems(problems)}",
            where=str(location),
            now=_NOW,
            problems=problems,
        )
    return tables


def _read_rows(
    table: Table, class_names: tuple[str, ...], names: set[str]
) -> Iterator[ClipFacts | Skipped]:
    """Read the facts of each row, or why it is refused; add the names to `names`."""
    light = table.columns(_present(table, _LIGHT_COLUMNS))
    row = 0
    for batch in light.to_batches(max_chunksize=4096):
        for values in batch.to_pylist():
            name = str(values["name"] or f"row {row} of {table.location.name}")
            row += 1
            try:
                if name in names:
                    raise refusal("another clip has this name")
                names.add(name)
                yield _read_facts(values, class_names)
            except ClipError as error:
                shown = name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..."
                yield Skipped(shown, error.what)


def _source(location: Location, text: str, tables: Sequence[Table]) -> RawSource:
    # The description affects the dataset as much as the table, so its text is part of the source.
    digest = hashlib.sha256(text.encode()).hexdigest()
    lines = [
        f"{table.location.name}\t{table.stamp[0]}"
        + (f"\t{table.location.digest()}" if table.location.is_local else "")
        for table in tables
    ]
    return RawSource(
        num_files=1 + len(tables),
        num_bytes=len(text.encode()) + sum(table.stamp[0] for table in tables),
        fingerprint=hash_lines([digest, *lines]),
        stamp=hash_lines([digest, *(f"{table.location}\t{table.stamp}" for table in tables)]),
    )


def _find_table_problems(
    schema: pa.Schema, skeleton: Skeleton, columns: Sequence[str]
) -> Iterator[str]:
    """List everything that is wrong with these columns of a table."""
    for name in columns:
        count = schema.names.count(name)
        if count > 1:
            yield f"there are {count} columns {name}"
        elif count == 0 and name in _REQUIRED:
            yield f"column {name} not found"
        elif count == 1:
            kind = schema.field(name).type
            is_right, wanted = _check_type(name, kind, skeleton)
            if not is_right:
                yield f"the column {name} is {kind}, and must be {wanted}"


def _check_type(name: str, kind: pa.DataType, skeleton: Skeleton) -> tuple[bool, str]:
    """Return whether a column has a type that can be read, and the types that can."""
    is_integer, is_null = pa.types.is_integer(kind), pa.types.is_null(kind)
    match name:
        case "name":
            return _is_text(kind), "text"
        case "label":
            return _is_text(kind) or is_integer, "integers from 0, or names of classes"
        case "frame" | "body":
            is_right = is_null or (_is_list(kind) and pa.types.is_integer(kind.value_type))
            return is_right, "a list of integers, one for each pose"
        case "poses":
            num_joints, num_coordinates = skeleton.num_joints, skeleton.num_coordinates
            width = skeleton.pose_size
            is_right = _nests(kind, None, width) or _nests(kind, None, num_joints, num_coordinates)
            wanted = f"a list of poses, each {width} numbers, or {num_joints} joints of "
            return is_right, f"{wanted}{num_coordinates} numbers"
    assert name in CLIP_NUMBERS
    return is_integer or is_null, "integers, null where unknown"


def _nests(kind: pa.DataType, *lengths: int | None) -> bool:
    """Return whether a type is nested lists of numbers; fixed sizes must equal `lengths`."""
    for length in lengths:
        if not _is_list(kind):
            return False
        if length is not None and pa.types.is_fixed_size_list(kind) and kind.list_size != length:
            return False
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(kind) for is_kind in texts)


def _name_splits(
    rules: Mapping[str, SplitRule], clips: Sequence[ClipFacts], names: Set[str], location: Location
) -> NamedSplits | None:
    """Name the training and test clips of each case; InputError lists what is wrong with them.

    `names` are all clips of the tables; those that are not among `clips` were refused and are in no
    part. A clip with an unknown number is in no part of a case that splits by it.
    """
    splits: NamedSplits = {}
    problems: list[Problem] = []
    for case, rule in rules.items():
        found = list(_unknown_names(rule, names))
        parts = {"train": _part(rule.train, rule.test, clips)}
        parts["test"] = _part(rule.test, rule.train, clips)
        found += [f"leaves no clips for {part}" for part, chosen in parts.items() if not chosen]
        both = set(parts["train"]) & set(parts["test"])
        if both:
            found.append(f"has {len(both)} clips in both parts, such as {min(both)!r}")
        problems += [Problem(f"splits.{case}", what) for what in found]
        splits[case] = parts
    if problems:
        raise InputError(
            f"the splits of {location.name} do not fit its clips",
            where=str(location),
            now=_NOW,
            problems=problems,
        )
    return splits or None


def _part(rule: Rule | None, other: Rule | None, clips: Sequence[ClipFacts]) -> list[str]:
    """Name the clips of a part: those of its rule, or, if it has none, those outside the other."""
    given = rule if rule is not None else other
    assert given is not None
    listed = frozenset() if isinstance(given, Mapping) else frozenset(given)
    return sorted(clip.name for clip in clips if _is_in(clip, given, listed) is (rule is not None))


def _is_in(clip: ClipFacts, rule: Rule, listed: Set[str]) -> bool | None:
    """Return whether a rule selects a clip; None if a number that it needs is unknown."""
    if not isinstance(rule, Mapping):
        return clip.name in listed
    numbers = [(getattr(clip, column), wanted) for column, wanted in rule.items()]
    if any(number is None for number, _ in numbers):
        return None
    return all(number in wanted for number, wanted in numbers)


def _unknown_names(rule: SplitRule, names: Set[str]) -> Iterator[str]:
    for part in (rule.train, rule.test):
        listed = part if isinstance(part, tuple) else ()
        if unknown := [name for name in listed if name not in names]:
            more = f", and {len(unknown) - 1} more are unknown" if len(unknown) > 1 else ""
            yield f"clip {unknown[0]!r} not found{more}"


def _read_facts(values: dict[str, object], class_names: tuple[str, ...]) -> ClipFacts:
    """Read the light columns of one row; ClipError says what is wrong with it."""
    name, label = values["name"], values["label"]
    if not isinstance(name, str) or not name:
        raise refusal("it has no name")
    if len(name) > _MAX_NAME:
        raise refusal(f"its name is longer than {_MAX_NAME} characters")
    if label is None:
        raise refusal("it has no label")
    if isinstance(label, str):
        if label not in class_names:
            raise refusal(f"its label {label!r} is not one of the classes")
        label = class_names.index(label)
    assert isinstance(label, int)
    if not 0 <= label < len(class_names):
        raise refusal(f"its label is {label}, not one of 0 to {len(class_names) - 1}")
    numbers: dict[str, int | None] = {}
    for key in CLIP_NUMBERS:
        number = values.get(key)
        assert number is None or isinstance(number, int)
        if number is not None and not 0 <= number <= MAX_CLIP_NUMBER:
            raise refusal(
                f"its {key} is {number}, not null or a number from 0 to {MAX_CLIP_NUMBER:,}"
            )
        numbers[key] = number
    return ClipFacts(name, label, **numbers)


def _read_poses(batch: pa.RecordBatch, index: int, skeleton: Skeleton) -> Poses:
    """Read, check and center the poses of one row; all-zero poses are left out."""
    column = batch.column("poses")
    if not column[index].is_valid:
        raise refusal("it has no poses")
    values_PD = _pose_matrix(column[index].values, skeleton)
    frames, bodies = _frames_and_bodies(batch, index, len(values_PD))
    num_frames = int(frames[-1]) + 1
    is_pose = values_PD.any(axis=1)
    if not is_pose.any():
        raise refusal("every pose is zero")
    values_PD, frames, bodies = values_PD[is_pose], frames[is_pose], bodies[is_pose]
    # Only models trained on files of a pose estimator have such a skeleton: see _skeleton.
    if skeleton.name in ESTIMATED:
        check_meters(values_PD.reshape(len(values_PD), skeleton.num_joints, -1), _IN_DATASET)
    if skeleton.origin is not None:
        values_PD = _centered(values_PD, bodies, skeleton)
    return Poses(num_frames, values_PD, frames.astype(np.int32), bodies.astype(np.int8))


def _pose_matrix(poses: pa.Array, skeleton: Skeleton) -> FloatArray:
    """Flatten a list of poses, each V * C numbers or V joints of C, to (P, D) in float32."""
    num_poses = len(poses)
    if num_poses == 0:
        raise refusal("it has no poses")
    is_flat = not _is_list(poses.type.value_type)
    width = skeleton.pose_size
    widths = [(width, "number")]
    if not is_flat:
        widths = [(skeleton.num_joints, "joint"), (skeleton.num_coordinates, "coordinate")]
    for expected, noun in widths:
        _check_widths(poses, expected, noun)
        poses = poses.flatten()
    if poses.null_count:
        raise refusal("a number is null")
    values = as_float32(poses.to_numpy(zero_copy_only=False), "a number is not finite in float32")
    return values.reshape(num_poses, width)


def _check_widths(lists: pa.Array, expected: int, noun: str) -> None:
    if lists.null_count:
        raise refusal(f"a list of {noun}s is null")
    if pa.types.is_fixed_size_list(lists.type):
        return  # the planner has checked this width
    lengths = pc.list_value_length(lists).to_numpy()
    wrong = np.flatnonzero(lengths != expected)
    if wrong.size:
        given = int(lengths[wrong[0]])
        raise refusal(f"{given} {noun}{'' if given == 1 else 's'} in a pose instead of {expected}")


def _frames_and_bodies(
    batch: pa.RecordBatch, index: int, num_poses: int
) -> tuple[IntArray, IntArray]:
    max_bodies = np.iinfo(np.int8).max + 1
    frames = _numbers(batch, "frame", index, num_poses, limit=np.iinfo(np.int32).max)
    bodies = _numbers(batch, "body", index, num_poses, limit=max_bodies)
    if bodies is None:
        bodies = np.zeros(num_poses, np.int64)
    if frames is None:
        return np.arange(num_poses), bodies
    if np.any(np.diff(frames * max_bodies + bodies) <= 0):
        raise refusal("its poses are not in order: frame by frame, and in a frame body by body")
    return frames, bodies


def _numbers(
    batch: pa.RecordBatch, name: str, index: int, num_poses: int, *, limit: int
) -> IntArray | None:
    if name not in batch.schema.names or not batch.column(name)[index].is_valid:
        return None
    values = batch.column(name)[index].values
    if len(values) != num_poses:
        raise refusal(f"it has {num_poses} poses, and {len(values)} numbers in {name}")
    if values.null_count:
        raise refusal(f"a number in {name} is null")
    # An unsigned number beyond int64 wraps round to a negative one.
    numbers: IntArray = values.to_numpy(zero_copy_only=False).astype(np.int64)
    if numbers.min() < 0 or numbers.max() >= limit:
        raise refusal(f"a number in {name} is below 0, or too large: it must count from 0")
    return numbers


def _centered(values_PD: FloatArray, bodies: IntArray, skeleton: Skeleton) -> FloatArray:
    """Put the origin joint of the first pose of body 0 at zero."""
    first = np.flatnonzero(bodies == 0)
    if first.size == 0:
        raise refusal("it has no pose of body 0 to center it on")
    assert skeleton.origin is not None
    joints_PVC = values_PD.reshape(len(values_PD), skeleton.num_joints, skeleton.num_coordinates)
    with np.errstate(over="ignore", invalid="ignore"):
        moved: FloatArray = joints_PVC - joints_PVC[first[0], skeleton.origin]
    if not np.isfinite(moved).all():
        raise refusal("a number is not finite in float32 after the clip is centered")
    return moved.reshape(values_PD.shape)


def _is_list(kind: pa.DataType) -> bool:
    """Return whether a type is one of the lists that poses are made of."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in lists)
