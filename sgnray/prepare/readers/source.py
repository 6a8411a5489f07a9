"""Raw files that hold one recording each: in folders, in .zip files, or in a folder's .zip files.

Nothing is extracted: a member is read into memory, never further than a fixed bound.
"""

from __future__ import annotations

import errno
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from sgnray.errors import InputError
from sgnray.prepare.clip import Skipped, refusal
from sgnray.prepare.readers import nwucla
from sgnray.storage.location import Entry, Location

MAX_FILE_BYTES = 64 * 1024 * 1024
_SUFFIXES = (".skeleton", ".json")
PART_BYTES = 32 * 1024 * 1024
PART_FILES = 256
_BOMB_BYTES, _BOMB_RATIO = 16 * 1024 * 1024, 200
_REMOTE_BUFFER_BYTES = 1024 * 1024
# What zipfile raises over a broken .zip: RuntimeError for an encrypted member or an unknown
# version, ValueError for a name that is no UTF-8 and for a place before the file's start,
# OverflowError for one beyond any file.
ZIP_ERRORS = (
    *(OSError, zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(KeyError, RuntimeError, ValueError, OverflowError),
)
# The others that zipfile knows unpack without a bound on memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class RawFile:
    """One raw file: at `place`, or the `member` of the .zip at `place`.

    `name` is the last part of its path; `depth` is the number of folders above it, counted from
    what the user named; `changed` tells a rewritten file from the one that was listed.
    """

    name: str
    place: Location
    member: str | None
    size_bytes: int
    depth: int
    changed: int


@dataclass(frozen=True)
class Listing:
    """The raw files that could be recordings, by name, and those refused for their path."""

    files: tuple[RawFile, ...]
    refused: tuple[Skipped, ...]


def list_files(raw: Sequence[Location]) -> Listing:
    """List the raw files of folders (recursively) and .zip files; InputError if a .zip is corrupt.

    A folder's .zip files are opened only if it has no recordings of its own.
    """
    found = [item for place in raw for item in _list_place(place)]
    return Listing(
        files=tuple(sorted((item for item in found if isinstance(item, RawFile)), key=_order)),
        refused=tuple(item for item in found if isinstance(item, Skipped)),
    )


def join_listings(listings: Sequence[Listing]) -> Listing:
    """Make one listing of several."""
    files = [file for listing in listings for file in listing.files]
    refused = [item for listing in listings for item in listing.refused]
    return Listing(tuple(sorted(files, key=_order)), tuple(refused))


def read_file(file: RawFile) -> bytes:
    """Read one raw file whole; ClipError if it is too large or damaged, InputError if gone."""
    if file.size_bytes > MAX_FILE_BYTES:
        raise _too_large(file.name)
    try:
        if file.member is not None:
            with _open_zip(file.place, _changed(file.place)).open(file.member) as member:
                data = member.read(file.size_bytes + 1)
        elif file.place.is_local:
            with open(file.place.path, "rb", buffering=0) as stream:
                data = stream.read(file.size_bytes + 1) or b""
                while len(data) < file.size_bytes and (more := stream.read()):
                    data += more  # network file systems may give less than was asked for
        else:
            with file.place.open() as remote:
                data = remote.read(file.size_bytes + 1)
    except ZIP_ERRORS as error:
        if isinstance(error, OSError) and not _is_misled(file, error):
            raise _unreadable(file, error) from error
        raise refusal(f"cannot be read: {error}", name=file.name) from error
    if len(data) != file.size_bytes:
        raise refusal("its size is not the one that was listed", name=file.name)
    return data


def cut_parts(files: Sequence[RawFile]) -> Iterator[tuple[RawFile, ...]]:
    """Cut sorted files into parts of about 32 MiB, which depend on nothing but names and sizes."""
    part: list[RawFile] = []
    part_bytes = 0
    for file in files:
        if part and (part_bytes + file.size_bytes > PART_BYTES or len(part) == PART_FILES):
            yield tuple(part)
            part, part_bytes = [], 0
        part.append(file)
        part_bytes += file.size_bytes
    if part:
        yield tuple(part)


def _order(file: RawFile) -> tuple[str, str, str]:
    return file.name, file.place.path, file.member or ""


def _list_place(place: Location) -> list[RawFile | Skipped]:
    entry = place.entry()
    if entry is None or not entry.is_folder:
        return list(_zip_files(place))
    entries = list(place.walk())
    plain: list[RawFile | Skipped] = [
        RawFile(item.name, place.at(item.path), None, item.size_bytes, item.depth, item.changed)
        for item in entries
        if _is_candidate(item.name)
    ]
    if any(_is_named_recording(item.name) for item in plain):
        return plain
    return [file for item in entries if _is_zip(item) for file in _zip_files(place.at(item.path))]


def _zip_files(place: Location) -> Iterator[RawFile | Skipped]:
    try:
        archive = _open_zip(place, _changed(place))
    except ZIP_ERRORS as error:
        raise InputError(
            f"this .zip cannot be read: {error}",
            where=str(place),
            now="fetch it again; a .zip that is whole passes unzip -t",
        ) from error
    for member in archive.infolist():
        parts = PurePosixPath(member.filename).parts
        # Without a name first: is_dir looks at its last character.
        if not parts or member.is_dir() or not _is_candidate(parts[-1]):
            continue
        reason = _suspicion(member)
        if reason is None and archive.getinfo(member.filename) is not member:
            reason = "another file has this path"  # which is the one that a name opens
        if reason is not None:
            yield Skipped(parts[-1], reason)
        else:
            depth = len(parts) - 1
            yield RawFile(parts[-1], place, member.filename, member.file_size, depth, member.CRC)


def _suspicion(member: zipfile.ZipInfo) -> str | None:
    """Say why a member is not even looked at, though nothing is ever extracted."""
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    if ".." in parts or parts[0] == "/":
        return "its path leads out of the .zip"
    if member.compress_type not in _METHODS:
        return "it is packed by another method than deflate"
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > _BOMB_BYTES and ratio > _BOMB_RATIO:
        return f"it would grow {ratio:.0f} times when unpacked"
    return None


def _is_misled(file: RawFile, error: OSError) -> bool:
    """Tell whether a .zip sent its reader to a place that no file has."""
    return file.member is not None and error.errno == errno.EINVAL


def _unreadable(file: RawFile, error: OSError) -> InputError:
    # Not a defect of one clip: a disk, a network or a node that fails must not drop clips.
    is_gone = isinstance(error, FileNotFoundError)
    reason = "is gone, or cannot be seen from this machine" if is_gone else "cannot be read"
    return InputError(
        f"a raw file {reason}: {str(error.strerror or error).splitlines()[0]}",
        where=str(file.place),
        now="repair that and rerun the same command to resume; on a cluster, every node must see "
        "--raw at the same path",
    )


def _is_candidate(name: str) -> bool:
    # macOS puts a "._" twin beside every file it archives.
    return name.lower().endswith(_SUFFIXES) and not name.startswith("._")


def _is_named_recording(name: str) -> bool:
    # Some editor's settings.json beside the .zip files is no recording.
    return name.lower().endswith(".skeleton") or nwucla.NAME.fullmatch(name) is not None


def _is_zip(entry: Entry) -> bool:
    return entry.name.lower().endswith(".zip") and not entry.name.startswith("._")


def _changed(place: Location) -> int:
    if place.is_local:
        return Path(place.path).stat().st_mtime_ns
    return 0  # an object store is asked once


@lru_cache(maxsize=4)
def _open_zip(place: Location, changed: int) -> zipfile.ZipFile:
    # The listing of 57 thousand members takes half a second: read once per process and version.
    if place.is_local:
        return zipfile.ZipFile(place.path)
    return zipfile.ZipFile(io.BufferedReader(place.open(), _REMOTE_BUFFER_BYTES))


def _too_large(name: str) -> Exception:
    return refusal(f"larger than {MAX_FILE_BYTES >> 20} MiB, which no recording is", name=name)
