"""Reader of NTU RGB+D's .skeleton text, strict and vectorised.

The structure is walked on the list of lines; only the joint lines, 25 for each body and frame,
are parsed as numbers, by pyarrow's CSV reader: decimal to float64 to float32, correctly rounded.
Of a joint line's 12 columns only x, y and z are read; the others must be there.
"""

from __future__ import annotations

import re
import string
from itertools import chain

import numpy as np
import pyarrow as pa
from pyarrow import csv

from sgnray.errors import ClipError
from sgnray.prepare.recording import Body, ClipName, FloatArray, Recording
from sgnray.prepare.source import refusal

NUM_JOINTS = 25
_BODY_COLUMNS = 10
_JOINT_COLUMNS = 12
_LINES_PER_BODY = 2 + NUM_JOINTS
_MAX_COUNT_DIGITS = 12
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})\.skeleton", re.ASCII)
_DECIMAL = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_TEXT = (string.digits + string.ascii_letters + string.punctuation + " \n").encode()


_PARSE = csv.ParseOptions(
    delimiter=" ",
    quote_char=False,
    escape_char=False,
    newlines_in_values=False,
    ignore_empty_lines=False,
)
_COLUMN_NAMES = [f"column{index}" for index in range(_JOINT_COLUMNS)]
_CONVERT = csv.ConvertOptions(
    include_columns=_COLUMN_NAMES[:3],
    column_types=dict.fromkeys(_COLUMN_NAMES[:3], pa.float64()),
    null_values=[],
    strings_can_be_null=False,
    check_utf8=False,
)


def parse_ntu_name(file_name: str) -> ClipName:
    """Read SsssCcccPpppRrrrAaaa.skeleton; ClipError if the name is another."""
    match = _NAME.fullmatch(file_name)
    if match is None:
        raise refusal("no NTU name (SsssCcccPpppRrrrAaaa.skeleton)", name=file_name)
    setup, camera, subject, replication, action = (int(number) for number in match.groups())
    if min(setup, camera, subject, replication, action) < 1:
        raise refusal("a number in the name is zero", name=file_name)
    return ClipName(file_name[:-9], action, setup, camera, subject, replication)


def read_skeleton(data: bytes) -> Recording:
    """Read one .skeleton file; ClipError with the line if anything is not as it must be."""
    lines = _split_lines(data)
    num_frames, body_frames = _walk(lines)
    if not body_frames:
        raise refusal("no frame has a body")
    joints = _read_joints(lines, [line for _, _, line in body_frames])
    rows_of: dict[int, list[int]] = {}
    for row, (body_id, _, _) in enumerate(body_frames):
        rows_of.setdefault(body_id, []).append(row)
    bodies = (Body(body_frames[rows[0]][1], joints[rows]) for rows in rows_of.values())
    return Recording(num_frames, tuple(bodies))


def _split_lines(data: bytes) -> list[bytes]:
    if not data.strip():
        raise refusal("empty")
    text = data.replace(b"\r\n", b"\n")
    if text.translate(None, _TEXT):
        raise refusal("not a text file")
    lines = text.split(b"\n")
    while not lines[-1].strip():
        lines.pop()
    return lines


def _walk(lines: list[bytes]) -> tuple[int, list[tuple[int, int, int]]]:
    """Follow the announced counts through all lines, and allocate nothing for them.

    Returns the number of frames with a body, and for each body in each frame its id, the index
    of the frame among those, and the index of its first joint line.
    """
    announced = _read_count(lines, 0, "frames")
    if announced > len(lines) - 1:
        raise _refuse(0, f"announces {announced} frames, but only {len(lines) - 1} lines follow")
    body_frames: list[tuple[int, int, int]] = []
    frame, position = 0, 1
    for _ in range(announced):
        num_bodies = _read_count(lines, position, "bodies")
        start = position + 1
        position = start + num_bodies * _LINES_PER_BODY
        if position > len(lines):
            left = len(lines) - start
            raise _refuse(
                start - 1, f"announces {num_bodies} bodies, but only {left} lines follow (cut off?)"
            )
        ids = [_read_body(lines, line) for line in range(start, position, _LINES_PER_BODY)]
        if len(set(ids)) < num_bodies:
            raise _refuse(start - 1, "the same body id twice in one frame")
        body_frames.extend(
            (body_id, frame, start + index * _LINES_PER_BODY + 2)
            for index, body_id in enumerate(ids)
        )
        frame += num_bodies > 0
    if position < len(lines):
        raise _refuse(position, f"goes on after the {announced} frames it announces")
    return frame, body_frames


def _read_count(lines: list[bytes], index: int, what: str) -> int:
    if index >= len(lines):
        raise _refuse(index, f"ends where the number of {what} should be (cut off?)")
    line = lines[index].strip()
    if not line.isdigit() or len(line) > _MAX_COUNT_DIGITS:
        raise _refuse(index, f"the number of {what} is {_quote(line)}")
    return int(line)


def _read_body(lines: list[bytes], index: int) -> int:
    columns = lines[index].split()
    if len(columns) != _BODY_COLUMNS:
        raise _refuse(index, f"a body line has {len(columns)} columns, not {_BODY_COLUMNS}")
    if not columns[0].isdigit() or len(columns[0]) > 20:
        raise _refuse(index, f"the body id is {_quote(columns[0])}")
    if lines[index + 1].strip() != b"%d" % NUM_JOINTS:
        announced = _read_count(lines, index + 1, "joints")
        raise _refuse(index + 1, f"announces {announced} joints, not {NUM_JOINTS}")
    return int(columns[0])  # 17 digits: exact as an int, not as a float


def _read_joints(lines: list[bytes], first_lines: list[int]) -> FloatArray:
    """Parse the joint lines: float32 (bodies in frames, V, C)."""
    rows = chain.from_iterable(lines[first : first + NUM_JOINTS] for first in first_lines)
    text = b"\n".join(rows)
    num_rows = len(first_lines) * NUM_JOINTS
    try:
        options = csv.ReadOptions(
            use_threads=False, block_size=len(text) + 1, column_names=_COLUMN_NAMES
        )
        table = csv.read_csv(
            pa.BufferReader(text),
            read_options=options,
            parse_options=_PARSE,
            convert_options=_CONVERT,
        )
    except pa.ArrowInvalid as error:
        raise _explain(lines, first_lines) from error
    if table.num_rows != num_rows:
        raise _explain(lines, first_lines)
    joints = np.empty((num_rows, 3), np.float32)
    with np.errstate(over="ignore"):
        for axis, column in enumerate(table.columns):
            joints[:, axis] = column.to_numpy()
    if not np.isfinite(joints).all():
        raise _explain(lines, first_lines)
    return joints.reshape(-1, NUM_JOINTS, 3)


def _explain(lines: list[bytes], first_lines: list[int]) -> ClipError:
    """Find the first joint line that is not as it must be, one by one."""
    for first in first_lines:
        for index in range(first, first + NUM_JOINTS):
            columns = lines[index].split(b" ")
            if len(columns) != _JOINT_COLUMNS:
                return _refuse(
                    index, f"a joint line has {len(columns)} columns, not {_JOINT_COLUMNS}"
                )
            for column in columns[:3]:
                if _DECIMAL.fullmatch(column) is None:
                    return _refuse(index, f"the coordinate {_quote(column)} is no number")
                with np.errstate(over="ignore"):
                    if not np.isfinite(np.float32(float(column))):
                        return _refuse(index, f"the coordinate {_quote(column)} is beyond float32")
    return refusal("the joint lines cannot be parsed")


def _refuse(index: int, reason: str) -> ClipError:
    return refusal(f"line {index + 1}: {reason}")


def _quote(token: bytes) -> str:
    text = token[:24].decode("ascii", "backslashreplace")
    return f"'{text}{'...' if len(token) > 24 else ''}'"
