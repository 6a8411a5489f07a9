"""Raw files, wherever they lie: in a folder, in a .zip, or in the .zip files of a folder.

Nothing is extracted: a member is read into memory, never further than a fixed bound.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from sgnray.errors import ClipError, InputError, UsageError

MAX_FILE_BYTES = 64 * 1024 * 1024
_SUFFIXES = (".skeleton", ".json", ".zip")


@dataclass(frozen=True)
class RawFile:
    """One raw file: `path` leads to it, inside `archive` if there is one.

    `name` is the last part of the path; `depth` is the number of folders above it, counted from
    the place the user named; `changed` tells a rewritten file from the one that was listed.
    """

    name: str
    path: str
    archive: str | None
    size_bytes: int
    depth: int
    changed: int


def list_files(raw: Path) -> list[RawFile]:
    """List the raw files of a folder (recursively) or a .zip that could be recordings.

    Sorted by name, then path. A folder's .zip files are opened only if it has no recordings of
    its own. UsageError if there is nothing at `raw`, InputError if it is neither kind.
    """
    if not raw.exists():
        raise UsageError(
            "there is no such raw folder or file",
            where=f"--raw {raw}",
            now="give the folder or the .zip that holds the recordings",
        )
    root = raw.resolve()
    files = list(_folder_files(root)) if root.is_dir() else list(_zip_files(root))
    plain = [file for file in files if not file.name.lower().endswith(".zip")]
    if not plain and root.is_dir():
        plain = [member for file in files for member in _zip_files(Path(file.path))]
    return sorted(plain, key=lambda file: (file.name, file.path, file.archive or ""))


def read_file(file: RawFile) -> bytes:
    """Read one raw file whole; ClipError if it is too large or damaged, InputError if gone."""
    try:
        if file.archive is None:
            with Path(file.path).open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        else:
            archive = _open_zip(file.archive, Path(file.archive).stat().st_mtime_ns)
            with archive.open(file.path) as member:
                data = member.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        # Not a defect of one clip: on a cluster, a node that sees none of them must not drop them.
        raise InputError(
            "a raw file is gone, or cannot be seen from this machine",
            where=file.archive or file.path,
            now="put it back; on a cluster, every node must see --raw at the same path",
        ) from error
    # zipfile tells an encrypted member by RuntimeError, an unknown compression by the next.
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as error:
        reason = str(error.strerror or error) if isinstance(error, OSError) else str(error)
        raise refusal(f"cannot be read: {reason}", name=file.name) from error
    if len(data) > MAX_FILE_BYTES:
        limit = f"{MAX_FILE_BYTES >> 20} MiB"
        raise refusal(f"larger than {limit}, which no recording is", name=file.name)
    return data


def refusal(reason: str, *, name: str = "") -> ClipError:
    """Build the ClipError that says why one raw file is left out."""
    return ClipError(reason, where=name, now="leave it out, or fetch this file again")


def _folder_files(root: Path) -> Iterator[RawFile]:
    for folder, _, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        for name in names:
            if _is_candidate(name):
                path = os.path.join(folder, name)
                status = os.stat(path, follow_symlinks=os.path.exists(path))
                yield RawFile(name, path, None, status.st_size, depth, status.st_mtime_ns)


def _zip_files(path: Path) -> Iterator[RawFile]:
    try:
        archive = _open_zip(str(path), path.stat().st_mtime_ns)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(
            "this is neither a folder nor a readable .zip",
            where=str(path),
            now="give the folder or the .zip that holds the recordings",
        ) from error
    for member in archive.infolist():
        parts = PurePosixPath(member.filename).parts
        if not member.is_dir() and parts and _is_candidate(parts[-1]):
            yield RawFile(
                parts[-1], member.filename, str(path), member.file_size, len(parts) - 1, member.CRC
            )


def _is_candidate(name: str) -> bool:
    # macOS puts a "._" twin beside every file it archives.
    return name.lower().endswith(_SUFFIXES) and not name.startswith("._")


@lru_cache(maxsize=4)
def _open_zip(path: str, mtime_ns: int) -> zipfile.ZipFile:
    # The listing of 57 thousand members takes half a second: read once per process and version.
    return zipfile.ZipFile(path)
