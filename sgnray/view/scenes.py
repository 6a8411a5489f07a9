"""A raw recording as it is shown: what the sensor saw, beside what preparation makes of it.

Legend: T frames, V joints, C coordinates.
"""

from __future__ import annotations

import numpy as np

from sgnray.data.skeleton import Skeleton
from sgnray.data.tracks import FloatArray, lay_out_tracks
from sgnray.errors import ClipError
from sgnray.prepare.denoise import keep_actors
from sgnray.prepare.normalize import assign_actors, normalize
from sgnray.prepare.recording import Body, Recording
from sgnray.view.scene import Panel, Role, Scene, Track


def scene_of_recording(title: str, recording: Recording, skeleton: Skeleton) -> Scene:
    """Show a recording raw and prepared; raw only, and why, where preparation refuses it."""
    try:
        prepared = Panel("prepared", _prepared(recording, skeleton))
    except ClipError as error:
        raw = Panel(f"recorded; preparation refuses it: {error.what}", _raw(recording, {}))
        return Scene(title, skeleton, (raw,))
    return Scene(title, skeleton, (Panel("recorded", _raw(recording, _roles(recording))), prepared))


def _roles(recording: Recording) -> dict[int, Role]:
    """Tell which bodies became which actor, by the objects' identity."""
    if len(recording.bodies) == 1:
        return {id(recording.bodies[0]): "main"}
    actors = assign_actors(keep_actors(recording.bodies))
    roles: tuple[Role, ...] = ("main", "second")
    return {id(body): role for role, bodies in zip(roles, actors, strict=False) for body in bodies}


def _raw(recording: Recording, roles: dict[int, Role]) -> tuple[Track, ...]:
    return tuple(
        Track(_placed(body, recording.num_frames), roles.get(id(body), "removed"))
        for body in recording.bodies
    )


def _placed(body: Body, num_frames: int) -> FloatArray:
    joints_TVC = np.full((num_frames, *body.joints_TVC.shape[1:]), np.nan, np.float32)
    # A body's frames are laid out without gaps, which may reach beyond the recording's end.
    length = min(body.num_frames, num_frames - body.first_frame)
    joints_TVC[body.first_frame : body.first_frame + length] = body.joints_TVC[:length]
    return joints_TVC


def _prepared(recording: Recording, skeleton: Skeleton) -> tuple[Track, ...]:
    poses = normalize(recording, skeleton)
    tracks = lay_out_tracks(
        poses.values_PD.reshape(len(poses.bodies), skeleton.num_joints, -1),
        poses.frames,
        poses.bodies,
        num_frames=max(recording.num_frames, poses.num_frames),
    )
    roles: tuple[Role, ...] = ("main", "second")
    return tuple(
        Track(joints_TVC[: recording.num_frames], roles[body])
        for body, joints_TVC in enumerate(tracks)
    )
