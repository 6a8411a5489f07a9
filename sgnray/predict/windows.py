"""Sliding windows over a long recording, each prepared as if it had been recorded alone.

Legend: P poses, D = V * C numbers of a pose, V joints, C coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgnray.data.skeleton import Skeleton
from sgnray.data.skipped import Skipped
from sgnray.errors import UsageError
from sgnray.prepare.clip import FRAMES_PER_S, NOT_BY_TIME, Poses, refusal
from sgnray.prepare.normalize import center_poses

_MIN_POSES = 3  # per window; fewer mean that frames are times


@dataclass(frozen=True)
class Span:
    """Frames [first, end) of a recording, not counting frames in which no person was tracked."""

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

    def __post_init__(self) -> None:
        """Raise UsageError for numbers that make no windows."""
        if min(self.size, self.stride) < 1:
            raise UsageError(
                "window and stride must be at least one frame",
                where=f"--window {self.size} --stride {self.stride}",
                now="give numbers of frames",
            )
        if not 0 < self.frames_per_s < math.inf:
            raise UsageError(
                "invalid frame rate",
                where=f"--fps {self.frames_per_s:g}",
                now="give the frames per second of the camera; Kinect records 30",
            )

    def spans(self, poses: Poses) -> Iterator[Span]:
        """Yield the windows that have a pose, and the last one, which ends with the recording.

        A short recording is one window. ClipError if the frames of most poses are so far apart that
        they must be times.
        """
        frames = np.unique(poses.frames)
        step = int(np.median(np.diff(frames))) if len(frames) > 1 else 1
        if step > 1 and step * _MIN_POSES > self.size:
            what = f"its poses are {step} frames apart, too far for windows of {self.size}"
            raise refusal(f"{what}: {NOT_BY_TIME}")
        first, last = 0, max(0, poses.num_frames - self.size)
        for frame in frames.tolist():  # not window by window: gaps may be of any length
            first = max(first, -(-(frame - self.size + 1) // self.stride) * self.stride)
            while first <= frame and first < last:
                yield Span(first, first + self.size, self.frames_per_s)
                first += self.stride
        yield Span(last, poses.num_frames, self.frames_per_s)


def cut(poses: Poses, span: Span, skeleton: Skeleton) -> Poses | None:
    """Return the poses of a span, moved to their own origin; None if there are none."""
    inside_P = (poses.frames >= span.first) & (poses.frames < span.end)
    if not inside_P.any():
        return None
    bodies_P = poses.bodies[inside_P]
    poses_PVC = poses.values_PD[inside_P].reshape(len(bodies_P), skeleton.num_joints, -1)
    poses_PVC = center_poses(poses_PVC, bodies_P, skeleton)
    return Poses(
        num_frames=span.end - span.first,
        values_PD=poses_PVC.reshape(len(bodies_P), -1),
        frames=poses.frames[inside_P] - np.int32(span.first),
        bodies=bodies_P,
    )
