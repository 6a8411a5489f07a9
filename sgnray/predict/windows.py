"""A long recording in windows of some frames, each prepared as if it had been recorded alone.

Legend: P poses, D = V * C numbers of a pose, V joints, C coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sgnray.data.skeleton import Skeleton
from sgnray.prepare.clip import Poses

FRAMES_PER_S = 30.0


@dataclass(frozen=True)
class Span:
    """Frames [first, end) of a recording; frames in which nobody was tracked are not counted."""

    first: int
    end: int

    @property
    def start_s(self) -> float:
        """When it starts, in seconds of Kinect's 30 frames each."""
        return self.first / FRAMES_PER_S

    @property
    def end_s(self) -> float:
        """When it ends."""
        return self.end / FRAMES_PER_S


@dataclass(frozen=True)
class Windows:
    """Windows of `size` frames, one every `stride` frames."""

    size: int
    stride: int

    def spans(self, num_frames: int) -> Iterator[Span]:
        """Give windows to the end: the last one ends there; a short recording is one window."""
        last = max(0, num_frames - self.size)
        for first in range(0, last, self.stride):
            yield Span(first, first + self.size)
        yield Span(last, num_frames)


def cut(poses: Poses, span: Span, skeleton: Skeleton) -> Poses | None:
    """Return the poses of a span, moved to its own origin; None where nobody is there."""
    inside_P = (poses.frames >= span.first) & (poses.frames < span.end)
    if not inside_P.any():
        return None
    bodies_P = poses.bodies[inside_P]
    poses_PVC = poses.values_PD[inside_P].reshape(len(bodies_P), skeleton.num_joints, -1)
    if skeleton.origin is not None:
        # The main actor's first pose, or whoever is there where the main actor is not.
        first = int(np.argmin(bodies_P))
        poses_PVC = poses_PVC - poses_PVC[first, skeleton.origin]
    return Poses(
        num_frames=span.end - span.first,
        values_PD=poses_PVC.reshape(len(bodies_P), -1),
        frames=poses.frames[inside_P] - np.int32(span.first),
        bodies=bodies_P,
    )
