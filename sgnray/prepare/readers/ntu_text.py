"""The text of NTU RGB+D's .skeleton files, read strictly and many files at a time.

The joint lines of many files, 25 for each body and frame, go through pyarrow's CSV reader at once:
decimal to float64 to float32, correctly rounded. Of a joint line's 12 columns only x, y and z are
read; the others must be there. What that reader does not take is read again line by line: those
plain rules, `_read_plainly`, say what is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from sgnray.errors import ClipError
from sgnray.prepare.clip import refusal
from sgnray.prepare.readers.ntu_outline import NUM_JOINTS, Outline, quote, read_outline, refuse_line
from sgnray.prepare.recording import Body, FloatArray, Recording

_JOINT_COLUMNS = 12
_DECIMAL = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

_COLUMNS = [f"column{index}" for index in range(_JOINT_COLUMNS)]
_BLOCK_BYTES = 1 << 20  # fits the processor's cache: a fifth faster than one block
_READ = csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES, column_names=_COLUMNS)
_PARSE = csv.ParseOptions(
    delimiter=" ",
    quote_char=False,
    escape_char=False,
    newlines_in_values=False,
    ignore_empty_lines=False,
)
_CONVERT = csv.ConvertOptions(
    include_columns=_COLUMNS[:3],
    column_types=dict.fromkeys(_COLUMNS[:3], pa.float64()),
    null_values=[],
    strings_can_be_null=False,
    check_utf8=False,
)


def read_skeleton(data: bytes) -> Recording:
    """Read one .skeleton file; ClipError with the line if anything is not as it must be."""
    (result,) = read_skeletons([data])
    if isinstance(result, ClipError):
        raise result
    return result


def read_skeletons(files: Sequence[bytes]) -> list[Recording | ClipError]:
    """Read whole .skeleton files; a ClipError with the line where one is not as it must be."""
    results: list[Recording | ClipError] = [refusal("unread")] * len(files)
    outlines: dict[int, Outline] = {}
    for index, data in enumerate(files):
        try:
            outlines[index] = read_outline(data)
        except ClipError as error:
            results[index] = error
    joints = _parse([block for outline in outlines.values() for block in outline.joint_lines()])
    row = 0
    for index, outline in outlines.items():
        num_rows = len(outline.ids)
        try:
            own = _read_alone(outline) if joints is None else joints[row : row + num_rows]
        except ClipError as error:
            results[index] = error
        else:
            results[index] = _assemble(outline, own)
        row += num_rows
    return results


def _parse(blocks: Sequence[memoryview]) -> FloatArray | None:
    """Parse joint lines: float32 (bodies in frames, V, C); None if one line is not a plain one."""
    if not blocks:
        return None
    try:
        table = csv.read_csv(
            pa.BufferReader(b"".join(blocks)),
            read_options=_READ,
            parse_options=_PARSE,
            convert_options=_CONVERT,
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != len(blocks) * NUM_JOINTS:
        return None
    joints = np.empty((table.num_rows, 3), np.float32)
    row = 0
    with np.errstate(over="ignore"):
        for batch in table.to_batches():  # a whole column would be joined first
            for axis, column in enumerate(batch.columns):
                joints[row : row + batch.num_rows, axis] = column.to_numpy()
            row += batch.num_rows
    return joints.reshape(-1, NUM_JOINTS, 3) if np.isfinite(joints).all() else None


def _read_alone(outline: Outline) -> FloatArray:
    # One bad number spoils the parsing of a block: the other files of it are still plain.
    joints = _parse(outline.joint_lines())
    return _read_plainly(outline) if joints is None else joints


def _read_plainly(outline: Outline) -> FloatArray:
    """Read the joint lines one by one, as _parse does; ClipError with the first wrong line."""
    numbers: list[npt.NDArray[np.float32]] = []
    first_line = counted = 0
    for start, stop in zip(outline.starts, outline.stops, strict=True):
        first_line += outline.text.count(b"\n", counted, start)
        counted = start
        for index, line in enumerate(outline.text[start : stop - 1].split(b"\n"), first_line):
            numbers.append(_read_joint(line.removesuffix(b"\r"), index))
    return np.stack(numbers).reshape(-1, NUM_JOINTS, 3)


def _read_joint(line: bytes, index: int) -> npt.NDArray[np.float32]:
    columns = line.split(b" ")
    if len(columns) != _JOINT_COLUMNS:
        raise refuse_line(index, f"a joint line has {len(columns)} columns, not {_JOINT_COLUMNS}")
    for column in columns[:3]:
        if _DECIMAL.fullmatch(column) is None:
            raise refuse_line(index, f"the coordinate {quote(column)} is no number")
        with np.errstate(over="ignore"):
            if not np.isfinite(np.float32(float(column))):
                raise refuse_line(index, f"the coordinate {quote(column)} is beyond float32")
    return np.array([float(column) for column in columns[:3]]).astype(np.float32)


def _assemble(outline: Outline, joints: FloatArray) -> Recording:
    rows_of: dict[int, list[int]] = {}
    for row, body_id in enumerate(outline.ids):
        rows_of.setdefault(body_id, []).append(row)
    if len(rows_of) == 1:
        return Recording(outline.num_frames, (Body(0, joints),))
    frames = outline.frames
    bodies = (Body(frames[rows[0]], joints[rows]) for rows in rows_of.values())
    return Recording(outline.num_frames, tuple(bodies))
