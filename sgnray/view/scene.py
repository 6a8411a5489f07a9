"""What is shown of a clip: panels side by side, in each of them skeletons that move.

Legend: T frames, V joints, C coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import Skeleton
from sgnray.data.store import SkeletonDataset
from sgnray.data.tracks import clip_tracks

Role = Literal["main", "second", "removed"]
FRAMES_PER_S = 30.0  # of Kinect, which recorded all the datasets that sgnray reads raw

_ROLES: tuple[Role, ...] = ("main", "second")


@dataclass(frozen=True, eq=False)
class Track:
    """One skeleton over all frames of a scene, in meters; NaN in frames where it is not there.

    A `removed` one is what denoising took for a ghost, for furniture, or for one person too many.
    """

    joints_TVC: npt.NDArray[np.float32]
    role: Role


@dataclass(frozen=True, eq=False)
class Panel:
    """One view of a clip: what a sensor recorded, or what preparation made of it."""

    title: str
    tracks: tuple[Track, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """A clip as it is shown; every track of every panel has the same number of frames T."""

    title: str
    skeleton: Skeleton
    panels: tuple[Panel, ...]

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.panels[0].tracks[0].joints_TVC)


def scene_of_clip(dataset: SkeletonDataset, row: int) -> Scene:
    """Show one clip of a prepared dataset."""
    tracks = tuple(
        Track(joints_TVC, _ROLES[min(body, 1)])
        for body, joints_TVC in enumerate(clip_tracks(dataset, row))
    )
    return Scene(dataset.clips.names[row], dataset.skeleton, (Panel("prepared", tracks),))
