"""Raw files of one recording each, as the plan of a dataset: NTU RGB+D, NW-UCLA, or synthetic."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from sgnray.data.datasets import (
    NWUCLA_CLASS_NAMES,
    read_class_names,
    read_missing_names,
    tell_ntu,
)
from sgnray.data.skeleton import KINECT20, NTU25, Skeleton
from sgnray.errors import ClipError, InputError
from sgnray.prepare.clip import Skipped
from sgnray.prepare.plan import PartJob, RawPlan, RawSource, hash_lines
from sgnray.prepare.readers.ntu import NtuJob, parse_ntu_name
from sgnray.prepare.readers.nwucla import NwuclaJob, parse_nwucla_name
from sgnray.prepare.readers.source import Listing, RawFile, cut_parts, read_file
from sgnray.prepare.recording import ClipName

SYNTH_FILE = "synth.json"
SYNTH_VERSION = 1

ParseName = Callable[[str], ClipName]


def tell_recordings(listing: Listing) -> str | None:
    """Tell by the files' names what was recorded: NTU RGB+D, synthetic people, or NW-UCLA."""
    if any(_try_name(parse_ntu_name, file) for file in listing.files):
        has_manifest = any(file.name == SYNTH_FILE for file in listing.files)
        return "synthetic people" if has_manifest else "NTU RGB+D"
    if any(_try_name(parse_nwucla_name, file) for file in listing.files):
        return "NW-UCLA"
    return None


def plan_recordings(listing: Listing) -> RawPlan:
    """Plan the dataset of recordings that tell_recordings tells of."""
    skeletons = [file for file in listing.files if file.name.lower().endswith(".skeleton")]
    kind = tell_recordings(listing)
    if kind == "synthetic people":
        synth = [file for file in listing.files if file.name == SYNTH_FILE]
        class_names = _read_synth(min(synth, key=lambda file: (file.depth, file.place.path)))
        return _plan_ntu("synth", class_names, skeletons, listing)
    if kind == "NTU RGB+D":
        ntu_names = [name for file in skeletons if (name := _try_name(parse_ntu_name, file))]
        dataset = tell_ntu(
            last_setup=max(name.setup or 0 for name in ntu_names),
            last_action=max(name.action for name in ntu_names),
        )
        return _plan_ntu(dataset, read_class_names(dataset), skeletons, listing)
    json_files = [file for file in listing.files if file.name.lower().endswith(".json")]
    chosen, skipped = _choose(json_files, parse_nwucla_name)
    jobs = [NwuclaJob(files) for files in cut_parts(chosen)]
    return _plan("nwucla", KINECT20, NWUCLA_CLASS_NAMES, jobs, skipped, json_files, listing)


def describe_files(files: Sequence[RawFile]) -> RawSource:
    """Say what a set of raw files is: the same for a folder and a .zip of it, at any time."""
    return RawSource(
        num_files=len(files),
        num_bytes=sum(file.size_bytes for file in files),
        fingerprint=hash_lines(f"{file.name}\t{file.size_bytes}" for file in files),
        stamp=hash_lines(f"{file.place}\t{file.member}\t{file.changed}" for file in files),
    )


def _plan_ntu(
    dataset: str, class_names: tuple[str, ...], skeletons: list[RawFile], listing: Listing
) -> RawPlan:
    missing = read_missing_names() if dataset.startswith("ntu") else frozenset()
    chosen, skipped = _choose(skeletons, parse_ntu_name, missing)
    jobs = [NtuJob(files, len(class_names)) for files in cut_parts(chosen)]
    return _plan(dataset, NTU25, class_names, jobs, skipped, skeletons, listing)


def _plan(
    dataset: str,
    skeleton: Skeleton,
    class_names: tuple[str, ...],
    jobs: Sequence[PartJob],
    skipped: list[Skipped],
    candidates: Sequence[RawFile],
    listing: Listing,
) -> RawPlan:
    return RawPlan(
        dataset=dataset,
        skeleton=skeleton,
        class_names=class_names,
        jobs=tuple(jobs),
        skipped=(*listing.refused, *skipped),
        source=describe_files(candidates),
    )


def _choose(
    candidates: Sequence[RawFile], parse_name: ParseName, missing: frozenset[str] = frozenset()
) -> tuple[list[RawFile], list[Skipped]]:
    """Take each name once; the others are skipped with a reason."""
    chosen: dict[str, RawFile] = {}
    skipped: list[Skipped] = []
    for file in candidates:
        try:
            name = parse_name(file.name).name
        except ClipError as error:
            skipped.append(Skipped(file.name, error.what))
            continue
        if name in missing:
            skipped.append(Skipped(file.name, "on the published list of missing skeletons"))
        elif file.name in chosen:
            skipped.append(Skipped(file.name, "there is another file of this name"))
        else:
            chosen[file.name] = file
    return list(chosen.values()), skipped


def _read_synth(file: RawFile) -> tuple[str, ...]:
    where, now = str(file.place), "synthesize it again: sgn synth OUT"
    try:
        data = json.loads(read_file(file))
        version, class_names = int(data["format_version"]), data["class_names"]
    except (ClipError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            "the synthetic data's description is torn", where=where, now=now
        ) from error
    if version > SYNTH_VERSION:
        what = f"format version {version}, this sgnray reads up to {SYNTH_VERSION}"
        raise InputError(f"the synthetic data have {what}", where=where, now=now)
    is_list = isinstance(class_names, list) and bool(class_names)
    if not is_list or not all(isinstance(name, str) for name in class_names):
        raise InputError("class_names is no list of names", where=where, now=now)
    return tuple(class_names)


def _try_name(parse_name: ParseName, file: RawFile) -> ClipName | None:
    try:
        return parse_name(file.name)
    except ClipError:
        return None
