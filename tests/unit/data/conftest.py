"""A small dataset written by hand: its content is known, and every part can be damaged."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sgnray.data.info import FORMAT_VERSION, DatasetInfo, write_info
from sgnray.data.skeleton import Skeleton
from sgnray.data.skipped import Skipped, write_skipped
from sgnray.data.store import checksum_file, clips_schema, poses_column

STICK = Skeleton("stick", ("foot", "hip", "head"), ((0, 1), (2, 1)), 1, 2)


@dataclass
class HandMade:
    """Columns of clips.arrow as lists, and what dataset.json says; `write` makes the folder."""

    columns: dict = field(default_factory=dict)
    offsets: list = field(default_factory=list)
    values: np.ndarray | None = None
    info: DatasetInfo | None = None
    skipped: tuple = (Skipped("a.txt", "empty"), Skipped("b.txt", "empty"), Skipped("c", "torn"))

    def write(self, folder: Path, **changes) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        schema = clips_schema(STICK)
        offsets = pa.array(self.offsets, pa.int32())
        columns = dict(self.columns)
        columns["poses"] = poses_column(STICK, offsets, pa.array(self.values))
        for name, kind in (("frame", pa.int32()), ("body", pa.int8())):
            values = pa.array(columns[name], kind)
            columns[name] = pa.ListArray.from_arrays(offsets, values)
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, kind)
            for column, kind in ((columns[name], schema.field(name).type) for name in schema.names)
        ]
        path = folder / "clips.arrow"
        with pa.ipc.new_file(str(path), schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
        write_skipped(folder / "skipped.csv", self.skipped)
        info = self.info.model_copy(update={"checksum": checksum_file(path), **changes})
        write_info(folder, info)
        return folder


@pytest.fixture
def hand_made():
    """Five clips of 2, 3, 1, 4 and 2 poses, the second with two bodies, in two cases."""
    poses = [2, 3, 1, 4, 2]
    names = ["clip-1", "clip-2", "clip-3", "clip-4", "clip-5"]
    return HandMade(
        columns={
            "name": names,
            "label": [0, 0, 1, 0, 2],
            "setup": [None] * 5,
            "camera": [1, 2, 2, 1, None],
            "subject": [1, 1, 2, 3, 7],
            "replication": [None] * 5,
            "num_frames": [2, 2, 9, 4, 2],
            "frame": [0, 1, 0, 0, 1, 8, 0, 1, 2, 3, 0, 1],
            "body": [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        },
        offsets=np.cumsum([0, *poses]).tolist(),
        values=np.arange(12 * 6, dtype=np.float32),
        info=DatasetInfo(
            format_version=FORMAT_VERSION,
            dataset="sticks",
            skeleton=STICK,
            class_names=("wave", "clap", "sit", "never"),
            num_clips=5,
            num_poses=12,
            num_skipped=3,
            source={"num_files": 8, "num_bytes": 1234},
            checksum=f"sha256:{0:064}",
            splits={
                "hand": {"train": names[:3], "test": names[4:]},
                "all": {"train": names[1:], "test": names[:1]},
            },
        ),
    )


@pytest.fixture
def folder(hand_made, tmp_path):
    return hand_made.write(tmp_path / "sticks")
