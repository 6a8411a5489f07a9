"""The output of a reader: the tracked bodies of one raw file, before denoising.

Legend: T frames, V joints, C coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgnray.data.store import FloatArray

FRAMES_PER_S = 30.0  # of Kinect; no recording format stores its frame rate


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
