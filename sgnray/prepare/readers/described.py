"""Clips of any skeleton in tables, which a file in YAML next to them describes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath

from sgnray.config.custom import Description, Rule, SplitRule, parse_description
from sgnray.data.datasets import DATASETS, SKELETONS
from sgnray.data.info import NamedSplits
from sgnray.data.skeleton import KINECT, Skeleton
from sgnray.data.skipped import Skipped
from sgnray.errors import ClipError, InputError, Problem, count_of, count_problems
from sgnray.prepare.clip import CLIP_NUMBERS, MAX_CLIP_NUMBER, Clip, ClipFacts, refusal
from sgnray.prepare.plan import PartJob, RawPlan, RawSource, hash_lines
from sgnray.prepare.readers.labeled import name_splits
from sgnray.prepare.readers.table_clips import (
    CORRECT_TABLE,
    POSE_COLUMNS,
    find_table_problems,
    present_columns,
    read_clips,
)
from sgnray.prepare.readers.tables import Piece, Table, open_table
from sgnray.storage.location import Location

log = logging.getLogger(__name__)

_MAX_DESCRIPTION_BYTES = 32 * 1024 * 1024
_MAX_NAME = 255
_LIGHT_COLUMNS = ("name", "label", *CLIP_NUMBERS)


def plan_described(location: Location) -> RawPlan:
    """Plan the dataset that a description describes, from the light columns of its tables.

    InputError lists all problems of the description or, if it has none, of the tables.
    """
    text = _read_text(location)
    description = parse_description(text, source=str(location))
    skeleton = _skeleton(description, location)
    if skeleton.origin is None and skeleton.num_coordinates == 3:
        log.warning(
            "%s has no origin: its clips keep their position in the room; name a joint, such as "
            "'origin: pelvis'",
            location.name,
        )
    tables = _open_tables(description, skeleton, location)
    names: set[str] = set()
    labels: set[object] = set()
    clips: list[ClipFacts] = []
    jobs: list[PartJob] = []
    for table in tables:
        rows = tuple(_read_rows(table, description.classes, names, labels))
        clips += [row for row in rows if isinstance(row, ClipFacts)]
        for piece in table.pieces():
            own = rows[piece.start : piece.stop]
            jobs.append(PartJob(len(own), partial(_prepare_rows, piece, skeleton, own)))
    if not jobs:
        raise InputError("the table has no rows", where=str(location), now=CORRECT_TABLE)
    _check_labels(labels, len(description.classes), location)
    return RawPlan(
        dataset=description.dataset,
        skeleton=skeleton,
        class_names=description.classes,
        jobs=tuple(jobs),
        source=_source(location, text, tables),
        splits=_choose_splits(description, clips, names, location) if clips else None,
    )


def _prepare_rows(
    piece: Piece, skeleton: Skeleton, rows: Sequence[ClipFacts | Skipped]
) -> Iterator[Clip | Skipped]:
    """Yield one result for each row of a piece, given the facts of each."""
    with piece.table.errors():
        piece.table.check_unchanged()
    for row, (_, found) in zip(rows, read_clips(piece, skeleton, from_zero=True), strict=True):
        if isinstance(row, Skipped):
            yield row
        elif isinstance(found, ClipError):
            yield Skipped(row.name, found.what)
        else:
            yield Clip(row, found)


def _read_text(location: Location) -> str:
    try:
        with location.open() as file:
            data: bytes = file.read(_MAX_DESCRIPTION_BYTES + 1)
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        what = "the description is not UTF-8 text"
        raise InputError(what, where=str(location), now=CORRECT_TABLE) from error
    except OSError as error:
        what = f"the description cannot be read: {error.strerror or error}"
        raise InputError(what, where=str(location), now="name a .yaml file") from error
    if len(data) > _MAX_DESCRIPTION_BYTES:
        what = f"the description is larger than {_MAX_DESCRIPTION_BYTES >> 20} MiB"
        raise InputError(what, where=str(location), now=CORRECT_TABLE)
    return text


def _skeleton(description: Description, location: Location) -> Skeleton:
    """Return the described skeleton, with the known name if it equals a known one."""
    joints = description.joints
    index = {joint: number for number, joint in enumerate(joints)}
    skeleton = Skeleton(
        name=description.dataset,
        joints=joints,
        bones=tuple((index[child], index[parent]) for child, parent in description.bones),
        origin=None if description.origin is None else index[description.origin],
        num_coordinates=description.coordinates,
    )
    # A description may use the cases of a published dataset if it has its skeleton.
    published = DATASETS.get(description.dataset)
    ours = None if published is None else published.skeleton
    if ours is not None and not _has_shape_of(skeleton, ours):
        raise InputError(
            f"the dataset {description.dataset} has {ours.num_joints} joints of "
            f"{ours.num_coordinates} coordinates, and this one has {skeleton.num_joints} of "
            f"{skeleton.num_coordinates}",
            where=f"{location}: dataset",
            now="give the dataset a different name, such as my-kinect",
        )
    # Not a pose estimator's, because prepared poses have another scale than its files.
    if ours is not None:
        return replace(skeleton, name=ours.name)
    for known in KINECT:
        if known.joints == joints and _has_shape_of(skeleton, known):
            return replace(skeleton, name=known.name)
    if skeleton.name in SKELETONS:
        return replace(skeleton, name=f"{skeleton.name}-own")
    return skeleton


def _has_shape_of(one: Skeleton, other: Skeleton) -> bool:
    return (one.num_joints, one.num_coordinates) == (other.num_joints, other.num_coordinates)


def _open_tables(description: Description, skeleton: Skeleton, location: Location) -> list[Table]:
    folder = PurePosixPath(location.path).parent
    tables, problems = [], []
    for name in description.clips:
        table = open_table(location.at(str(folder / name)))
        if isinstance(table, str):
            problems.append(Problem(name, table))
            continue
        tables.append(table)
        found = find_table_problems(table.schema(), skeleton, (*_LIGHT_COLUMNS, *POSE_COLUMNS))
        problems += [Problem(name, what) for what in found]
    if problems:
        raise InputError(
            f"the clips of {location.name} have {count_problems(problems)}",
            where=str(location),
            now=CORRECT_TABLE,
            problems=problems,
        )
    return tables


def _read_rows(
    table: Table, class_names: tuple[str, ...], names: set[str], labels: set[object]
) -> Iterator[ClipFacts | Skipped]:
    """Read the facts of each row, or why it is refused; add to the `names` and the `labels`."""
    label_of = {name: label for label, name in enumerate(class_names)}
    light = table.columns(present_columns(table, _LIGHT_COLUMNS))
    row = 0
    for batch in light.to_batches(max_chunksize=4096):
        for values in batch.to_pylist():
            name = str(values["name"] or f"row {row} of {table.location.name}")
            row += 1
            labels.add(values["label"])
            try:
                if name in names:
                    raise refusal("another clip has this name")
                names.add(name)
                yield _read_facts(values, label_of)
            except ClipError as error:
                shown = name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..."
                yield Skipped(shown, error.what)


def _check_labels(labels: Set[object], num_classes: int, location: Location) -> None:
    """Raise InputError for labels that count from 1, which would be other classes' names."""
    if 0 not in labels and num_classes in labels:
        first = min(label for label in labels if isinstance(label, int))
        raise InputError(
            f"labels run from {first} to {num_classes}; integers must count from 0, and class "
            "names must be text",
            where=str(location),
            now=CORRECT_TABLE,
        )


def _source(location: Location, text: str, tables: Sequence[Table]) -> RawSource:
    # The description affects the dataset as much as the table, so its text is part of the source.
    digest = hashlib.sha256(text.encode()).hexdigest()
    lines = [
        f"{table.location.name}\t{table.stamp[0]}"
        + (f"\t{table.location.digest()}" if table.location.is_local else "")
        for table in tables
    ]
    return RawSource(
        num_files=1 + len(tables),
        num_bytes=len(text.encode()) + sum(table.stamp[0] for table in tables),
        fingerprint=hash_lines([digest, *lines]),
        stamp=hash_lines([digest, *(f"{table.location}\t{table.stamp}" for table in tables)]),
    )


def _choose_splits(
    description: Description, clips: Sequence[ClipFacts], names: Set[str], location: Location
) -> NamedSplits | None:
    """Name the clips of the described cases; without any, those of a dataset or of recordings."""
    if description.splits:
        return _name_splits(description.splits, clips, names, location)
    if description.dataset in DATASETS:
        return None
    return name_splits(sorted(clips, key=lambda clip: clip.name)) or None


def _name_splits(
    rules: Mapping[str, SplitRule], clips: Sequence[ClipFacts], names: Set[str], location: Location
) -> NamedSplits:
    """Name the training and test clips of each case; InputError lists what is wrong with them.

    `names` are all clips of the tables; those that are not among `clips` were refused and are in no
    part. A clip with an unknown number is in no part of a case that splits by it.
    """
    splits: NamedSplits = {}
    problems: list[Problem] = []
    for case, rule in rules.items():
        found = list(_unknown_names(rule, names))
        parts = {"train": _part(rule.train, rule.test, clips)}
        parts["test"] = _part(rule.test, rule.train, clips)
        found += [f"leaves no clips for {part}" for part, chosen in parts.items() if not chosen]
        both = set(parts["train"]) & set(parts["test"])
        if both:
            found.append(f"has {count_of(len(both), 'clip')} in both parts, such as {min(both)!r}")
        problems += [Problem(f"splits.{case}", what) for what in found]
        splits[case] = parts
    if problems:
        raise InputError(
            f"the splits of {location.name} do not fit its clips",
            where=str(location),
            now=CORRECT_TABLE,
            problems=problems,
        )
    return splits


def _part(rule: Rule | None, other: Rule | None, clips: Sequence[ClipFacts]) -> list[str]:
    """Name the clips of a part: those of its rule, or, if it has none, those outside the other."""
    given = rule if rule is not None else other
    assert given is not None
    listed = frozenset() if isinstance(given, Mapping) else frozenset(given)
    return sorted(clip.name for clip in clips if _is_in(clip, given, listed) is (rule is not None))


def _is_in(clip: ClipFacts, rule: Rule, listed: Set[str]) -> bool | None:
    """Return whether a rule selects a clip; None if a number that it needs is unknown."""
    if not isinstance(rule, Mapping):
        return clip.name in listed
    numbers = [(getattr(clip, column), wanted) for column, wanted in rule.items()]
    if any(number is None for number, _ in numbers):
        return None
    return all(number in wanted for number, wanted in numbers)


def _unknown_names(rule: SplitRule, names: Set[str]) -> Iterator[str]:
    for part in (rule.train, rule.test):
        listed = part if isinstance(part, tuple) else ()
        if unknown := [name for name in listed if name not in names]:
            more = f", and {len(unknown) - 1} more are unknown" if len(unknown) > 1 else ""
            yield f"clip {unknown[0]!r} not found{more}"


def _read_facts(values: dict[str, object], label_of: Mapping[str, int]) -> ClipFacts:
    """Read the light columns of one row; ClipError says what is wrong with it."""
    name, label = values["name"], values["label"]
    if not isinstance(name, str) or not name:
        raise refusal("it has no name")
    if len(name) > _MAX_NAME:
        raise refusal(f"its name is longer than {_MAX_NAME} characters")
    if label is None:
        raise refusal("it has no label")
    if isinstance(label, str):
        if label not in label_of:
            raise refusal(f"its label {label!r:.60} is not one of the classes")
        label = label_of[label]
    assert isinstance(label, int)
    if not 0 <= label < len(label_of):
        raise refusal(f"its label is {label}, not one of 0 to {len(label_of) - 1}")
    numbers: dict[str, int | None] = {}
    for key in CLIP_NUMBERS:
        number = values.get(key)
        assert number is None or isinstance(number, int)
        if number is not None and not 0 <= number <= MAX_CLIP_NUMBER:
            raise refusal(
                f"its {key} is {number}, not null or a number from 0 to {MAX_CLIP_NUMBER:,}"
            )
        numbers[key] = number
    return ClipFacts(name, label, **numbers)
