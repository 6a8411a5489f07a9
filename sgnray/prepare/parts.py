"""A part: a fixed number of raw files, read and normalised into one small Arrow table.

Parts are what a preparation is interrupted between, and what it hands out to Ray workers. Their
bytes depend on the raw files and on nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sgnray.data.skeleton import LAYOUTS, SkeletonLayout
from sgnray.data.store import clips_schema, poses_column
from sgnray.errors import ClipError
from sgnray.prepare.detect import RawPlan, Skipped
from sgnray.prepare.normalize import Poses, normalize
from sgnray.prepare.ntu import parse_ntu_name, read_skeleton
from sgnray.prepare.nwucla import ACTIONS, parse_nwucla_name, read_nwucla
from sgnray.prepare.recording import ClipName
from sgnray.prepare.source import RawFile, read_file, refusal

PART_SIZE = 256
_SKIPPED_KEY = b"skipped"


@dataclass(frozen=True)
class PartJob:
    """One part's work, small enough to send: which files of which dataset."""

    dataset: str
    layout: str
    num_classes: int
    files: tuple[RawFile, ...]


@dataclass(frozen=True, eq=False)
class Clip:
    """One prepared clip: what its name says, its 0-based label, and its poses."""

    name: ClipName
    label: int
    poses: Poses


def plan_parts(plan: RawPlan) -> list[PartJob]:
    """Cut a plan into parts of PART_SIZE files, by sorted name."""
    starts = range(0, len(plan.files), PART_SIZE)
    return [
        PartJob(
            plan.dataset,
            plan.layout.name,
            len(plan.class_names),
            plan.files[start : start + PART_SIZE],
        )
        for start in starts
    ]


def prepare_part(job: PartJob, on_file: Callable[[], None] | None = None) -> pa.Buffer:
    """Prepare a part; returns the bytes of an Arrow IPC file, refused files in its metadata."""
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for file in job.files:
        try:
            clips.append(prepare_clip(job, file))
        except ClipError as error:
            skipped.append(Skipped(file.name, error.what))
        if on_file is not None:
            on_file()
    reasons = json.dumps([(item.name, item.reason) for item in skipped])
    batch = _build_batch(LAYOUTS[job.layout], clips)
    schema = batch.schema.with_metadata({_SKIPPED_KEY: reasons.encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return sink.getvalue()


def prepare_clip(job: PartJob, file: RawFile) -> Clip:
    """Read and normalise one raw file; ClipError says why it is left out."""
    if job.dataset == "nwucla":
        name = parse_nwucla_name(file.name)
        if name.action not in ACTIONS:
            raise refusal(f"action {name.action} is none of NW-UCLA's", name=file.name)
        label = ACTIONS.index(name.action)
        recording = read_nwucla(read_file(file))
    else:
        name = parse_ntu_name(file.name)
        if name.action > job.num_classes:
            raise refusal(f"action {name.action} of {job.num_classes}", name=file.name)
        label = name.action - 1
        recording = read_skeleton(read_file(file))
    return Clip(name, label, normalize(recording, origin_joint=LAYOUTS[job.layout].origin))


def read_part(source: pa.NativeFile | pa.Buffer) -> tuple[pa.RecordBatch, list[Skipped]]:
    """Read what prepare_part returned; pa.ArrowException if it is torn."""
    reader = pa.ipc.open_file(source)
    reasons = json.loads(reader.schema.metadata[_SKIPPED_KEY])
    return reader.get_batch(0), [Skipped(name, reason) for name, reason in reasons]


def _build_batch(layout: SkeletonLayout, clips: list[Clip]) -> pa.RecordBatch:
    lengths = [len(clip.poses.frames) for clip in clips]
    offsets = pa.array(np.cumsum([0, *lengths], dtype=np.int32))
    empty = np.empty(0, np.float32)  # a part whose files were all refused has no array to join
    values = np.concatenate([empty, *(clip.poses.values_PD.ravel() for clip in clips)])
    frames = np.concatenate([empty.astype(np.int32), *(clip.poses.frames for clip in clips)])
    bodies = np.concatenate([empty.astype(np.int8), *(clip.poses.bodies for clip in clips)])
    names = [clip.name for clip in clips]
    schema = clips_schema(layout)
    columns = [
        [name.name for name in names],
        [clip.label for clip in clips],
        [name.setup for name in names],
        [name.camera for name in names],
        [name.subject for name in names],
        [name.replication for name in names],
        [clip.poses.num_frames for clip in clips],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=False)]
    arrays += [
        poses_column(layout, offsets, pa.array(values)),
        pa.ListArray.from_arrays(offsets, pa.array(frames)),
        pa.ListArray.from_arrays(offsets, pa.array(bodies)),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
