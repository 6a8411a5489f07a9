"""A dataset that lies elsewhere, behind a URI, brought to this machine through the cache."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from sgnray.data.cache import cached_dataset
from sgnray.data.info import INFO_FILE, DatasetInfo, read_info
from sgnray.data.store import CLIPS_FILE, SKIPPED_FILE
from sgnray.errors import InputError, first_line
from sgnray.progress import OnProgress
from sgnray.storage.atomic import output_errors
from sgnray.storage.location import Location, as_folder

log = logging.getLogger(__name__)

_BLOCK_BYTES = 8 << 20
_MIB = 1 << 20


def dataset_at(text: str, on_progress: OnProgress | None = None) -> Path:
    """Return the folder of the dataset that a path or a URI names, fetched if it lies elsewhere.

    `on_progress` is called with (MiB fetched, MiB). A path is returned as it is.
    """
    place = as_folder(text)
    if isinstance(place, Path):
        return place
    info = _read_remote_info(place)

    def copy(folder: Path) -> None:
        log.info("fetching %s: %s", place, folder.parent)
        _copy(place.child(CLIPS_FILE), folder, on_progress)
        _copy(place.child(SKIPPED_FILE), folder)
        _copy(place.child(INFO_FILE), folder)

    return cached_dataset(info.checksum, copy)


def _read_remote_info(place: Location) -> DatasetInfo:
    """Read dataset.json where it lies, before anything big is fetched."""
    with tempfile.TemporaryDirectory(prefix="sgn-") as folder:
        _copy(place.child(INFO_FILE), Path(folder))
        try:
            return read_info(Path(folder))
        except InputError as error:
            raise InputError(
                error.what, where=str(place.child(INFO_FILE)), now=error.now
            ) from error


def _copy(source: Location, folder: Path, on_progress: OnProgress | None = None) -> None:
    """Copy one file into a folder, in blocks."""
    target = folder / source.name
    with _input_errors(source):
        remote = source.open()
    with remote, output_errors(target), target.open("wb") as file:
        num_bytes = _size_of(source, remote)
        while block := _read_block(source, remote):
            file.write(block)
            if on_progress is not None:
                on_progress(file.tell() // _MIB, num_bytes // _MIB)


def _size_of(source: Location, remote: pa.NativeFile) -> int:
    with _input_errors(source):
        return int(remote.size())


def _read_block(source: Location, remote: pa.NativeFile) -> bytes:
    with _input_errors(source):
        return bytes(remote.read(_BLOCK_BYTES))


@contextmanager
def _input_errors(source: Location) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        is_absent = isinstance(error, FileNotFoundError)
        raise InputError(
            "file of the dataset not found"
            if is_absent
            else f"it cannot be read: {first_line(error)}",
            where=str(source),
            now="name the folder that holds dataset.json, clips.arrow and skipped.csv"
            if is_absent
            else "check the connection and your rights there, then run it again",
        ) from error
