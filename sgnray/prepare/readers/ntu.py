"""A strict reader of NTU RGB+D's .skeleton files and their names.

Files are read in two steps, many at a time. The outline of a file follows the declared counts from
line to line, without parsing a coordinate or allocating anything for a count. Then pyarrow's CSV
reader parses the joint lines of many files at once, 25 for each body and frame: decimal to float64
to float32, correctly rounded. Of the 12 columns of a joint line, only x, y and z are read; the
others must be present. A file that this reader does not accept is read again line by line by
`_read_plainly`, whose plain rules define what is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from sgnray.data.datasets import DATASETS, NTU60_SETUPS, NTU_CLIP_NAME
from sgnray.data.skeleton import NTU25, Skeleton
from sgnray.data.store import FloatArray
from sgnray.errors import ClipError
from sgnray.prepare.clip import Body, ClipFacts, Recording, refusal

_NAME = re.compile(NTU_CLIP_NAME.pattern + r"\.skeleton", re.ASCII)
_NUM_JOINTS = NTU25.num_joints
_JOINT_COLUMNS = 12
_BODY_COLUMNS = 10
_LINES_PER_BODY = 2 + _NUM_JOINTS
_MAX_COUNT_DIGITS = 12
_MAX_ID_DIGITS = 20
_DECIMAL = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FIRST_PRINTABLE, _LAST_PRINTABLE = ord(" "), ord("~")
_NEWLINE, _RETURN = ord("\n"), ord("\r")
# A larger file with shorter lines on average is not a recording, and its index would be large.
_LARGE_BYTES, _MIN_LINE_BYTES = 4 << 20, 8
_SOME = 64  # bytes, enough to see that most files are not empty
_FEW = {b"%d%s" % (count, end): count for count in range(10) for end in (b"", b"\r")}
_PLAIN_NUM_JOINTS = (b"%d" % _NUM_JOINTS, b"%d\r" % _NUM_JOINTS)

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

Bounds = memoryview  # of int64; one more entry than lines


def detect_ntu(head: bytes) -> Skeleton | None:
    """Detect a .skeleton file by the number of frames that it begins with."""
    return NTU25 if re.match(rb"\s*\d+\s", head) else None


def parse_ntu_name(file_name: str) -> ClipFacts:
    """Read SsssCcccPpppRrrrAaaa.skeleton; the label is the action - 1. ClipError otherwise."""
    match = _NAME.fullmatch(file_name)
    if match is None:
        raise refusal("not an NTU name (SsssCcccPpppRrrrAaaa.skeleton)")
    setup, camera, subject, replication, action = (int(number) for number in match.groups())
    if min(setup, camera, subject, replication, action) < 1:
        raise refusal("a number in the name is zero")
    return ClipFacts(file_name[:-9], action - 1, setup, camera, subject, replication)


def parse_ntu_names(names: Iterable[str]) -> dict[str, ClipFacts]:
    """Read the names of clips, without a suffix, if all of them are NTU's; else return nothing."""
    try:
        return {name: parse_ntu_name(f"{name}.skeleton") for name in names}
    except ClipError:
        return {}


def name_ntu(facts: Iterable[ClipFacts]) -> str:
    """Distinguish ntu60 from ntu120 by the setups and actions that occur."""
    num_classes = DATASETS["ntu60"].num_classes
    is_ntu60 = all((fact.setup or 0) <= NTU60_SETUPS and fact.label < num_classes for fact in facts)
    return "ntu60" if is_ntu60 else "ntu120"


def read_skeletons(files: Sequence[bytes]) -> list[Recording | ClipError]:
    """Read whole .skeleton files; a ClipError names the wrong line of an invalid file."""
    results: list[Recording | ClipError] = [refusal("unread")] * len(files)
    outlines: dict[int, _Outline] = {}
    for index, data in enumerate(files):
        try:
            outlines[index] = _read_outline(data)
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


@dataclass(frozen=True, eq=False)
class _Outline:
    """Where the bodies of one file are; `starts` and `stops` bound their joint lines in `text`.

    One entry for each body in each frame; `frames` counts only frames that have a body.
    """

    text: bytes
    num_frames: int
    frames: list[int]
    ids: list[int]
    starts: list[int]
    stops: list[int]

    def joint_lines(self) -> list[memoryview]:
        """Return the text of each body in each frame."""
        view = memoryview(self.text)
        return [view[start:stop] for start, stop in zip(self.starts, self.stops, strict=True)]


def _read_outline(data: bytes) -> _Outline:
    """Follow the declared counts through all lines; ClipError if they do not fit the lines."""
    text, bounds = _find_lines(data)
    num_lines = len(bounds) - 1
    announced = _read_count(text, bounds, 0, "frames")
    if announced > num_lines - 1:
        raise _refuse_line(0, f"declares {announced} frames, but only {num_lines - 1} lines follow")
    body_lines: list[int] = []
    frames: list[int] = []
    frame, position = 0, 1
    for _ in range(announced):
        num_bodies = _read_count(text, bounds, position, "bodies")
        start = position + 1
        position = start + num_bodies * _LINES_PER_BODY
        if position > num_lines:
            raise _refuse_line(
                start - 1,
                f"declares {num_bodies} bodies, but only {num_lines - start} lines follow "
                "(cut off?)",
            )
        if num_bodies:
            body_lines.extend(range(start, position, _LINES_PER_BODY))
            frames.extend([frame] * num_bodies)
            frame += 1
    if position < num_lines:
        raise _refuse_line(position, f"continues after the {announced} frames it declares")
    if not body_lines:
        raise refusal("no frame has a body")
    ids = _read_ids(text, bounds, body_lines)
    _check_ids(frames, ids, body_lines)
    return _Outline(
        text=text,
        num_frames=frame,
        frames=frames,
        ids=ids,
        starts=[bounds[line + 2] + 1 for line in body_lines],
        stops=[bounds[line + _LINES_PER_BODY] + 1 for line in body_lines],
    )


def _find_lines(data: bytes) -> tuple[bytes, Bounds]:
    """Return the text and its bounds: line i is between bounds[i] and bounds[i + 1].

    A carriage return is kept at the end of its line, and refused if no newline follows. The end of
    the file also ends a line.
    """
    if not data[:_SOME].strip() and not data.strip():
        raise refusal("empty")
    if len(data) > _LARGE_BYTES and data.count(b"\n") > len(data) // _MIN_LINE_BYTES:
        raise refusal("has too many lines for its size")
    text = _without_blank_end(data)
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == _NEWLINE)
    num_pairs = np.count_nonzero(characters[ends - 1] == _RETURN)
    num_control = np.count_nonzero(characters < _FIRST_PRINTABLE)
    if num_control != len(ends) + num_pairs or characters.max() > _LAST_PRINTABLE:
        raise refusal("not a text file")
    # A view makes plain ints only when they are read, and few are; a list would make all of them.
    return text, np.concatenate(([-1], ends)).data


def _without_blank_end(data: bytes) -> bytes:
    """Drop blank lines at the end, and end the last line with a newline."""
    text = data if data.endswith(b"\n") else data + b"\n"
    if text[-3:-1].rstrip(b"\r")[-1:].strip():
        return text
    kept = len(text.rstrip(b" \r\n"))
    end = text.find(b"\n", kept) + 1
    if text[end:].replace(b"\r\n", b"\n").strip(b" \n"):
        raise refusal("not a text file")
    return text[:end]


def _read_count(text: bytes, bounds: Bounds, index: int, what: str) -> int:
    if index >= len(bounds) - 1:
        raise _refuse_line(index, f"ends where the number of {what} should be (cut off?)")
    line = text[bounds[index] + 1 : bounds[index + 1]]
    count = _FEW.get(line)
    if count is not None:
        return count
    line = line.strip()
    if not line.isdigit() or len(line) > _MAX_COUNT_DIGITS:
        raise _refuse_line(index, f"the number of {what} is {_quote(line)}")
    return int(line)


def _read_ids(text: bytes, bounds: Bounds, body_lines: list[int]) -> list[int]:
    """Check the two lines above each body's joints; returns the bodies' ids."""
    ids: list[int] = []
    known: dict[bytes, int] = {}
    for line in body_lines:
        start, middle = bounds[line] + 1, bounds[line + 1]
        token = text[start : text.find(b" ", start)]
        body_id = known.get(token)
        # Both lines of a known body are nearly always plain, so check them without parsing.
        if (
            body_id is None
            or text.count(b" ", start, middle) != _BODY_COLUMNS - 1
            or text[middle + 1 : bounds[line + 2]] not in _PLAIN_NUM_JOINTS
        ):
            body_id = known[token] = _read_body(text, bounds, line)
        ids.append(body_id)
    return ids


def _read_body(text: bytes, bounds: Bounds, index: int) -> int:
    """Read one body's id, and refuse its two header lines if they are invalid."""
    middle = bounds[index + 1]
    columns = text[bounds[index] + 1 : middle].removesuffix(b"\r").split(b" ")
    if len(columns) != _BODY_COLUMNS:
        raise _refuse_line(index, f"a body line has {len(columns)} columns, not {_BODY_COLUMNS}")
    if not columns[0].isdigit() or len(columns[0]) > _MAX_ID_DIGITS:
        raise _refuse_line(index, f"the body id is {_quote(columns[0])}")
    announced = _read_count(text, bounds, index + 1, "joints")
    if announced != _NUM_JOINTS:
        raise _refuse_line(index + 1, f"declares {announced} joints, not {_NUM_JOINTS}")
    return int(columns[0])  # 17 digits: exact as an int, not as a float


def _check_ids(frames: list[int], ids: list[int], body_lines: list[int]) -> None:
    seen: set[tuple[int, int]] = set(zip(frames, ids, strict=True))
    if len(seen) == len(ids):
        return
    for frame, body_id, line in zip(frames, ids, body_lines, strict=True):
        if (frame, body_id) not in seen:
            raise _refuse_line(line, "the same body id twice in one frame")
        seen.remove((frame, body_id))


def _parse(blocks: Sequence[memoryview]) -> FloatArray | None:
    """Parse joint lines: float32 (bodies in frames, V, C); None unless all are plain and finite."""
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
    if table.num_rows != len(blocks) * _NUM_JOINTS:
        return None
    joints = np.empty((table.num_rows, 3), np.float32)
    row = 0
    with np.errstate(over="ignore"):
        for batch in table.to_batches():  # a whole column would be copied first
            for axis, column in enumerate(batch.columns):
                joints[row : row + batch.num_rows, axis] = column.to_numpy()
            row += batch.num_rows
    return joints.reshape(-1, _NUM_JOINTS, 3) if np.isfinite(joints).all() else None


def _read_alone(outline: _Outline) -> FloatArray:
    # One bad number makes the whole block fail, but the other files of the block may be valid.
    joints = _parse(outline.joint_lines())
    return _read_plainly(outline) if joints is None else joints


def _read_plainly(outline: _Outline) -> FloatArray:
    """Read the joint lines one by one, as _parse does; ClipError with the first wrong line."""
    numbers: list[npt.NDArray[np.float32]] = []
    first_line = counted = 0
    for start, stop in zip(outline.starts, outline.stops, strict=True):
        first_line += outline.text.count(b"\n", counted, start)
        counted = start
        for index, line in enumerate(outline.text[start : stop - 1].split(b"\n"), first_line):
            numbers.append(_read_joint(line.removesuffix(b"\r"), index))
    return np.stack(numbers).reshape(-1, _NUM_JOINTS, 3)


def _read_joint(line: bytes, index: int) -> npt.NDArray[np.float32]:
    columns = line.split(b" ")
    if len(columns) != _JOINT_COLUMNS:
        raise _refuse_line(index, f"a joint line has {len(columns)} columns, not {_JOINT_COLUMNS}")
    for column in columns[:3]:
        if _DECIMAL.fullmatch(column) is None:
            raise _refuse_line(index, f"the coordinate {_quote(column)} is not a number")
        with np.errstate(over="ignore"):
            if not np.isfinite(np.float32(float(column))):
                raise _refuse_line(
                    index, f"the coordinate {_quote(column)} is too large for float32"
                )
    return np.array([float(column) for column in columns[:3]]).astype(np.float32)


def _assemble(outline: _Outline, joints: FloatArray) -> Recording:
    rows_of: dict[int, list[int]] = {}
    for row, body_id in enumerate(outline.ids):
        rows_of.setdefault(body_id, []).append(row)
    if len(rows_of) == 1:
        return Recording(outline.num_frames, (Body(0, joints),))
    frames = outline.frames
    bodies = (Body(frames[rows[0]], joints[rows]) for rows in rows_of.values())
    return Recording(outline.num_frames, tuple(bodies))


def _refuse_line(index: int, reason: str) -> ClipError:
    """Build the refusal of a file at one of its lines, by 0-based index."""
    return refusal(f"line {index + 1}: {reason}")


def _quote(token: bytes) -> str:
    """Quote a token of a file's text, shortened and escaped."""
    text = token[:24].decode("ascii", "backslashreplace")
    return f"'{text}{'...' if len(token) > 24 else ''}'"
