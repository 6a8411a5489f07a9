"""Datasets of other machines, kept on this one: fetched once, whole or not at all.

A copy is kept in `$SGNRAY_CACHE`, else `$XDG_CACHE_HOME/sgnray`, else `~/.cache/sgnray`, there in
`datasets/<first 16 hex digits of its checksum>`. Nothing is ever removed from it but what is
broken: old copies are yours to remove.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from sgnray.data.info import INFO_FILE, read_info
from sgnray.data.store import CLIPS_FILE, checksum_file
from sgnray.errors import InputError
from sgnray.storage.atomic import output_errors, sync
from sgnray.storage.location import cache_dir
from sgnray.storage.lock import locked

log = logging.getLogger(__name__)

_RECORD_FILE = "cached.json"
_RECORD_VERSION = 1
_CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})")
_NUM_DIGITS = 16


def cached_dataset(checksum: str, copy: Callable[[Path], None]) -> Path:
    """Return a folder on this machine that holds the dataset with this checksum.

    Where there is none yet, or its files were changed, `copy` fills an empty folder; other
    processes that want the same dataset wait for it. InputError if what it copied is another
    dataset, OutputError if the disk refuses; then nothing is kept.
    """
    match = _CHECKSUM.fullmatch(checksum)
    if match is None:
        raise InputError(
            f"{checksum!r} is no checksum of a dataset",
            where=INFO_FILE,
            now="prepare the dataset again: sgn prepare --raw PATH --overwrite",
        )
    folder = cache_dir() / "datasets" / match[1][:_NUM_DIGITS]
    if _is_intact(folder, checksum):
        return folder
    waiting = "waiting for another process that fetches this dataset"
    with locked(folder.with_name(f"{folder.name}.lock"), busy=waiting):
        if not _is_intact(folder, checksum):  # it may have come while we waited
            _fetch(folder, checksum, copy)
    return folder


def _fetch(folder: Path, checksum: str, copy: Callable[[Path], None]) -> None:
    partial, previous = (folder.with_name(folder.name + end) for end in (".partial", ".previous"))
    if folder.exists():
        log.warning("the copy in %s was changed; it is fetched again", folder)
    _remove(partial, previous)  # what a killed fetch left
    with output_errors(partial):
        partial.mkdir()
    try:
        copy(partial)
        _check_copy(partial, checksum)
        with output_errors(folder):
            _write_record(partial, checksum)
            if folder.exists():
                folder.rename(previous)
            partial.rename(folder)
    finally:
        _remove(partial, previous)


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _check_copy(partial: Path, checksum: str) -> None:
    """InputError unless the folder holds the very dataset that was asked for."""
    path = partial / CLIPS_FILE
    found = checksum_file(path) if path.is_file() else "none"
    described = read_info(partial).checksum if found == checksum else None
    if described != checksum:
        raise InputError(
            "what was fetched is not the dataset that was asked for",
            where=f"{CLIPS_FILE}: {found}, wanted {checksum}",
            now="check the dataset where it lies with sgn data verify, then run this again",
        )


def _write_record(folder: Path, checksum: str) -> None:
    """Note size and time of each file, by which a change is seen without reading them."""
    files = sorted(folder.iterdir())
    for path in files:
        sync(path)
    stamps = {path.name: _stamp(path) for path in files}
    record = {"format_version": _RECORD_VERSION, "checksum": checksum, "files": stamps}
    (folder / _RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _is_intact(folder: Path, checksum: str) -> bool:
    """Tell whether the folder is as it was fetched."""
    try:
        record = json.loads((folder / _RECORD_FILE).read_text(encoding="utf-8"))
        return bool(
            record["format_version"] == _RECORD_VERSION
            and record["checksum"] == checksum
            and all(_stamp(folder / name) == stamp for name, stamp in record["files"].items())
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False
