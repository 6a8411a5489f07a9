"""Lock files for one process at a time; the system releases them when their holder dies."""

from __future__ import annotations

import errno
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from sgnray.errors import OutputError, SgnError
from sgnray.storage.atomic import output_errors
from sgnray.storage.location import cache_dir

log = logging.getLogger(__name__)

LOCK_FILE = "lock"
_MAX_ATTEMPTS = 100
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def locked(path: Path, *, busy: SgnError | str) -> Iterator[None]:
    """Hold a lock file; see `take_lock`."""
    lock = take_lock(path, busy=busy)
    try:
        yield
    finally:
        lock.release()


def take_lock(path: Path, *, busy: SgnError | str) -> BaseFileLock:
    """Take a lock file and hold it until its `release` is called; its folder is created.

    If another process holds it, `busy` is raised, or if it is a text, logged before waiting.
    FileNotFoundError if the folder is removed meanwhile, OutputError if it cannot hold a lock.
    """
    # A soft lock would outlive a killed process and could not be distinguished from a held one.
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        _acquire(lock, path, blocking=False)
    except Timeout:
        if isinstance(busy, SgnError):
            raise busy from None
        log.info("%s: %s", busy, path)
        _acquire(lock, path, blocking=True)
    return lock


def partial_folder(out: Path) -> Path:
    """Return the folder in which `out` is made."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def locked_folder(out: Path, *, busy: SgnError, shown: Path | None = None) -> Iterator[Path]:
    """Create and lock <out>.partial; see `take_lock`. `shown` is `out` as the user named it.

    It is removed at the end unless something is left in it, and so is the folder above if it is
    new.
    """
    folder = partial_folder(out)
    is_new_parent = not folder.parent.exists()
    with output_errors(shown or out):
        for attempt in itertools.count(1):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = take_lock(folder / LOCK_FILE, busy=busy)
                break
            except (FileNotFoundError, FileExistsError):  # its holder has just removed the folder
                if attempt == _MAX_ATTEMPTS:  # no: a link to nothing, or a file in its place
                    with output_errors(folder):
                        raise
    try:
        yield folder
    finally:
        with suppress(OSError):
            # The last file of ours: once it is gone, another process may write to the folder.
            (folder / LOCK_FILE).unlink()
            folder.rmdir()
            if is_new_parent:
                folder.parent.rmdir()
        lock.release()


def _acquire(lock: BaseFileLock, path: Path, *, blocking: bool) -> None:
    try:
        lock.acquire(blocking=blocking)
    except (Timeout, FileNotFoundError):
        raise
    except (OSError, NotImplementedError) as error:
        if isinstance(error, FileExistsError) and not path.parent.exists():  # removed meanwhile
            raise FileNotFoundError(*error.args) from error
        if isinstance(error, NotImplementedError) or error.errno in _NO_LOCKS:
            is_cache = path.absolute().is_relative_to(cache_dir())
            choose = "set SGNRAY_CACHE to" if is_cache else "choose"
            nodes = ", on all nodes" if is_cache else ""
            raise OutputError(
                "the file system does not support file locks",
                where=str(path),
                now=f"{choose} a folder on a local disk{nodes}, or mount this one with file locks",
            ) from error
        with output_errors(path):
            raise
