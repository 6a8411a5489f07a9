"""A part: what one job read. Its content depends on the raw data and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sgnray.data.skeleton import Skeleton
from sgnray.data.store import clips_schema
from sgnray.prepare.clip import Clip, Skipped
from sgnray.prepare.plan import PartJob


@dataclass(frozen=True, eq=False)
class Part:
    """The clips of one job: `values` are all their poses in a row, `table` all other columns."""

    table: pa.Table
    values: npt.NDArray[np.float32]
    skipped: tuple[Skipped, ...]


def prepare_part(
    job: PartJob, skeleton: Skeleton, on_clip: Callable[[], None] | None = None
) -> Part:
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
    poses = [
        np.empty((0, width_of(skeleton)), np.float32),
        *(clip.poses.values_PD for clip in clips),
    ]
    return Part(_build_table(skeleton, clips), np.concatenate(poses).reshape(-1), tuple(skipped))


def width_of(skeleton: Skeleton) -> int:
    """Give the numbers of one pose, V * C."""
    return skeleton.num_joints * skeleton.num_coordinates


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
