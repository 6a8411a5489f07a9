"""Arrays of an HDF5 file, read by rows; a dataset that leads to another file is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sgnray.prepare.readers.padded_arrays import Array, ArraySpec, reading
from sgnray.storage.location import Location

H5_MAGIC = b"\x89HDF\r\n\x1a\n"
# Chunks of rows that are compressed together are kept while their other rows are asked for.
_CHUNK_CACHE_BYTES = 64 * 2**20
_H5_ERRORS = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class H5Arrays:
    """The datasets at the top of an HDF5 file."""

    location: Location

    def describe(self, names: Sequence[str]) -> dict[str, ArraySpec]:
        """Describe those of the named datasets that are there."""
        with _opened(self.location) as file:
            return {name: _describe(file, name) for name in names if name in file}

    def read_rows(self, name: str, start: int, stop: int) -> Array:
        """Read some rows of a dataset; InputError if they are damaged."""
        with _opened(self.location) as file:
            rows: Array = file[name][start:stop]
        return rows


@contextmanager
def _opened(location: Location) -> Iterator[Any]:
    import h5py

    with (
        reading(location, _H5_ERRORS),
        location.open() as stream,
        h5py.File(stream, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES) as file,
    ):
        yield file


def _describe(file: Any, name: str) -> ArraySpec:
    import h5py

    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        return ArraySpec(problem="is a link to somewhere else")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        return ArraySpec(problem="is no array")
    if dataset.is_virtual or dataset.external:
        return ArraySpec(problem="has its numbers in another file")
    return ArraySpec(
        shape=tuple(int(size) for size in dataset.shape),
        dtype=dataset.dtype,
        stored_bytes=int(dataset.id.get_storage_size()),
        chunk_rows=int(dataset.chunks[0]) if dataset.chunks else 1,
    )
