"""The staging folder <out>.partial: locked by one process, moved into place at the end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sgnray.data.store import DATASET_FILES
from sgnray.errors import EmptyError, OutputError, UsageError
from sgnray.storage.atomic import output_errors, replace_folder, sync, write_text
from sgnray.storage.lock import LOCK_FILE, locked_folder, partial_folder

_PART_PATTERN = "part-*.arrow"
_KEY_FILE = "key"
_READY = "ready"
_PREVIOUS = "previous"
POSES_FILE = "poses.f32"
SORTED_FILE = "sorted.f32"
_OWN_NAMES = {LOCK_FILE, _READY, _PREVIOUS, POSES_FILE, SORTED_FILE}
# Also those that a killed process was writing; earlier versions called them .tmp.
_OWN_FILE = re.compile(rf"({_KEY_FILE}|part-\d{{5,}}\.arrow)(\.tmp|(\.\d+)?\.partial)?", re.ASCII)


@contextmanager
def hold_staging(out: Path, *, shown: Path, key: str) -> Iterator[Path]:
    """Lock <out>.partial, and keep finished parts of an interrupted preparation of the same key.

    It is removed at the end, if writing fails, and if no clip can be used; after any other failure
    the next call resumes from it. OutputError, with `out` as the user named it in `shown`, if
    another process has locked it; UsageError if a folder of this name has other content.
    """
    with output_errors(shown):
        _check_own(partial_folder(out))
    busy = OutputError(
        "another sgn prepare is writing this dataset",
        where=str(shown),
        now="wait until it ends, or choose another folder: --out",
    )
    with locked_folder(out, busy=busy, shown=shown) as folder:
        is_kept = False
        try:
            with output_errors(shown):
                if (previous := folder / _PREVIOUS).exists() and not out.exists():
                    previous.rename(out)
                _keep_parts(folder, key)
            yield folder
        except BaseException as error:
            is_final = isinstance(error, (EmptyError, OutputError))
            is_kept = not is_final and any(folder.glob(_PART_PATTERN))
            raise
        finally:
            if not is_kept:
                with suppress(OSError):
                    _clear(folder)


def part_path(folder: Path, index: int) -> Path:
    """Name the file of one part in a staging folder."""
    return folder / f"part-{index:05d}.arrow"


def ready_folder(folder: Path) -> Path:
    """Create the empty folder in a staging folder in which a dataset is assembled."""
    ready = folder / _READY
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    return ready


def move_into_place(folder: Path, out: Path) -> None:
    """Move the finished dataset to `out`, replacing an older one.

    After a failure the older one is still there. After a kill between the two renames, it is in
    the staging folder, and the next preparation moves it back.
    """
    for name in DATASET_FILES:
        sync(folder / _READY / name)
    replace_folder(folder / _READY, out, previous=folder / _PREVIOUS)


def _check_own(folder: Path) -> None:
    """Raise UsageError if the folder has files that are not ours: they would be removed."""
    unexpected = [
        entry.name
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if entry.name not in _OWN_NAMES and not _OWN_FILE.fullmatch(entry.name)
    ]
    if unexpected:
        raise UsageError(
            f"the staging folder of this dataset contains other files: {', '.join(unexpected[:3])}",
            where=str(folder),
            now="move them away, or choose another folder: --out",
        )


def _keep_parts(folder: Path, key: str) -> None:
    path = folder / _KEY_FILE
    if path.exists() and path.read_text() == key:
        return
    _clear(folder)
    write_text(path, key)


def _clear(folder: Path) -> None:
    """Remove all but the lock."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK_FILE:
            entry.unlink()
