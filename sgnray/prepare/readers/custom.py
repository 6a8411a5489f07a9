"""Somebody's own skeletons: a description in YAML beside a table of clips, planned for reading."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pyarrow as pa

from sgnray.config.custom import Description, parse_description
from sgnray.data.datasets import DATASETS
from sgnray.data.skeleton import SKELETONS, Skeleton
from sgnray.errors import ClipError, InputError, Problem
from sgnray.prepare.clip import ClipFacts
from sgnray.prepare.plan import RawPlan, RawSource, Splits, hash_lines
from sgnray.prepare.readers.custom_clips import LIGHT_COLUMNS, MAX_NAME, TableJob, read_facts
from sgnray.prepare.readers.custom_schema import table_problems
from sgnray.prepare.readers.custom_splits import name_splits
from sgnray.prepare.readers.tables import Table, open_table
from sgnray.storage.location import Location

_MAX_DESCRIPTION_BYTES = 32 * 1024 * 1024
_NOW = "correct the table or its description; the README, 'Skeletons of your own', shows one"


@dataclass(frozen=True)
class _Rows:
    """What the light columns of one table say: the clips by row, and the refused rows."""

    facts: dict[int, ClipFacts]
    refused: tuple[tuple[int, str, str], ...]


def plan_custom(location: Location) -> RawPlan:
    """Plan the dataset that a description describes, from the light columns of its tables.

    InputError lists all that is wrong with the description or, if it is right, with the tables.
    """
    text = _read_text(location)
    description = parse_description(text, source=str(location))
    skeleton = _skeleton(description, location)
    tables = _open_tables(description, skeleton, location)
    seen: set[str] = set()
    rows = [_read_rows(table, description.classes, seen) for table in tables]
    if not any(table_rows.facts or table_rows.refused for table_rows in rows):
        raise InputError("the table has no rows", where=str(location), now=_NOW)
    clips = [facts for table_rows in rows for facts in table_rows.facts.values()]
    jobs = tuple(
        job
        for table, table_rows in zip(tables, rows, strict=True)
        for job in _jobs(table, table_rows, skeleton, description.classes)
    )
    return RawPlan(
        dataset=description.dataset,
        skeleton=skeleton,
        class_names=description.classes,
        jobs=jobs,
        skipped=(),
        source=_source(location, text, tables),
        splits=_splits(description, clips, seen, location),
    )


def _read_text(location: Location) -> str:
    try:
        with location.open() as file:
            data: bytes = file.read(_MAX_DESCRIPTION_BYTES + 1)
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        what = "the description is not UTF-8 text"
        raise InputError(what, where=str(location), now=_NOW) from error
    except OSError as error:
        what = f"the description cannot be read: {error.strerror or error}"
        raise InputError(what, where=str(location), now="name a .yaml file") from error
    if len(data) > _MAX_DESCRIPTION_BYTES:
        what = f"the description is larger than {_MAX_DESCRIPTION_BYTES >> 20} MiB"
        raise InputError(what, where=str(location), now=_NOW)
    return text


def _skeleton(description: Description, location: Location) -> Skeleton:
    """Give the described skeleton; it has a known name where it is that skeleton."""
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
    if ours is not None and not _has_shape_of(ours, skeleton):
        raise InputError(
            f"the dataset {description.dataset} has {ours.num_joints} joints of "
            f"{ours.num_coordinates} coordinates, and here are {skeleton.num_joints} of "
            f"{skeleton.num_coordinates}",
            where=f"{location}: dataset",
            now="give the dataset a name of its own, such as my-kinect",
        )
    same = [known for known in SKELETONS.values() if _is_same(known, skeleton)]
    known = ours or (same[0] if same else None)
    if known is not None:
        return replace(skeleton, name=known.name)
    if skeleton.name in SKELETONS:
        return replace(skeleton, name=f"{skeleton.name}-own")
    return skeleton


def _has_shape_of(one: Skeleton, other: Skeleton) -> bool:
    return (one.num_joints, one.num_coordinates) == (other.num_joints, other.num_coordinates)


def _is_same(one: Skeleton, other: Skeleton) -> bool:
    return one.joints == other.joints and one.num_coordinates == other.num_coordinates


def _open_tables(description: Description, skeleton: Skeleton, location: Location) -> list[Table]:
    folder = PurePosixPath(location.path).parent
    tables, problems = [], []
    for name in description.clips:
        table = open_table(location.at(str(folder / name)))
        if isinstance(table, str):
            problems.append(Problem(name, table))
            continue
        tables.append(table)
        problems += [Problem(name, what) for what in table_problems(table.schema(), skeleton)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(
            f"the clips of {location.name} have {count}",
            where=str(location),
            now=_NOW,
            problems=problems,
        )
    return tables


def _read_rows(table: Table, class_names: tuple[str, ...], seen: set[str]) -> _Rows:
    """Read who each clip is; `seen` are the names that other rows have, and becomes more."""
    names = table.schema().names
    facts: dict[int, ClipFacts] = {}
    refused: list[tuple[int, str, str]] = []
    light = table.columns([name for name in LIGHT_COLUMNS if name in names])
    for row, values in enumerate(_dicts(light)):
        name = str(values["name"] or f"row {row} of {table.location.name}")
        shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
        if name in seen:
            refused.append((row, shown, "there is another clip of this name"))
            continue
        seen.add(name)
        try:
            facts[row] = read_facts(values, class_names)
        except ClipError as error:
            refused.append((row, shown, error.what))
    return _Rows(facts, tuple(refused))


def _dicts(table: pa.Table) -> Iterator[dict[str, object]]:
    for batch in table.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _jobs(
    table: Table, rows: _Rows, skeleton: Skeleton, class_names: tuple[str, ...]
) -> Iterator[TableJob]:
    known = table.schema().names
    columns = (*LIGHT_COLUMNS, "poses", "frame", "body")
    for piece in table.pieces():
        yield TableJob(
            piece=piece,
            columns=tuple(name for name in columns if name in known),
            skeleton=skeleton,
            class_names=class_names,
            refused=rows.refused[_first(rows, piece.start) : _first(rows, piece.stop)],
        )


def _first(rows: _Rows, row: int) -> int:
    return bisect_left(rows.refused, row, key=lambda item: item[0])


def _source(location: Location, text: str, tables: Sequence[Table]) -> RawSource:
    # The description decides as much as the table: its text is part of what the source is.
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


def _splits(
    description: Description, clips: Sequence[ClipFacts], seen: set[str], location: Location
) -> Splits | None:
    splits, problems = name_splits(description.splits, clips, seen)
    if problems:
        raise InputError(
            f"the splits of {location.name} do not fit its clips",
            where=str(location),
            now=_NOW,
            problems=problems,
        )
    return splits or None
