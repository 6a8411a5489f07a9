"""The published datasets in one table: skeleton, classes, cases, counts; clip names."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import Literal

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import KINECT20, NAMED, NTU25, Skeleton

Column = Literal["subject", "camera", "setup"]

# SsssCcccPpppRrrrAaaa: setup, camera, subject (performer), replication, action.
NTU_CLIP_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)

# NTU RGB+D's own lists (Shahroudy et al. 2016, Liu et al. 2019).
_NTU60_TRAIN_SUBJECTS = (
    1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38,
)  # fmt: skip
_NTU120_TRAIN_SUBJECTS = (
    *_NTU60_TRAIN_SUBJECTS,
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86,
    89, 91, 92, 93, 94, 95, 97, 98, 100, 103,
)  # fmt: skip
NTU60_SETUPS = 17
_NTU_ACTIONS = "ntu_actions.csv"

# The name of a case in papers and in PYSKL's files, and its names here.
CASE_WORDS: Mapping[str, tuple[str, ...]] = {
    "xsub": ("cs", "csub"),
    "xview": ("cv",),
    "xset": ("cset",),
}
# Any of these names, and the names of the same case here.
CASE_ALIASES: Mapping[str, tuple[str, ...]] = {
    name: names for word, names in CASE_WORDS.items() for name in (word, *names)
}


@dataclass(frozen=True)
class Case:
    """A published split by a column of the clips, with its numbers of clips.

    `train` and `test` are the column's numbers in each part. None means all even numbers for
    `train`, and all that are not in `train` for `test`.
    """

    column: Column
    num_train: int
    num_test: int
    train: tuple[int, ...] | None = None
    test: tuple[int, ...] | None = None

    def masks(
        self, numbers_N: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return masks of the training and test clips; unknown numbers (-1) are in neither."""
        even_N = np.equal(numbers_N % 2, 0)
        trains_N = even_N if self.train is None else np.isin(numbers_N, self.train)
        tests_N = ~trains_N if self.test is None else np.isin(numbers_N, self.test)
        is_known_N = numbers_N >= 0
        return trains_N & is_known_N, tests_N & is_known_N


@dataclass(frozen=True)
class ExchangedLabels:
    """Two labels that stand for each other's class in the clips of one subject and camera."""

    subject: int
    camera: int
    labels: tuple[int, int]


@dataclass(frozen=True)
class PublishedDataset:
    """A dataset that comes with its own cases; `poses_per_clip` is an approximate mean.

    Its classes in label order are `class_names`, or the first `num_classes` of `class_list`.
    `exchanged` are labels known to be wrong, all of training clips.
    """

    skeleton: Skeleton
    num_classes: int
    poses_per_clip: int
    cases: Mapping[str, Case]
    class_names: tuple[str, ...] = ()
    class_list: str | None = None
    exchanged: tuple[ExchangedLabels, ...] = ()
    is_synthetic: bool = False


DATASETS: Mapping[str, PublishedDataset] = {
    "ntu60": PublishedDataset(
        NTU25,
        num_classes=60,
        poses_per_clip=96,
        cases={
            "cs": Case("subject", 40_091, 16_487, train=_NTU60_TRAIN_SUBJECTS),
            "cv": Case("camera", 37_646, 18_932, train=(2, 3), test=(1,)),
        },
        class_list=_NTU_ACTIONS,
    ),
    "ntu120": PublishedDataset(
        NTU25,
        num_classes=120,
        poses_per_clip=96,
        cases={
            "csub": Case("subject", 63_026, 50_919, train=_NTU120_TRAIN_SUBJECTS),
            "cset": Case("setup", 54_468, 59_477),
        },
        class_list=_NTU_ACTIONS,
    ),
    "nwucla": PublishedDataset(
        KINECT20,
        num_classes=10,
        poses_per_clip=40,
        cases={"cv": Case("camera", 1_020, 464, train=(1, 2), test=(3,))},
        class_names=(  # actions 7 and 10 were never released
            "pick up with one hand",
            "pick up with two hands",
            "drop trash",
            "walk around",
            "sit down",
            "stand up",
            "donning",
            "doffing",
            "throw",
            "carry",
        ),
        # Camera 1 shows the same subjects: in its clips, the motion is that of the other label.
        exchanged=(
            ExchangedLabels(subject=4, camera=2, labels=(4, 5)),  # sit down, stand up
            ExchangedLabels(subject=5, camera=2, labels=(6, 7)),  # donning, doffing
        ),
    ),
    # The counts of `sgn synth` without options.
    "synth": PublishedDataset(
        NTU25,
        num_classes=8,
        poses_per_clip=60,
        cases={
            "cs": Case("subject", 480, 288, train=_NTU60_TRAIN_SUBJECTS),
            "cv": Case("camera", 512, 256, train=(2, 3), test=(1,)),
            "cset": Case("setup", 384, 384),
        },
        is_synthetic=True,
    ),
}
# By the names that raw recordings and datasets have.
SKELETONS: Mapping[str, Skeleton] = NAMED | {
    known.skeleton.name: known.skeleton for known in DATASETS.values()
}


def find_published(num_classes: int, skeleton: Skeleton) -> str | None:
    """Recognize a published dataset by its classes and skeleton; synthetic ones do not match."""
    for name, dataset in DATASETS.items():
        shape = (dataset.num_classes, dataset.skeleton.name)
        if not dataset.is_synthetic and shape == (num_classes, skeleton.name):
            return name
    return None


def read_class_names(dataset: str) -> tuple[str, ...]:
    """Return the published names of a dataset's classes by label; empty if there are none."""
    known = DATASETS.get(dataset)
    if known is None or known.class_list is None:
        return () if known is None else known.class_names
    text = package_files("sgnray.data").joinpath(known.class_list).read_text(encoding="utf-8")
    names = [row["name"] for row in csv.DictReader(text.splitlines())]
    return tuple(names[: known.num_classes])


def read_missing_names() -> frozenset[str]:
    """Read NTU's published clips with missing skeletons: 535, of which 302 belong to NTU60."""
    text = package_files("sgnray.data").joinpath("ntu_missing.txt").read_text(encoding="utf-8")
    return frozenset(text.split())
