"""From tracked bodies to a clip: which are people, who is actor 1 and 2, the origin, the poses.

Sums and variances are numpy's float32 reductions over the reference's own shapes, because their
order decides the last bit, and the last bit can decide the order of two actors.

Legend: T frames, M actors (1 or 2), V joints, C coordinates, D = V * C numbers of a pose, P poses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import ESTIMATED, Skeleton
from sgnray.data.store import FloatArray
from sgnray.prepare.clip import Body, Poses, Recording, as_float32, refusal

SHORTEST_GHOST = 11  # bodies of at most this many frames are ghosts
WIDE_RATIO = 0.8  # a frame is wide if its x-spread exceeds this share of its y-spread
WIDE_SHARE = 0.69754  # a body this often wide is furniture
_TOO_LARGE = "a coordinate is too large for float32 after the origin is subtracted"


def normalize(recording: Recording, skeleton: Skeleton) -> Poses:
    """Denoise, arrange the actors, move the origin, list the poses; ClipError if none is left."""
    frames_TMD = arrange(recording, skeleton)
    if skeleton.origin is not None:
        frames_TMD = translate(
            frames_TMD,
            origin_joint=skeleton.origin,
            num_coordinates=skeleton.num_coordinates,
        )
    return list_poses(frames_TMD)


def arrange(recording: Recording, skeleton: Skeleton) -> FloatArray:
    """Put the actors side by side: float32 (T, M, D), zero where an actor is absent.

    Where several ids were tracked, frames whose numbers sum to zero (in float32) are dropped; a
    recording of one body id is taken as it is.
    """
    bodies = list(recording.bodies)
    if len(bodies) == 1:
        return _place(recording.num_frames, [bodies])
    actors = assign_actors(keep_actors(recording.bodies, skeleton))
    frames_TMD = _place(recording.num_frames, actors)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = frames_TMD.reshape(len(frames_TMD), -1).sum(axis=1)
    kept_TMD: FloatArray = frames_TMD[sums != 0]
    return kept_TMD


def keep_actors(bodies: tuple[Body, ...], skeleton: Skeleton) -> list[Body]:
    """Drop ghosts and furniture; sort the remaining bodies by motion, most motion first.

    For recordings with more than one body id. Furniture is what Kinect takes for people: for pose
    estimators, somebody at a desk or on the floor is wide. ClipError if every body is too short.
    """
    kept = [body for body in bodies if body.num_frames > SHORTEST_GHOST]
    if not kept:
        raise refusal(f"no body is longer than {SHORTEST_GHOST} frames")
    if len(kept) == 1:
        return kept
    drops_wide = skeleton.name not in ESTIMATED
    motions: list[np.float32] = []
    actors: list[Body] = []
    num_left = len(kept)
    for body in kept:
        motion = measure_motion(body.joints_TVC)
        is_wide = find_wide_frames(body.joints_TVC)
        num_wide = int(is_wide.sum()) if drops_wide else 0
        # The last body left is kept, however wide it is.
        if num_left > 1 and num_wide > 0:
            if num_wide / body.num_frames >= WIDE_SHARE:
                num_left -= 1
                continue
            motion = min(motion, measure_motion(body.joints_TVC[~is_wide]))
        motions.append(motion)
        actors.append(body)
    order = sorted(range(len(actors)), key=lambda index: motions[index], reverse=True)
    return [actors[index] for index in order]


def measure_motion(joints_TVC: FloatArray) -> np.float32:
    """Return the variance over all joints and frames, summed over coordinates, in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        motion: np.float32 = np.sum(np.var(joints_TVC.reshape(-1, joints_TVC.shape[-1]), axis=0))
    return motion


def find_wide_frames(joints_TVC: FloatArray) -> npt.NDArray[np.bool_]:
    """Mark the frames whose x-spread exceeds WIDE_RATIO of their y-spread, in float32."""
    x_TV, y_TV = joints_TVC[:, :, 0], joints_TVC[:, :, 1]
    with np.errstate(over="ignore"):
        x_spread = x_TV.max(axis=1) - x_TV.min(axis=1)
        y_spread = y_TV.max(axis=1) - y_TV.min(axis=1)
        is_wide: npt.NDArray[np.bool_] = x_spread > np.float32(WIDE_RATIO) * y_spread
    return is_wide


def assign_actors(bodies: list[Body]) -> list[list[Body]]:
    """Join bodies that do not overlap in time into at most two actors; the others are dropped.

    `bodies` are sorted, main actor first. Sharing one frame is not an overlap. Actor 2's interval
    starts as [0, 0], as in the reference, so that its start stays 0.
    """
    actors: list[list[Body]] = [[bodies[0]], []]
    hulls = [_interval(bodies[0]), (0, 0)]
    for body in bodies[1:]:
        first, last = _interval(body)
        for actor, (hull_first, hull_last) in enumerate(hulls):
            if min(hull_last, last) - max(hull_first, first) <= 0:
                actors[actor].append(body)
                hulls[actor] = (min(first, hull_first), max(last, hull_last))
                break
    # With more than one body the reference keeps room for two, even if one id follows another.
    return actors if len(bodies) > 1 else actors[:1]


def translate(frames_TMD: FloatArray, *, origin_joint: int, num_coordinates: int = 3) -> FloatArray:
    """Subtract the origin: one joint of actor 1 in its first frame with any non-zero number.

    Where there are two actors, one whose numbers summed to zero in a frame stays zero there.
    """
    num_frames, num_actors, size = frames_TMD.shape
    seen = np.flatnonzero((frames_TMD[:, 0] != 0).any(axis=1))
    if seen.size == 0:
        raise refusal("every frame of the main actor is zero")
    joints_TMVC = frames_TMD.reshape(num_frames, num_actors, -1, num_coordinates)
    origin = joints_TMVC[seen[0], 0, origin_joint]
    with np.errstate(over="ignore", invalid="ignore"):
        moved_TMD: FloatArray = (joints_TMVC - origin).reshape(num_frames, num_actors, size)
        if num_actors > 1:
            for actor in range(num_actors):
                moved_TMD[frames_TMD[:, actor].sum(axis=1) == 0, actor] = 0
    if not np.isfinite(moved_TMD).all():
        raise refusal(_TOO_LARGE)
    return moved_TMD


def center_poses(
    poses_PVC: FloatArray, bodies_P: npt.NDArray[np.integer[Any]], skeleton: Skeleton
) -> FloatArray:
    """Put at zero the origin of the main actor's first pose, or of the other one's without it.

    ClipError if a number becomes infinite.
    """
    if skeleton.origin is None:
        return poses_PVC
    first = int(np.argmin(bodies_P))
    with np.errstate(over="ignore", invalid="ignore"):
        moved_PVC: FloatArray = poses_PVC - poses_PVC[first, skeleton.origin]
    return as_float32(moved_PVC, _TOO_LARGE)


def center_actors(keypoint_MTVC: npt.NDArray[Any], *, origin_joint: int) -> Poses:
    """Put actor 1's origin joint at zero in the first frame that has it, and list the poses.

    An actor that is all zero in a frame is absent, and stays zero. ClipError if actor 1 never
    appears, or a number is not finite.
    """
    num_actors, num_frames = keypoint_MTVC.shape[:2]
    with np.errstate(over="ignore", invalid="ignore"):
        frames_TMVC: FloatArray = keypoint_MTVC.astype(np.float32).transpose(1, 0, 2, 3)
        is_there_TM = (frames_TMVC != 0).any(axis=(2, 3))
        seen = np.flatnonzero(is_there_TM[:, 0])
        if seen.size == 0:
            raise refusal("every frame of the main actor is zero")
        origin = frames_TMVC[seen[0], 0, origin_joint]
        # Poses that are already centered do not change, not even the sign of their zeros.
        moved_TMVC = frames_TMVC - origin if origin.any() else frames_TMVC
    moved_TMVC = np.where(is_there_TM[:, :, None, None], moved_TMVC, np.float32(0))
    if not np.isfinite(moved_TMVC).all():
        raise refusal("a coordinate is not finite, or too large for float32")
    return list_poses(moved_TMVC.reshape(num_frames, num_actors, -1))


def list_poses(frames_TMD: FloatArray) -> Poses:
    """List the poses that are not all zero, frame by frame, main actor first."""
    frames, bodies = np.nonzero((frames_TMD != 0).any(axis=2))
    if frames.size == 0:
        raise refusal("every pose is zero")
    return Poses(
        num_frames=len(frames_TMD),
        values_PD=frames_TMD[frames, bodies],
        frames=frames.astype(np.int32),
        bodies=bodies.astype(np.int8),
    )


def _place(num_frames: int, actors: list[list[Body]]) -> FloatArray:
    size = actors[0][0].joints_TVC[0].size
    frames_TMD = np.zeros((num_frames, len(actors), size), np.float32)
    for actor, bodies in enumerate(actors):
        for body in bodies:  # a later body overwrites the frame it shares with an earlier one
            first, last = _interval(body)
            frames_TMD[first : last + 1, actor] = body.joints_TVC.reshape(-1, size)
    return frames_TMD


def _interval(body: Body) -> tuple[int, int]:
    return body.first_frame, body.first_frame + body.num_frames - 1
