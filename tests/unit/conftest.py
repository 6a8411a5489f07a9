"""A dataset made of given poses, without any preparation."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sgnray.data.info import FORMAT_VERSION, DatasetInfo, write_info
from sgnray.data.skeleton import SkeletonLayout
from sgnray.data.store import CLIPS_FILE, checksum_file, clips_schema, poses_column

FLAT17 = SkeletonLayout(
    "flat17", tuple(f"joint {number}" for number in range(17)), ((1, 0), (2, 1)), None, 2
)


@pytest.fixture(scope="session")
def write_dataset():
    """Write a dataset of one pose per frame; `clips` are dicts with poses and what is known."""

    def write(folder, clips, *, dataset="mine", layout=FLAT17, splits=None, num_classes=2):
        folder.mkdir(parents=True)
        clips = sorted(clips, key=lambda clip: clip["name"])
        lengths = [len(clip["poses"]) for clip in clips]
        values = np.concatenate([np.ravel(clip["poses"]) for clip in clips]).astype(np.float32)
        columns = {
            name: [clip.get(name) for clip in clips]
            for name in ("name", "label", "setup", "camera", "subject", "replication")
        }
        columns |= {
            "num_frames": lengths,
            "poses": poses_column(
                layout,
                pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()),
                pa.array(values),
            ),
            "frame": [list(range(length)) for length in lengths],
            "body": [[0] * length for length in lengths],
        }
        schema = clips_schema(layout)
        arrays = [
            columns[field.name]
            if isinstance(columns[field.name], pa.Array)
            else pa.array(columns[field.name], field.type)
            for field in schema
        ]
        with pa.ipc.new_file(str(folder / CLIPS_FILE), schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
        info = DatasetInfo(
            format_version=FORMAT_VERSION,
            dataset=dataset,
            skeleton=layout,
            class_names=tuple(f"class {number}" for number in range(num_classes)),
            num_clips=len(clips),
            num_poses=sum(lengths),
            num_skipped=0,
            source={},
            checksum=checksum_file(folder / CLIPS_FILE),
            splits=splits,
        )
        write_info(folder, info)
        return folder

    return write


@pytest.fixture(scope="session")
def flat_folder(write_dataset, tmp_path_factory):
    """24 clips of 17 joints in 2D by 4 subjects; class 1 moves to the other side."""
    rng = np.random.default_rng(0)
    clips = []
    for number in range(24):
        side = np.linspace(0, 1, 12)[:, None, None] * (1 if number % 2 else -1)
        poses = rng.normal(size=(1, 17, 2)) + side + 0.01 * rng.normal(size=(12, 17, 2))
        clips.append(
            {
                "name": f"clip-{number:02}",
                "label": number % 2,
                "subject": number // 6,
                "poses": poses,
            }
        )
    names = [clip["name"] for clip in clips]
    splits = {"people": {"train": names[:18], "test": names[18:]}}
    return write_dataset(tmp_path_factory.mktemp("flat") / "mine", clips, splits=splits)
