"""The Arrow dataset: one folder with clips.arrow, dataset.json and skipped.csv.

clips.arrow is one Arrow IPC file with one record batch, one row per clip, sorted by name. Because
there is one batch, all poses of the dataset are one contiguous float32 matrix in the file, and
opening it maps that matrix without copying it.

Legend: N clips, P poses of the dataset, V joints, C coordinates.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sgnray.data.protocols import ClipTable, IntArray
from sgnray.data.skeleton import LAYOUTS, SkeletonLayout
from sgnray.errors import InputError, Problem, UsageError

FORMAT_VERSION = 1
CLIPS_FILE = "clips.arrow"
INFO_FILE = "dataset.json"
SKIPPED_FILE = "skipped.csv"

_REBUILD = "prepare it again: sgn prepare --raw PATH --overwrite"


@dataclass(frozen=True)
class DatasetInfo:
    """What dataset.json says; `splits` is None where the protocols cut by subject or camera."""

    format_version: int
    dataset: str
    layout: str
    class_names: tuple[str, ...]
    num_clips: int
    num_poses: int
    num_skipped: int
    source: dict[str, Any]
    checksum: str
    splits: dict[str, dict[str, list[str]]] | None = None


@dataclass(frozen=True, eq=False)
class SkeletonDataset:
    """A prepared dataset, opened: `poses_PVC` is a read-only view on the mapped file, in metres.

    The poses of clip i are rows offsets[i] to offsets[i + 1]; a frame with two actors gives two
    consecutive poses, main actor first.
    """

    folder: Path
    info: DatasetInfo
    layout: SkeletonLayout
    clips: ClipTable
    offsets: IntArray
    poses_PVC: npt.NDArray[np.float32]


def open_dataset(folder: Path) -> SkeletonDataset:
    """Open a prepared dataset; cheap, the poses stay on disk until they are touched.

    InputError if it is missing, of a newer format, foreign or torn.
    """
    info = read_info(folder)
    path = folder / CLIPS_FILE
    layout = LAYOUTS[info.layout]
    batch = _read_batch(path, clips_schema(layout))
    # to_numpy without a copy keeps the mapping alive through the array's base.
    poses = batch.column("poses")
    values = poses.values.values.to_numpy(zero_copy_only=True)
    offsets = poses.offsets.to_numpy().astype(np.int64)
    if (
        batch.num_rows != info.num_clips
        or offsets[-1] != info.num_poses
        or bool(np.any(np.diff(offsets) < 0))
        or not _labels_fit(batch, len(info.class_names))
    ):
        raise _torn(path, f"{INFO_FILE} counts {info.num_clips} clips, {info.num_poses} poses")
    return SkeletonDataset(
        folder=folder,
        info=info,
        layout=layout,
        clips=_clip_table(batch),
        offsets=offsets,
        poses_PVC=values.reshape(-1, layout.num_joints, layout.num_coordinates),
    )


def find_dataset(data_dir: Path = Path("data"), *, name: str | None = None) -> Path:
    """Find the one prepared dataset in `data_dir`, or `data_dir` itself if it is one.

    `name` narrows by folder name or by the dataset's own name; UsageError for none or several.
    """
    if (data_dir / INFO_FILE).is_file():
        return data_dir
    found = sorted(path.parent for path in data_dir.glob(f"*/{INFO_FILE}"))
    found = [folder for folder in found if folder.suffix != ".partial"]
    if name is not None:
        same_folder = [folder for folder in found if folder.name == name]
        found = same_folder or [path for path in found if read_info(path).dataset == name]
    if not found:
        raise UsageError(
            f"there is no prepared dataset{f' {name}' if name else ''}",
            where=str(data_dir),
            now="make one: sgn prepare --raw PATH, or try everything with sgn demo",
        )
    if len(found) > 1:
        raise UsageError(
            f"there are {len(found)} prepared datasets",
            where=str(data_dir),
            now=f"name one, for example --data {found[0]}",
            problems=[Problem(str(folder), read_info(folder).dataset) for folder in found],
        )
    return found[0]


def read_info(folder: Path) -> DatasetInfo:
    """Read and check dataset.json."""
    path = folder / INFO_FILE
    if not path.is_file():
        raise InputError(
            "this is no prepared dataset" if folder.exists() else "there is no such dataset",
            where=str(path),
            now="prepare one: sgn prepare --raw PATH",
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["format_version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _torn(path, "no readable format_version") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InputError(
            f"the dataset has format version {version}, this sgnray reads up to {FORMAT_VERSION}",
            where=str(path),
            now=f"update sgnray, or {_REBUILD}",
        )
    names = {field.name for field in fields(DatasetInfo)}
    if (
        set(data) != names
        or str(data["layout"]) not in LAYOUTS
        or not isinstance(data["class_names"], list)
        or not all(isinstance(name, str) for name in data["class_names"])
    ):
        raise _torn(path, f"keys {', '.join(sorted(set(data) ^ names)) or data['layout']!r}")
    return DatasetInfo(**{**data, "class_names": tuple(data["class_names"])})


def write_info(folder: Path, info: DatasetInfo) -> None:
    """Write dataset.json."""
    text = json.dumps(asdict(info), indent=2, ensure_ascii=False)
    (folder / INFO_FILE).write_text(text + "\n", encoding="utf-8")


def clips_schema(layout: SkeletonLayout) -> pa.Schema:
    """Give the columns of clips.arrow.

    num_frames counts the clip's frames after preparation: frames without a body and frames that
    preparation dropped do not count, all-zero frames that it kept do, though they give no pose.
    `frame` is the 0-based frame of each pose, below num_frames; `body` is 0 for the main actor.
    """
    pose = pa.list_(pa.float32(), layout.num_joints * layout.num_coordinates)
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


def poses_column(
    layout: SkeletonLayout, offsets: pa.Int32Array, values: pa.FloatArray
) -> pa.ListArray:
    """Build the poses column over one flat array of P * V * C floats, without copying it."""
    width = layout.num_joints * layout.num_coordinates
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(values, width))


def checksum_file(path: Path) -> str:
    """Give "sha256:<hex>" of a file, as dataset.json holds it for clips.arrow."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _read_batch(path: Path, schema: pa.Schema) -> pa.RecordBatch:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.num_record_batches != 1 or not reader.schema.equals(schema):
            raise _torn(path, "other columns than this layout's")
        batch = reader.get_batch(0)
        batch.validate()
    except (OSError, pa.ArrowException) as error:
        raise _torn(path, str(error).split("\n", maxsplit=1)[0]) from error
    return batch


def _labels_fit(batch: pa.RecordBatch, num_classes: int) -> bool:
    labels = batch.column("label").to_numpy()
    return bool(np.all((labels >= 0) & (labels < num_classes)))


def _clip_table(batch: pa.RecordBatch) -> ClipTable:
    def numbers(column: str) -> IntArray:
        filled = batch.column(column).cast(pa.int64()).fill_null(-1)
        array: IntArray = filled.to_numpy(zero_copy_only=False)
        return array

    return ClipTable(
        names=tuple(batch.column("name").to_pylist()),
        labels=numbers("label"),
        setups=numbers("setup"),
        cameras=numbers("camera"),
        subjects=numbers("subject"),
        replications=numbers("replication"),
        num_frames=numbers("num_frames"),
    )


def _torn(path: Path, detail: str) -> InputError:
    return InputError(f"the dataset is torn or foreign: {detail}", where=str(path), now=_REBUILD)
