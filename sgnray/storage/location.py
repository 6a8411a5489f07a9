"""Files and folders on this machine, or at a URI that pyarrow.fs reaches: s3://, gs://, hdfs://."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from sgnray.errors import InputError, OutputError, UsageError, first_line
from sgnray.storage.atomic import URI

# The types of pyarrow's file systems that have no folders to create.
_OBJECT_STORES = {"s3", "gcs", "abfs"}
# The query keys that a command needs for an object store; other keys may be secrets.
_PUBLIC = {"endpoint_override", "region", "scheme"}


@dataclass(frozen=True)
class Location:
    """A file or folder: `path` in the file system of `uri`, or on this machine if that is None.

    Small enough to send to a worker, which opens its own connection.
    """

    path: str
    uri: str | None = None

    def __str__(self) -> str:
        """Name it for a message, without the password that a URI may hold."""
        if self.uri is None:
            return self.path
        return f"{urlsplit(self.uri).scheme}://{self._host}{self.path}"

    @property
    def address(self) -> str:
        """The URI for a command: complete except for credentials."""
        return str(self) + _public_query(urlsplit(self.uri or ""))

    @property
    def identity(self) -> str:
        """The URI without credentials in one form, however it was written."""
        parts = urlsplit(self.uri or "")
        return urlunsplit((parts.scheme, self._host, self.path, parts.query, ""))

    @property
    def _host(self) -> str:
        """The server, such as HDFS's; empty if it is a bucket with which the path begins."""
        parts = urlsplit(self.uri or "")
        host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
        return "" if self.path.partition("/")[0] == host else host

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return self.uri is None

    def at(self, path: str) -> Location:
        """Name another path of the same file system."""
        return replace(self, path=path)

    def child(self, name: str) -> Location:
        """Name a file or folder below this one."""
        return self.at(f"{self.path.rstrip('/')}/{name}")

    def get(self) -> bytes:
        """Read a file; raises FileNotFoundError, and InputError if the place does not answer."""
        with _remote_errors(self, may_be_absent=True), self.open() as file:
            return bytes(file.read())

    def put(self, content: bytes) -> None:
        """Write a file, atomically in an object store; raises OutputError."""
        files = _file_system(self.uri)
        with _remote_errors(self, is_writing=True):
            if files.type_name not in _OBJECT_STORES:
                files.create_dir(self.path.rpartition("/")[0], recursive=True)
            with files.open_output_stream(self.path) as file:
                file.write(content)

    def remove(self) -> None:
        """Remove a file, if it is there; raises OutputError."""
        with _remote_errors(self, is_writing=True), suppress(FileNotFoundError):
            _file_system(self.uri).delete_file(self.path)

    def check_writable(self) -> None:
        """Raise OutputError if no file can be written to this folder, or removed from it."""
        probe = self.child(".sgn-probe")
        probe.put(b"\n")
        try:
            probe.remove()
        except OutputError as error:
            cause = first_line(error.__cause__ or error)
            raise OutputError(
                f"files can be written here, but not removed: {cause}",
                where=str(self),
                now="add the permission to delete: leases and old checkpoints are removed",
            ) from error

    def open(self) -> pa.NativeFile:
        """Open a file for random access; raises OSError, such as FileNotFoundError."""
        return _file_system(self.uri).open_input_file(self.path)

    def digest(self) -> str:
        """Return the sha256 of a local file, in hex; all of it is read, in small pieces."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def entry(self) -> Entry | None:
        """Return the file or folder at this location; None if there is none."""
        if self.uri is None:
            found = _local_entry(self.path, depth=0)
            return None if found.problem else found
        with _remote_errors(self):
            return _entry(_file_system(self.uri).get_file_info(self.path), self.path)

    def walk(self, *, hidden: bool = False) -> Iterator[Entry]:
        """List the files of a folder and of its folders, in no particular order.

        Linked folders are searched, too, but no folder twice, and `hidden` ones only on request.
        An entry that cannot be read as a file, such as a dead link, has a `problem`.
        """
        if self.uri is not None:
            selector = fs.FileSelector(self.path, recursive=True)
            with _remote_errors(self):
                infos = _file_system(self.uri).get_file_info(selector)
            for info in infos:
                entry = _entry(info, self.path)
                if entry is not None and not entry.is_folder:
                    folders = PurePosixPath(entry.path).relative_to(self.path).parts[:-1]
                    if hidden or not any(map(is_hidden, folders)):
                        yield entry
        else:
            yield from _walk_local(self.path, hidden=hidden)


@dataclass(frozen=True)
class Entry:
    """What a listing says about a file or folder; `depth` counts the folders above it.

    `problem` says why it cannot be read, if it is known.
    """

    path: str
    is_folder: bool
    size_bytes: int
    changed: int
    depth: int = 0
    problem: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


def without_secrets(text: str) -> str:
    """Return a word of a command; URIs in it stay complete except for credentials."""
    return re.sub(r"[a-z][a-z0-9+.-]*://[^\s,]*", _without_secrets, text, flags=re.IGNORECASE)


def _without_secrets(uri: re.Match[str]) -> str:
    try:
        parts = urlsplit(uri[0])
    except ValueError:
        return "..."
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return shown + _public_query(parts) + (parts.fragment and f"#{parts.fragment}")


def _public_query(parts: SplitResult) -> str:
    """Return what of a URI's query is no secret, with its question mark; empty if nothing is."""
    pairs = [pair for pair in parse_qsl(parts.query) if pair[0] in _PUBLIC]
    return f"?{urlencode(pairs, safe=':/')}" if pairs else ""


def locate(text: str | Path) -> Location:
    """Parse what a user named: a path on this machine, or a URI that pyarrow.fs knows."""
    # Caches link names to files and folders that are named by their hash.
    if isinstance(text, Path) or "://" not in text:
        if isinstance(text, str) and URI.match(text):  # its folder would be called "s3:"
            scheme = text.partition(":")[0]
            raise UsageError(
                "this URI has one slash after its scheme instead of two",
                where=f"{scheme}:/...",  # what follows may hold a password
                now=f"write {scheme}://...",
            )
        return Location(str(resolve(text, keeps_name=True)))
    if text.startswith("file://"):
        return Location(str(resolve(unquote(urlsplit(text).path), keeps_name=True)))
    try:
        _, path = fs.FileSystem.from_uri(text)
    except (pa.ArrowException, OSError, ValueError) as error:
        shown = f"{text.partition('://')[0]}://..."  # what follows may hold a password
        raise UsageError(
            f"this location is not accessible: {first_line(error).replace(text, shown)}",
            where=shown,
            now="give a path, or a URI such as s3://bucket/folder",
        ) from error
    # hdfs:///path is a path on the default host, but no bucket has an empty name.
    if not path.strip("/") or (text.startswith(("s3", "gs", "gcs")) and not urlsplit(text).netloc):
        raise UsageError(
            "the URI names no bucket or host",
            where=without_secrets(text),
            now="give one such as s3://bucket/folder",
        )
    return Location(path.rstrip("/"), text)


def as_folder(place: Path | str | Location) -> Path | Location:
    """Return a path as it was written, without `~`, or the Location of a URI."""
    if isinstance(place, Location):
        return place
    if isinstance(place, Path):
        if URI.match(str(place)):  # Path drops a slash, and it would name a folder "s3:"
            raise UsageError(
                "a URI was given as a path",
                where=f"{str(place).partition(':')[0]}:/...",  # what follows may hold a password
                now="give it as a string",
            )
        return place
    found = locate(place)
    if not found.is_local:
        return found
    return Path(found.path) if "://" in place else Path(place).expanduser()


def cache_dir() -> Path:
    """Return the folder for fetched files on this machine."""
    if own := os.environ.get("SGNRAY_CACHE"):
        return resolve(own)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says to ignore a relative path.
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "sgnray"


def resolve(path: str | Path, *, keeps_name: bool = False) -> Path:
    """Return the absolute path of what a user named; UsageError if it is not a valid path.

    Links are followed, except one at the end if its name is kept.
    """
    try:
        absolute = Path(path).expanduser()
        if keeps_name and absolute.name not in ("", ".."):
            absolute = absolute.parent.resolve() / absolute.name
        else:
            absolute = absolute.resolve()
        str(absolute).encode()  # the readers of files only accept UTF-8 names
    except (OSError, RuntimeError, UnicodeEncodeError) as error:
        is_encoding = isinstance(error, UnicodeEncodeError)
        raise UsageError(
            f"this path cannot be used: {'it is not UTF-8' if is_encoding else error}",
            where=escape_name(str(absolute if is_encoding else path)),  # perhaps a folder above
            now="give another path",
        ) from error
    if not str(path):
        raise UsageError("the path is empty", where="''", now="give a path")
    return absolute


def is_hidden(folder: str) -> bool:
    """Return whether a folder is one of those that programs write for themselves."""
    return folder == "__MACOSX" or (folder.startswith(".") and folder != "..")


def escape_name(name: str) -> str:
    """Return the name of a file with escapes for bytes that are not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


@lru_cache(maxsize=8)
def _file_system(uri: str | None) -> fs.FileSystem:
    return fs.LocalFileSystem() if uri is None else fs.FileSystem.from_uri(uri)[0]


def _refuse_folder(error: OSError) -> None:
    # Continuing would silently leave out its files.
    raise InputError(
        f"a folder cannot be read: {error.strerror or error}",
        where=str(error.filename),
        now="make it readable, or choose another folder",
    ) from error


@contextmanager
def _remote_errors(
    place: Location, *, may_be_absent: bool = False, is_writing: bool = False
) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if may_be_absent and isinstance(error, FileNotFoundError):
            raise
        failed = OutputError if is_writing else InputError
        raise failed(
            f"this location does not respond, or refuses: {first_line(error)}",
            where=str(place),
            now="check its name, the network, and the credentials in the environment",
        ) from error


def _walk_local(root: str, *, hidden: bool) -> Iterator[Entry]:
    # A link to a folder above would add everything that is there.
    seen = {_identify(folder) for folder in Path(root).resolve().parents}
    starts = [root]
    while starts:  # first what is in the folder itself, then what links add
        linked: list[str] = []
        walks = [os.walk(start, onerror=_refuse_folder) for start in sorted(starts)]
        for folder, folders, names in chain.from_iterable(walks):
            if (identity := _identify(folder)) in seen:
                folders.clear()
                continue
            seen.add(identity)
            folders[:] = [name for name in folders if hidden or not is_hidden(name)]
            paths = [os.path.join(folder, name) for name in folders]
            linked += [path for path in paths if os.path.islink(path)]
            depth = len(Path(folder).relative_to(root).parts)
            for name in names:
                yield _local_entry(os.path.join(folder, name), depth)
        starts = linked


def _local_entry(path: str, depth: int) -> Entry:
    """Return a file or folder, following links."""
    try:
        status = os.stat(path)
    except OSError as error:
        is_dead = isinstance(error, FileNotFoundError) and os.path.islink(path)
        problem = f"it cannot be read: {error.strerror or error}"
        return Entry(path, False, 0, 0, depth, "a link to a missing file" if is_dead else problem)
    is_folder = stat.S_ISDIR(status.st_mode)
    problem = "" if is_folder or stat.S_ISREG(status.st_mode) else "a pipe, socket or device"
    return Entry(path, is_folder, status.st_size, status.st_mtime_ns, depth, problem)


def _identify(folder: str | Path) -> tuple[int, int]:
    """Identify a folder by whatever name it was reached."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entry(info: fs.FileInfo, root: str) -> Entry | None:
    if info.type == fs.FileType.NotFound:
        return None
    below = PurePosixPath(info.path).relative_to(root) if info.path != root else PurePosixPath()
    return Entry(
        path=info.path,
        is_folder=info.type == fs.FileType.Directory,
        size_bytes=info.size or 0,
        changed=info.mtime_ns or 0,
        depth=max(0, len(below.parts) - 1),
    )
