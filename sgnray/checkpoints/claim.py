"""The folder of a run or a search: its place, its name, and the lock of the command using it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sgnray.errors import RunError, UsageError
from sgnray.storage.atomic import check_writable, output_errors
from sgnray.storage.lease import Lease
from sgnray.storage.location import Location, as_folder
from sgnray.storage.lock import locked
from sgnray.storage.mirror import display_name, mirrored

# Where runs are kept: a folder of this machine, or at a URI such as s3://bucket/runs.
Runs = Path | str | Location

_CLAIM_FILE = ".lock"  # locked by the command that uses the folder
_HASH = "[0-9a-f]" * 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@contextmanager
def claimed_folder(runs_dir: Runs, name: str | None, *, default: str) -> Iterator[Path]:
    """Create or reuse a folder in `runs_dir`, locked against other processes.

    For a URI, it is a local copy that is kept in sync with the URI.
    """
    if name is not None:
        check_name(name, runs_dir)
    path = folder_in(runs_dir, default if name is None else name)
    busy = _busy(path)
    if isinstance(path, Location):
        with mirrored(path, busy=busy) as copy:
            yield copy
        return
    with output_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path / _CLAIM_FILE, busy=busy):
        yield path


def folder_in(runs_dir: Runs, name: str) -> Path | Location:
    """Return where a run or search of this name is kept."""
    place = as_folder(runs_dir)
    return place.child(name) if isinstance(place, Location) else place / name


def check_claim(runs_dir: Runs, name: str | None) -> None:
    """Raise what `claimed_folder` would, and create nothing: a refusal before Ray starts.

    UsageError for an invalid name, OutputError or InputError if nothing can be written there,
    RunError if a command uses the folder. `name` is None if it is not known yet.
    """
    if name is not None:
        check_name(name, runs_dir)
    place = as_folder(runs_dir)
    if isinstance(place, Location):
        if name is not None:
            Lease(place.child(name), _busy(place.child(name))).check_free()
        place.check_writable()
        return
    path = place / (name or "")
    check_writable(path)
    if (path / _CLAIM_FILE).exists():
        with locked(path / _CLAIM_FILE, busy=_busy(path)):
            pass


def _busy(path: Path | Location) -> RunError:
    return RunError(
        "another command is using this folder",
        where=str(path),
        now="wait for it, or choose another --name",
    )


def check_name(name: str, runs_dir: Runs) -> None:
    """Raise UsageError for anything but a plain folder name: it could leave `runs_dir`."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' is not a valid folder name in {runs_dir}",
            where="--name",
            now="use letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )


def check_unused(path: Path) -> None:
    """Raise RunError if a folder that should be new contains other files."""
    # A killed process may have left its first file as a .partial.
    names = sorted(item.name for item in path.iterdir())
    unexpected = [name for name in names if name != _CLAIM_FILE and not name.endswith(".partial")]
    if unexpected:
        raise RunError(
            f"the folder exists and contains other files: {', '.join(unexpected[:3])}",
            where=display_name(path),
            now="choose another --name or --runs",
        )


def older_folders(runs_dir: Runs, name: str) -> list[Path]:
    """If `name` does not exist, list the folders that older versions may have used instead."""
    place = as_folder(runs_dir)
    # Older versions could not write to a URI.
    if isinstance(place, Location) or (place / name).exists():
        return []
    return sorted(place.glob(f"{name.rpartition('-')[0]}-{_HASH}"))
