"""One raw file, on a disk, at a URI or in a .zip, and its bytes.

Nothing is extracted: a member of a .zip is read into memory, up to a fixed limit.
"""

from __future__ import annotations

import errno
import io
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from sgnray.data.skipped import Skipped
from sgnray.errors import InputError, first_line
from sgnray.prepare.clip import refusal
from sgnray.prepare.readers.format_table import has_known_suffix
from sgnray.prepare.readers.json_values import in_frame
from sgnray.prepare.readers.openpose import join_frames
from sgnray.prepare.readers.pyskl import SUFFIXES, load_clips, pickle_clip
from sgnray.storage.location import Location, escape_name, is_hidden

MAX_FILE_BYTES = 64 * 1024 * 1024
ZIP_MAGIC = b"PK\x03\x04"
_BOMB_BYTES, _BOMB_RATIO = 16 * 1024 * 1024, 200
_REMOTE_BUFFER_BYTES = 1024 * 1024
# The errors of zipfile for a broken .zip: RuntimeError for an encrypted member or an unknown
# version, ValueError for a name that is not UTF-8 or an offset before the file's start,
# OverflowError for an offset beyond any file.
ZIP_ERRORS = (
    *(OSError, zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(KeyError, RuntimeError, ValueError, OverflowError),
)
# The other methods of zipfile decompress without a limit on memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, slots=True)
class RawFile:
    """One raw file: at `place`, or the `member` of the .zip at `place`.

    `name` is the last part of its path, in UTF-8; `depth` is the number of folders above it,
    counted from what the user named; `changed` differs once the listed file is rewritten. `frames`
    are the paths or members of a recording that has a file for each frame. `kind` is the format
    and `skeleton` the skeleton that were detected when it was listed.
    """

    name: str
    place: Location
    member: str | None
    size_bytes: int
    depth: int
    changed: int
    frames: tuple[str, ...] = ()
    kind: str = ""
    skeleton: str = ""

    @property
    def where(self) -> str:
        """Its place for a message, and the member if it is in a .zip."""
        return escape_name(f"{self.place}, {self.member}" if self.member else str(self.place))

    @property
    def full_path(self) -> PurePosixPath:
        """Its path on its disk, or in its .zip."""
        return PurePosixPath(_with_slashes(self.member) if self.member else self.place.path)

    @property
    def path(self) -> str:
        """Its path below what the user named; of a clip in a pickle, its whole name.

        In Unicode's form NFC: macOS may write an accent as a character of its own.
        """
        if self.member is not None and _is_pickled(self):
            return self.member
        parts = self.full_path.parts
        return unicodedata.normalize("NFC", escape_name("/".join(parts[-self.depth - 1 :])))


def _with_slashes(member: str) -> str:
    """Return the path of a member as it should have been written: not with backslashes."""
    return member.replace("\\", "/")  # of PowerShell 5


def read_file(file: RawFile) -> bytes:
    """Read one raw file whole; ClipError if it is too large or damaged, InputError if gone."""
    if file.size_bytes > MAX_FILE_BYTES:
        raise refusal(
            f"larger than {MAX_FILE_BYTES >> 20} MiB, the limit for a recording",
            now="cut the recording into parts, or leave it out",
        )
    if _is_pickled(file):
        clips = load_clips(file.place, file.changed)
        if file.name not in clips:
            raise refusal("it is no longer in the pickle")
        return pickle_clip(clips[file.name])
    if not file.frames:
        data = read_bytes(file, file.size_bytes + 1)
        num_bytes = len(data)
    else:
        frames = []
        for frame in frames_of(file):
            with in_frame(frame.name):
                frames.append((frame.name, read_bytes(frame, file.size_bytes + 1)))
        num_bytes = sum(len(text) for _, text in frames)
        data = join_frames(frames)
    if num_bytes != file.size_bytes:
        raise refusal("its size differs from the listed one")
    return data


def read_bytes(file: RawFile, limit: int) -> bytes:
    """Read up to `limit` bytes of a file."""
    try:
        if file.member is not None:
            with _open_zip(file.place, _changed(file.place)).open(file.member) as member:
                return member.read(limit)
        if not file.place.is_local:
            with file.place.open() as remote:
                return bytes(remote.read(limit))
        with open(file.place.path, "rb", buffering=0) as stream:
            data = stream.read(limit) or b""
            while len(data) < min(limit, file.size_bytes) and (more := stream.read(limit)):
                data += more  # network file systems may return less than requested
            return data
    except ZIP_ERRORS as error:
        # A corrupt .zip may make its reader seek to an impossible offset: EINVAL.
        is_misled = file.member is not None and getattr(error, "errno", None) == errno.EINVAL
        if isinstance(error, OSError) and not is_misled:
            raise _unreadable(file, error) from error
        raise refusal(f"cannot be read: {error}") from error


def frames_of(file: RawFile) -> Iterator[RawFile]:
    """Yield the files of a recording that has one for each frame; `size_bytes` is that of all."""
    for path in file.frames:
        name = _with_slashes(path).rpartition("/")[2]
        if file.member is None:
            yield replace(file, name=name, place=file.place.at(path), frames=())
        else:
            yield replace(file, name=name, member=path, frames=())


def _is_pickled(file: RawFile) -> bool:
    return file.member is not None and file.place.name.lower().endswith(SUFFIXES)


def list_zip(place: Location) -> Iterator[RawFile | Skipped]:
    """List the members of a .zip that may be recordings, and why others are not read."""
    try:
        archive = _open_zip(place, _changed(place))
    except ZIP_ERRORS as error:
        raise InputError(
            f"this .zip cannot be read: {error}",
            where=str(place),
            now="download it again; an intact .zip passes unzip -t",
        ) from error
    for member in archive.infolist():
        path = _with_slashes(member.filename)
        parts = PurePosixPath(path).parts
        if not parts or path.endswith("/") or any(map(is_hidden, parts[:-1])):
            continue
        if has_zip_suffix(parts[-1]):
            yield Skipped("/".join(parts), "a .zip inside a .zip: unpack it first")
            continue
        if not has_known_suffix(parts[-1]):
            continue
        reason = _suspicion(member, parts)
        if reason is None and archive.getinfo(member.filename) is not member:
            reason = "another file has this path"  # opening by name would open that one
        if reason is not None:
            yield Skipped(parts[-1], reason)
        else:
            depth = len(parts) - 1
            yield RawFile(parts[-1], place, member.filename, member.file_size, depth, member.CRC)


def has_zip_suffix(name: str) -> bool:
    """Return whether a file could be a .zip; macOS archives have a "._" twin of each."""
    return name.lower().endswith(".zip") and not name.startswith("._")


def _suspicion(member: zipfile.ZipInfo, parts: Sequence[str]) -> str | None:
    """Explain why a member is not read, None if it is; no member is ever extracted."""
    if ".." in parts or parts[0] == "/":
        return "its path points outside the .zip"
    if member.compress_type not in _METHODS:
        return "it is not compressed with deflate"
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > _BOMB_BYTES and ratio > _BOMB_RATIO:
        return f"it would grow {ratio:.0f} times when unpacked"
    return None


def _unreadable(file: RawFile, error: OSError) -> InputError:
    """Build the error for a file that cannot be read or is gone."""
    # Not a defect of one clip: a disk, a network or a node that fails must not drop clips.
    is_gone = isinstance(error, FileNotFoundError)
    reason = "is missing, or not accessible from this machine" if is_gone else "cannot be read"
    return InputError(
        f"a raw file {reason}: {error.strerror or first_line(error)}",
        where=str(file.place),
        now="fix this and rerun the same command to resume; on a cluster, every node needs "
        "the raw files at the same path",
    )


def _changed(place: Location) -> int:
    if place.is_local:
        return Path(place.path).stat().st_mtime_ns
    return 0  # a remote .zip is opened once


# The listing of 57 thousand members takes half a second: read once per process and version. Clips
# in the order of their names may alternate between many .zip files; a process may usually have
# 1,024 open files.
@lru_cache(maxsize=256)
def _open_zip(place: Location, changed: int) -> zipfile.ZipFile:
    if place.is_local:
        return zipfile.ZipFile(place.path)
    return zipfile.ZipFile(io.BufferedReader(place.open(), _REMOTE_BUFFER_BYTES))
