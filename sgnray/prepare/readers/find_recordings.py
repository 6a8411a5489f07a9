"""Find the recordings at a path; without any, say what is there and what to do with it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from sgnray.data.skipped import Skipped
from sgnray.errors import InputError, Problem, UsageError, count_of, shorten_problems
from sgnray.prepare.readers.array_files import OWN_CLIPS
from sgnray.prepare.readers.format_table import (
    HEAD_BYTES,
    VIDEOS,
    describe_formats,
    has_known_suffix,
)
from sgnray.prepare.readers.keypoints import is_label
from sgnray.prepare.readers.listing import Listing, list_files
from sgnray.prepare.readers.padded import holds_padded
from sgnray.storage.location import Entry, Location, locate

_TABLES = (".yaml", ".yml", ".parquet", ".arrow", ".feather")
_NUM_TEXTS = 5  # files that are read to see whether they are labels; a README may be one
_MAX_KINDS = 3
_MAX_ALIKE = 3  # files that are refused for one reason and listed one by one
_PIXELS = "write pixels with YOLO's to_json, as the guide pose-estimators.md shows"


def find_recordings(path: Path | str, *, also: str = "") -> Listing:
    """List the recordings of a file, a folder or a .zip, here or at a URI, and what was refused.

    UsageError or InputError if none is found; `also` is what else could be given.
    """
    now = f"give recordings of {describe_formats()}, or folders or .zip files of them{also}"
    place = locate(path)
    shown = str(path) if place.is_local else str(place)  # without a password
    if place.entry() is None:
        raise UsageError("file or folder not found", where=shown, now=now)
    found = list_files(place)
    if found.files:
        return found
    raise refuse_place(place, shown, found.unused, now=now)


def refuse_place(
    place: Location, where: str, refused: Sequence[Skipped] = (), *, now: str, what: str = ""
) -> InputError:
    """Build the error for a place without recordings; it says what to do with a video.

    `what` is said if there is neither a video nor labels of YOLO.
    """
    entry = place.entry()
    is_folder = entry is not None and entry.is_folder
    entries = [item for item in place.walk() if not item.problem] if is_folder else [entry]
    found = list(filter(None, entries))
    if name := find_labels(place, found):
        what = f"{name} has YOLO's labels, which lack the image's size"
        return InputError(what, where=where, now=_PIXELS)
    videos = sorted(item.name for item in found if item.name.lower().endswith(VIDEOS))
    kinds = f", only {_count_kinds(found)}" if is_folder and found and not refused else ""
    if what and not videos:
        now += f"; {OWN_CLIPS}"
        return InputError(what + kinds, where=where, now=now, problems=_count_refused(refused))
    suffix = PurePosixPath(place.name).suffix.lower()
    if is_folder or suffix == ".zip":
        what = "no recording found" + (" that can be used" if refused else "")
        what += f", only videos such as {videos[0]}" if videos else kinds
    elif refused and has_known_suffix(place.name):
        what, refused = refused[0].reason, ()
    elif refused:
        what = "no recording found that can be used"
    elif holds_padded(place):
        what = "this file has padded clips, which have to be prepared first"
        now = f"sgn prepare --raw {where}"
    elif suffix in _TABLES:
        what = "clips of your own have to be prepared first"
        now = "sgn prepare --raw FILE.yaml, their description; then name the folder of the dataset"
    else:
        kind = "a video" if videos else f"a {suffix} file" if suffix else "a file without a suffix"
        kind += " of NumPy arrays" if suffix in (".npy", ".npz") else ""
        what = f"this is {kind}, and sgnray reads skeletons: joint positions in each frame"
        now += "" if videos else f"; {OWN_CLIPS}"
    if videos:
        now = _advise(videos[0], "it" if videos == [place.name] else "each of them") + now
    return InputError(what, where=where, now=now, problems=_count_refused(refused))


def _count_kinds(found: Sequence[Entry]) -> str:
    """Count the files of the most frequent suffixes."""
    counts = Counter(PurePosixPath(item.name).suffix.lower() for item in found)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = [count_of(count, f"{suffix} file".strip()) for suffix, count in ordered]
    return ", ".join(kinds[:_MAX_KINDS]) + (" and others" if len(kinds) > _MAX_KINDS else "")


def _advise(video: str, them: str) -> str:
    """Say how to get recordings from videos, in the words before what to give."""
    name, folder = shlex.quote(video), shlex.quote(PurePosixPath(video).stem)
    return (
        f"run a pose estimator on {them} first, such as openpose.bin --video {name} --write_json "
        f"{folder} --display 0 --render_pose 0 (more in .github/docs/pose-estimators.md), and "
    )


def _count_refused(refused: Sequence[Skipped]) -> list[Problem]:
    """List the files that were refused, but count those with one suffix and reason if many."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in sorted(refused, key=lambda item: item.name):
        suffix = PurePosixPath(item.name).suffix.lower()
        groups.setdefault((suffix, item.reason), []).append(item.name)
    problems: list[Problem] = []
    for (suffix, reason), names in groups.items():
        if len(names) > _MAX_ALIKE:
            kind = f"{suffix} files" if suffix else "files"
            names = [f"{len(names)} {kind}, like {names[0]}"]
        problems += [Problem(name, reason) for name in names]
    return shorten_problems(problems)


def find_labels(place: Location, found: Iterable[Entry]) -> str:
    """Return the name of a .txt file among the ones found that has YOLO's labels, or else ""."""
    texts = [item for item in found if item.name.lower().endswith(".txt")]
    for text in sorted(texts, key=lambda item: item.path)[:_NUM_TEXTS]:
        with suppress(OSError), place.at(text.path).open() as file:
            if is_label(file.read(HEAD_BYTES)):
                return text.name
    return ""
