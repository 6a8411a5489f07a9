"""A user's own recordings as a dataset, labeled by labels.csv, their names or their folders.

With a name pattern, such as a{label}_s{subject}_v{camera}, their names are read; else, if there is
a labels.csv, its rows; else the clips of a class are in its folder. A pattern without {label}
leaves the class to the folder, and a pattern with a labels.csv is refused.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import PurePosixPath
from types import MappingProxyType

from sgnray.data.datasets import SKELETONS
from sgnray.data.info import NamedSplits
from sgnray.data.skipped import Skipped
from sgnray.errors import ClipError, InputError, Problem, UsageError, shorten_problems
from sgnray.prepare.clip import CLIP_NUMBERS, ClipFacts, refusal
from sgnray.prepare.plan import PartJob, RawPlan, RawSource, hash_lines
from sgnray.prepare.readers.format_table import LABELS_FILE, stem_of
from sgnray.prepare.readers.kinetics import FORMAT as KINETICS
from sgnray.prepare.readers.kinetics import read_label
from sgnray.prepare.readers.labels_csv import (
    PARTS,
    ClipWords,
    Labeler,
    find_wrong_numbers,
    label_by_table,
)
from sgnray.prepare.readers.listing import Listing, cut_parts
from sgnray.prepare.readers.naming import name_after_file
from sgnray.prepare.readers.raw_files import RawFile, frames_of, read_file
from sgnray.prepare.readers.recordings import (
    check_one_format,
    describe_files,
    prepare_recordings,
)
from sgnray.storage.location import Location, escape_name

log = logging.getLogger(__name__)

_EVERY = {"cs": ("subject", 3), "cv": ("camera", 3)}  # every third one is for testing
_RANDOM_EVERY = 5
_FIELD = re.compile(r"\{(\w*)\}|(\*)")
# Folders that MMPose and users of OpenPose write below the folder of a class.
_NO_CLASSES = ("json", "keypoints", "openpose", "predictions")
# What AlphaPose writes below the folder of a recording.
_NAMES_OF_ALPHAPOSE = ("alphapose-results", "sep-json")
_NOW = (
    "sort them into one folder per class, put a labels.csv (name,label,subject,camera) next to "
    "them, or give --name-pattern 'a{label}_s{subject}_v{camera}'"
)


def plan_labeled(listing: Listing, raw: Sequence[Location], name_pattern: str | None) -> RawPlan:
    """Plan the dataset of a user's own recordings.

    It is named after the first of `raw`. Classes are the labels that occur, sorted. Cases are cs
    and cv if several subjects or cameras are known, given if labels.csv has a column split, and
    random. InputError if the labels are unknown or all the same, or if formats are mixed.
    """
    check_one_format(listing.files)
    describe = _choose_labeler(listing, name_pattern)
    where = ", ".join(f"--raw {place}" for place in raw)
    words_of: dict[str, tuple[RawFile, ClipWords]] = {}
    skipped, copies = list(listing.unused), _find_copies(listing.files)
    for file in listing.files:
        try:
            if file in copies:
                raise refusal("the same recording is in another place")
            words = describe(file)
            if words["name"] in words_of:
                raise refusal("another recording has this name")
        except ClipError as error:
            skipped.append(Skipped(file.path, error.what))
        else:
            words_of[words["name"]] = (file, words)
    if not words_of:
        raise InputError(
            "no recording has a known label",
            where=where,
            now=_advise(listing, name_pattern),
            problems=shorten_problems([Problem(item.name, item.reason) for item in skipped]),
        )
    class_names = _sort_labels({words["label"] for _, words in words_of.values()})
    if len(class_names) < 2:
        what = f"all recordings have the label {class_names[0]!r}, but a model needs two classes"
        has_table = name_pattern is None and bool(_find_tables(listing))
        now = f"give them different labels in {LABELS_FILE}" if has_table else _NOW
        raise InputError(what, where=where, now=now)
    names = sorted(words_of)
    files = [words_of[name][0] for name in names]
    label_of = {name: label for label, name in enumerate(class_names)}
    facts = [_read_facts(words_of[name][1], label_of) for name in names]
    rest = iter(facts)
    prepare = partial(prepare_recordings, num_classes=len(class_names))
    return RawPlan(
        dataset=name_after_file(stem_of(raw[0].name)),
        skeleton=SKELETONS[files[0].skeleton],
        class_names=class_names,
        jobs=tuple(
            PartJob(
                len(part), partial(prepare, part, facts=tuple(itertools.islice(rest, len(part))))
            )
            for part in cut_parts(files)
        ),
        skipped=tuple(skipped),
        source=_describe_source(listing.files, facts, class_names),
        splits=name_splits(facts, {name: words_of[name][1].get("split", "") for name in names}),
    )


def _advise(listing: Listing, name_pattern: str | None) -> str:
    """Say how recordings get labels, by what gives them now."""
    example = stem_of(listing.files[0].path)
    if name_pattern is not None:
        return f"give a --name-pattern that fits their names, such as {example}"
    if _find_tables(listing):
        return f"list the recordings in {LABELS_FILE}, such as {example} with its label"
    return _NOW


def _find_tables(listing: Listing) -> list[RawFile]:
    return [file for file in listing.sidecars if file.name == LABELS_FILE]


def _find_copies(files: Sequence[RawFile]) -> set[RawFile]:
    """Find recordings that are byte for byte another one with the same path.

    Otherwise a clip could be trained on, and its copy tested.
    """
    alike: dict[tuple[str, int], list[RawFile]] = defaultdict(list)
    for file in files:
        alike[file.path, file.size_bytes].append(file)
    copies: set[RawFile] = set()
    for group in alike.values():
        seen: set[str] = set()
        for file in group if len(group) > 1 else ():
            try:
                digest = hashlib.sha256(read_file(file)).hexdigest()
            except ClipError:  # it is refused when it is prepared
                continue
            if digest in seen:
                copies.add(file)
            seen.add(digest)
    return copies


def _choose_labeler(listing: Listing, name_pattern: str | None) -> Labeler:
    tables = _find_tables(listing)
    if name_pattern is None:
        return label_by_table(tables, listing) if tables else _label_by_folder(listing.files)
    if tables:
        raise UsageError(
            "labels.csv and --name-pattern cannot be combined",
            where=f"--name-pattern {name_pattern!r}, {tables[0].place}",
            now="leave out one of them",
        )
    return _label_by_pattern(name_pattern, listing.files)


def _label_by_folder(files: Sequence[RawFile]) -> Labeler:
    """Name clips CLASS/FILE, or by more of their paths if several would have the same name."""
    _check_folders_of_frames(files)
    num_parts = {file: _count_parts(file) for file in files}
    names = _name_apart(num_parts)
    is_labeled: set[bool] = set()

    def describe(file: RawFile) -> ClipWords:
        if file.kind == KINETICS:
            label = read_label(read_file(file))
            if bool(label) not in is_labeled and is_labeled:
                what = "has a label in it and other files have none" if label else "has no label"
                log.warning("%s %s: without a label, the folder is the class", file.path, what)
            is_labeled.add(bool(label))
            if label:
                return {"name": names[file], "label": label}
        parts = PurePosixPath(stem_of(file.path)).parts
        if len(parts) < 2:
            what = f": its {len(file.frames)} files count as the frames of one recording"
            raise refusal("it is not in a class folder" + (what if file.frames else ""))
        return {"name": names[file], "label": parts[-num_parts[file]]}

    return describe


def _count_parts(file: RawFile) -> int:
    """Count the last parts of a path, from the class on: it and the recording have own names."""
    parts = PurePosixPath(stem_of(file.path)).parts
    is_folder = bool(file.frames)  # a recording in many files, whose last part is a folder, too
    named = [
        number
        for number, part in enumerate(parts)
        if part.lower() not in _NAMES_OF_ALPHAPOSE
        and (part.lower() not in _NO_CLASSES or (number == len(parts) - 1 and not is_folder))
    ]
    return len(parts) - named[-2] if len(named) > 1 else 2


def _name_apart(num_parts: Mapping[RawFile, int]) -> dict[RawFile, str]:
    """Name files by this many of the last parts of their paths.

    Those that would have the same name get their whole paths below what the user named, and if
    these are the same, too, the names of the .zip and the folders above.
    """
    parts = {file: _parts_on_disk(file) for file in num_parts}
    lengths = {file: min(number, file.depth + 1) for file, number in num_parts.items()}

    def find_same() -> list[RawFile]:
        ends = {file: parts[file][-length:] for file, length in lengths.items()}
        counts = Counter(ends.values())
        return [file for file, end in ends.items() if counts[end] > 1]

    lengths |= {file: file.depth + 1 for file in find_same()}
    while longer := [file for file in find_same() if lengths[file] < len(parts[file])]:
        lengths |= {file: lengths[file] + 1 for file in longer}
    lengths |= {file: file.depth + 1 for file in find_same()}  # only their suffixes differ
    return {file: "/".join(parts[file][-length:]) for file, length in lengths.items()}


def _parts_on_disk(file: RawFile) -> tuple[str, ...]:
    """Split the path of a file, in which a .zip counts as a folder with its name."""
    if file.member is None:
        parts = PurePosixPath(file.place.path).parts[: -file.depth - 1]
    else:
        parts = PurePosixPath(file.place.path).with_suffix("").parts
    above = escape_name("/".join(parts)).strip("/")
    return PurePosixPath(above, stem_of(file.path)).parts


def _check_folders_of_frames(files: Sequence[RawFile]) -> None:
    """Raise InputError if a folder of frames could be a recording or a class."""
    counts: Counter[PurePosixPath] = Counter()
    # Below what the user named: on a disk, paths are absolute, and in a .zip they are not.
    paths: dict[PurePosixPath, PurePosixPath] = {}
    is_after_frames = False
    for file in files:
        if file.frames:
            folder, path = next(frames_of(file)).full_path.parent, PurePosixPath(file.path)
            # It is named after its frames if a folder has several; some of them may be refused.
            is_named_after_frames = bool(folder.name) and file.full_path != folder
            is_after_frames |= is_named_after_frames
            counts[folder] += 1
            paths[folder] = path.parent if is_named_after_frames else path
    if 1 not in counts.values() or not is_after_frames:
        return
    common = os.path.commonpath(paths.values())
    if any(len(path.relative_to(common).parts) > 1 for path in paths.values()):
        ((folder, num_recordings),) = counts.most_common(1)
        above = [folder, *folder.parents]
        num_levels = 0 if num_recordings > 1 else len(paths[folder].relative_to(common).parts)
        raise InputError(
            "some folders have the frames of several recordings, others those of one",
            where=str(above[num_levels]),
            now="write each recording to its own folder, or say what each is in labels.csv",
        )


def _label_by_pattern(pattern: str, files: Sequence[RawFile]) -> Labeler:
    compiled = _compile(pattern)
    by_folder = None if "label" in compiled.groupindex else _label_by_folder(files)
    num_parts = pattern.count("/") + 1
    names = _name_apart(dict.fromkeys(files, num_parts)) if by_folder is None else {}

    def describe(file: RawFile) -> ClipWords:
        name = "/".join(PurePosixPath(stem_of(file.path)).parts[-num_parts:])
        match = compiled.fullmatch(name)
        if match is None:
            raise refusal(f"its name does not fit the pattern {pattern}")
        words = match.groupdict()
        if wrong := find_wrong_numbers(words):
            raise refusal(f"in its name, {wrong[0]}")
        return words | ({"name": names[file]} if by_folder is None else by_folder(file))

    return describe


def _compile(pattern: str) -> re.Pattern[str]:
    """Compile a pattern to a regular expression: numbers, a label of any characters, and *."""
    fields = [field for field, star in _FIELD.findall(pattern) if not star]
    known = ("label", *CLIP_NUMBERS)
    wrong = [field for field in fields if field not in known or fields.count(field) > 1]
    if wrong or not fields:
        what = f"{{{wrong[0]}}} is unknown or repeated" if wrong else "it has no field"
        raise UsageError(
            f"the name pattern cannot be used: {what}",
            where=f"--name-pattern {pattern!r}",
            now=f"fields are {', '.join(f'{{{name}}}' for name in known)}, and * is any text",
        )
    parts, end = [], 0
    for match in _FIELD.finditer(pattern):
        kind = r"[^/]+?" if match[1] == "label" else r"\d+"
        parts += [
            re.escape(pattern[end : match.start()]),
            "[^/]*" if match[2] else f"(?P<{match[1]}>{kind})",
        ]
        end = match.end()
    return re.compile("".join((*parts, re.escape(pattern[end:]))), re.ASCII)


def _sort_labels(labels: set[str]) -> tuple[str, ...]:
    """Sort labels, numbers by their value."""
    if all(label.isascii() and label.isdigit() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label[:99]), label)))
    return tuple(sorted(labels))


def _read_facts(words: ClipWords, label_of: Mapping[str, int]) -> ClipFacts:
    numbers = {key: int(words[key]) for key in CLIP_NUMBERS if key in words}
    return ClipFacts(words["name"], label_of[words["label"]], **numbers)


def name_splits(
    facts: Sequence[ClipFacts], given: Mapping[str, str] = MappingProxyType({})
) -> NamedSplits:
    """Name the training and test clips of each case: cs, cv, random, and that of the `given` parts.

    `facts` are sorted by name.
    """
    splits: NamedSplits = {}
    if set(given.values()) >= set(PARTS):
        splits["given"] = {part: [name for name in given if given[name] == part] for part in PARTS}
    for case, (column, every) in _EVERY.items():
        known = [fact for fact in facts if getattr(fact, column) is not None]
        groups = sorted({getattr(fact, column) for fact in known})
        if len(groups) > 1:
            tested = groups[every - 1 :: every] or groups[-1:]
            names = {fact.name for fact in known if getattr(fact, column) in tested}
            splits[case] = _parts(known, names)
    names_of: dict[int, list[str]] = defaultdict(list)
    for fact in facts:
        names_of[fact.label].append(fact.name)
    tested_names: set[str] = set()
    for own in names_of.values():
        tested_names.update(own[_RANDOM_EVERY - 1 :: _RANDOM_EVERY] or own[1:][-1:])
    if tested_names:
        splits["random"] = _parts(facts, tested_names)
    return splits


def _parts(facts: Sequence[ClipFacts], tested: set[str]) -> dict[str, list[str]]:
    names = [fact.name for fact in facts]
    return {
        "train": [name for name in names if name not in tested],
        "test": [name for name in names if name in tested],
    }


def _describe_source(
    files: Sequence[RawFile], facts: Sequence[ClipFacts], class_names: tuple[str, ...]
) -> RawSource:
    """Describe the files and their facts: another label or subject makes another dataset."""
    source = describe_files(files)
    lines = [source.fingerprint, str(class_names), *(str(astuple(fact)) for fact in facts)]
    return replace(source, fingerprint=hash_lines(lines))
