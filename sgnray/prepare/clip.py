"""What readers return: tracked bodies, clips, or the reason why one is left out.

Some readers parse a `Recording`, which `normalize` turns into the poses of a clip; others yield
clips ready for the dataset.

Legend: T frames, V joints, C coordinates, P poses of a clip, D = V * C numbers of a pose.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from sgnray.config.custom import ClipNumber
from sgnray.data.store import FloatArray
from sgnray.errors import ClipError

CLIP_NUMBERS: tuple[str, ...] = get_args(ClipNumber)
FRAMES_PER_S = 30.0  # of Kinect; no recording format stores its frame rate
MAX_CLIP_NUMBER = 32_767  # of the dataset's columns
NOT_BY_TIME = "number its frames 0, 1, ..., not by time"
NUM_LABELS = 100_000  # more than any dataset has
_LARGEST_M = 20


@dataclass(frozen=True, eq=False)
class Body:
    """One tracked body: its poses in meters, without gaps from its first frame."""

    first_frame: int
    joints_TVC: FloatArray

    @property
    def num_frames(self) -> int:
        """Number of frames in which the body was tracked."""
        return len(self.joints_TVC)


@dataclass(frozen=True)
class Recording:
    """The bodies of one raw file in order of first appearance; only frames with a body count."""

    num_frames: int
    bodies: tuple[Body, ...]


@dataclass(frozen=True)
class ClipFacts:
    """What is known about a clip besides its poses; `label` counts from 0, None is unknown.

    The numbers of CLIP_NUMBERS are 0 to MAX_CLIP_NUMBER.
    """

    name: str
    label: int
    setup: int | None = None
    camera: int | None = None
    subject: int | None = None
    replication: int | None = None


@dataclass(frozen=True, eq=False)
class Poses:
    """A clip's poses in the order SGN samples from; `frames` and `bodies` are one per pose."""

    num_frames: int
    values_PD: npt.NDArray[np.float32]
    frames: npt.NDArray[np.int32]
    bodies: npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Clip:
    """One prepared clip."""

    facts: ClipFacts
    poses: Poses


def why_left_out(
    facts: ClipFacts,
    label: int,
    *,
    num_classes: int,
    before: Collection[str],
    missing: Collection[str],
) -> str | None:
    """Explain why a clip with this label is left out, None if it is not.

    `facts` may be those of its name; `before` are the names of clips before it, `missing` those
    without a skeleton.
    """
    if facts.name in missing:
        return "on the published list of missing skeletons"
    if facts.name in before:
        return "another clip has this name"
    if facts.label != label:
        return f"its label is {label}, not {facts.label} as in its name"
    return None if label < num_classes else unknown_action(label, num_classes)


def unknown_action(label: int, num_classes: int) -> str:
    """Explain that a dataset does not have the action that a clip's name gives."""
    return f"its action is {label + 1}, and the dataset has {num_classes} classes"


def as_float32(numbers: npt.NDArray[Any], reason: str) -> npt.NDArray[np.float32]:
    """Convert numbers; ClipError with the reason if one is not finite or becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        converted = numbers.astype(np.float32, copy=False)
    if not np.isfinite(converted).all():
        raise refusal(reason)
    return converted


def check_meters(
    joints_PVC: npt.NDArray[np.floating[Any]], why: str, *, smallest_m: float = 0
) -> None:
    """Raise ClipError, which ends with `why`, if people have an unlikely size.

    They are too large, or smaller than `smallest_m`. NaN is a missing joint.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sizes_PC = np.nanmax(joints_PVC, axis=1) - np.nanmin(joints_PVC, axis=1)
        size_m = np.median(sizes_PC.max(axis=1))
    if not size_m <= _LARGEST_M:
        raise refusal(f"its people are larger than {_LARGEST_M} m: {why}")
    if size_m < smallest_m:
        raise refusal(f"its people are smaller than {smallest_m} m: {why}")


def refusal(
    reason: str, *, now: str = "leave this file out, or write or download it again"
) -> ClipError:
    """Build the ClipError that says why one clip is left out; the caller knows which."""
    return ClipError(reason, where="the clip", now=now)
