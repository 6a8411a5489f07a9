"""Raw recordings, one per file: in folders, in .zip files, or in a folder's .zip files.

The frames of one recording count as one file, and so does each clip in a pickle of many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from sgnray.data.skeleton import COCO17
from sgnray.data.skipped import Skipped
from sgnray.errors import ClipError
from sgnray.prepare.readers.format_table import (
    HEAD_BYTES,
    SIDECARS,
    detect_format,
    has_known_suffix,
)
from sgnray.prepare.readers.joint_csv import describe_columns
from sgnray.prepare.readers.keypoints import FORMAT as KEYPOINTS
from sgnray.prepare.readers.keypoints import IMAGE_FORMAT, IMAGE_NAME, NO_FRAME
from sgnray.prepare.readers.named_arrays import TRAINING_ARRAYS
from sgnray.prepare.readers.openpose import FORMAT as OPENPOSE
from sgnray.prepare.readers.openpose import FRAME_NAME, has_person
from sgnray.prepare.readers.pickles import is_pickle
from sgnray.prepare.readers.pyskl import CLIP_FORMAT, SUFFIXES, load_clips
from sgnray.prepare.readers.raw_files import (
    ZIP_MAGIC,
    RawFile,
    has_zip_suffix,
    list_zip,
    read_bytes,
)
from sgnray.storage.location import Entry, Location, escape_name

PART_BYTES = 32 * 1024 * 1024
PART_FILES = 256
_CROWD_BYTES = 64 * HEAD_BYTES  # of the people of one frame, who may fill the head
_NUM_OPEN, _BLOCK_FILES = 16, 32  # threads that detect formats, and files per task
_BOXES = re.compile(rb'"b?box"')  # of a detector

# A file, and the frames that it consists of, if any.
Joined = tuple[RawFile, Sequence[RawFile]]


@dataclass(frozen=True)
class Listing:
    """Recordings by name, items refused without reading them, and files that describe others.

    `left_out` are items that may hold recordings but are not opened, such as a .zip in a .zip.
    """

    files: tuple[RawFile, ...]
    refused: tuple[Skipped, ...]
    sidecars: tuple[RawFile, ...] = ()
    left_out: tuple[Skipped, ...] = ()

    @property
    def unused(self) -> tuple[Skipped, ...]:
        """All that is not used."""
        return self.refused + self.left_out


def list_files(place: Location) -> Listing:
    """List the recordings of a file, a folder (recursively) or a .zip.

    InputError if a .zip or a pickle is corrupt. A folder's .zip files are opened only if it has no
    recordings of its own.
    """
    entry = place.entry()
    if entry is None or not entry.is_folder:
        return _list_file(place, entry)
    plain: list[RawFile | Skipped] = []
    zips: list[RawFile] = []
    for item in place.walk():
        if item.problem:
            if _could_be_raw(item.name):
                plain.append(Skipped(_plain_file(place, item).path, item.problem))
        elif has_known_suffix(item.name):
            plain.append(_plain_file(place, item))
        elif has_zip_suffix(item.name):
            zips.append(_plain_file(place, item))
        elif item.name in TRAINING_ARRAYS:
            reason = "an array of clips is not a recording: prepare its folder alone"
            plain.append(Skipped(_plain_file(place, item).path, reason))
    listing = _detect_formats(plain)
    if listing.files or not zips:
        reason = (
            "a .zip next to recordings is not opened: unpack it if it contains other recordings"
        )
        unopened = tuple(Skipped(file.path, reason) for file in zips)
        return replace(listing, left_out=listing.left_out + unopened)
    inside = _detect_formats([member for file in zips for member in list_zip(file.place)])
    if inside.files:  # other files next to the .zip files say nothing
        listing = _detect_formats(plain, lists_unknown=False)
    return join_listings([listing, inside])


def _list_file(place: Location, entry: Entry | None) -> Listing:
    if entry is None or entry.name.lower().endswith(".zip"):
        return _detect_formats(list(list_zip(place)))
    if entry.name.lower().endswith(SUFFIXES) and (clips := _pickled_files(place, entry)):
        return Listing(tuple(sorted(clips, key=_order)), ())
    file = _plain_file(place, entry)
    if read_bytes(file, len(ZIP_MAGIC)) == ZIP_MAGIC:
        return _detect_formats(list(list_zip(place)))
    return _detect_formats([file], lists_unknown=has_known_suffix(entry.name))


def join_listings(listings: Sequence[Listing]) -> Listing:
    """Make one listing of several."""
    return Listing(
        tuple(sorted((file for listing in listings for file in listing.files), key=_order)),
        tuple(item for listing in listings for item in listing.refused),
        tuple(file for listing in listings for file in listing.sidecars),
        tuple(item for listing in listings for item in listing.left_out),
    )


def cut_parts(files: Sequence[RawFile]) -> Iterator[tuple[RawFile, ...]]:
    """Cut sorted files into parts of about 32 MiB, which depend on nothing but names and sizes."""
    part: list[RawFile] = []
    part_bytes = 0
    for file in files:
        if part and (part_bytes + file.size_bytes > PART_BYTES or len(part) == PART_FILES):
            yield tuple(part)
            part, part_bytes = [], 0
        part.append(file)
        part_bytes += file.size_bytes
    if part:
        yield tuple(part)


def _order(file: RawFile) -> tuple[str, str, str]:
    return file.name, file.place.path, file.member or ""


def _could_be_raw(name: str) -> bool:
    """Return whether what cannot be read could be a recording, a .zip or a folder of them."""
    is_plain = PurePosixPath(name).suffix.lower() in ("", ".zip") or has_known_suffix(name)
    return is_plain and not name.startswith(".")


def _plain_file(place: Location, entry: Entry) -> RawFile:
    name, at = escape_name(entry.name), place.at(entry.path)
    return RawFile(name, at, None, entry.size_bytes, entry.depth, entry.changed)


def _pickled_files(place: Location, entry: Entry) -> list[RawFile]:
    """List the clips of a pickle of many clips; none for a pickle of one clip."""
    file = _plain_file(place, entry)
    if _detect_file(file)[0].kind:
        return []
    clip = replace(file, kind=CLIP_FORMAT, skeleton=COCO17.name)
    return [
        replace(clip, name=name, member=name, size_bytes=keypoint.num_bytes)
        for name, (keypoint, _) in load_clips(place, entry.changed).items()
    ]


def _detect_formats(found: Sequence[RawFile | Skipped], *, lists_unknown: bool = True) -> Listing:
    """Detect the format of each file.

    An unknown file is refused if a recording has its suffix, or if there is no recording.
    """
    files = [file for file in found if isinstance(file, RawFile)]
    unused = [item for item in found if isinstance(item, Skipped)]
    refused = [item for item in unused if has_known_suffix(item.name)]
    left_out = tuple(item for item in unused if not has_known_suffix(item.name))
    sidecars = [file for file in files if file.name in SIDECARS]
    own = [file for file in files if file.name not in SIDECARS]
    detected = _join_images(_detect_all(_join_frames(own, FRAME_NAME)))
    known = [file for file, reason in detected if not reason]
    suffixes = {_suffix(file) for file in known}
    lists_all = lists_unknown and not known
    refused += [
        Skipped(file.path, reason, file.where)
        for file, reason in detected
        if reason and (lists_all or file.frames or _suffix(file) in suffixes)
    ]
    return Listing(tuple(sorted(known, key=_order)), tuple(refused), tuple(sidecars), left_out)


def _suffix(file: RawFile) -> str:
    return ".json" if file.frames else PurePosixPath(file.name).suffix.lower()


def _detect_all(joined: Sequence[Joined]) -> list[tuple[RawFile, str]]:
    """Detect all formats, in threads, because files on another machine are slow to read."""
    blocks = [joined[at : at + _BLOCK_FILES] for at in range(0, len(joined), _BLOCK_FILES)]
    # Threads that open members of one ZipFile may close it while another one reads.
    num_threads = 1 if any(file.member is not None for file, _ in joined) else _NUM_OPEN
    with ThreadPoolExecutor(num_threads, thread_name_prefix="sgn-lister") as threads:
        found = threads.map(lambda block: [one for item in block for one in _detect(*item)], blocks)
        return [one for block in found for one in block]


def _detect(file: RawFile, frames: Sequence[RawFile]) -> list[tuple[RawFile, str]]:
    """Detect the format of a file, or of the recording that `frames` make, or else of each frame.

    Each file is returned with the reason why it is refused, empty if it is not.
    """
    if not frames:
        return [_detect_file(file)]
    reason = ""
    for frame in sorted(frames, key=lambda frame: frame.size_bytes, reverse=True):
        try:
            head = _peek(frame)
            found = detect_format(frame.name, lambda: head)  # noqa: B023 - called at once
        except ClipError as error:  # a damaged member; another frame may show the skeleton
            reason = reason or f"frame {frame.name}: {error.what}"
            continue
        if found is None or found[0].name != OPENPOSE:
            return [_detect_file(frame) for frame in frames]
        if has_person(head):
            return [(replace(file, kind=OPENPOSE, skeleton=found[1].name), "")]
        break  # no person in the largest frame: in no other either
    return [(file, reason or f"none of its {len(frames)} frames contains a person")]


def _detect_file(file: RawFile) -> tuple[RawFile, str]:
    if file.kind:
        return file, ""
    try:
        found = detect_format(file.name, lambda: _peek(file))
        if found and found[0].name == IMAGE_FORMAT and file.size_bytes > HEAD_BYTES:
            found = detect_format(file.name, lambda: read_bytes(file, _CROWD_BYTES))
    except ClipError as error:  # such as a damaged member
        return file, error.what
    if found is None:
        return file, _describe_unknown(file)
    return replace(file, kind=found[0].name, skeleton=found[1].name), ""


def _describe_unknown(file: RawFile) -> str:
    """Explain why a file with the suffix of a recording is not a recording."""
    if not file.size_bytes:
        return "not a recording: it is empty"
    head, name, more = _peek(file), file.name.lower(), ""
    if name.endswith(SUFFIXES) and is_pickle(head) and b"keypoint" in head:
        return "it is a pickle of many clips: name this file itself, unpacked"
    if name.endswith(".csv"):
        more = describe_columns(head)
    elif name.endswith(".json") and _BOXES.search(head) and b'"keypoints"' not in head:
        more = "it has boxes but no keypoints: use a pose model, such as yolo11n-pose.pt"
    return "not a recording: its content has no format that sgnray reads" + (more and f": {more}")


def _peek(file: RawFile) -> bytes:
    return read_bytes(file, min(file.size_bytes, HEAD_BYTES))


def _join_images(detected: Sequence[tuple[RawFile, str]]) -> list[tuple[RawFile, str]]:
    """Join files of one image each, which are the frames of a recording.

    They have numbers in their names; one of key points without people is an empty list.
    """
    found: list[tuple[RawFile, str]] = []
    images: dict[str, list[RawFile]] = {KEYPOINTS: [], OPENPOSE: []}
    for file, reason in detected:
        if file.kind == IMAGE_FORMAT or reason == NO_FRAME:
            images[KEYPOINTS].append(file)
        elif file.kind == OPENPOSE and not (file.frames or FRAME_NAME.fullmatch(file.name)):
            images[OPENPOSE].append(file)  # AlphaPose's
        else:
            found.append((file, reason))
    for kind, own in images.items():
        for file, frames in _join_frames(own, IMAGE_NAME):
            one = frames[0] if len(frames) == 1 else file
            if known := [frame.skeleton for frame in frames or [file] if frame.kind]:
                found.append((replace(one, kind=kind, skeleton=known[0]), ""))
            else:
                found.append((one, NO_FRAME))
    return found


def _join_frames(files: Sequence[RawFile], name: re.Pattern[str]) -> list[Joined]:
    """Join the frames of each recording, which have its name and a number, into one file.

    A folder is a recording with the folder's name, unless one folder has frames of several
    recordings: then recordings are named by the start of their frames' names.
    """
    joined: list[Joined] = []
    groups: dict[tuple[str, PurePosixPath, str], list[tuple[int, str, RawFile]]] = {}
    for file in files:
        match = name.fullmatch(file.name)
        if match is None:
            joined.append((file, ()))
        else:
            folder = file.full_path.parent
            archive = "" if file.member is None else file.place.path
            frame = (int(match[2]), file.name, file)
            groups.setdefault((archive, folder, match[1]), []).append(frame)
    is_by_folder = len({key[:2] for key in groups}) == len(groups)
    for (_, folder, start), numbered in groups.items():
        frames = [file for *_, file in sorted(numbered, key=lambda frame: frame[:2])]
        first = frames[0]
        path = folder if is_by_folder and folder.name else folder / start
        is_member = first.member is not None
        recording = RawFile(
            name=escape_name(path.name),
            place=first.place if is_member else first.place.at(str(path)),
            member=str(path) if is_member else None,
            size_bytes=sum(file.size_bytes for file in frames),
            depth=max(0, first.depth - int(path == folder)),
            changed=sum(file.changed for file in frames),
            frames=tuple(file.member or file.place.path for file in frames),
        )
        joined.append((recording, frames))
    return joined
