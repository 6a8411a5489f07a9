"""A dataset of noise in the shape of a real one: speed does not depend on what the poses show.

Legend: P poses, D numbers of a pose.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sgnray import seeding
from sgnray.data.datasets import DATASETS
from sgnray.data.protocols import resolve_case
from sgnray.data.skeleton import Skeleton
from sgnray.data.store import write_dataset
from sgnray.errors import UsageError


@dataclass(frozen=True)
class Shape:
    """What speed depends on: a dataset's joints, classes and lengths, and its numbers of clips."""

    skeleton: Skeleton
    num_classes: int
    poses_per_clip: int
    num_train: int
    num_validation: int
    num_test: int


def known_shape(dataset: str, case: str) -> tuple[str, Shape]:
    """Return the case's own name and the shape of a dataset that was not found.

    UsageError if the shape is not known.
    """
    if dataset not in DATASETS:
        raise UsageError(
            f"the shape of the dataset {dataset} is not known",
            where="--data is missing",
            now=f"give its folder with --data, or choose one of: {', '.join(DATASETS)}",
        )
    case = resolve_case(dataset, case)
    known = DATASETS[dataset]
    return case, Shape(
        skeleton=known.skeleton,
        num_classes=known.num_classes,
        poses_per_clip=known.poses_per_clip,
        num_train=known.cases[case].num_train,
        num_validation=0,
        num_test=known.cases[case].num_test,
    )


def write_noise(
    folder: Path, name: str, case: str, shape: Shape, *, num_train: int, num_test: int
) -> Path:
    """Write a dataset of this many clips for one case; return its folder."""
    folder.mkdir(parents=True)
    skeleton, length = shape.skeleton, shape.poses_per_clip
    num_clips = num_train + num_test
    names = [f"noise-{clip:07}" for clip in range(num_clips)]
    values_PD = seeding.uniform(0, "noise", 0, (num_clips * length, skeleton.pose_size))
    offsets = pa.array(np.arange(num_clips + 1) * length, pa.int32())
    columns = {
        "name": pa.array(names),
        "label": pa.array(np.arange(num_clips) % shape.num_classes, pa.int32()),
        "num_frames": pa.array(np.full(num_clips, length), pa.int32()),
        "frame": _lists(offsets, np.tile(np.arange(length), num_clips), pa.int32()),
        "body": _lists(offsets, np.zeros(num_clips * length), pa.int8()),
    }
    write_dataset(
        folder,
        columns,
        values_PD,
        dataset=name,
        skeleton=skeleton,
        class_names=tuple(f"class {label}" for label in range(shape.num_classes)),
        source={},
        splits={case: {"train": names[:num_train], "test": names[num_train:]}},
    )
    return folder


def _lists(offsets: pa.Array, values: npt.NDArray[Any], kind: pa.DataType) -> pa.ListArray:
    return pa.ListArray.from_arrays(offsets, pa.array(values, kind))
