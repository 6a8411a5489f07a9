"""Raw recordings, one per file: in folders, in .zip files, or in a folder's .zip files.

The frames of one recording count as one file, and so does each clip in a pickle of many.
Nothing is extracted: a member is read into memory, up to a fixed limit.
"""

from __future__ import annotations

import errno
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from sgnray.data.skeleton import COCO17
from sgnray.data.skipped import Skipped
from sgnray.errors import ClipError, InputError, first_line
from sgnray.prepare.clip import refusal
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
from sgnray.prepare.readers.openpose import FRAME_NAME, has_person, join_frames
from sgnray.prepare.readers.people import in_frame
from sgnray.prepare.readers.pickles import is_pickle
from sgnray.prepare.readers.pyskl import CLIP_FORMAT, SUFFIXES, load_clips, pickle_clip
from sgnray.storage.location import Entry, Location, escape_name, is_hidden

MAX_FILE_BYTES = 64 * 1024 * 1024
PART_BYTES = 32 * 1024 * 1024
PART_FILES = 256
_CROWD_BYTES = 64 * HEAD_BYTES  # of the people of one frame, who may fill the head
_NUM_OPEN, _BLOCK_FILES = 16, 32  # threads that detect formats, and files per task
_BOMB_BYTES, _BOMB_RATIO = 16 * 1024 * 1024, 200
_REMOTE_BUFFER_BYTES = 1024 * 1024
# The errors of zipfile for a broken .zip: RuntimeError for an encrypted member or an unknown
# version, ValueError for a name that is not UTF-8 or an offset before the file's start,
# OverflowError for an offset beyond any file.
ZIP_ERRORS = (
    *(OSError, zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(KeyError, RuntimeError, ValueError, OverflowError),
)
_BOXES = re.compile(rb'"b?box"')  # of a detector
# The other methods of zipfile decompress without a limit on memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, slots=True)
class RawFile:
    """One raw file: at `place`, or the `member` of the .zip at `place`.

    `name` is the last part of its path, in UTF-8; `depth` is the number of folders above it,
    counted from what the user named; `changed` differs once the listed file is rewritten. `frames`
    are the paths or members of a recording that has a file for each frame. `kind` is the format
    and `skeleton` the skeleton that were detected when it was listed.
    """

    name: str
    place: Location
    member: str | None
    size_bytes: int
    depth: int
    changed: int
    frames: tuple[str, ...] = ()
    kind: str = ""
    skeleton: str = ""

    @property
    def where(self) -> str:
        """Its place for a message, and the member if it is in a .zip."""
        return escape_name(f"{self.place}, {self.member}" if self.member else str(self.place))

    @property
    def full_path(self) -> PurePosixPath:
        """Its path on its disk, or in its .zip."""
        return PurePosixPath(_with_slashes(self.member) if self.member else self.place.path)

    @property
    def path(self) -> str:
        """Its path below what the user named; of a clip in a pickle, its whole name."""
        if self.member is not None and _is_pickled(self):
            return self.member
        parts = self.full_path.parts
        return escape_name("/".join(parts[-self.depth - 1 :]))


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


def _with_slashes(member: str) -> str:
    """Return the path of a member as it should have been written: not with backslashes."""
    return member.replace("\\", "/")  # of PowerShell 5


def list_files(place: Location) -> Listing:
    """List the recordings of a file, a folder (recursively) or a .zip.

    InputError if a .zip or a pickle is corrupt. A folder's .zip files are opened only if it has no
    recordings of its own.
    """
    entry = place.entry()
    if entry is None or (not entry.is_folder and entry.name.lower().endswith(".zip")):
        return _recognize(list(_zip_files(place)))
    if not entry.is_folder:
        if entry.name.lower().endswith(SUFFIXES) and (clips := _pickled_files(place, entry)):
            return Listing(tuple(sorted(clips, key=_order)), ())
        try:
            with place.open() as stream:
                is_zip = stream.read(4) == b"PK\3\4"
        except OSError as error:
            raise _unreadable(_plain_file(place, entry), error) from error
        if is_zip:
            return _recognize(list(_zip_files(place)))
        lists_unknown = has_known_suffix(entry.name)
        return _recognize([_plain_file(place, entry)], lists_unknown=lists_unknown)
    plain: list[RawFile | Skipped] = []
    zips: list[RawFile] = []
    for item in place.walk():
        if item.problem:
            if _could_be_raw(item.name):
                plain.append(Skipped(_plain_file(place, item).path, item.problem))
        elif has_known_suffix(item.name):
            plain.append(_plain_file(place, item))
        elif _is_zip(item.name):
            zips.append(_plain_file(place, item))
        elif item.name in TRAINING_ARRAYS:
            reason = "an array of clips is not a recording: prepare its folder alone"
            plain.append(Skipped(_plain_file(place, item).path, reason))
    listing = _recognize(plain)
    if listing.files or not zips:
        reason = (
            "a .zip next to recordings is not opened: unpack it if it contains other recordings"
        )
        unopened = tuple(Skipped(file.path, reason) for file in zips)
        return replace(listing, left_out=listing.left_out + unopened)
    inside = _recognize([member for file in zips for member in _zip_files(file.place)])
    if inside.files:  # other files next to the .zip files say nothing
        listing = _recognize(plain, lists_unknown=False)
    return join_listings([listing, inside])


def join_listings(listings: Sequence[Listing]) -> Listing:
    """Make one listing of several."""
    return Listing(
        tuple(sorted((file for listing in listings for file in listing.files), key=_order)),
        tuple(item for listing in listings for item in listing.refused),
        tuple(file for listing in listings for file in listing.sidecars),
        tuple(item for listing in listings for item in listing.left_out),
    )


def read_file(file: RawFile) -> bytes:
    """Read one raw file whole; ClipError if it is too large or damaged, InputError if gone."""
    if file.size_bytes > MAX_FILE_BYTES:
        raise refusal(
            f"larger than {MAX_FILE_BYTES >> 20} MiB, the limit for a recording",
            name=file.name,
            now="cut the recording into parts, or leave it out",
        )
    if _is_pickled(file):
        clips = load_clips(file.place, file.changed)
        if file.name not in clips:
            raise refusal("it is no longer in the pickle", name=file.name)
        return pickle_clip(clips[file.name])
    if not file.frames:
        data = _read(file, file.size_bytes + 1)
        num_bytes = len(data)
    else:
        frames = []
        for frame in frames_of(file):
            with in_frame(frame.name):
                frames.append((frame.name, _read(frame, file.size_bytes + 1)))
        num_bytes = sum(len(text) for _, text in frames)
        data = join_frames(frames)
    if num_bytes != file.size_bytes:
        raise refusal("its size differs from the listed one", name=file.name)
    return data


def _read(file: RawFile, limit: int) -> bytes:
    """Read up to `limit` bytes of a file."""
    try:
        if file.member is not None:
            with _open_zip(file.place, _changed(file.place)).open(file.member) as member:
                return member.read(limit)
        if not file.place.is_local:
            with file.place.open() as remote:
                return bytes(remote.read(limit))
        with open(file.place.path, "rb", buffering=0) as stream:
            data = stream.read(limit) or b""
            while len(data) < min(limit, file.size_bytes) and (more := stream.read(limit)):
                data += more  # network file systems may return less than requested
            return data
    except ZIP_ERRORS as error:
        # A corrupt .zip may make its reader seek to an impossible offset: EINVAL.
        is_misled = file.member is not None and getattr(error, "errno", None) == errno.EINVAL
        if isinstance(error, OSError) and not is_misled:
            raise _unreadable(file, error) from error
        raise refusal(f"cannot be read: {error}", name=file.name) from error


def frames_of(file: RawFile) -> Iterator[RawFile]:
    """Yield the files of a recording that has one for each frame; `size_bytes` is that of all."""
    for path in file.frames:
        name = _with_slashes(path).rpartition("/")[2]
        if file.member is None:
            yield replace(file, name=name, place=file.place.at(path), frames=())
        else:
            yield replace(file, name=name, member=path, frames=())


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


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip") and not name.startswith("._")


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


def _is_pickled(file: RawFile) -> bool:
    return file.member is not None and file.place.name.lower().endswith(SUFFIXES)


def _recognize(found: Sequence[RawFile | Skipped], *, lists_unknown: bool = True) -> Listing:
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
            found = detect_format(file.name, lambda: _read(file, _CROWD_BYTES))
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
    return _read(file, min(file.size_bytes, HEAD_BYTES))


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


def _zip_files(place: Location) -> Iterator[RawFile | Skipped]:
    try:
        archive = _open_zip(place, _changed(place))
    except ZIP_ERRORS as error:
        raise InputError(
            f"this .zip cannot be read: {error}",
            where=str(place),
            now="download it again; an intact .zip passes unzip -t",
        ) from error
    for member in archive.infolist():
        path = _with_slashes(member.filename)
        parts = PurePosixPath(path).parts
        if not parts or path.endswith("/") or any(map(is_hidden, parts[:-1])):
            continue
        if _is_zip(parts[-1]):
            yield Skipped("/".join(parts), "a .zip inside a .zip: unpack it first")
            continue
        if not has_known_suffix(parts[-1]):
            continue
        reason = _suspicion(member, parts)
        if reason is None and archive.getinfo(member.filename) is not member:
            reason = "another file has this path"  # opening by name would open that one
        if reason is not None:
            yield Skipped(parts[-1], reason)
        else:
            depth = len(parts) - 1
            yield RawFile(parts[-1], place, member.filename, member.file_size, depth, member.CRC)


def _suspicion(member: zipfile.ZipInfo, parts: Sequence[str]) -> str | None:
    """Explain why a member is not read, None if it is; no member is ever extracted."""
    if ".." in parts or parts[0] == "/":
        return "its path points outside the .zip"
    if member.compress_type not in _METHODS:
        return "it is not compressed with deflate"
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > _BOMB_BYTES and ratio > _BOMB_RATIO:
        return f"it would grow {ratio:.0f} times when unpacked"
    return None


def _unreadable(file: RawFile, error: OSError) -> InputError:
    # Not a defect of one clip: a disk, a network or a node that fails must not drop clips.
    is_gone = isinstance(error, FileNotFoundError)
    reason = "is missing, or not accessible from this machine" if is_gone else "cannot be read"
    return InputError(
        f"a raw file {reason}: {error.strerror or first_line(error)}",
        where=str(file.place),
        now="fix this and rerun the same command to resume; on a cluster, every node needs "
        "the raw files at the same path",
    )


def _changed(place: Location) -> int:
    if place.is_local:
        return Path(place.path).stat().st_mtime_ns
    return 0  # a remote .zip is opened once


@lru_cache(maxsize=4)
def _open_zip(place: Location, changed: int) -> zipfile.ZipFile:
    # The listing of 57 thousand members takes half a second: read once per process and version.
    if place.is_local:
        return zipfile.ZipFile(place.path)
    return zipfile.ZipFile(io.BufferedReader(place.open(), _REMOTE_BUFFER_BYTES))
