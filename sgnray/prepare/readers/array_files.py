"""Arrays in files: their shapes, checked before any number is read, and jobs that read their rows.

Nothing is unpickled.
"""

from __future__ import annotations

import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from sgnray.data.skipped import Skipped
from sgnray.errors import ClipError, InputError, Problem, first_line
from sgnray.prepare.clip import Clip, ClipFacts, Poses
from sgnray.prepare.plan import JOB_BYTES, PartJob
from sgnray.storage.location import Entry, Location

_MAX_ROW_BYTES = 64 * 2**20
# The strongest compression of these files is zlib's: at most 1032 times.
_MAX_RATIO = 1040
OWN_CLIPS = (
    "clips of your own go into a table that a .yaml file describes: 'Your own skeletons' in "
    ".github/docs/data.md"
)
# What h5py, zipfile and numpy raise over damaged files.
_ERRORS = (
    *(OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError),
    *(EOFError, SyntaxError, struct.error, zlib.error, zipfile.BadZipFile, tokenize.TokenError),
)

Array = npt.NDArray[Any]
Row = ClipFacts | Skipped  # what is known about the clip of a row, or why it is left out
ReadRows = Callable[[int, int], Array]  # from a row to another one, of one array
ReadClip = Callable[[Array], Poses]


@dataclass(frozen=True)
class ArraySpec:
    """One array of a file; `chunk_rows` is how many rows can only be read together.

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


def describe_array(stream: Any, file_bytes: int, stored_bytes: int) -> ArraySpec:
    """Describe the .npy file that a stream begins with."""
    shape, dtype, in_columns = read_header(stream)
    data_start = stream.tell()
    if dtype.hasobject:
        return ArraySpec(problem="contains Python objects, which are never unpickled")
    spec = ArraySpec(shape, dtype, stored_bytes)
    if min(shape, default=0) < 0 or data_start + spec.num_bytes != file_bytes:
        return ArraySpec(problem=f"is cut off: its header declares the shape {shape}")
    if in_columns and len(shape) > 1:
        return ArraySpec(problem="is stored by columns: save np.ascontiguousarray of it")
    return spec


def read_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Read shape, type and order; only format 1.0, whose header is below 64 KiB."""
    if npy_format.read_magic(stream) != (1, 0):
        raise ValueError("an array's header has an unusual format")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a header that numpy has to repair is damaged
        try:
            shape, in_columns, dtype = npy_format.read_array_header_1_0(stream)
        except Warning as warning:
            raise ValueError(str(warning)) from warning
    return shape, dtype, in_columns


def read_rows_at(stream: Any, spec: ArraySpec, data_start: int, start: int, stop: int) -> Array:
    """Read some rows of an array whose numbers begin at `data_start` of a stream."""
    stream.seek(data_start + start * spec.row_bytes)
    data = stream.read((stop - start) * spec.row_bytes)
    return np.frombuffer(data, spec.dtype).reshape(stop - start, *spec.shape[1:])


def find_array_problem(spec: ArraySpec | None, num_axes: int, entry: Entry) -> str | None:
    """Explain why an array of poses, or one of labels with its two axes, cannot be used."""
    if spec is None:
        return "is missing"
    if spec.problem is not None:
        return spec.problem
    if spec.dtype.kind not in ("fiub" if num_axes == 2 else "f") or spec.dtype.itemsize > 8:
        known = "numbers" if num_axes == 2 else "floats"
        return f"contains {spec.dtype}, not {known} of 64 bits or less"
    if len(spec.shape) != num_axes or 0 in spec.shape[1:]:
        return f"has the shape {spec.shape}, not {num_axes} axes"
    if spec.row_bytes > _MAX_ROW_BYTES:
        return f"has rows of {spec.row_bytes:,} bytes, more than any clip needs"
    if spec.stored_bytes > entry.size_bytes or spec.num_bytes > spec.stored_bytes * _MAX_RATIO:
        return f"has the shape {spec.shape}, for which the file is too small (cut off?)"
    return None


def cut_row_jobs(
    read_rows: ReadRows, spec: ArraySpec, rows: Sequence[Row], read_clip: ReadClip
) -> Iterator[PartJob]:
    """Cut an array into jobs of about 16 MiB, at the borders of its chunks if they are small."""
    step = max(1, JOB_BYTES // spec.row_bytes)
    if spec.chunk_rows * spec.row_bytes <= _MAX_ROW_BYTES:
        step = -(-step // spec.chunk_rows) * spec.chunk_rows
    for start in range(0, len(rows), step):
        own = rows[start : start + step]
        yield PartJob(len(own), partial(_prepare_rows, read_rows, start, own, read_clip))


def _prepare_rows(
    read_rows: ReadRows, start: int, rows: Sequence[Row], read_clip: ReadClip
) -> Iterator[Clip | Skipped]:
    """Yield one result for each of some rows; InputError if the file itself is damaged."""
    numbers = read_rows(start, start + len(rows))
    for row, numbers_of_row in zip(rows, numbers, strict=True):
        if isinstance(row, Skipped):
            yield row
            continue
        try:
            yield Clip(row, read_clip(numbers_of_row))
        except ClipError as error:
            yield Skipped(row.name, error.what)


@contextmanager
def reading_file(location: Location) -> Iterator[None]:
    """Turn a library's errors for a damaged file into an InputError."""
    try:
        yield
    except PermissionError as error:
        what = "the file cannot be read: permission denied"
        raise InputError(what, where=str(location), now="make it readable") from error
    except _ERRORS as error:
        reason = f"the file is corrupt or cannot be read: {first_line(error)}"
        raise refuse_file(location, reason) from error


def refuse_file(location: Location, what: str, problems: Sequence[Problem] = ()) -> InputError:
    """Build the InputError for a file that cannot be used as a whole."""
    now = f"download or write this file again; {OWN_CLIPS}"
    return InputError(what, where=str(location), now=now, problems=problems)
