"""The Arrow dataset: one folder with clips.arrow, dataset.json and skipped.csv.

clips.arrow is one Arrow IPC file with one record batch, one row per clip, sorted by name. Because
there is one batch, all poses of the dataset are one contiguous float32 matrix in the file, and
opening it maps that matrix without copying it.

Legend: N clips, P poses of the dataset, T frames, M bodies, V joints, C coordinates, D = V * C.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sgnray.data.info import (
    FORMAT_VERSION,
    INFO_FILE,
    DatasetInfo,
    NamedSplits,
    corrupt,
    read_info,
    write_info,
)
from sgnray.data.progress import Progress
from sgnray.data.protocols import BoolArray, ClipTable, IntArray, Split
from sgnray.data.skeleton import Skeleton
from sgnray.data.skipped import Skipped, write_skipped
from sgnray.errors import InputError, Problem, UsageError, count_of, first_line

CLIPS_FILE = "clips.arrow"
SKIPPED_FILE = "skipped.csv"
DATASET_FILES = (CLIPS_FILE, SKIPPED_FILE, INFO_FILE)
_BLOCK_BYTES = 8 << 20

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SkeletonDataset:
    """A prepared dataset, opened: `poses_PVC` is a read-only view on the mapped file, in meters.

    The poses of clip i are rows offsets[i] to offsets[i + 1]; a frame with two actors gives two
    consecutive poses, main actor first. `frames_P` and `bodies_P` are as in `clips_schema`.
    """

    folder: Path
    info: DatasetInfo
    clips: ClipTable
    offsets: IntArray
    poses_PVC: FloatArray
    frames_P: npt.NDArray[np.int32]
    bodies_P: npt.NDArray[np.int8]

    @property
    def skeleton(self) -> Skeleton:
        """Its skeleton."""
        return self.info.skeleton

    @property
    def num_bodies(self) -> int:
        """The largest number of bodies in a clip."""
        return int(self.bodies_P.max(initial=0)) + 1

    def count_bodies(self) -> IntArray:
        """Count the different bodies of each clip (N); 0 for a clip without poses."""
        num_clips = len(self.clips.names)
        is_there_NM = np.zeros((num_clips, self.num_bodies), np.bool_)
        is_there_NM[np.repeat(np.arange(num_clips), np.diff(self.offsets)), self.bodies_P] = True
        bodies_N: IntArray = np.count_nonzero(is_there_NM, axis=1)
        return bodies_N

    def rows_of(self, clip: int) -> slice:
        """Return the rows of a clip in `poses_PVC`."""
        return slice(self.offsets[clip], self.offsets[clip + 1])

    def arrange(
        self, clip: int, *, num_frames: int, num_bodies: int | None = None, absent: float = 0.0
    ) -> FloatArray:
        """Return a clip as (T, M, V, C) with as many bodies as it has, or `num_bodies`."""
        rows = self.rows_of(clip)
        return arrange_poses(
            self.poses_PVC[rows],
            self.frames_P[rows],
            self.bodies_P[rows],
            num_frames=num_frames,
            num_bodies=num_bodies,
            absent=absent,
        )


def open_dataset(folder: Path | str) -> SkeletonDataset:
    """Open a prepared dataset without loading its poses, which stay on disk until they are used.

    InputError if it is missing, of a newer format, corrupt or not ours.
    """
    folder = Path(folder)
    info = read_info(folder)
    path = folder / CLIPS_FILE
    skeleton = info.skeleton
    batch = read_batch(path, skeleton)
    if isinstance(batch, str):
        raise corrupt(path, batch)
    problems = chain(
        find_contradictions(batch, info),
        find_wrong_labels(batch, info),
        find_unknown_names(batch, info),
        find_wrong_poses(batch),
    )
    if (problem := next(problems, None)) is not None:
        raise corrupt(path, problem)
    poses = batch.column("poses")
    # to_numpy without a copy keeps the mapping alive through the array's base.
    values = poses.values.values.to_numpy(zero_copy_only=True)
    return SkeletonDataset(
        folder=folder,
        info=info,
        clips=_clip_table(batch, info.splits or {}),
        offsets=poses.offsets.to_numpy().astype(np.int64),
        poses_PVC=values.reshape(-1, skeleton.num_joints, skeleton.num_coordinates),
        frames_P=batch.column("frame").values.to_numpy(),
        bodies_P=batch.column("body").values.to_numpy(),
    )


def arrange_poses(
    poses_PVC: FloatArray,
    frames_P: npt.NDArray[np.int32],
    bodies_P: npt.NDArray[np.int8],
    *,
    num_frames: int,
    num_bodies: int | None = None,
    absent: float = 0.0,
) -> FloatArray:
    """Arrange the poses of one clip as (T, M, V, C), with `absent` where a body is missing."""
    if num_bodies is None:
        num_bodies = int(bodies_P.max(initial=0)) + 1
    shape = (num_frames, num_bodies, *poses_PVC.shape[1:])
    joints_TMVC = np.full(shape, absent, np.float32)
    joints_TMVC[frames_P, bodies_P] = poses_PVC
    return joints_TMVC


def find_dataset(data_dir: Path | str = Path("data"), *, name: str | None = None) -> Path:
    """Find the one prepared dataset in `data_dir`, or `data_dir` itself if it is one.

    `name` selects by folder name, else by the dataset's own name; UsageError for none or several.
    """
    data_dir = Path(data_dir)
    if (data_dir / INFO_FILE).is_file():
        return data_dir
    folders = sorted(path.parent for path in data_dir.glob(f"*/{INFO_FILE}"))
    found = [folder for folder in folders if name in (None, folder.name)]
    found = found or [folder for folder in folders if _read_name(folder) == name]
    if not found:
        raise UsageError(
            f"prepared dataset{f' {name}' if name else ''} not found",
            where=str(data_dir),
            now="if it was moved, name its folder with --data; else prepare one: "
            "sgn prepare --raw PATH, or try everything with sgn demo",
            problems=[Problem(str(folder), _read_name(folder)) for folder in folders],
        )
    if len(found) > 1:
        raise UsageError(
            f"there are {len(found)} prepared datasets",
            where=str(data_dir),
            now=f"name one, for example --data {found[0]}",
            problems=[Problem(str(folder), _read_name(folder)) for folder in found],
        )
    return found[0]


def _read_name(folder: Path) -> str:
    """Return the name of a dataset or, if it cannot be read, the reason."""
    try:
        return read_info(folder).dataset
    except InputError as error:
        return error.what


def unknown_clip(clip: str, names: Iterable[str], *, where: str) -> UsageError:
    """Build the error for a clip that is not among the names; it shows similar ones."""
    listed = list(names)
    near = difflib.get_close_matches(clip, listed, n=3)
    return UsageError(
        f"clip {clip!r} not found",
        where=where,
        now=f"did you mean {', '.join(near)}?" if near else f"one of them is {listed[0]}",
    )


def clips_schema(skeleton: Skeleton) -> pa.Schema:
    """Return the columns of clips.arrow.

    num_frames counts the clip's frames after preparation. It excludes frames without a body and
    dropped frames, but includes kept frames that are all zero, although they have no pose.
    `frame` is the 0-based frame of each pose, below num_frames; `body` is 0 for the main actor.
    """
    pose = pa.list_(pa.float32(), skeleton.pose_size)
    return pa.schema(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("label", pa.int32(), nullable=False),
            pa.field("setup", pa.int16()),
            pa.field("camera", pa.int16()),
            pa.field("subject", pa.int16()),
            pa.field("replication", pa.int16()),
            pa.field("num_frames", pa.int32(), nullable=False),
            pa.field("poses", pa.list_(pose), nullable=False),
            pa.field("frame", pa.list_(pa.int32()), nullable=False),
            pa.field("body", pa.list_(pa.int8()), nullable=False),
        ]
    )


def write_dataset(
    folder: Path,
    columns: Mapping[str, pa.Array],
    values_PD: FloatArray,
    *,
    dataset: str,
    skeleton: Skeleton,
    class_names: tuple[str, ...],
    source: dict[str, Any],
    splits: NamedSplits | None,
    skipped: Sequence[Skipped] = (),
) -> DatasetInfo:
    """Write clips.arrow, skipped.csv and dataset.json into a folder, without copying the poses.

    `columns` has the columns of `clips_schema` but the poses; those that are missing are unknown.
    """
    poses = pa.FixedSizeListArray.from_arrays(pa.array(values_PD.reshape(-1)), skeleton.pose_size)
    # One frame number for each pose: both lists have the same offsets.
    known = {**columns, "poses": pa.ListArray.from_arrays(columns["frame"].offsets, poses)}
    schema, num_clips = clips_schema(skeleton), len(columns["name"])
    arrays = [known.get(field.name, pa.nulls(num_clips, field.type)) for field in schema]
    with (folder / CLIPS_FILE).open("wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    write_skipped(folder / SKIPPED_FILE, skipped)
    info = DatasetInfo(
        format_version=FORMAT_VERSION,
        dataset=dataset,
        skeleton=skeleton,
        class_names=class_names,
        num_clips=num_clips,
        num_poses=len(poses),
        num_skipped=len(skipped),
        source=source,
        checksum=checksum_file(folder / CLIPS_FILE),
        splits=splits,
    )
    write_info(folder, info)
    return info


def checksum_file(path: Path, progress: Progress | None = None) -> str:
    """Return "sha256:<hex>" of a file, as dataset.json holds it for clips.arrow."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            if progress is not None:
                progress.add(len(block))
    return f"sha256:{digest.hexdigest()}"


def read_batch(path: Path, skeleton: Skeleton, *, full: bool = False) -> pa.RecordBatch | str:
    """Map the one record batch of clips.arrow, or return why it cannot be read.

    The poses stay on disk, unless `full` checks every value.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if not reader.schema.equals(clips_schema(skeleton)):
            return "does not have the columns for this skeleton"
        if reader.num_record_batches != 1:
            return f"has {reader.num_record_batches} record batches instead of 1"
        batch = reader.get_batch(0)
        batch.validate(full=full)
        batch.column("name").validate(full=True)
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {first_line(error)}"
    return batch


def find_contradictions(batch: pa.RecordBatch, info: DatasetInfo) -> Iterator[str]:
    """Yield what is wrong with the counts, and why poses cannot be assigned to clips."""
    poses, frames, bodies = (batch.column(name) for name in ("poses", "frame", "body"))
    if batch.num_rows == 0:
        yield "has no clip"
        return
    if batch.num_rows != info.num_clips:
        yield f"has {count_of(batch.num_rows, 'clip')}, {INFO_FILE} says {info.num_clips}"
    if len(poses.values) != info.num_poses:
        yield f"has {count_of(len(poses.values), 'pose')}, {INFO_FILE} says {info.num_poses}"
    required = [batch.column(field.name) for field in batch.schema if not field.nullable]
    inner = [poses.values, poses.values.values, frames.values, bodies.values]
    if any(column.null_count for column in (*required, *inner)):
        yield "a required value is null"
    offsets = poses.offsets.to_numpy()
    if offsets[0] != 0 or offsets[-1] != len(poses.values):
        yield "some poses belong to no clip"
    if np.any(np.diff(offsets) < 0):
        yield "the clips' poses overlap"
    for name, column in (("frame", frames), ("body", bodies)):
        if not column.offsets.equals(poses.offsets) or len(column.values) != len(poses.values):
            yield f"not every pose has one {name}"


def find_wrong_labels(batch: pa.RecordBatch, info: DatasetInfo) -> Iterator[str]:
    """Count the labels that are no class."""
    labels, num_classes = batch.column("label").fill_null(0).to_numpy(), len(info.class_names)
    if num_wrong := int(np.count_nonzero((labels < 0) | (labels >= num_classes))):
        wrong = count_of(num_wrong, "clip")
        yield f"{wrong} with a label that is not one of the {num_classes} classes"


def find_unknown_names(batch: pa.RecordBatch, info: DatasetInfo) -> Iterator[str]:
    """Count the names in the source's own splits that are no clip, for each case."""
    names = set(batch.column("name").to_pylist()) if info.splits else set()
    for case, parts in (info.splits or {}).items():
        if unknown := sorted({*parts["train"], *parts["test"]} - names):
            some = count_of(len(unknown), "unknown clip")
            yield f"the case {case} names {some}, for example {unknown[0]}"


def find_wrong_poses(batch: pa.RecordBatch) -> Iterator[str]:
    """Count the poses that are in no frame of their clip, and those without a body."""
    frame_P, body_P = (batch.column(name).values.to_numpy() for name in ("frame", "body"))
    num_poses_N = np.diff(batch.column("poses").offsets.to_numpy())
    num_frames_P = np.repeat(batch.column("num_frames").to_numpy(), num_poses_N)
    is_outside_P = (frame_P < 0) | (frame_P >= num_frames_P)
    yield from count_poses(batch, is_outside_P, "outside of the frames of a clip")
    yield from count_poses(batch, body_P < 0, "with a body below 0")


def count_poses(batch: pa.RecordBatch, is_wrong_P: BoolArray, what: str) -> Iterator[str]:
    """Yield how many poses are wrong, and the clip of the first; nothing if none is."""
    wrong = np.flatnonzero(is_wrong_P)
    if wrong.size:
        clip = np.searchsorted(batch.column("poses").offsets.to_numpy(), wrong[0], "right") - 1
        name = batch.column("name")[int(clip)]
        yield f"{count_of(wrong.size, 'pose')} {what}, the first in {name}"


def _clip_table(batch: pa.RecordBatch, splits: NamedSplits) -> ClipTable:
    def numbers(column: str) -> IntArray:
        filled = batch.column(column).cast(pa.int64()).fill_null(-1)
        array: IntArray = filled.to_numpy(zero_copy_only=False)
        return array

    names = tuple(batch.column("name").to_pylist())
    row_of = {name: row for row, name in enumerate(names)} if splits else {}

    def rows(part: list[str]) -> IntArray:
        return np.sort(np.array([row_of[name] for name in part], np.int64))

    return ClipTable(
        names=names,
        labels=numbers("label"),
        setups=numbers("setup"),
        cameras=numbers("camera"),
        subjects=numbers("subject"),
        replications=numbers("replication"),
        num_frames=numbers("num_frames"),
        splits={
            case: Split(train=rows(parts["train"]), test=rows(parts["test"]))
            for case, parts in splits.items()
        },
    )
