"""Raw recordings of any format in the table: one by one, or as one of the published datasets."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from sgnray.data.datasets import SKELETONS, read_class_names, read_missing_names
from sgnray.data.skeleton import Skeleton
from sgnray.data.skipped import Skipped
from sgnray.errors import ClipError, InputError, Problem, show_first
from sgnray.prepare.clip import Clip, ClipFacts, Recording, refusal, unknown_action
from sgnray.prepare.normalize import normalize
from sgnray.prepare.plan import PartJob, RawPlan, RawSource, cut_blocks, hash_lines
from sgnray.prepare.readers.format_table import (
    FORMATS,
    LABELS_FILE,
    NTU,
    PUBLISHED,
    PublishedRecordings,
    RecordedFormat,
)
from sgnray.prepare.readers.listing import Listing, cut_parts
from sgnray.prepare.readers.raw_files import RawFile, read_file
from sgnray.synth.generate import FORMAT_VERSION as SYNTH_VERSION
from sgnray.synth.generate import MANIFEST_NAME as SYNTH_FILE

OWN = "recordings of your own"
SYNTHETIC = "synthetic people"
_BLOCK_BYTES = 6 * 1024 * 1024  # parsed at once: the NTU parser's start costs as much as 100 kB


def detect_recordings(listing: Listing, *, is_described: bool = False) -> str | None:
    """Detect what was recorded: synthetic people, a published dataset by the files' names, or OWN.

    Described recordings (labels.csv, a name pattern) are OWN, with any names.
    """
    if is_described or any(file.name == LABELS_FILE for file in listing.sidecars):
        return OWN if listing.files else None
    for title, known in PUBLISHED.items():
        alike = (file for file in listing.files if file.kind == known.kind.name)
        if any(known.has_name(file.name) for file in alike):
            has_manifest = any(file.name == SYNTH_FILE for file in listing.sidecars)
            return SYNTHETIC if has_manifest and known.kind is NTU else title
    # A .skeleton file is not opened while it is listed, so its content is checked here.
    return OWN if any(file.kind != NTU.name or _is_ntu(file) for file in listing.files) else None


def plan_recordings(listing: Listing, recorded: str) -> RawPlan:
    """Plan the dataset of recordings; `recorded` is what detect_recordings gives."""
    check_one_format(listing.files)
    is_synthetic = recorded == SYNTHETIC
    published = PUBLISHED["NTU RGB+D" if is_synthetic else recorded]
    missing = frozenset[str]() if is_synthetic else read_missing_names()
    chosen, skipped = _choose(listing.files, published, missing)
    if is_synthetic:
        dataset, class_names = "synth", _read_synth(listing)
    else:
        names = filter(published.has_name, (file.name for file in listing.files))
        dataset = published.name_dataset(map(published.parse_name, names))
        class_names = read_class_names(dataset)
    prepare = partial(
        prepare_recordings, num_classes=len(class_names), parse_name=published.parse_name
    )
    return RawPlan(
        dataset=dataset,
        skeleton=SKELETONS[listing.files[0].skeleton],
        class_names=class_names,
        jobs=tuple(PartJob(len(files), partial(prepare, files)) for files in cut_parts(chosen)),
        skipped=(*listing.unused, *skipped),
        source=describe_files(listing.files),
    )


def prepare_recordings(
    files: Sequence[RawFile],
    num_classes: int,
    *,
    parse_name: Callable[[str], ClipFacts] | None = None,
    facts: Sequence[ClipFacts] = (),
) -> Iterator[Clip | Skipped]:
    """Yield each recording's clip, for a dataset with this many classes, or why it is left out.

    `parse_name` reads the names of a published dataset, or `facts` describe the recordings. Names
    that users choose may occur twice, so that such a recording is reported by its path when it is
    skipped.
    """
    for index, (file, skeleton, found) in enumerate(read_recordings(files)):
        try:
            known = parse_name(file.name) if parse_name else facts[index]
            if known.label >= num_classes:
                raise refusal(unknown_action(known.label, num_classes))
            if isinstance(found, ClipError):
                raise found
            clip = Clip(known, normalize(found, skeleton))
        except ClipError as error:
            yield Skipped(file.path if facts else file.name, error.what)
        else:
            yield clip


def check_one_format(files: Sequence[RawFile]) -> None:
    """Raise InputError if recordings have different formats or skeletons."""
    groups = Counter((file.kind, file.skeleton) for file in files)
    if len(groups) < 2:
        return
    example = {(file.kind, file.skeleton): file for file in reversed(files)}
    raise InputError(
        "these recordings have different formats and do not make one dataset",
        where=show_first([file.where for file in files]),
        now="sort them into one folder per format, and prepare these one by one",
        problems=[
            Problem(f"{count} like {example[group].path}", f"{group[0]}, {group[1]}")
            for group, count in groups.most_common()
        ],
    )


def read_recordings(
    files: Iterable[RawFile],
) -> Iterator[tuple[RawFile, Skeleton, Recording | ClipError]]:
    """Read recordings in their order, with a ClipError for one that cannot be used.

    Files of one format and skeleton are read in blocks.
    """
    for (kind, skeleton), group in itertools.groupby(
        files, lambda file: (file.kind, file.skeleton)
    ):
        for block in cut_blocks(group, lambda file: file.size_bytes, num_bytes=_BLOCK_BYTES):
            yield from _read_block(block, FORMATS[kind], SKELETONS[skeleton])


def read_recording(file: RawFile) -> tuple[Recording, Skeleton]:
    """Read one recording; raises ClipError."""
    ((_, skeleton, found),) = read_recordings([file])
    if isinstance(found, ClipError):
        raise ClipError(found.what, where=file.where, now=found.now)
    return found, skeleton


def describe_files(files: Sequence[RawFile]) -> RawSource:
    """Describe a set of raw files: the same for a folder and a .zip of it, at any time."""
    return RawSource(
        num_files=len(files),
        num_bytes=sum(file.size_bytes for file in files),
        fingerprint=hash_lines(f"{file.name}\t{file.size_bytes}" for file in files),
        stamp=hash_lines(f"{file.place}\t{file.member}\t{file.changed}" for file in files),
    )


def _read_block(
    files: Sequence[RawFile], kind: RecordedFormat, skeleton: Skeleton
) -> Iterator[tuple[RawFile, Skeleton, Recording | ClipError]]:
    contents = [_try_read(file) for file in files]
    texts = [data for data in contents if isinstance(data, bytes)]
    recordings = iter(kind.read_files(texts, skeleton) if texts else ())
    for file, data in zip(files, contents, strict=True):
        yield file, skeleton, next(recordings) if isinstance(data, bytes) else data


def _try_read(file: RawFile) -> bytes | ClipError:
    try:
        return read_file(file)
    except ClipError as error:
        return error


def _choose(
    candidates: Sequence[RawFile], published: PublishedRecordings, missing: frozenset[str]
) -> tuple[list[RawFile], list[Skipped]]:
    """Take each name once; the others are skipped with a reason."""
    chosen: dict[str, RawFile] = {}
    skipped: list[Skipped] = []
    for file in candidates:
        try:
            if published.parse_name(file.name).name in missing:
                raise refusal("on the published list of missing skeletons")
            if file.name in chosen:
                raise refusal("another file has this name")
        except ClipError as error:
            skipped.append(Skipped(file.name, error.what))
        else:
            chosen[file.name] = file
    return list(chosen.values()), skipped


def _read_synth(listing: Listing) -> tuple[str, ...]:
    """Read the class names of `sgn synth` from its description nearest to the top."""
    found = [file for file in listing.sidecars if file.name == SYNTH_FILE]
    file = min(found, key=lambda file: (file.depth, file.place.path))
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


def _is_ntu(file: RawFile) -> bool:
    try:
        return NTU.detect(read_file(file)) is not None
    except ClipError:
        return False
