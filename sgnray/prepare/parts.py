"""Parts of a preparation: the result of each job, and the journal that stores them in order.

A part depends only on the raw data. The journal appends its poses to one file, which is mapped at
the end, so that they become one buffer without being loaded; the rest of a part is a small file of
its own, written after its poses. A part is finished if this file and those of all earlier parts
exist. An interrupted preparation resumes after the finished parts.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sgnray.data.skeleton import Skeleton
from sgnray.data.skipped import Skipped
from sgnray.data.store import clips_schema
from sgnray.prepare.clip import Clip
from sgnray.prepare.plan import PartJob, RawPlan
from sgnray.prepare.staging import POSES_FILE, part_path
from sgnray.storage.atomic import write_bytes

_SKIPPED_KEY, _END_KEY, _CRC_KEY = b"skipped", b"poses_end", b"poses_crc32"


@dataclass(frozen=True, eq=False)
class PreparedPart:
    """The clips of one job, or of all: `values_PD` are their poses, `table` all other columns."""

    table: pa.Table
    values_PD: npt.NDArray[np.float32]
    skipped: tuple[Skipped, ...]


def prepare_part(
    job: PartJob, skeleton: Skeleton, on_clip: Callable[[], None] | None = None
) -> PreparedPart:
    """Carry out a job, clip by clip."""
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for result in job.read():
        if isinstance(result, Clip):
            clips.append(result)
        else:
            skipped.append(result)
        if on_clip is not None:
            on_clip()
    # A part whose clips were all refused has no array to join.
    no_pose = np.empty((0, skeleton.pose_size), np.float32)
    poses = [no_pose, *(clip.poses.values_PD for clip in clips)]
    return PreparedPart(_build_table(skeleton, clips), np.concatenate(poses), tuple(skipped))


class Journal:
    """Parts in a staging folder; `num_finished` of them are done."""

    def __init__(self, folder: Path, plan: RawPlan) -> None:
        """Load the finished parts of an interrupted preparation, and drop an unfinished one."""
        self._folder = folder
        self._skeleton = plan.skeleton
        self._poses_path = folder / POSES_FILE
        self._poses_path.touch()
        self._tables: list[pa.Table] = []
        self._skipped: list[Skipped] = []
        self._end = 0
        while len(self._tables) < len(plan.jobs) and self._load_finished_part(len(self._tables)):
            pass
        self._poses = self._poses_path.open("r+b")
        self._poses.truncate(self._end)
        self._poses.seek(self._end)

    @property
    def num_finished(self) -> int:
        """How many parts are done, from the first one on without a gap."""
        return len(self._tables)

    def append(self, part: PreparedPart) -> None:
        """Store the next part; raises OSError or OutputError if writing fails."""
        self._poses.write(part.values_PD.data)
        self._poses.flush()
        self._end += part.values_PD.nbytes
        metadata = {
            _SKIPPED_KEY: json.dumps([astuple(item) for item in part.skipped]),
            _END_KEY: str(self._end),
            _CRC_KEY: str(zlib.crc32(part.values_PD.data)),
        }
        table = part.table.replace_schema_metadata(metadata)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        data = sink.getvalue()
        write_bytes(part_path(self._folder, self.num_finished), data)
        # Keep the written copy, not the part: its columns may be in Ray's small object store, and
        # would keep all poses of the part there.
        self._keep(pa.ipc.open_file(data).read_all(), part.skipped)

    def close(self) -> None:
        """Close the files."""
        self._poses.close()

    def gather(self) -> PreparedPart:
        """Join all parts, with their poses as one mapped matrix."""
        self._poses.flush()
        no_clip = _build_table(self._skeleton, []).replace_schema_metadata()  # there may be no part
        table = pa.concat_tables([no_clip, *self._tables]).combine_chunks()
        return PreparedPart(
            table, map_poses(self._poses_path, self._skeleton), tuple(self._skipped)
        )

    def _load_finished_part(self, index: int) -> bool:
        # A part is renamed when it is whole, but a power cut may still have corrupted it.
        try:
            data = part_path(self._folder, index).read_bytes()
            table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
            end = int(table.schema.metadata[_END_KEY])
            skipped = [Skipped(*item) for item in json.loads(table.schema.metadata[_SKIPPED_KEY])]
            crc = int(table.schema.metadata[_CRC_KEY])
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
            return False
        with self._poses_path.open("rb") as file:
            file.seek(self._end)
            if zlib.crc32(file.read(max(0, end - self._end))) != crc:
                return False
        self._end = end
        self._keep(table, skipped)
        return True

    def _keep(self, table: pa.Table, skipped: Sequence[Skipped]) -> None:
        self._tables.append(table.replace_schema_metadata())
        self._skipped += skipped


def map_poses(path: Path, skeleton: Skeleton) -> npt.NDArray[np.float32]:
    """Map a file of poses as a matrix (P, V * C)."""
    if path.stat().st_size == 0:
        return np.empty((0, skeleton.pose_size), np.float32)
    return np.memmap(path, np.float32, "r").reshape(-1, skeleton.pose_size)


def _build_table(skeleton: Skeleton, clips: list[Clip]) -> pa.Table:
    offsets = pa.array(np.cumsum([0, *(len(clip.poses.frames) for clip in clips)], dtype=np.int32))
    frames = [np.empty(0, np.int32), *(clip.poses.frames for clip in clips)]
    bodies = [np.empty(0, np.int8), *(clip.poses.bodies for clip in clips)]
    lists = {
        "frame": pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(frames))),
        "body": pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(bodies))),
    }
    facts = [asdict(clip.facts) | {"num_frames": clip.poses.num_frames} for clip in clips]
    schema = clips_schema(skeleton)
    schema = schema.remove(schema.get_field_index("poses"))
    arrays = [
        lists[field.name]
        if field.name in lists
        else pa.array([row[field.name] for row in facts], field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
