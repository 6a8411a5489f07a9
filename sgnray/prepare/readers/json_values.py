"""Values of JSON files: numbers, names, and the frames that they are in."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from sgnray.errors import ClipError
from sgnray.prepare.clip import refusal
from sgnray.prepare.readers.people import Floats

MAX_NUMBER = 2**53  # float64 is exact for integers below this
# The name of an image with the number of its frame, such as clip_12.jpg or 12.
_NUMBERED = re.compile(
    r"(.*?)(\d{1,15})(\D*?(?:\.[a-z]\w*)?)", re.ASCII | re.IGNORECASE | re.DOTALL
)


def parse_json(data: bytes) -> Any:
    """Parse JSON; ClipError says where it is malformed."""
    with json_errors():
        return json.loads(data)


@contextmanager
def json_errors() -> Iterator[None]:
    """Turn an error of a parser of JSON into a ClipError that says where it is malformed."""
    try:
        yield
    except RecursionError as error:
        raise refusal("malformed JSON: nested too deeply") from error
    except ValueError as error:
        raise refusal(f"malformed JSON: {error}") from error


def is_object_with(head: bytes, *groups: Sequence[bytes]) -> bool:
    """Return whether a file begins with an object, and has all keys of one of the groups."""
    has_keys = any(all(key in head for key in keys) for keys in groups)
    return has_keys and head.lstrip().startswith(b"{")


def read_list(content: Any, key: str) -> list[Any]:
    """Return the list of an object; ClipError if there is none."""
    listed = content.get(key) if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise refusal(f"not a JSON object with a list `{key}`")
    return listed


@contextmanager
def in_frame(name: object) -> Iterator[None]:
    """Add the name of the frame to a ClipError."""
    try:
        yield
    except ClipError as error:
        raise refusal(f"frame {name}: {error.what}") from error


def read_numbers(values: object, *, what: str) -> Floats:
    """Convert a JSON list to an array; ClipError if it is ragged or holds something else.

    null becomes NaN: JSON has no NaN, and writers that follow the standard put null.
    """
    try:
        array = np.array(values)
    except ValueError as error:
        raise refusal(f"{what} is not a regular list") from error
    is_listed = array.ndim > 0 and array.dtype == object
    if is_listed and all(item is None or type(item) in (int, float) for item in array.flat):
        with suppress(OverflowError):
            array = array.astype(np.float64)
    if array.size and array.dtype.kind not in "fiu":
        raise refusal(f"{what} contains something that is not a number")
    return array.astype(np.float64)


def show_name(name: object) -> str:
    """Return the start of a name in a file, for a message of one line."""
    shown = str(name)[:40]
    return "".join(each if each.isprintable() else "?" for each in shown)


def find_repeated(values: Iterable[Hashable]) -> int | None:
    """Return the index of the first value that is equal to an earlier one."""
    seen: set[Hashable] = set()
    for index, value in enumerate(values):
        if value in seen:
            return index
        seen.add(value)
    return None


def number_frames(ids: Sequence[Any], key: str) -> list[int] | None:
    """Return the frames' numbers: integers, or in names that are otherwise the same.

    ClipError if they descend.
    """
    numbers = list(ids)
    if all(isinstance(name, str) for name in ids):
        matches = [match for name in ids if (match := _NUMBERED.fullmatch(name))]
        if len(matches) < len(ids) or len({match.group(1, 3) for match in matches}) > 1:
            return None
        numbers = [int(match[2]) for match in matches]
    elif not all(type(number) is int and abs(number) < MAX_NUMBER for number in ids):
        return None
    for index in range(1, len(ids)):
        if numbers[index] < numbers[index - 1]:
            what = f"{show_name(ids[index])} comes after {show_name(ids[index - 1])}"
            raise refusal(f"not sorted by {key}: {what}; sort the frames by their numbers")
    return numbers
