"""Parts to one dataset folder, in memory that does not grow with the number of poses."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sgnray.data.skeleton import SkeletonLayout
from sgnray.data.store import (
    CLIPS_FILE,
    FORMAT_VERSION,
    SKIPPED_FILE,
    DatasetInfo,
    checksum_file,
    clips_schema,
    poses_column,
    write_info,
)
from sgnray.errors import InputError
from sgnray.prepare.detect import RawPlan, Skipped
from sgnray.prepare.parts import read_part

PREPARE_VERSION = 1
_POSES_FILE = "poses.f32"


def assemble(parts: Sequence[Path], plan: RawPlan, *, aside: Path, ready: Path) -> DatasetInfo:
    """Write clips.arrow, dataset.json and skipped.csv into `ready`, from the parts in order.

    The poses are appended to one file in `aside` and mapped, so that they become one buffer
    without being in memory. InputError if no clip survived.
    """
    table, skipped = _gather(parts, aside / _POSES_FILE)
    skipped = sorted([*plan.skipped, *skipped], key=lambda item: (item.name, item.reason))
    if table.num_rows == 0:
        raise _no_clip(skipped, num_files=len(plan.files))
    values = _map_floats(aside / _POSES_FILE)
    _write_clips(ready / CLIPS_FILE, plan.layout, table, values)
    write_skipped(ready / SKIPPED_FILE, skipped)
    info = DatasetInfo(
        format_version=FORMAT_VERSION,
        dataset=plan.dataset,
        layout=plan.layout.name,
        class_names=plan.class_names,
        num_clips=table.num_rows,
        num_poses=len(values) // (plan.layout.num_joints * plan.layout.num_coordinates),
        num_skipped=len(skipped),
        source=describe_source(plan),
        checksum=checksum_file(ready / CLIPS_FILE),
    )
    write_info(ready, info)
    return info


def describe_source(plan: RawPlan) -> dict[str, int | str]:
    """Say what a dataset is made of: the same for a folder and a .zip of it, at any time."""
    return {
        "num_files": len(plan.files) + len(plan.skipped),
        "num_bytes": plan.num_bytes,
        "fingerprint": f"sha256:{plan.fingerprint}",
        "prepare_version": PREPARE_VERSION,
    }


def write_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    """Write skipped.csv."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "reason"))
        writer.writerows((item.name, item.reason) for item in skipped)


def read_skipped(path: Path) -> tuple[Skipped, ...]:
    """Read skipped.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(Skipped(row["file"], row["reason"]) for row in csv.DictReader(file))


def _gather(parts: Sequence[Path], poses_path: Path) -> tuple[pa.Table, list[Skipped]]:
    """Append all parts' poses to a file; returns their other columns, joined, in memory."""
    tables: list[pa.Table] = []
    skipped: list[Skipped] = []
    with poses_path.open("wb") as poses_file:
        for path in parts:
            with pa.memory_map(str(path)) as source:
                batch, refused = read_part(source)
                skipped += refused
                poses_file.write(batch.column("poses").values.values.to_numpy())
                # take copies, so that the part's mapping can be closed.
                rows = pa.array(np.arange(batch.num_rows))
                tables.append(pa.table(batch.drop_columns(["poses"]).take(rows)))
    return pa.concat_tables(tables).replace_schema_metadata().combine_chunks(), skipped


def _map_floats(path: Path) -> pa.FloatArray:
    buffer = pa.memory_map(str(path)).read_buffer()
    return pa.Array.from_buffers(pa.float32(), buffer.size // 4, [None, buffer])


def _write_clips(
    path: Path, layout: SkeletonLayout, table: pa.Table, values: pa.FloatArray
) -> None:
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    # One frame number for each pose: both lists have the same offsets.
    columns["poses"] = poses_column(layout, columns["frame"].offsets, values)
    schema = clips_schema(layout)
    batch = pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
    with path.open("wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)


def _no_clip(skipped: Sequence[Skipped], *, num_files: int) -> InputError:
    first = [f"{item.name}: {item.reason}" for item in skipped[:3]]
    return InputError(
        f"none of {num_files} recordings can be used",
        where="; ".join(first),
        now="check that the files are whole, and of the kind their names say",
    )
