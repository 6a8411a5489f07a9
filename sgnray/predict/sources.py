"""What to recognize: recordings in raw files, or clips of a table or a prepared dataset.

Legend: P poses of a clip, D = V * C numbers of a pose.
"""

from __future__ import annotations

import itertools
import logging
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sgnray.checkpoints.run_folder import RECIPE_FILE
from sgnray.data.fetch import dataset_at, holds_dataset
from sgnray.data.skeleton import Skeleton, describe_misfit
from sgnray.data.skipped import Skipped
from sgnray.data.store import SkeletonDataset, open_dataset, unknown_clip
from sgnray.errors import (
    CheckpointError,
    ClipError,
    InputError,
    Problem,
    SgnError,
    UsageError,
    shorten_problems,
    show_first,
)
from sgnray.predict.windows import SkippedWindow, Span
from sgnray.prepare.clip import Poses, Recording, refusal
from sgnray.prepare.in_memory import (
    VIDEO_FIRST,
    arrange_frame,
    fill_joints,
    list_clip,
    parse_frames,
)
from sgnray.prepare.normalize import normalize
from sgnray.prepare.plan import hash_lines
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.format_table import HEAD_BYTES, detect_content
from sgnray.prepare.readers.raw_files import RawFile
from sgnray.prepare.readers.recordings import describe_files, read_recordings
from sgnray.prepare.readers.table_clips import open_clips, read_clips
from sgnray.prepare.readers.tables import Piece, is_table
from sgnray.storage.location import Location, as_folder, locate

log = logging.getLogger(__name__)

_ALSO = "; or a table of clips (Parquet or Arrow), or the folder of a dataset"
_MAGIC_BYTES = 8


@dataclass(frozen=True, eq=False)
class Sample:
    """The prepared poses of one clip, or of a `span` of it; `place` says where the clip is from."""

    clip: str
    place: str
    poses: Poses
    span: Span | None = None


@dataclass(frozen=True)
class Recordings:
    """Raw files, each of them one recording, and those that were refused for their path."""

    files: tuple[RawFile, ...]
    refused: tuple[Skipped, ...]
    skeleton: Skeleton

    def __len__(self) -> int:
        return len(self.refused) + len(self.files)

    @property
    def stamp(self) -> str:
        """Identifies these recordings; differs if one of them has changed."""
        source = describe_files(self.files)
        return hash_lines([source.fingerprint, source.stamp, *map(str, self.refused)])

    def part(self, first: int, end: int) -> Recordings:
        """Return the recordings [first, end), the refused ones first."""
        num_refused = len(self.refused)
        files = self.files[max(0, first - num_refused) : max(0, end - num_refused)]
        return replace(self, files=files, refused=self.refused[first:end])

    def read(self) -> Iterator[Sample | Skipped]:
        """Yield the prepared poses of each file, or why it has none."""
        yield from self.refused
        for file, skeleton, found in read_recordings(self.files):
            try:
                yield Sample(file.name, file.where, _prepare(found, skeleton, self.skeleton))
            except ClipError as error:
                yield Skipped(file.name, error.what, file.where)


@dataclass(frozen=True, eq=False)
class DatasetSource:
    """Clips of a prepared dataset, by their rows."""

    dataset: SkeletonDataset
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def stamp(self) -> str:
        """Identifies these clips; differs if one of them has changed."""
        return hash_lines([self.dataset.info.checksum, *map(str, self.rows)])

    def part(self, first: int, end: int) -> DatasetSource:
        """Return the clips [first, end)."""
        return replace(self, rows=self.rows[first:end])

    def read(self) -> Iterator[Sample | Skipped]:
        """Yield the poses of each clip, or why it has none."""
        dataset = self.dataset
        for row in self.rows:
            own = dataset.rows_of(row)
            name = dataset.clips.names[row]
            if own.start == own.stop:
                yield Skipped(name, "the clip has no pose", str(dataset.folder))
                continue
            num_frames = int(dataset.clips.num_frames[row])
            values_PD = np.array(dataset.poses_PVC[own]).reshape(own.stop - own.start, -1)
            found = Poses(num_frames, values_PD, dataset.frames_P[own], dataset.bodies_P[own])
            yield Sample(name, str(dataset.folder), found)


@dataclass(frozen=True, eq=False)
class TableSource:
    """Rows of a table of clips with poses of `skeleton`."""

    pieces: tuple[Piece, ...]
    skeleton: Skeleton

    def __len__(self) -> int:
        return self.pieces[-1].stop - self.pieces[0].start

    @property
    def stamp(self) -> str:
        """Identifies these clips; differs if one of them has changed."""
        table = self.pieces[0].table
        return hash_lines([str(table.location), *map(str, table.stamp)])

    def part(self, first: int, end: int) -> TableSource:
        """Return the rows [first, end) of the table."""
        nearest = self.pieces[bisect(self.pieces, first, key=lambda piece: piece.start) - 1]
        return replace(self, pieces=(replace(nearest, start=first, stop=min(end, len(self))),))

    def read(self) -> Iterator[Sample | Skipped]:
        """Yield the poses of each row, or why it has none."""
        for piece in self.pieces:
            place = str(piece.table.location)
            for name, found in read_clips(piece, self.skeleton):
                if isinstance(found, ClipError):
                    yield Skipped(name, found.what, place)
                else:
                    yield Sample(name, place, found)


Source = Recordings | DatasetSource | TableSource
PredictionPart = Source | tuple[Sample | Skipped, ...]  # to be read, or clips in memory


def read_clip(data: bytes, skeleton: Skeleton) -> Poses:
    """Prepare a clip given as bytes, without a file name; raises ClipError, InputError.

    It is a recording in any format with one file per recording, or a list of frames in JSON.
    """
    if (found := detect_content(data[:HEAD_BYTES])) is not None:
        kind, its_skeleton = found
        (recording,) = kind.read_files([data], its_skeleton)
        return _prepare(recording, its_skeleton, skeleton)
    try:
        frames = parse_frames(data)
    except (RecursionError, ValueError) as error:
        raise InputError(
            f"neither a recording nor JSON: {error}",
            where="the clip",
            now=f"give a recording of one file, or a list of frames in JSON; {VIDEO_FIRST}",
        ) from error
    if isinstance(frames, list) and frames:
        arranged = [
            arrange_frame(frame, skeleton, where=f"frame {number} of the clip", checks_unit=False)
            for number, frame in enumerate(frames, start=1)
        ]
        frames = fill_joints(np.stack(arranged))
    return list_clip(frames, skeleton)


def _prepare(found: Recording | ClipError, skeleton: Skeleton, wanted: Skeleton) -> Poses:
    if isinstance(found, ClipError):
        raise found
    if skeleton.name != wanted.name:
        raise refusal(f"{skeleton.name} skeletons; the model supports only {wanted.name}")
    return normalize(found, skeleton)


def find_sources(
    paths: Sequence[Path | str],
    skeleton: Skeleton,
    clips: Sequence[str] = (),
    *,
    skip_bad_paths: bool = False,
) -> list[Source]:
    """Find the recordings or clips of each path; one error lists all paths that have none.

    With `skip_bad_paths`, these are refused recordings instead.
    """
    found: list[Source] = []
    errors: list[SgnError] = []
    for path in paths:
        try:
            found.append(find_source(path, skeleton, clips))
        except SgnError as error:
            if skip_bad_paths:
                refused = Skipped(Path(path).name, error.what, error.where)
                found.append(Recordings((), (refused,), skeleton))
            else:
                errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise type(errors[0])(
            f"{len(errors)} of {len(paths)} paths contain nothing that can be recognized",
            where=show_first([error.where for error in errors]),
            now="give recordings, folders or .zip files of them, a table of clips, or the folder "
            "of a dataset",
            problems=[Problem(error.where, error.what) for error in errors],
        )
    return list(_join_recordings(found))


def _join_recordings(sources: Sequence[Source]) -> Iterator[Source]:
    """Join consecutive recordings into one source: files named one by one share blocks."""
    for _, group in itertools.groupby(sources, key=type):
        alike = list(group)
        found = [source for source in alike if isinstance(source, Recordings)]
        if not found:
            yield from alike
            continue
        files = tuple(file for source in found for file in source.files)
        refused = tuple(item for source in found for item in source.refused)
        yield replace(found[0], files=files, refused=refused)


def find_source(path: Path | str, skeleton: Skeleton, clips: Sequence[str] = ()) -> Source:
    """Find what a path or a URI has; `clips` are names in a dataset.

    A dataset at a URI is fetched first, unless it is cached; recordings and tables are read in
    place.
    Raises UsageError, InputError.
    """
    place = as_folder(path)
    if holds_dataset(place):
        return _open(dataset_at(place), skeleton, clips)
    if clips:
        raise UsageError(
            "--clip needs a prepared dataset",
            where=str(place),
            now="leave out --clip, or name the folder of a dataset from sgn prepare",
        )
    if isinstance(place, Path) and (place / RECIPE_FILE).is_file():
        raise UsageError(
            "this is the folder of a run",
            where=str(place),
            now="give recordings, and name the run with --checkpoint",
        )
    if _is_table(location := locate(path)):
        pieces = tuple(open_clips(location, skeleton).pieces())
        if not pieces:
            raise InputError("the table has no rows", where=str(location), now="add clips to it")
        return TableSource(pieces, skeleton)
    found = find_recordings(path, also=_ALSO)
    kinds = {file.skeleton for file in found.files}
    if skeleton.name not in kinds:
        raise CheckpointError(
            f"the model supports {skeleton.name} skeletons, these are {', '.join(sorted(kinds))}",
            where=str(place),
            now="name a checkpoint that was trained on such recordings with --checkpoint",
        )
    if found.left_out:
        first, num_others = found.left_out[0], len(found.left_out) - 1
        others = f", and {num_others:,} others" if num_others else ""
        log.warning("%s is left out: %s%s", first.name, first.reason, others)
    refused = sorted(found.refused, key=lambda item: (item.name, item.reason))
    return Recordings(found.files, tuple(refused), skeleton)


def _is_table(place: Location) -> bool:
    entry = place.entry()
    if entry is None or entry.is_folder:
        return False
    try:
        with place.open() as file:
            return is_table(file.read(_MAGIC_BYTES))
    except OSError:
        return False  # the reader of recordings reports the error


def _open(folder: Path, skeleton: Skeleton, clips: Sequence[str]) -> DatasetSource:
    dataset = open_dataset(folder)
    misfit = describe_misfit(skeleton, dataset.skeleton)
    if misfit is not None:
        raise CheckpointError(
            f"the checkpoint does not fit the dataset: {misfit}",
            where=str(folder),
            now="name a checkpoint that was trained on this dataset",
        )
    row_of = {name: row for row, name in enumerate(dataset.clips.names)}
    unknown = next((clip for clip in clips if clip not in row_of), None)
    if unknown is not None:
        raise unknown_clip(unknown, row_of, where=str(folder))
    rows = [row_of[clip] for clip in clips] if clips else range(len(row_of))
    return DatasetSource(dataset, tuple(rows))


def refuse_skipped(skipped: Sequence[Skipped], *, num_files: int) -> None:
    """Raise an InputError that lists the recordings that could not be used, if there are any.

    For each recording, only the first failed window is listed. Recordings with the same name are
    listed by their places.
    """
    if not skipped:
        return
    places: dict[str, set[str]] = defaultdict(set)
    for item in skipped:
        places[item.name].add(item.place)

    def title(item: Skipped) -> str:
        if len(places[item.name]) == 1 or not item.place:
            return item.name
        return item.place if item.name in item.place else f"{item.place}, {item.name}"

    failed: dict[object, Problem] = {}
    for item in skipped:
        if isinstance(item, SkippedWindow):
            when = f"frames {item.span.first} to {item.span.end - 1}: "
            failed.setdefault((item.name, item.place), Problem(title(item), when + item.reason))
        else:
            failed[len(failed)] = Problem(title(item), item.reason)
    them = "them" if len(failed) > 1 else "it"
    rest = "; the others are done" if num_files > len(failed) else ""
    wholly = " throughout" if any(isinstance(item, SkippedWindow) for item in skipped) else ""
    raise InputError(
        f"{len(failed):,} of {num_files:,} recordings could not be used{wholly}",
        where=show_first([problem.where for problem in failed.values()]),
        now=f"correct or replace {them}, or leave {them} out{rest}",
        problems=shorten_problems([*failed.values()]),
    )
