"""The outline of an NTU RGB+D .skeleton file: where its bodies are, with no coordinate parsed.

The announced counts are followed from line to line, and nothing is allocated for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgnray.errors import ClipError
from sgnray.prepare.clip import refusal

NUM_JOINTS = 25
_BODY_COLUMNS = 10
_LINES_PER_BODY = 2 + NUM_JOINTS
_MAX_COUNT_DIGITS = 12
_MAX_ID_DIGITS = 20
_FIRST_PRINTABLE, _LAST_PRINTABLE = ord(" "), ord("~")
_NEWLINE, _RETURN = ord("\n"), ord("\r")
# Beyond a few MB, lines this short on average are no recording's, and their index would be large.
_LARGE_BYTES, _MIN_LINE_BYTES = 4 << 20, 8
_SOME = 64  # bytes that tell most files from empty ones
_FEW = {b"%d%s" % (count, end): count for count in range(10) for end in (b"", b"\r")}
_PLAIN_NUM_JOINTS = (b"%d" % NUM_JOINTS, b"%d\r" % NUM_JOINTS)

Bounds = memoryview  # of int64: one more than lines


@dataclass(frozen=True, eq=False)
class Outline:
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
        """Give the text of each body in each frame."""
        view = memoryview(self.text)
        return [view[start:stop] for start, stop in zip(self.starts, self.stops, strict=True)]


def read_outline(data: bytes) -> Outline:
    """Follow the announced counts through all lines; ClipError where they lead astray."""
    text, bounds = _find_lines(data)
    num_lines = len(bounds) - 1
    announced = _read_count(text, bounds, 0, "frames")
    if announced > num_lines - 1:
        raise refuse_line(0, f"announces {announced} frames, but only {num_lines - 1} lines follow")
    body_lines: list[int] = []
    frames: list[int] = []
    frame, position = 0, 1
    for _ in range(announced):
        num_bodies = _read_count(text, bounds, position, "bodies")
        start = position + 1
        position = start + num_bodies * _LINES_PER_BODY
        if position > num_lines:
            raise refuse_line(
                start - 1,
                f"announces {num_bodies} bodies, but only {num_lines - start} lines follow "
                "(cut off?)",
            )
        if num_bodies:
            body_lines.extend(range(start, position, _LINES_PER_BODY))
            frames.extend([frame] * num_bodies)
            frame += 1
    if position < num_lines:
        raise refuse_line(position, f"goes on after the {announced} frames it announces")
    if not body_lines:
        raise refusal("no frame has a body")
    ids = _read_ids(text, bounds, body_lines)
    _check_ids(frames, ids, body_lines)
    return Outline(
        text=text,
        num_frames=frame,
        frames=frames,
        ids=ids,
        starts=[bounds[line + 2] + 1 for line in body_lines],
        stops=[bounds[line + _LINES_PER_BODY] + 1 for line in body_lines],
    )


def _find_lines(data: bytes) -> tuple[bytes, Bounds]:
    """Return the text and its bounds: line i lies between bounds[i] and bounds[i + 1].

    A carriage return stays at the end of its line; where no newline follows it is refused. The
    file's end is as good as a newline.
    """
    if not data[:_SOME].strip() and not data.strip():
        raise refusal("empty")
    if len(data) > _LARGE_BYTES and data.count(b"\n") > len(data) // _MIN_LINE_BYTES:
        raise refusal("has more lines than a recording of its size")
    text = _without_blank_end(data)
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == _NEWLINE)
    num_pairs = np.count_nonzero(characters[ends - 1] == _RETURN)
    num_control = np.count_nonzero(characters < _FIRST_PRINTABLE)
    if num_control != len(ends) + num_pairs or characters.max() > _LAST_PRINTABLE:
        raise refusal("not a text file")
    # A view gives plain ints one by one, of which few are asked for; a list would make them all.
    return text, np.concatenate(([-1], ends)).data


def _without_blank_end(data: bytes) -> bytes:
    """Drop blank lines at the end, and let the last line end with a newline."""
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
        raise refuse_line(index, f"ends where the number of {what} should be (cut off?)")
    line = text[bounds[index] + 1 : bounds[index + 1]]
    count = _FEW.get(line)
    if count is not None:
        return count
    line = line.strip()
    if not line.isdigit() or len(line) > _MAX_COUNT_DIGITS:
        raise refuse_line(index, f"the number of {what} is {quote(line)}")
    return int(line)


def _read_ids(text: bytes, bounds: Bounds, body_lines: list[int]) -> list[int]:
    """Check the two lines above each body's joints; returns the bodies' ids."""
    ids: list[int] = []
    known: dict[bytes, int] = {}
    for line in body_lines:
        start, middle = bounds[line] + 1, bounds[line + 1]
        token = text[start : text.find(b" ", start)]
        body_id = known.get(token)
        # Both lines of a body seen before are nearly always plain: told without taking them apart.
        if (
            body_id is None
            or text.count(b" ", start, middle) != _BODY_COLUMNS - 1
            or text[middle + 1 : bounds[line + 2]] not in _PLAIN_NUM_JOINTS
        ):
            body_id = known[token] = _read_body(text, bounds, line)
        ids.append(body_id)
    return ids


def _read_body(text: bytes, bounds: Bounds, index: int) -> int:
    """Read one body's id, and refuse two lines that are not as they must be."""
    middle = bounds[index + 1]
    columns = text[bounds[index] + 1 : middle].removesuffix(b"\r").split(b" ")
    if len(columns) != _BODY_COLUMNS:
        raise refuse_line(index, f"a body line has {len(columns)} columns, not {_BODY_COLUMNS}")
    if not columns[0].isdigit() or len(columns[0]) > _MAX_ID_DIGITS:
        raise refuse_line(index, f"the body id is {quote(columns[0])}")
    announced = _read_count(text, bounds, index + 1, "joints")
    if announced != NUM_JOINTS:
        raise refuse_line(index + 1, f"announces {announced} joints, not {NUM_JOINTS}")
    return int(columns[0])  # 17 digits: exact as an int, not as a float


def _check_ids(frames: list[int], ids: list[int], body_lines: list[int]) -> None:
    seen: set[tuple[int, int]] = set(zip(frames, ids, strict=True))
    if len(seen) == len(ids):
        return
    for frame, body_id, line in zip(frames, ids, body_lines, strict=True):
        if (frame, body_id) not in seen:
            raise refuse_line(line, "the same body id twice in one frame")
        seen.remove((frame, body_id))


def refuse_line(index: int, reason: str) -> ClipError:
    """Build the refusal of a file at one of its lines, by 0-based index."""
    return refusal(f"line {index + 1}: {reason}")


def quote(token: bytes) -> str:
    """Show a token of foreign text, shortened and harmless."""
    text = token[:24].decode("ascii", "backslashreplace")
    return f"'{text}{'...' if len(token) > 24 else ''}'"
