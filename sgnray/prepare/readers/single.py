"""Recordings that somebody names, one file or many, without making a dataset of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from sgnray.data.skeleton import KINECT20, NTU25, Skeleton
from sgnray.errors import ClipError, InputError, Problem, UsageError
from sgnray.prepare.readers.ntu import read_ntu
from sgnray.prepare.readers.nwucla import parse_nwucla_name, read_nwucla
from sgnray.prepare.readers.source import Listing, RawFile, list_files, read_file
from sgnray.prepare.recording import Recording
from sgnray.storage.location import locate

_SKELETON, _JSON, _ZIP = ".skeleton", ".json", ".zip"
_VIDEOS = {".avi", ".mp4", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".m4v", ".flv"}
_TAKEN = (
    "give .skeleton files of NTU RGB+D, .json files of NW-UCLA, or folders or .zip files of them"
)

Found = tuple[RawFile, Skeleton, Recording | ClipError]


def find_recordings(path: Path) -> Listing:
    """List the recordings of a file, a folder or a .zip, and what was refused for its path.

    UsageError or InputError where there is none.
    """
    if not path.exists():
        raise UsageError("there is no such file or folder", where=str(path), now=_TAKEN)
    suffix = path.suffix.lower()
    if path.is_file() and suffix in (_SKELETON, _JSON):
        status = path.stat()
        place = locate(path)
        file = RawFile(path.name, place, None, status.st_size, 0, status.st_mtime_ns)
        return Listing((file,), ())
    if path.is_file() and suffix != _ZIP:
        what = "a video" if suffix in _VIDEOS else f"a {suffix or 'nameless kind of'} file"
        raise InputError(
            f"this is {what}, and sgnray reads skeletons: where the joints are in each frame",
            where=str(path),
            now=_TAKEN,
        )
    found = list_files([locate(path)])
    files = tuple(file for file in found.files if _is_recording(file))
    if not files:
        refused = [Problem(item.name, item.reason) for item in found.refused]
        what = "there is no recording in it" + (" that can be used" if refused else "")
        raise InputError(what, where=str(path), now=_TAKEN, problems=refused)
    return Listing(files, found.refused)


def skeleton_of(file: RawFile) -> Skeleton:
    """Tell by a recording's name which skeleton is in it."""
    return NTU25 if file.name.lower().endswith(_SKELETON) else KINECT20


def read_recordings(files: Iterable[RawFile]) -> Iterator[Found]:
    """Read recordings in their order; a ClipError where one cannot be used."""
    for skeleton, group in itertools.groupby(files, key=skeleton_of):
        read = read_ntu if skeleton is NTU25 else _read_json_files
        for file, found in read(group):
            yield file, skeleton, found


def read_recording(file: RawFile) -> tuple[Recording, Skeleton]:
    """Read one recording and tell its skeleton; raises ClipError."""
    ((_, skeleton, found),) = read_recordings([file])
    if isinstance(found, ClipError):
        where = f"{file.place}, {file.member}" if file.member else str(file.place)
        raise ClipError(found.what, where=where, now=found.now)
    return found, skeleton


def _is_recording(file: RawFile) -> bool:
    """Tell a recording from other .json files, such as the description of synthetic ones."""
    try:
        return skeleton_of(file) is NTU25 or bool(parse_nwucla_name(file.name))
    except ClipError:
        return False


def _read_json_files(files: Iterable[RawFile]) -> Iterator[tuple[RawFile, Recording | ClipError]]:
    for file in files:
        try:
            yield file, read_nwucla(read_file(file))
        except ClipError as error:
            yield file, error
