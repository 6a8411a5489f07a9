"""Raw files of one recording each: NTU RGB+D, NW-UCLA or synthetic, one by one or as a dataset."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgnray.data.datasets import (
    NWUCLA_CLASS_NAMES,
    read_class_names,
    read_missing_names,
    tell_ntu,
)
from sgnray.data.skeleton import KINECT20, NTU25, Skeleton
from sgnray.errors import ClipError, InputError, Problem, UsageError
from sgnray.prepare.clip import Clip, Skipped, refusal
from sgnray.prepare.normalize import normalize
from sgnray.prepare.plan import RawPlan, RawSource, hash_lines
from sgnray.prepare.readers.ntu import find_ntu_label, parse_ntu_name, read_skeletons
from sgnray.prepare.readers.nwucla import (
    find_nwucla_label,
    parse_nwucla_name,
    read_nwucla_files,
)
from sgnray.prepare.readers.source import Listing, RawFile, cut_parts, list_files, read_file
from sgnray.prepare.recording import ClipName, Recording
from sgnray.storage.location import locate
from sgnray.synth.generate import FORMAT_VERSION as SYNTH_VERSION
from sgnray.synth.generate import MANIFEST_NAME as SYNTH_FILE

_BLOCK_BYTES = 6 * 1024 * 1024  # parsed at once: the NTU parser's start costs as much as 100 kB
_VIDEOS = {".avi", ".mp4", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".m4v", ".flv"}
_KNOWN = (
    "give .skeleton files of NTU RGB+D, .json files of NW-UCLA, or folders or .zip files of them"
)


@dataclass(frozen=True)
class RecordedFormat:
    """A raw format of one recording per file, which its suffix tells.

    `find_label` takes a name and the dataset's number of classes; `read_files` gives a recording
    or a ClipError for each file's bytes.
    """

    suffix: str
    skeleton: Skeleton
    parse_name: Callable[[str], ClipName]
    find_label: Callable[[ClipName, int], int]
    read_files: Callable[[Sequence[bytes]], list[Recording | ClipError]]


NTU = RecordedFormat(".skeleton", NTU25, parse_ntu_name, find_ntu_label, read_skeletons)
NWUCLA = RecordedFormat(".json", KINECT20, parse_nwucla_name, find_nwucla_label, read_nwucla_files)
_FORMATS = (NTU, NWUCLA)


@dataclass(frozen=True)
class RecordingJob:
    """Some raw files of recordings, of a dataset with this many classes."""

    files: tuple[RawFile, ...]
    num_classes: int

    @property
    def num_clips(self) -> int:
        """One clip for each file."""
        return len(self.files)

    def read(self) -> Iterator[Clip | Skipped]:
        """Give each file's clip, or why it is left out."""
        for file, kind, found in _read(self.files):
            try:
                name = kind.parse_name(file.name)
                facts = name.facts(label=kind.find_label(name, self.num_classes))
                if isinstance(found, ClipError):
                    raise found
                clip = Clip(facts, normalize(found, kind.skeleton))
            except ClipError as error:
                yield Skipped(file.name, error.what)
            else:
                yield clip


def tell_recordings(listing: Listing) -> str | None:
    """Tell by the files' names what was recorded: NTU RGB+D, synthetic people, or NW-UCLA."""
    if any(_has_name_of(NTU, file) for file in listing.files):
        has_manifest = any(file.name == SYNTH_FILE for file in listing.files)
        return "synthetic people" if has_manifest else "NTU RGB+D"
    if any(_has_name_of(NWUCLA, file) for file in listing.files):
        return "NW-UCLA"
    return None


def plan_recordings(listing: Listing) -> RawPlan:
    """Plan the dataset of recordings that tell_recordings finds."""
    match tell_recordings(listing):
        case "synthetic people":
            synth = [file for file in listing.files if file.name == SYNTH_FILE]
            class_names = _read_synth(min(synth, key=lambda file: (file.depth, file.place.path)))
            return _plan(listing, "synth", NTU, class_names)
        case "NTU RGB+D":
            names = [parse_ntu_name(file.name) for file in listing.files if _has_name_of(NTU, file)]
            dataset = tell_ntu(
                last_setup=max(name.setup or 0 for name in names),
                last_action=max(name.action for name in names),
            )
            return _plan(listing, dataset, NTU, read_class_names(dataset), read_missing_names())
        case "NW-UCLA":
            return _plan(listing, "nwucla", NWUCLA, NWUCLA_CLASS_NAMES)
        case other:
            raise AssertionError(f"recordings of an unknown kind: {other}")


def find_recordings(path: Path) -> Listing:
    """List the recordings of a file, a folder or a .zip, and what was refused for its path.

    UsageError or InputError where none is found.
    """
    if not path.exists():
        raise UsageError("file or folder not found", where=str(path), now=_KNOWN)
    suffix = path.suffix.lower()
    if path.is_file() and any(suffix == known.suffix for known in _FORMATS):
        status = path.stat()
        file = RawFile(path.name, locate(path), None, status.st_size, 0, status.st_mtime_ns)
        return Listing((file,), ())
    if path.is_file() and suffix != ".zip":
        what = "a video" if suffix in _VIDEOS else f"a {suffix or 'nameless kind of'} file"
        raise InputError(
            f"this is {what}, and sgnray reads skeletons: where the joints are in each frame",
            where=str(path),
            now=_KNOWN,
        )
    found = list_files([locate(path)])
    # Other .json files are not recordings, such as the description of synthetic ones.
    files = tuple(
        file for file in found.files if format_of(file) is NTU or _has_name_of(NWUCLA, file)
    )
    if not files:
        refused = [Problem(item.name, item.reason) for item in found.refused]
        what = "no recording found" + (" that can be used" if refused else "")
        raise InputError(what, where=str(path), now=_KNOWN, problems=refused)
    return Listing(files, found.refused)


def read_recordings(
    files: Iterable[RawFile],
) -> Iterator[tuple[RawFile, Skeleton, Recording | ClipError]]:
    """Read recordings in their order; a ClipError where one cannot be used."""
    for file, kind, found in _read(files):
        yield file, kind.skeleton, found


def read_recording(file: RawFile) -> tuple[Recording, Skeleton]:
    """Read one recording and tell its skeleton; raises ClipError."""
    ((_, skeleton, found),) = read_recordings([file])
    if isinstance(found, ClipError):
        where = f"{file.place}, {file.member}" if file.member else str(file.place)
        raise ClipError(found.what, where=where, now=found.now)
    return found, skeleton


def skeleton_of(file: RawFile) -> Skeleton:
    """Tell which skeleton is in a recording; InputError if its format is unknown."""
    return format_of(file).skeleton


def format_of(file: RawFile) -> RecordedFormat:
    """Tell a recording's format by its suffix; InputError if it is unknown."""
    for known in _FORMATS:
        if file.name.lower().endswith(known.suffix):
            return known
    raise InputError(
        f"a recording of an unknown format: {file.name}", where=str(file.place), now=_KNOWN
    )


def describe_files(files: Sequence[RawFile]) -> RawSource:
    """Describe a set of raw files: the same for a folder and a .zip of it, at any time."""
    return RawSource(
        num_files=len(files),
        num_bytes=sum(file.size_bytes for file in files),
        fingerprint=hash_lines(f"{file.name}\t{file.size_bytes}" for file in files),
        stamp=hash_lines(f"{file.place}\t{file.member}\t{file.changed}" for file in files),
    )


def _read(
    files: Iterable[RawFile],
) -> Iterator[tuple[RawFile, RecordedFormat, Recording | ClipError]]:
    """Read files in blocks of one format."""
    for kind, group in itertools.groupby(files, key=format_of):
        block: list[tuple[RawFile, bytes | ClipError]] = []
        num_bytes = 0
        for file in group:
            block.append((file, _try_read(file)))
            num_bytes += file.size_bytes
            if num_bytes >= _BLOCK_BYTES:
                yield from _parse(block, kind)
                block, num_bytes = [], 0
        yield from _parse(block, kind)


def _try_read(file: RawFile) -> bytes | ClipError:
    try:
        return read_file(file)
    except ClipError as error:
        return error


def _parse(
    block: list[tuple[RawFile, bytes | ClipError]], kind: RecordedFormat
) -> Iterator[tuple[RawFile, RecordedFormat, Recording | ClipError]]:
    recordings = iter(kind.read_files([data for _, data in block if isinstance(data, bytes)]))
    for file, data in block:
        yield file, kind, next(recordings) if isinstance(data, bytes) else data


def _plan(
    listing: Listing,
    dataset: str,
    kind: RecordedFormat,
    class_names: tuple[str, ...],
    missing: frozenset[str] = frozenset(),
) -> RawPlan:
    candidates = [file for file in listing.files if format_of(file) is kind]
    chosen, skipped = _choose(candidates, kind, missing)
    return RawPlan(
        dataset=dataset,
        skeleton=kind.skeleton,
        class_names=class_names,
        jobs=tuple(RecordingJob(files, len(class_names)) for files in cut_parts(chosen)),
        skipped=(*listing.refused, *skipped),
        source=describe_files(candidates),
    )


def _choose(
    candidates: Sequence[RawFile], kind: RecordedFormat, missing: frozenset[str]
) -> tuple[list[RawFile], list[Skipped]]:
    """Take each name once; the others are skipped with a reason."""
    chosen: dict[str, RawFile] = {}
    skipped: list[Skipped] = []
    for file in candidates:
        try:
            if kind.parse_name(file.name).name in missing:
                raise refusal("on the published list of missing skeletons")
            if file.name in chosen:
                raise refusal("another file has this name")
        except ClipError as error:
            skipped.append(Skipped(file.name, error.what))
        else:
            chosen[file.name] = file
    return list(chosen.values()), skipped


def _read_synth(file: RawFile) -> tuple[str, ...]:
    where, now = str(file.place), "synthesize it again: sgn synth OUT"
    try:
        data = json.loads(read_file(file))
        version, class_names = int(data["format_version"]), data["class_names"]
    except (ClipError, ValueError, TypeError, KeyError, RecursionError) as error:
        what = "the synthetic data's description is corrupt"
        raise InputError(what, where=where, now=now) from error
    if version > SYNTH_VERSION:
        what = f"format version {version}, this sgnray reads up to {SYNTH_VERSION}"
        raise InputError(f"the synthetic data have {what}", where=where, now=now)
    is_list = isinstance(class_names, list) and bool(class_names)
    if not is_list or not all(isinstance(name, str) for name in class_names):
        raise InputError("class_names is not a list of names", where=where, now=now)
    return tuple(class_names)


def _has_name_of(kind: RecordedFormat, file: RawFile) -> bool:
    try:
        return bool(kind.parse_name(file.name))
    except ClipError:
        return False
