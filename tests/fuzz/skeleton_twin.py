"""The obvious twin of the .skeleton reader: one line at a time, one number at a time."""

import math
import re
import struct

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
COUNT = re.compile(r"\d{1,12}", re.ASCII)


class RefusedError(Exception):
    """The twin refuses a file."""


def read_plainly(data):
    """Return (frames with a body, {id: (first frame, [pose, ...])}); a pose is 25 x (x, y, z)."""
    # The end of the file ends its last line, which may itself end in a carriage return.
    text = f"{data.decode('latin-1')}\n".replace("\r\n", "\n")
    check(all(char == "\n" or " " <= char <= "~" for char in text))
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    lines.reverse()  # so that the next one is popped
    bodies = {}
    frame = 0
    for _ in range(count(lines)):
        seen = set()
        for _ in range(count(lines)):
            info = take(lines).split(" ")
            check(len(info) == 10 and re.fullmatch(r"\d{1,20}", info[0], re.ASCII))
            body_id = int(info[0])
            check(body_id not in seen)
            seen.add(body_id)
            check(count(lines) == 25)
            pose = [joint(take(lines)) for _ in range(25)]
            bodies.setdefault(body_id, (frame, []))[1].append(pose)
        frame += bool(seen)
    check(not lines)
    check(bodies)
    return frame, bodies


def take(lines):
    check(lines)
    return lines.pop()


def count(lines):
    text = take(lines).strip()
    check(COUNT.fullmatch(text))
    check(int(text) <= len(lines))
    return int(text)


def joint(line):
    columns = line.split(" ")
    check(len(columns) == 12)
    check(all(NUMBER.fullmatch(column) for column in columns[:3]))
    return tuple(to_float32(float(column)) for column in columns[:3])


def to_float32(number):
    check(math.isfinite(number))
    try:
        # struct rounds to float32, and refuses what is beyond it.
        return struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError as error:
        raise RefusedError from error


def check(condition):
    if not condition:
        raise RefusedError
