"""From a row of somebody's own table to a clip, or to the reason why it is left out.

Legend: P poses of a clip, V joints, C coordinates, D = V * C numbers of a pose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sgnray.data.skeleton import Skeleton
from sgnray.errors import ClipError
from sgnray.prepare.clip import Clip, ClipFacts, Poses, Skipped, refusal
from sgnray.prepare.readers.tables import Piece

MAX_NAME = 255
FACTS = ("subject", "camera", "setup", "replication")
LIGHT_COLUMNS = ("name", "label", *FACTS)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_MAX_FACT = np.iinfo(np.int16).max

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TableJob:
    """A piece of a table, as its reader is told of it; `refused` says (row, name, reason)."""

    piece: Piece
    columns: tuple[str, ...]
    skeleton: Skeleton
    class_names: tuple[str, ...]
    refused: tuple[tuple[int, str, str], ...]

    @property
    def num_clips(self) -> int:
        """How many rows it has, refused ones too."""
        return self.piece.stop - self.piece.start

    def read(self) -> Iterator[Clip | Skipped]:
        """Give one result for each row, in order."""
        refused = {row: Skipped(name, reason) for row, name, reason in self.refused}
        first = self.piece.start
        for batch in self.piece.batches(self.columns):
            light = batch.select([name for name in self.columns if name in LIGHT_COLUMNS])
            for index, values in enumerate(light.to_pylist()):
                row = first + index
                yield refused[row] if row in refused else self._read_row(batch, index, values)
            first += batch.num_rows

    def _read_row(
        self, batch: pa.RecordBatch, index: int, values: dict[str, object]
    ) -> Clip | Skipped:
        try:
            facts = read_facts(values, self.class_names)
            return Clip(facts, read_poses(batch, index, self.skeleton))
        except ClipError as error:
            return Skipped(str(values["name"]), error.what)


def read_facts(values: dict[str, object], class_names: tuple[str, ...]) -> ClipFacts:
    """Read the light columns of one row; ClipError says what is wrong with it."""
    name, label = values["name"], values["label"]
    if not isinstance(name, str) or not name:
        raise refusal("it has no name")
    if len(name) > MAX_NAME:
        raise refusal(f"its name is longer than {MAX_NAME} characters")
    if label is None:
        raise refusal("it has no label")
    if isinstance(label, str):
        if label not in class_names:
            raise refusal(f"its label {label!r} is none of the classes")
        label = class_names.index(label)
    assert isinstance(label, int)
    if not 0 <= label < len(class_names):
        raise refusal(f"its label is {label}, and there are {len(class_names)} classes from 0 on")
    numbers: dict[str, int | None] = {}
    for key in FACTS:
        number = values.get(key)
        assert number is None or isinstance(number, int)
        if number is not None and not 0 <= number <= _MAX_FACT:
            raise refusal(f"its {key} is {number}; null, or a number from 0 to {_MAX_FACT:,}")
        numbers[key] = number
    return ClipFacts(name, label, **numbers)


def read_poses(batch: pa.RecordBatch, index: int, skeleton: Skeleton) -> Poses:
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
    if skeleton.origin is not None:
        values_PD = _centered(values_PD, bodies, skeleton)
    return Poses(num_frames, values_PD, frames.astype(np.int32), bodies.astype(np.int8))


def _pose_matrix(poses: pa.Array, skeleton: Skeleton) -> FloatArray:
    """Flatten a list of poses, each V * C numbers or V joints of C, to (P, D) in float32."""
    num_poses = len(poses)
    if num_poses == 0:
        raise refusal("it has no poses")
    is_flat = not is_list(poses.type.value_type)
    width = skeleton.num_joints * skeleton.num_coordinates
    widths = [(width, "number")]
    if not is_flat:
        widths = [(skeleton.num_joints, "joint"), (skeleton.num_coordinates, "coordinate")]
    for expected, noun in widths:
        _check_widths(poses, expected, noun)
        poses = poses.flatten()
    if poses.null_count:
        raise refusal("a number is null")
    with np.errstate(over="ignore", invalid="ignore"):
        values: FloatArray = poses.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise refusal("a number is not finite in float32")
    return values.reshape(num_poses, width)


def _check_widths(lists: pa.Array, expected: int, noun: str) -> None:
    if lists.null_count:
        raise refusal(f"a list of {noun}s is null")
    if pa.types.is_fixed_size_list(lists.type):
        return  # the planner has seen this width
    lengths = pc.list_value_length(lists).to_numpy()
    wrong = np.flatnonzero(lengths != expected)
    if wrong.size:
        given = int(lengths[wrong[0]])
        raise refusal(f"{given} {noun}{'' if given == 1 else 's'} in a pose instead of {expected}")


def _frames_and_bodies(
    batch: pa.RecordBatch, index: int, num_poses: int
) -> tuple[IntArray, IntArray]:
    frames = _numbers(batch, "frame", index, num_poses, limit=np.iinfo(np.int32).max)
    bodies = _numbers(batch, "body", index, num_poses, limit=np.iinfo(np.int8).max + 1)
    if bodies is None:
        bodies = np.zeros(num_poses, np.int64)
    if frames is None:
        return np.arange(num_poses), bodies
    order = frames * (np.iinfo(np.int8).max + 1) + bodies
    if np.any(np.diff(order) <= 0):
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
        raise refusal(f"a number in {name} is below 0, or too large")
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
        raise refusal("a number is not finite in float32 once the clip is centered")
    return moved.reshape(values_PD.shape)


def is_list(kind: pa.DataType) -> bool:
    """Tell whether a type is one of the lists that poses are made of."""
    return any(is_kind(kind) for is_kind in _LISTS)
