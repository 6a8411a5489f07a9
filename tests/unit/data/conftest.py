"""A small dataset written by hand: its content is known, and every part can be damaged."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sgnray.data.info import write_info
from sgnray.data.skeleton import Skeleton
from sgnray.data.skipped import Skipped
from sgnray.data.store import clips_schema, write_dataset

STICK = Skeleton("stick", ("foot", "hip", "head"), ((0, 1), (2, 1)), 1, 2)


@pytest.fixture(autouse=True)
def torchs_generator_untouched():
    """Batches and augmentations draw by seed; torch's global one is for weights and dropout."""
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_rng_state()
    yield
    assert torch is None or torch.equal(before, torch.get_rng_state())


@dataclass
class HandMade:
    """Columns of clips.arrow as lists, and what dataset.json says; `write` makes the folder."""

    columns: dict = field(default_factory=dict)
    offsets: list = field(default_factory=list)
    values: np.ndarray | None = None
    described: dict = field(default_factory=dict)
    skipped: tuple = (Skipped("a.txt", "empty"), Skipped("b.txt", "empty"), Skipped("c", "torn"))

    def write(self, folder: Path, **changes) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        schema = clips_schema(STICK)
        columns = {
            name: pa.array(column, schema.field(name).type)
            for name, column in self.columns.items()
            if name not in ("frame", "body")
        }
        offsets = pa.array(self.offsets, pa.int32())
        for name, kind in (("frame", pa.int32()), ("body", pa.int8())):
            values = pa.array(self.columns[name], kind)
            columns[name] = pa.ListArray.from_arrays(offsets, values)
        values_PD = self.values.reshape(-1, STICK.pose_size)
        info = write_dataset(folder, columns, values_PD, skipped=self.skipped, **self.described)
        write_info(folder, info.model_copy(update=changes))
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
        described={
            "dataset": "sticks",
            "skeleton": STICK,
            "class_names": ("wave", "clap", "sit", "never"),
            "source": {"num_files": 8, "num_bytes": 1234},
            "splits": {
                "hand": {"train": names[:3], "test": names[4:]},
                "all": {"train": names[1:], "test": names[:1]},
            },
        },
    )


@pytest.fixture
def folder(hand_made, tmp_path):
    return hand_made.write(tmp_path / "sticks")
