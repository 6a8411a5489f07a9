"""Three depth sensors that record a performance, with noise, losses, ghosts and changing ids.

Sensor frame, as Kinect v2: x to the right in the picture, y up, z away from the sensor, in meters.
Suffixes: T frames, V joints, C coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import NTU25
from sgnray.synth.body import Floats, Motion, joints_ending, turn_about

CAMERA_AZIMUTHS_RAD = {1: 0.0, 2: -np.pi / 4, 3: np.pi / 4}

_EXTREMITIES = joints_ending("wrist", "hand", "tip", "thumb", "ankle", "foot")
_LIMBS = ((5, 6, 7, 21, 22), (9, 10, 11, 23, 24), (13, 14, 15), (17, 18, 19))
_FIRST_BODY_ID = 72057594037900000


@dataclass(frozen=True)
class Setup:
    """Where the sensors of one setup stand."""

    height_m: float
    distance_m: float


@dataclass(frozen=True)
class BodyTrack:
    """One body id: the frames in which it is seen, and its joints in each of them.

    `joints_TVC` and `turned_TVCC` as in Motion, `states_TV` 2 for tracked and 1 for inferred.
    """

    body_id: int
    frames: npt.NDArray[np.int64]
    joints_TVC: Floats
    turned_TVCC: Floats
    states_TV: npt.NDArray[np.int64]

    def during(self, kept: npt.NDArray[np.bool_], body_id: int) -> BodyTrack:
        """Keep some of the frames, under the given id."""
        return BodyTrack(
            body_id,
            self.frames[kept],
            self.joints_TVC[kept],
            self.turned_TVCC[kept],
            self.states_TV[kept],
        )


@dataclass(frozen=True)
class SensorRecording:
    """The recording of one sensor; frame t lists its bodies cyclically, starting at `first[t]`."""

    num_frames: int
    tracks: tuple[BodyTrack, ...]
    first: npt.NDArray[np.int64]


def draw_setup(rng: np.random.Generator) -> Setup:
    """Draw the height and the distance of one setup's sensors, as in NTU RGB+D."""
    return Setup(height_m=rng.uniform(1.2, 2.2), distance_m=rng.uniform(2.6, 4.2))


def record(
    motions: tuple[Motion, ...], setup: Setup, camera: int, rng: np.random.Generator
) -> SensorRecording:
    """Record a performance with one sensor; each performer is in view for 12 frames or more."""
    num_frames = len(motions[0].joints_TVC)
    ids = (_FIRST_BODY_ID + rng.choice(90_000, size=8, replace=False)).tolist()
    tracks = [_see(motion, setup, camera, ids.pop(), rng) for motion in motions]
    if len(tracks) == 2 and rng.random() < 0.2:
        tracks[1] = _arrive_late(tracks[1], rng)
    if rng.random() < 0.08:
        which = int(rng.integers(len(tracks)))
        tracks[which : which + 1] = _retrack(tracks[which], ids.pop(), rng)
    if rng.random() < 0.12:
        tracks.append(_draw_ghost(num_frames, setup, ids.pop(), rng))
    if rng.random() < 0.1:
        tracks = _lose_frames(tracks, num_frames, rng)
    tracks = [track for track in tracks if len(track.frames)]
    return SensorRecording(num_frames, tuple(tracks), rng.integers(len(tracks), size=num_frames))


def _see(
    motion: Motion, setup: Setup, camera: int, body_id: int, rng: np.random.Generator
) -> BodyTrack:
    aim_m = 0.95
    pitch = np.arctan2(setup.height_m - aim_m, setup.distance_m)
    # Seen from the left, the world is turned to the right; a raised sensor looks down.
    turn = turn_about(0, np.asarray(-pitch)) @ turn_about(
        1, np.asarray(-CAMERA_AZIMUTHS_RAD[camera])
    )
    away = np.array((0.0, 0.0, np.hypot(setup.distance_m, setup.height_m - aim_m)))
    joints_TVC = (motion.joints_TVC - (0.0, aim_m, 0.0)) @ turn.T + away
    states_TV = _find_hidden(joints_TVC)
    track = BodyTrack(
        body_id,
        np.arange(len(joints_TVC)),
        joints_TVC + _draw_jitter(joints_TVC, states_TV, rng),
        turn @ motion.turned_TVCC,
        states_TV,
    )
    return _lose_limb(track, rng) if rng.random() < 0.35 else track


def _find_hidden(joints_TVC: Floats) -> npt.NDArray[np.int64]:
    """Mark a joint as inferred (1) if the trunk is between it and the sensor, else tracked (2)."""
    trunk_T1C = joints_TVC[:, 1:2]
    behind = joints_TVC[..., 2] > trunk_T1C[..., 2] + 0.06
    beside = np.abs(joints_TVC[..., 0] - trunk_T1C[..., 0]) > 0.16
    return np.where(behind & ~beside & (joints_TVC[..., 1] > trunk_T1C[..., 1] - 0.3), 1, 2)


def _draw_jitter(
    joints_TVC: Floats, states_TV: npt.NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Draw noise that grows with distance: partly new in each frame, partly smooth over time."""
    num_frames, num_joints, _ = joints_TVC.shape
    scale_TV1 = (
        0.004 * (joints_TVC[..., 2:] / 3.0) ** 2 * np.where(states_TV == 1, 3.0, 1.0)[..., None]
    )
    scale_TV1[:, _EXTREMITIES] *= 1.8
    independent_TVC = rng.normal(size=joints_TVC.shape)
    knots = rng.normal(size=(num_frames // 5 + 2, num_joints, 3))
    at = np.arange(num_frames) / 5.0
    before, share = at.astype(np.int64), (at % 1.0)[:, None, None]
    smooth_TVC = (1.0 - share) * knots[before] + share * knots[before + 1]
    return scale_TV1 * (independent_TVC + 1.5 * smooth_TVC)


def _lose_limb(track: BodyTrack, rng: np.random.Generator) -> BodyTrack:
    """Displace one limb for a few frames, like a tracking error."""
    limb = list(_LIMBS[rng.integers(len(_LIMBS))])
    length = int(rng.integers(2, 7))
    start = int(rng.integers(len(track.frames) - length))
    joints_TVC, states_TV = track.joints_TVC.copy(), track.states_TV.copy()
    joints_TVC[start : start + length, limb] += rng.normal(0.0, 0.12, 3)
    states_TV[start : start + length, limb] = 1
    return replace(track, joints_TVC=joints_TVC, states_TV=states_TV)


def _arrive_late(track: BodyTrack, rng: np.random.Generator) -> BodyTrack:
    late = int(len(track.frames) * rng.uniform(0.05, 0.25))
    return track.during(track.frames >= late, track.body_id)


def _retrack(track: BodyTrack, body_id: int, rng: np.random.Generator) -> list[BodyTrack]:
    """Give a person a new id from some frame on, after a gap of up to three frames."""
    at = int(track.frames[0] + len(track.frames) * rng.uniform(0.2, 0.8))
    gap = int(rng.integers(4))
    return [
        track.during(track.frames < at, track.body_id),
        track.during(track.frames >= at + gap, body_id),
    ]


def _draw_ghost(num_frames: int, setup: Setup, body_id: int, rng: np.random.Generator) -> BodyTrack:
    """Draw a body that is not a person: flat and wide, or seen for at most eleven frames."""
    is_wide = rng.random() < 0.5
    length = int(rng.integers(3, 21 if is_wide else 12))
    start = int(rng.integers(num_frames - length + 1))
    spread = (0.45, 0.15, 0.2) if is_wide else (0.2, 0.4, 0.2)
    shape_VC = rng.normal(size=(NTU25.num_joints, 3)) * spread
    middle = np.array((rng.uniform(-1.5, 1.5), rng.uniform(-0.8, 0.3), setup.distance_m + 0.5))
    joints_TVC = middle + shape_VC + rng.normal(0.0, 0.02, (length, NTU25.num_joints, 3))
    turned_TVCC = np.broadcast_to(np.eye(3), (*joints_TVC.shape, 3))
    states_TV = np.ones(joints_TVC.shape[:2], dtype=np.int64)
    return BodyTrack(body_id, np.arange(start, start + length), joints_TVC, turned_TVCC, states_TV)


def _lose_frames(
    tracks: list[BodyTrack], num_frames: int, rng: np.random.Generator
) -> list[BodyTrack]:
    """Remove all bodies from one to five frames: at the start, in between or at the end."""
    length = int(rng.integers(1, 6))
    middle = int(rng.integers(1, num_frames - length))
    start = (0, middle, num_frames - length)[rng.integers(3)]
    is_lost = np.zeros(num_frames, dtype=np.bool_)
    is_lost[start : start + length] = True
    return [track.during(~is_lost[track.frames], track.body_id) for track in tracks]
