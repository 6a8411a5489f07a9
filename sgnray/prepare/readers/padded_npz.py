"""Arrays of a .npz file, read by rows without ever inflating one whole, and never unpickled."""

from __future__ import annotations

import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from sgnray.prepare.readers.padded_arrays import Array, ArraySpec, reading
from sgnray.storage.location import Location

ZIP_MAGIC = b"PK\x03\x04"
_SUFFIX = ".npy"
_NPZ_ERRORS = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError,
    EOFError, SyntaxError, struct.error, zlib.error, zipfile.BadZipFile, tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class NpzArrays:
    """The arrays of a .npz file; `changed` is its time, so that a rewritten one is opened anew."""

    location: Location
    changed: int

    def describe(self, names: Sequence[str]) -> dict[str, ArraySpec]:
        """Describe those of the named arrays that are there."""
        with (
            reading(self.location, _NPZ_ERRORS),
            self.location.open() as file,
            zipfile.ZipFile(file) as archive,
        ):
            held = {info.filename: info for info in archive.infolist()}
            wanted = [name for name in names if name + _SUFFIX in held]
            return {name: _describe(archive, held[name + _SUFFIX]) for name in wanted}

    def read_rows(self, name: str, start: int, stop: int) -> Array:
        """Read some rows of an array; InputError if they are damaged."""
        try:
            with reading(self.location, _NPZ_ERRORS):
                return _open_member(self.location, self.changed, name).read_rows(start, stop)
        except Exception:
            _open_member.cache_clear()  # nobody knows where a cursor stands that has failed
            raise


class _Member:
    """A cursor on one array of an archive: going forward is cheap, going back starts again."""

    def __init__(self, location: Location, name: str) -> None:
        self._archive = zipfile.ZipFile(location.open())
        self._stream = self._archive.open(name + _SUFFIX)
        self._shape, self._dtype, _ = _read_header(self._stream)
        self._data_start = self._stream.tell()

    def read_rows(self, start: int, stop: int) -> Array:
        row_bytes = prod(self._shape[1:]) * self._dtype.itemsize
        self._stream.seek(self._data_start + start * row_bytes)
        data = self._stream.read((stop - start) * row_bytes)
        rows = np.frombuffer(data, self._dtype)
        return rows.reshape(stop - start, *self._shape[1:])


@lru_cache(maxsize=1)
def _open_member(location: Location, changed: int, name: str) -> _Member:
    return _Member(location, name)


def _describe(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArraySpec:
    if info.flag_bits & 1:
        return ArraySpec(problem="is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return ArraySpec(problem="is compressed in a way that numpy does not write")
    with archive.open(info) as stream:
        shape, dtype, in_columns = _read_header(stream)
        data_start = stream.tell()
    if dtype.hasobject:
        return ArraySpec(problem="holds Python objects, which are never unpickled")
    spec = ArraySpec(shape, dtype, info.compress_size)
    if min(shape, default=0) < 0 or data_start + spec.num_bytes != info.file_size:
        return ArraySpec(problem=f"is cut off: its header announces the shape {shape}")
    if in_columns and len(shape) > 1:
        return ArraySpec(problem="is stored by columns: save np.ascontiguousarray of it")
    return spec


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
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
