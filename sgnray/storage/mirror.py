"""A folder at a URI, kept in sync with a local copy that everything is written to.

The copy is in `runs/` of the cache. A table records the size and time of each file at the last
sync: from it, the next command knows what to upload, and what another machine has changed.

A message names a file by `display_name`, a command is given its `address_of`, and a line to copy
into a shell its `quoted_name`; `find_copy` finds the file of a `display_name`, `origin` its place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from sgnray.errors import InputError, OutputError, RunError, SgnError, first_line
from sgnray.storage.atomic import make_parent, output_errors, write_bytes, write_text
from sgnray.storage.lease import Lease
from sgnray.storage.location import Entry, Location, cache_dir
from sgnray.storage.lock import locked

log = logging.getLogger(__name__)

_TABLE_FILE = "mirror.json"
_TABLE_VERSION = 1
_LOOK_EVERY_S = 2.0  # for files to upload
_PAUSES_S = (1.0, 60.0)  # between attempts to upload: the first and the longest
_GIVE_UP_AFTER_S = 120.0  # for the last upload, when the work is done
# Commands and trackers remove files only in these folders.
_PRUNED = {"checkpoints", "states", "tensorboard", "mlflow", "wandb"}

Stamp = tuple[int, int]  # size in bytes, time of the last change in ns
Stamps = tuple[Stamp, Stamp]  # of the local and the remote file, when last equal
_mirrors: dict[Path, Mirror] = {}  # the copies that this process uses, by their folder


@contextmanager
def mirrored(place: Location, *, busy: SgnError) -> Iterator[Path]:
    """Lock a folder at a URI and yield a copy of it; changes in the copy are uploaded at once.

    `busy` is raised while another command, here or on another machine, holds the folder. A failed
    upload is repeated with growing pauses. OutputError if the last state cannot be uploaded: it
    stays in the copy, and the next command that holds the folder uploads it.
    """
    mirror, lease = Mirror.of(place), Lease(place, busy)
    with ExitStack() as held:
        with mirror.fetching():
            held.enter_context(locked(mirror.lock_path, busy=busy))
            held.callback(lease.release)  # also if it is interrupted while it takes the lease
            lease.take()
            mirror.pull(lease.renew)
        mirror.error = None
        with _pushed(mirror, lease):
            yield mirror.path


def fetched(place: Location) -> Path:
    """Return a copy of a file or folder at a URI, or the one that a command here is writing."""
    entry = place.entry()
    file = None if entry is None or entry.is_folder else entry
    mirror = Mirror.of(place if file is None else place.at(place.path.rpartition("/")[0]))
    busy = RunError("a command on this machine is writing it", where=str(place), now="wait for it")
    try:
        with mirror.fetching(), locked(mirror.lock_path, busy=busy):
            mirror.pull(only=file)
    except RunError as error:
        if error is not busy:
            raise
    return mirror.path if file is None else mirror.path / place.name


def upload(*files: Path) -> None:
    """Upload these files of a copy of a URI; do nothing for files of any other folder.

    No other file: a command on another machine may have taken over the folder meanwhile.
    """
    if (mirror := _mirror_of(files[0])) is not None:
        mirror.send(*files)


def check_uploading(path: Path) -> None:
    """Raise the error that has ended the uploads of a copy, if `path` is in one.

    Call this during long work: another command may have taken over the folder at the URI.
    """
    if (mirror := _mirror_of(path)) is not None and mirror.error is not None:
        raise mirror.error


def origin(path: Path) -> Path | Location:
    """Return the location that a path is a copy of; for any other path, the path itself."""
    if (mirror := _mirror_of(path)) is None:
        return path
    below = path.relative_to(mirror.path).as_posix()
    return mirror.place if below == "." else mirror.place.child(below)


def _mirror_of(path: Path) -> Mirror | None:
    return next((mirror for mirror in _mirrors.values() if path.is_relative_to(mirror.path)), None)


def display_name(path: Path | str) -> str:
    """Name a file for the user: by its URI if it is in a copy."""
    return str(origin(Path(path)))


def address_of(path: Path) -> str:
    """Name a file as a command takes it: as `display_name`, but with the server of its URI."""
    place = origin(path)
    return place.address if isinstance(place, Location) else str(place)


def quoted_name(path: Path) -> str:
    """Name a file for a shell: its address, quoted."""
    return shlex.quote(address_of(path))


def find_copy(name: str) -> Path:
    """Return the file that `display_name` gives this name."""
    for folder, mirror in _mirrors.items():
        if name == str(mirror.place) or name.startswith(f"{mirror.place}/"):
            return folder / name.removeprefix(str(mirror.place)).lstrip("/")
    return Path(name)


class Mirror:
    """A folder at a URI and its copy."""

    def __init__(self, place: Location, folder: Path) -> None:
        self.place = place
        self.path = folder / place.name
        self.lock_path = folder / ".lock"
        self._fetch_lock_path = folder / ".fetch-lock"
        self._table_path = folder / _TABLE_FILE
        self._known = self._read_table()
        self._uploading = threading.Lock()
        self.error: SgnError | None = None  # why nothing more is uploaded

    @classmethod
    def of(cls, place: Location) -> Mirror:
        """Return the mirror of a place; its copy may still be empty."""
        digest = hashlib.sha256(place.identity.encode()).hexdigest()[:16]
        folder = cache_dir() / "runs" / digest
        with output_errors(folder):
            (folder / place.name).mkdir(parents=True, exist_ok=True)
        mirror = cls(place, folder)
        return _mirrors.setdefault(mirror.path, mirror)

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Let one process of this machine fetch at a time; others wait, then find the files."""
        waiting = f"waiting for another command that fetches {self.place}"
        with locked(self._fetch_lock_path, busy=waiting):
            yield

    def pull(
        self, on_file: Callable[[], None] = lambda: None, *, only: Entry | None = None
    ) -> None:
        """Fetch files that have changed there or are lost here; keep those that changed only here.

        `on_file` is called after each file. `only` is the one remote file to fetch.
        """
        self._known = self._read_table()  # another process may have written it since
        remote = self._list_remote() if only is None else {only.name: only}
        for name, entry in remote.items():
            known = self._known.get(name)
            is_lost = not (self.path / name).is_file()  # by a cleanup of the cache
            if is_lost or known is None or known[1] != _stamp_of(entry):
                self._fetch(name, entry)
                on_file()
        for name in set(self._known) - set(remote) if only is None else ():
            path, (here, _) = self.path / name, self._known.pop(name)
            if path.is_file() and _stamp(path) == here:  # removed there
                path.unlink()
        self._write_table()

    def send(self, *files: Path) -> None:
        """Upload files of the copy; OutputError if the place refuses or does not respond."""
        with self._uploading:
            for path in files:
                self._send(path.relative_to(self.path).as_posix(), path)

    def push(self, *, on_file: Callable[[], None] = lambda: None) -> None:
        """Upload new and changed files, and then remove remotely those that were pruned here.

        `on_file` is called before each file. OutputError if the place refuses or does not
        respond.
        """
        with self._uploading:
            # Before the walk, so that the walk finds files that replace the pruned ones.
            pruned = self._find_pruned()
            found = {path.relative_to(self.path).as_posix(): path for path in self._files()}
            for name, path in found.items():
                on_file()
                self._send(name, path)
            for name in pruned:
                if name not in found:
                    on_file()
                    self.place.child(name).remove()
                    del self._known[name]
                    self._write_table()

    def _list_remote(self) -> dict[str, Entry]:
        entries = self.place.walk(hidden=True) if self.place.entry() is not None else ()
        below = {entry.path.removeprefix(self.place.path).lstrip("/"): entry for entry in entries}
        return {name: entry for name, entry in below.items() if _is_ours(name)}

    def _find_pruned(self) -> list[str]:
        """List files that a command removed; other missing files were not removed on purpose."""
        pruned = []
        for name in self._known:
            folders = [each for each in PurePosixPath(name).parents if each.name in _PRUNED]
            is_gone = not (self.path / name).is_file()
            if is_gone and folders and (self.path / folders[0]).is_dir():
                pruned.append(name)
        return pruned

    def _send(self, name: str, path: Path) -> None:
        try:
            before = _stamp(path)
            known = self._known.get(name)
            if known is not None and known[0] == before:
                return
            content = path.read_bytes()
        except FileNotFoundError:  # pruned meanwhile
            return
        except OSError as error:
            raise InputError(
                f"a file of the copy cannot be read: {error.strerror or error}",
                where=str(path),
                now="make it readable",
            ) from error
        target = self.place.child(name)
        target.put(content)
        entry = target.entry()
        if entry is not None:
            self._known[name] = before, _stamp_of(entry)
            self._write_table()  # else the file would look like another machine's

    def _fetch(self, name: str, entry: Entry) -> None:
        path = self.path / name
        try:
            content = self.place.child(name).get()
        except FileNotFoundError:  # pruned meanwhile by its owner
            return
        make_parent(path)
        write_bytes(path, content)
        self._known[name] = _stamp(path), _stamp_of(entry)

    def _files(self) -> Iterator[Path]:
        # Unlike rglob, this passes over folders that are removed meanwhile.
        for folder, folders, names in os.walk(self.path):
            folders.sort()
            paths = (Path(folder, name) for name in sorted(names) if _is_ours(name))
            yield from (path for path in paths if path.is_file())

    def _read_table(self) -> dict[str, Stamps]:
        """Read the table; RunError for one that cannot be used.

        Without the table, it is unknown whether the local or the remote file is newer.
        """
        if not self._table_path.exists():
            return {}
        again = f"move {self._table_path.parent} away; the same command then fetches all files"
        try:
            content = json.loads(self._table_path.read_text(encoding="utf-8"))
            if content["format_version"] != _TABLE_VERSION:
                raise RunError(
                    f"the copy of {self.place} was written by another version of sgnray",
                    where=str(self._table_path),
                    now=f"update sgnray, or {again}",
                )
            files = content["files"].items()
            return {name: (tuple(here), tuple(there)) for name, (here, there) in files}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(
                f"the record of what is uploaded to {self.place} is corrupt",
                where=str(self._table_path),
                now=again,
            ) from error

    def _write_table(self) -> None:
        content = {
            "format_version": _TABLE_VERSION,
            "place": str(self.place),
            "files": self._known,
        }
        write_text(self._table_path, json.dumps(content, indent=1) + "\n")


@contextmanager
def _pushed(mirror: Mirror, lease: Lease) -> Iterator[None]:
    """Upload changes while the block runs, and the rest when it ends."""
    ended = threading.Event()
    thread = threading.Thread(
        target=_push_until, args=(mirror, lease, ended), name="sgnray-upload", daemon=True
    )
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        thread.join()
        try:
            lease.check()
            mirror.push(on_file=lease.renew)
        except SgnError as error:
            log.warning("%s: %s; the files remain in %s", mirror.place, error.what, mirror.path)
        raise
    ended.set()
    thread.join()
    _push_at_last(mirror, lease)


def _push_until(mirror: Mirror, lease: Lease, ended: threading.Event) -> None:
    pause_s, has_failed = _LOOK_EVERY_S, False
    while not ended.wait(pause_s):
        try:
            lease.renew()
            mirror.push(on_file=lease.renew)
        except Exception as error:
            what = error.what if isinstance(error, SgnError) else first_line(error)
            if isinstance(error, SgnError) and not isinstance(error, InputError | OutputError):
                log.error("%s: %s; nothing more is uploaded", mirror.place, what)
                mirror.error = error
                return
            pause_s = min(2 * pause_s, _PAUSES_S[1]) if has_failed else _PAUSES_S[0]
            if not has_failed:
                log.warning("%s: %s; trying again", mirror.place, what)
            has_failed = True
        else:
            if has_failed:
                log.info("%s: everything is uploaded now", mirror.place)
            pause_s, has_failed = _LOOK_EVERY_S, False


def _push_at_last(mirror: Mirror, lease: Lease) -> None:
    deadline, pause_s = time.monotonic() + _GIVE_UP_AFTER_S, _PAUSES_S[0]
    while True:
        try:
            lease.renew()
            return mirror.push(on_file=lease.renew)
        except (InputError, OutputError) as error:
            if time.monotonic() + pause_s > deadline:
                raise OutputError(
                    f"the last files could not be uploaded: {error.what}",
                    where=str(mirror.place),
                    now=f"they are in {mirror.path}; rerun the command to upload them",
                ) from error
            log.warning("%s: %s; trying again in %.0f s", mirror.place, error.what, pause_s)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSES_S[1])


def _is_ours(name: str) -> bool:
    """Return whether a file is part of a run, and not a lease, a lock or a temporary file."""
    last = PurePosixPath(name).name
    is_journal = last.endswith(("-journal", "-wal", "-shm"))  # temporary files of SQLite
    return not (last.startswith(".") or ".partial" in last or is_journal)


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _stamp_of(entry: Entry) -> Stamp:
    return entry.size_bytes, entry.changed
