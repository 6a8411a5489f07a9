"""Datasets on another machine or at a URI, fetched to this one: once, completely or not at all.

A copy is kept in `datasets/<first 16 hex digits of its identity>` under `$SGNRAY_CACHE`, else
`$XDG_CACHE_HOME/sgnray`, else `~/.cache/sgnray`. Only broken copies are ever removed; delete old
ones by hand.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sgnray.data.info import INFO_FILE, REBUILD, parse_info, read_info
from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.data.store import CLIPS_FILE, DATASET_FILES, checksum_file
from sgnray.distributed.driver_actors import FileServer
from sgnray.errors import InputError, first_line
from sgnray.storage.atomic import output_errors, replace_folder, sync
from sgnray.storage.location import Location, as_folder, cache_dir
from sgnray.storage.lock import locked

log = logging.getLogger(__name__)

_RECORD_FILE = "cached.json"
_RECORD_VERSION = 1
_CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})")
_NUM_DIGITS = 16
_BLOCK_BYTES = 8 << 20
_MIB = 1 << 20


@dataclass(frozen=True)
class SharedDataset:
    """A dataset of the driver's machine, as its workers receive it."""

    folder: Path
    identity: str
    file_server: FileServer

    @classmethod
    def of(cls, folder: Path) -> SharedDataset:
        """Share a dataset with the workers of the connected cluster."""
        folder = folder.resolve()
        return cls(folder, read_info(folder).identity, FileServer(folder, DATASET_FILES))

    def local_dir(self) -> Path:
        """Return its folder, or if it is missing or differs here, a copy fetched once per machine.

        The copy is checked by the dataset's checksum and kept for later runs.
        """
        try:
            is_same = read_info(self.folder).identity == self.identity
            if is_same and (self.folder / CLIPS_FILE).is_file():
                return self.folder
        except (InputError, OSError):
            log.info("%s is not accessible from this machine", self.folder)
        return cached_dataset(self.identity, self.file_server.copy_to)


def dataset_at(place: Path | str | Location, on_progress: OnProgress = ignore_progress) -> Path:
    """Return the local folder of a dataset; fetch the dataset if `place` is at a URI.

    `on_progress` is called with (MiB fetched, MiB in total). A path is returned as it is.
    """
    place = as_folder(place)
    if isinstance(place, Path):
        return place
    # dataset.json alone, before any large file is fetched.
    source = place.child(INFO_FILE)
    content = b"".join(block for block, _ in _read_blocks(source))
    identity = parse_info(content, where=str(source)).identity

    def copy(folder: Path) -> None:
        log.info("fetching %s: %s", place, folder.parent)
        for name in DATASET_FILES:
            _copy(place.child(name), folder, on_progress if name == CLIPS_FILE else ignore_progress)

    return cached_dataset(identity, copy)


def holds_dataset(place: Path | Location) -> bool:
    """Return whether a folder, here or at a URI, is that of a prepared dataset."""
    if isinstance(place, Path):
        return (place / INFO_FILE).is_file()
    return place.child(INFO_FILE).entry() is not None


def _copy(source: Location, folder: Path, on_progress: OnProgress) -> None:
    """Copy one file into a folder, in blocks."""
    target = folder / source.name
    with output_errors(target), target.open("wb") as file:
        for block, num_bytes in _read_blocks(source):
            file.write(block)
            on_progress(file.tell() // _MIB, num_bytes // _MIB)


def _read_blocks(source: Location) -> Iterator[tuple[bytes, int]]:
    """Yield each block of a file with the size of the whole file; raises InputError."""
    try:
        with source.open() as remote:
            num_bytes = remote.size()
            while block := remote.read(_BLOCK_BYTES):
                yield block, num_bytes
    except FileNotFoundError as error:
        raise InputError(
            "file of the dataset not found",
            where=str(source),
            now="name the folder that holds dataset.json, clips.arrow and skipped.csv",
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"it cannot be read: {first_line(error)}",
            where=str(source),
            now="check the connection and your permissions, then run it again",
        ) from error


def cached_dataset(identity: str, copy: Callable[[Path], None]) -> Path:
    """Return a folder on this machine that holds the dataset with this identity.

    If there is none yet, or its files were changed, `copy` fills an empty folder; other processes
    that need the same dataset wait for it. InputError if `copy` delivers another dataset,
    OutputError if writing fails; then nothing is kept.
    """
    match = _CHECKSUM.fullmatch(identity)
    if match is None:
        raise InputError(
            f"{identity!r} is not a checksum of a dataset",
            where=INFO_FILE,
            now=REBUILD,
        )
    folder = cache_dir() / "datasets" / match[1][:_NUM_DIGITS]
    if _is_intact(folder, identity):
        return folder
    waiting = "waiting for another process that fetches this dataset"
    with locked(folder.with_name(f"{folder.name}.lock"), busy=waiting):
        if not _is_intact(folder, identity):  # it may have been fetched meanwhile
            _fetch(folder, identity, copy)
    return folder


def _fetch(folder: Path, identity: str, copy: Callable[[Path], None]) -> None:
    partial, previous = (folder.with_name(folder.name + end) for end in (".partial", ".previous"))
    if folder.exists():
        log.warning("the copy in %s was changed; it is fetched again", folder)
    for left in (partial, previous):  # from a killed fetch
        shutil.rmtree(left, ignore_errors=True)
    with output_errors(partial):
        partial.mkdir()
    try:
        copy(partial)
        _check_copy(partial, identity)
        with output_errors(folder):
            _write_record(partial, identity)
            replace_folder(partial, folder, previous=previous)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(previous, ignore_errors=True)


def _check_copy(partial: Path, identity: str) -> None:
    """Raise InputError unless the folder holds the requested dataset."""
    path, found = partial / CLIPS_FILE, "none"
    if path.is_file():
        info = read_info(partial)
        found = info.identity if checksum_file(path) == info.checksum else "damaged"
    if found != identity:
        raise InputError(
            "the fetched dataset is not the requested one",
            where=f"{CLIPS_FILE}: {found}, wanted {identity}",
            now="check the original with sgn data verify, then run this again",
        )


def _write_record(folder: Path, identity: str) -> None:
    """Record size and mtime of each file, to detect changes without reading it."""
    files = sorted(folder.iterdir())
    for path in files:
        sync(path)
    stamps = {path.name: _stamp(path) for path in files}
    record = {"format_version": _RECORD_VERSION, "checksum": identity, "files": stamps}
    (folder / _RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _is_intact(folder: Path, identity: str) -> bool:
    """Return whether the folder is unchanged since it was fetched."""
    try:
        record = json.loads((folder / _RECORD_FILE).read_text(encoding="utf-8"))
        return bool(
            record["format_version"] == _RECORD_VERSION
            and record["checksum"] == identity
            and all(_stamp(folder / name) == stamp for name, stamp in record["files"].items())
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False
