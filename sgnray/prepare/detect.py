"""What lies in a raw folder: which dataset it is, which files to read, and which are left out."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path

from sgnray.data.skeleton import KINECT20, NTU25, SkeletonLayout
from sgnray.errors import ClipError, InputError
from sgnray.prepare.ntu import parse_ntu_name
from sgnray.prepare.nwucla import CLASS_NAMES, parse_nwucla_name
from sgnray.prepare.recording import ClipName
from sgnray.prepare.source import RawFile, list_files, read_file

SYNTH_FILE = "synth.json"
SYNTH_VERSION = 1
_NTU60_CLASSES = 60
_NTU60_SETUPS = 17


@dataclass(frozen=True)
class Skipped:
    """A raw file that did not get in, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class RawPlan:
    """What will be prepared; `files` are sorted by name, each name once.

    `fingerprint` is made of all candidate files' names and sizes, `stamp` of their places and
    times as well: it tells whether a file was rewritten while a preparation was interrupted.
    """

    dataset: str
    layout: SkeletonLayout
    class_names: tuple[str, ...]
    files: tuple[RawFile, ...]
    skipped: tuple[Skipped, ...]
    num_bytes: int
    fingerprint: str
    stamp: str


def detect(raw: Path) -> RawPlan:
    """Tell the dataset from the names of its files; InputError if there is none."""
    candidates = list_files(raw)
    synth = [file for file in candidates if file.name == SYNTH_FILE]
    skeletons = [file for file in candidates if file.name.lower().endswith(".skeleton")]
    json_files = [file for file in candidates if file.name.lower().endswith(".json")]
    if synth:
        description = min(synth, key=lambda file: (file.depth, file.path))
        class_names = _read_synth(description, raw)
        return _plan(raw, "synth", NTU25, class_names, skeletons, parse_ntu_name)
    if skeletons:
        dataset = _tell_ntu(raw, skeletons)
        class_names = read_class_names(dataset)
        return _plan(raw, dataset, NTU25, class_names, skeletons, parse_ntu_name)
    if any(_is_named(file, parse_nwucla_name) for file in json_files):
        return _plan(raw, "nwucla", KINECT20, CLASS_NAMES, json_files, parse_nwucla_name)
    raise _nothing_found(raw)


def read_class_names(dataset: str) -> tuple[str, ...]:
    """Give the action names of ntu60 or ntu120, in the order of their labels."""
    text = package_files("sgnray.data").joinpath("ntu_actions.csv").read_text(encoding="utf-8")
    names = [row["name"] for row in csv.DictReader(text.splitlines())]
    return tuple(names[:_NTU60_CLASSES] if dataset == "ntu60" else names)


def read_missing_names() -> frozenset[str]:
    """Give NTU's published clips with missing skeletons: 535, of which 302 belong to NTU60."""
    text = package_files("sgnray.data").joinpath("ntu_missing.txt").read_text(encoding="utf-8")
    return frozenset(text.split())


def _tell_ntu(raw: Path, skeletons: list[RawFile]) -> str:
    names = [parse_ntu_name(file.name) for file in skeletons if _is_named(file, parse_ntu_name)]
    if not names:
        raise _nothing_found(raw)
    last_setup = max(name.setup or 0 for name in names)
    last_action = max(name.action for name in names)
    is_ntu60 = last_setup <= _NTU60_SETUPS and last_action <= _NTU60_CLASSES
    return "ntu60" if is_ntu60 else "ntu120"


def _read_synth(file: RawFile, raw: Path) -> tuple[str, ...]:
    where, now = f"{raw}: {file.name}", "synthesise it again: sgn synth OUT"
    try:
        data = json.loads(read_file(file))
        version, class_names = int(data["format_version"]), data["class_names"]
    except (ClipError, ValueError, TypeError, KeyError) as error:
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


def _plan(
    raw: Path,
    dataset: str,
    layout: SkeletonLayout,
    class_names: tuple[str, ...],
    candidates: list[RawFile],
    parse_name: Callable[[str], ClipName],
) -> RawPlan:
    missing = read_missing_names() if dataset.startswith("ntu") else frozenset()
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
    if not chosen:
        raise _nothing_found(raw)
    return RawPlan(
        dataset=dataset,
        layout=layout,
        class_names=class_names,
        files=tuple(chosen.values()),
        skipped=tuple(skipped),
        num_bytes=sum(file.size_bytes for file in candidates),
        fingerprint=_hash(f"{file.name}\t{file.size_bytes}" for file in candidates),
        stamp=_hash(f"{file.archive}\t{file.path}\t{file.changed}" for file in candidates),
    )


def _is_named(file: RawFile, parse_name: Callable[[str], ClipName]) -> bool:
    try:
        parse_name(file.name)
    except ClipError:
        return False
    return True


def _hash(lines: Iterable[str]) -> str:
    text = "\n".join(lines).encode("utf-8", "backslashreplace")
    return hashlib.sha256(text).hexdigest()


def _nothing_found(raw: Path) -> InputError:
    return InputError(
        "no recordings are here: neither SsssCcccPpppRrrrAaaa.skeleton (NTU RGB+D), "
        "nor aAA_sSS_eEE_vVV.json (NW-UCLA), in folders or .zip files",
        where=f"--raw {raw}",
        now="give the folder or the .zip that holds the recordings, or make some: sgn synth OUT",
    )
