"""Clips in the rows of a table: the columns that they need, and the poses of each row.

Legend: P poses of a clip, V joints, C coordinates, D = V * C numbers of a pose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sgnray.data.protocols import IntArray
from sgnray.data.skeleton import ESTIMATED, Skeleton
from sgnray.data.store import FloatArray
from sgnray.errors import ClipError, InputError, Problem, count_of
from sgnray.prepare.clip import (
    CLIP_NUMBERS,
    NOT_BY_TIME,
    Poses,
    as_float32,
    check_meters,
    refusal,
)
from sgnray.prepare.normalize import center_poses
from sgnray.prepare.readers.tables import Piece, Table, open_table
from sgnray.prepare.readers.tracks import fill_bodies
from sgnray.storage.location import Location

POSE_COLUMNS = ("poses", "frame", "body")
CORRECT_TABLE = (
    "correct the table or its description; 'Your own skeletons' in .github/docs/data.md shows one"
)
_COLUMNS = ("name", *POSE_COLUMNS)
_REQUIRED = ("name", "label", "poses")
_NOT_FINITE = "a number is not finite in float32"
_MAX_STEP = 1000  # frames between most poses; times in milliseconds are closer, but do no harm
_IN_DATASET = (
    "its poses must be as in the dataset that the model was trained on, in meters with y up"
)


def open_clips(location: Location, skeleton: Skeleton) -> Table:
    """Open a table of clips to recognize, with or without labels; InputError if it is invalid.

    Its poses are those of the skeleton, in the unit of the dataset that a model was trained on.
    """
    table = open_table(location)
    if isinstance(table, Table):
        problems = list(find_table_problems(table.schema(), skeleton, _COLUMNS))
        if not problems:
            return table
    else:
        problems = [table]
    raise InputError(
        f"this table has no clips of {skeleton.name} skeletons",
        where=str(location),
        now=CORRECT_TABLE,
        problems=[Problem(location.name, what) for what in problems],
    )


def read_clips(
    piece: Piece, skeleton: Skeleton, *, from_zero: bool = False
) -> Iterator[tuple[str, Poses | ClipError]]:
    """Yield the name and the poses of each row, or why it has none.

    With `from_zero`, the frames of a clip count from its first one, instead of as in the table.
    """
    row = piece.start
    for batch in piece.batches(present_columns(piece.table, _COLUMNS)):
        for index, name in enumerate(batch.column("name").to_pylist()):
            try:
                found: Poses | ClipError = _read_poses(batch, index, skeleton, from_zero)
            except ClipError as error:
                found = error
            yield name or f"row {row + index} of {piece.table.location.name}", found
        row += batch.num_rows


@lru_cache(maxsize=4)
def present_columns(table: Table, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the columns that a table has."""
    # Cached, because a table has many pieces.
    known = table.schema().names
    return tuple(name for name in columns if name in known)


def find_table_problems(
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


def _read_poses(batch: pa.RecordBatch, index: int, skeleton: Skeleton, from_zero: bool) -> Poses:
    """Read, check, fill and center the poses of one row; those without any joint are left out."""
    column = batch.column("poses")
    if not column[index].is_valid:
        raise refusal("it has no poses")
    values_PD = _pose_matrix(column[index].values, skeleton)
    frames, bodies = _frames_and_bodies(batch, index, len(values_PD))
    if from_zero:
        frames = frames - frames[0]
    num_frames = int(frames[-1]) + 1
    is_pose = np.nan_to_num(values_PD).any(axis=1)
    if not is_pose.any():
        raise refusal("every pose is zero" + (" or NaN" if np.isnan(values_PD).any() else ""))
    frames, bodies = frames[is_pose], bodies[is_pose]
    poses_PVC = values_PD[is_pose].reshape(-1, skeleton.num_joints, skeleton.num_coordinates)
    if np.isnan(poses_PVC).any():
        poses_PVC = fill_bodies(poses_PVC, frames, bodies)
    # Only models trained on files of a pose estimator have such a skeleton: a description does not.
    if skeleton.name in ESTIMATED:
        check_meters(poses_PVC, _IN_DATASET)
    if skeleton.origin is not None and bodies.all():
        raise refusal("it has no pose of body 0 to center it on")
    values_PD = center_poses(poses_PVC, bodies, skeleton).reshape(len(poses_PVC), -1)
    return Poses(num_frames, values_PD, frames.astype(np.int32), bodies.astype(np.int8))


def _pose_matrix(poses: pa.Array, skeleton: Skeleton) -> FloatArray:
    """Flatten a list of poses, each V * C numbers or V joints of C, to (P, D) in float32.

    All numbers of a joint that has a NaN or null are NaN, as are those of a null joint or pose.
    """
    num_poses = len(poses)
    if num_poses == 0:
        raise refusal("it has no poses")
    is_flat = not _is_list(poses.type.value_type)
    width = skeleton.pose_size
    widths = [(width, "number")]
    if not is_flat:
        widths = [(skeleton.num_joints, "joint"), (skeleton.num_coordinates, "coordinate")]
    for level, (expected, noun) in enumerate(widths):
        if poses.null_count:
            missing = np.full([size for size, _ in widths[level:]], None).tolist()
            poses = pc.if_else(poses.is_null(), pa.scalar(missing, poses.type), poses)
        _check_widths(poses, expected, noun)
        poses = poses.flatten()
    values = poses.to_numpy(zero_copy_only=False)  # null becomes NaN
    is_missing = np.isnan(values)
    if not is_missing.any():
        return as_float32(values, _NOT_FINITE).reshape(num_poses, width)
    shape = (num_poses, skeleton.num_joints, skeleton.num_coordinates)
    joints_PVC = as_float32(np.where(is_missing, 0, values), _NOT_FINITE).reshape(shape)
    joints_PVC[is_missing.reshape(shape).any(axis=2)] = np.nan
    return joints_PVC.reshape(num_poses, width)


def _check_widths(lists: pa.Array, expected: int, noun: str) -> None:
    if pa.types.is_fixed_size_list(lists.type):
        return  # the planner has checked this width
    lengths = pc.list_value_length(lists).to_numpy()
    wrong = np.flatnonzero(lengths != expected)
    if wrong.size:
        given = int(lengths[wrong[0]])
        raise refusal(f"{count_of(given, noun)} in a pose instead of {expected}")


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
    order = np.diff(frames * max_bodies + bodies)
    if np.any(order <= 0):
        pose = int(np.argmax(order <= 0)) + 1
        if order[pose - 1] == 0:
            frame, body = frames[pose], bodies[pose]
            raise refusal(f"pose {pose}: frame {frame} of body {body} is repeated")
        raise refusal("its poses are not in order: frame by frame, and in a frame body by body")
    # A clip has room for every frame, so times would exhaust memory. A single gap may be long.
    steps = np.diff(np.unique(frames))
    if len(steps) > 1 and (step := int(np.median(steps))) > _MAX_STEP:
        raise refusal(f"its poses are {step:,} frames apart: {NOT_BY_TIME}")
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


def _is_list(kind: pa.DataType) -> bool:
    """Return whether a type is one of the lists that poses are made of."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in lists)
