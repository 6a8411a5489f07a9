"""Sliding windows over a long recording, each prepared as if it had been recorded alone.

Legend: P poses, D = V * C numbers of a pose, V joints, C coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgnray.data.skeleton import Skeleton
from sgnray.prepare.clip import Poses, Skipped, refusal
from sgnray.prepare.recording import FRAMES_PER_S

_MAX_STEP = 5  # between the frames of two poses; of times in milliseconds it is 33


@dataclass(frozen=True)
class Span:
    """Frames [first, end) of a recording, not counting frames in which nobody was tracked."""

    first: int
    end: int
    frames_per_s: float = FRAMES_PER_S

    @property
    def start_s(self) -> float:
        """Start in seconds."""
        return self.first / self.frames_per_s

    @property
    def end_s(self) -> float:
        """End in seconds."""
        return self.end / self.frames_per_s

    def to_dict(self) -> dict[str, Any]:
        """Return the columns that a window has in a table of predictions."""
        return {
            "first_frame": self.first,
            "end_frame": self.end,
            "start_s": self.start_s,
            "end_s": self.end_s,
        }


@dataclass(frozen=True, kw_only=True)
class SkippedWindow(Skipped):
    """A window that gave no result; others of the same recording may have given one."""

    span: Span


@dataclass(frozen=True)
class SlidingWindow:
    """Windows of `size` frames, one every `stride` frames."""

    size: int
    stride: int
    frames_per_s: float = FRAMES_PER_S

    def spans(self, num_frames: int) -> Iterator[Span]:
        """Yield all windows; the last one ends with the recording, a short one is one window."""
        last = max(0, num_frames - self.size)
        for first in range(0, last, self.stride):
            yield Span(first, first + self.size, self.frames_per_s)
        yield Span(last, num_frames, self.frames_per_s)


def check_frames(poses: Poses) -> None:
    """ClipError if the frames of most poses are so far apart that they must be times."""
    steps = np.diff(np.unique(poses.frames))
    if steps.size and (step := int(np.median(steps))) > _MAX_STEP:
        what = f"its poses are {step} frames apart"
        raise refusal(f"{what}: for windows, the column frame must count frames, not time")


def cut(poses: Poses, span: Span, skeleton: Skeleton) -> Poses | None:
    """Return the poses of a span, moved to their own origin; None if there are none."""
    inside_P = (poses.frames >= span.first) & (poses.frames < span.end)
    if not inside_P.any():
        return None
    bodies_P = poses.bodies[inside_P]
    poses_PVC = poses.values_PD[inside_P].reshape(len(bodies_P), skeleton.num_joints, -1)
    if skeleton.origin is not None:
        # The main actor's first pose, or the other one's if the main actor is absent.
        first = int(np.argmin(bodies_P))
        poses_PVC = poses_PVC - poses_PVC[first, skeleton.origin]
    return Poses(
        num_frames=span.end - span.first,
        values_PD=poses_PVC.reshape(len(bodies_P), -1),
        frames=poses.frames[inside_P] - np.int32(span.first),
        bodies=bodies_P,
    )
