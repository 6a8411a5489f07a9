"""A clip as it is shown: panels side by side, each with moving skeletons.

Legend: T frames, M bodies, V joints, C coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sgnray.data.skeleton import Skeleton
from sgnray.data.store import FloatArray, SkeletonDataset, arrange_poses
from sgnray.errors import ClipError
from sgnray.prepare.clip import FRAMES_PER_S, Body, Recording
from sgnray.prepare.normalize import assign_actors, keep_actors, normalize

Role = Literal["main", "second", "removed"]
_ROLES: tuple[Role, ...] = ("main", "second")  # by the number of the body


@dataclass(frozen=True, eq=False)
class SceneTrack:
    """One skeleton over all frames of a scene, in meters; NaN in frames where it is absent.

    Denoising dropped a `removed` track as noise, as furniture, or as one person too many.
    """

    joints_TVC: FloatArray
    role: Role


@dataclass(frozen=True, eq=False)
class Panel:
    """One view of a clip: as it was recorded, or as it was prepared."""

    title: str
    tracks: tuple[SceneTrack, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """A clip as it is shown; every track of every panel has the same number of frames T."""

    title: str
    skeleton: Skeleton
    panels: tuple[Panel, ...]
    frames_per_s: float = FRAMES_PER_S

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.panels[0].tracks[0].joints_TVC)


def scene_of_clip(dataset: SkeletonDataset, row: int) -> Scene:
    """Show one clip of a prepared dataset."""
    num_frames = int(dataset.clips.num_frames[row])
    joints_TMVC = dataset.arrange(row, num_frames=num_frames, absent=np.nan)
    panel = Panel("prepared", _tracks(joints_TMVC))
    return Scene(dataset.clips.names[row], dataset.skeleton, (panel,))


def scene_of_recording(title: str, recording: Recording, skeleton: Skeleton) -> Scene:
    """Show a recording raw and prepared; only raw, with the reason, if preparation refuses it."""
    try:
        prepared = Panel("prepared", _prepared(recording, skeleton))
    except ClipError as error:
        raw = Panel(f"recorded; preparation rejects it: {error.what}", _raw(recording, {}))
        return Scene(title, skeleton, (raw,))
    recorded = Panel("recorded", _raw(recording, _roles(recording, skeleton)))
    return Scene(title, skeleton, (recorded, prepared))


def scene_of_stream(skeleton: Skeleton) -> Scene:
    """Show a stream of one or two people, whose frames the player appends."""
    shape = (0, len(_ROLES), skeleton.num_joints, skeleton.num_coordinates)
    return Scene("Live stream", skeleton, (Panel("live", _tracks(np.empty(shape, np.float32))),))


def _prepared(recording: Recording, skeleton: Skeleton) -> tuple[SceneTrack, ...]:
    poses = normalize(recording, skeleton)
    joints_TMVC = arrange_poses(
        poses.values_PD.reshape(len(poses.bodies), skeleton.num_joints, -1),
        poses.frames,
        poses.bodies,
        num_frames=max(recording.num_frames, poses.num_frames),
        absent=np.nan,
    )
    return _tracks(joints_TMVC[: recording.num_frames])


def _tracks(joints_TMVC: FloatArray) -> tuple[SceneTrack, ...]:
    bodies = enumerate(joints_TMVC.swapaxes(0, 1))
    return tuple(SceneTrack(joints_TVC, _ROLES[min(body, 1)]) for body, joints_TVC in bodies)


def _roles(recording: Recording, skeleton: Skeleton) -> dict[Body, Role]:
    """Return the role of each body that preparation keeps."""
    if len(recording.bodies) == 1:
        return {recording.bodies[0]: "main"}
    actors = assign_actors(keep_actors(recording.bodies, skeleton))
    return {body: role for role, bodies in zip(_ROLES, actors, strict=False) for body in bodies}


def _raw(recording: Recording, roles: dict[Body, Role]) -> tuple[SceneTrack, ...]:
    return tuple(
        SceneTrack(_placed(body, recording.num_frames), roles.get(body, "removed"))
        for body in recording.bodies
    )


def _placed(body: Body, num_frames: int) -> FloatArray:
    joints_TVC = np.full((num_frames, *body.joints_TVC.shape[1:]), np.nan, np.float32)
    # A body's frames are stored without gaps, so they may reach beyond the recording's end.
    length = min(body.num_frames, num_frames - body.first_frame)
    joints_TVC[body.first_frame : body.first_frame + length] = body.joints_TVC[:length]
    return joints_TVC
