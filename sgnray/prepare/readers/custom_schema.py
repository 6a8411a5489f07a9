"""Which columns somebody's own table must have, and of which types."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from sgnray.data.skeleton import Skeleton
from sgnray.prepare.readers.custom_clips import FACTS, is_list

_REQUIRED = ("name", "label", "poses")
_OPTIONAL = (*FACTS, "frame", "body")


def table_problems(schema: pa.Schema, skeleton: Skeleton) -> Iterator[str]:
    """Say everything that is wrong with a table's columns."""
    for name in (*_REQUIRED, *_OPTIONAL):
        count = schema.names.count(name)
        if count > 1:
            yield f"there are {count} columns {name}"
        elif count == 1:
            kind = schema.field(name).type
            problem = _wrong_type(name, kind, skeleton)
            if problem is not None:
                yield f"the column {name} is {kind}, and must be {problem}"
        elif name in _REQUIRED:
            yield f"there is no column {name}"


def _wrong_type(name: str, kind: pa.DataType, skeleton: Skeleton) -> str | None:
    if name == "name":
        return None if _is_text(kind) else "text"
    if name == "label":
        is_right = _is_text(kind) or pa.types.is_integer(kind)
        return None if is_right else "integers from 0 on, or names of classes"
    if name in FACTS:
        is_right = pa.types.is_integer(kind) or pa.types.is_null(kind)
        return None if is_right else "integers, null where unknown"
    if name == "poses":
        return _wrong_poses(kind, skeleton)
    is_right = pa.types.is_null(kind) or (is_list(kind) and pa.types.is_integer(kind.value_type))
    return None if is_right else "a list of integers, one for each pose"


def _wrong_poses(kind: pa.DataType, skeleton: Skeleton) -> str | None:
    num_joints, num_coordinates = skeleton.num_joints, skeleton.num_coordinates
    wanted = (
        f"a list of poses, each {num_joints * num_coordinates} numbers, "
        f"or {num_joints} joints of {num_coordinates} numbers"
    )
    pose = kind.value_type if is_list(kind) else None
    if pose is None or not is_list(pose):
        return wanted
    if is_list(pose.value_type):
        joint = pose.value_type
        fits = _fits(pose, num_joints) and _fits(joint, num_coordinates)
        return None if fits and _is_number(joint.value_type) else wanted
    fits = _fits(pose, num_joints * num_coordinates)
    return None if fits and _is_number(pose.value_type) else wanted


def _fits(kind: pa.DataType, width: int) -> bool:
    return not pa.types.is_fixed_size_list(kind) or kind.list_size == width


def _is_number(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_floating, pa.types.is_integer))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(kind) for is_kind in texts)
