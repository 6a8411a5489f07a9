"""What a file of padded clips holds: its arrays, described before a number of them is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sgnray.errors import InputError, Problem
from sgnray.storage.location import Location

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ArraySpec:
    """One array of a file; `chunk_rows` are its rows that can only be read together.

    `problem` says why it cannot be used, if that is already known.
    """

    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = np.dtype(np.float32)  # noqa: RUF009 - a dtype never changes
    stored_bytes: int = 0
    chunk_rows: int = 1
    problem: str | None = None

    @property
    def num_bytes(self) -> int:
        """Size of all its numbers."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Size of one row's numbers."""
        return prod(self.shape[1:]) * self.dtype.itemsize


class ArrayFile(Protocol):
    """A file of named arrays, small enough to send; every reader opens it anew."""

    @property
    def location(self) -> Location:
        """Where it lies."""

    def describe(self, names: Sequence[str]) -> dict[str, ArraySpec]:
        """Describe those of the named arrays that are there."""

    def read_rows(self, name: str, start: int, stop: int) -> Array:
        """Read some rows of an array; InputError if they are damaged."""


@contextmanager
def reading(location: Location, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Tell what a library raises over a damaged file as an InputError."""
    try:
        yield
    except errors as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise refuse_file(location, f"the file is torn or cannot be read: {said}") from error


def refuse_file(location: Location, what: str, problems: Sequence[Problem] = ()) -> InputError:
    """Build the InputError for a file that cannot be used as a whole."""
    return InputError(
        what, where=str(location), now="fetch or make this file again", problems=problems
    )
