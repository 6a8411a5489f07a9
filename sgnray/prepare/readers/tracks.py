"""Track the people of each frame as bodies, for the readers of pose estimators.

Legend: N people of a frame, A active tracks, T frames, V joints, C coordinates; NaN marks a
missing joint.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import Skeleton
from sgnray.data.store import FloatArray
from sgnray.prepare.clip import Body, Recording, as_float32, refusal
from sgnray.prepare.readers.people import MAX_PEOPLE, Floats, find_people
from sgnray.prepare.readers.pixels import estimate_scale

MAX_GAP = 15  # frames, after which a person who comes back is a new body


def check_ids(ids: Sequence[Sequence[int | None]]) -> Sequence[Sequence[int | None]] | None:
    """Return the ids of a tracker, if all people have one and those of a frame differ."""
    are_used = all(None not in own and len(set(own)) == len(own) for own in ids)
    return ids if are_used else None


def build_recording(
    frames_NVC: Sequence[Floats | Sequence[Floats]],
    skeleton: Skeleton,
    ids: Sequence[Sequence[Hashable]] | None = None,
    numbers: npt.ArrayLike | None = None,
) -> Recording:
    """Track people, fill in missing joints, and drop frames without a person.

    `numbers` count the frames with any start and step; a missing number is a frame without people.
    A person continues the body whose bounding box, extrapolated to this frame, overlaps most with
    theirs, over the joints that both have, and somebody alone is who was alone in the frame before;
    `ids` identify the bodies instead. A missing joint is
    interpolated over time, carried to the ends of its body, and put in the middle of the other
    joints if it is never seen. Poses in an image (y down, pixels) are returned with y up, in
    meters estimated from the length of limbs.
    ClipError if there are no people, or if points in an image are not pixels.
    """
    tracks: list[_PersonTrack] = []
    active: list[_PersonTrack] = []
    frame_T = np.arange(len(frames_NVC)) + (0 if numbers is None else _count_missing(numbers))
    for index, (frame, listed) in enumerate(zip(frame_T.tolist(), frames_NVC, strict=True)):
        people_NVC = np.reshape(listed, (-1, skeleton.num_joints, skeleton.num_coordinates))
        found = np.flatnonzero(find_people(people_NVC)).tolist()
        if len(found) > MAX_PEOPLE:
            raise refusal(f"frame {index}: {len(found)} people, more than {MAX_PEOPLE}")
        own = [None] * len(people_NVC) if ids is None else ids[index]
        people = [_PersonTrack(own[person], frame, people_NVC[person]) for person in found]
        active = [track for track in active if frame - track.frames[-1] <= MAX_GAP]
        chosen = _match(active, people, frame) if ids is None else _match_ids(active, people, index)
        for person, track in zip(people, chosen, strict=True):
            if track is not None:
                track.add(person)
            else:
                tracks.append(person)
                active.append(person)
    if not tracks:
        raise refusal(f"none of its {len(frames_NVC)} frames contains a person")
    filled = [track.fill() for track in tracks]
    scale = np.ones(3)
    if skeleton.num_coordinates == 2:
        poses_PVC = np.stack([pose_VC for track in tracks for pose_VC in track.poses_VC])
        scale = estimate_scale(poses_PVC, skeleton)
    has_body_T = np.zeros(frame_T[-1] + 1, bool)
    for track in tracks:
        has_body_T[track.frames[0] : track.frames[-1] + 1] = True
    number_T = np.cumsum(has_body_T) - 1  # frames without a person do not count
    bodies = tuple(
        Body(
            int(number_T[track.frames[0]]),
            as_float32(joints_TVC * scale, "a coordinate is too large for float32"),
        )
        for track, joints_TVC in zip(tracks, filled, strict=True)
    )
    return Recording(int(has_body_T.sum()), bodies)


def fill_bodies(
    poses_PVC: FloatArray,
    frames_P: npt.NDArray[np.integer[Any]],
    bodies_P: npt.NDArray[np.integer[Any]],
) -> FloatArray:
    """Fill in the missing joints of each body of a clip, as in recordings of pose estimators."""
    filled_PVC = poses_PVC.copy()
    for body in np.unique(bodies_P):
        is_own_P = bodies_P == body
        frames = frames_P[is_own_P]
        filled_PVC[is_own_P] = fill_poses(poses_PVC[is_own_P].astype(np.float64), frames, frames)
    return filled_PVC


def fill_poses(
    poses_TVC: Floats, seen_T: npt.NDArray[np.integer[Any]], times_T: npt.NDArray[np.integer[Any]]
) -> Floats:
    """Return a person's poses at `times_T`, from those at `seen_T`, which may have missing joints.

    A joint is interpolated over time, keeps its nearest position before and after it is seen, and
    is put in the middle of the others if it is never seen.
    """
    is_missing_TV = np.isnan(poses_TVC[..., 0])
    if len(seen_T) == len(times_T) and not is_missing_TV.any():
        return poses_TVC
    filled_TVC = np.full((len(times_T), *poses_TVC.shape[1:]), np.nan)
    for joint in np.flatnonzero(~is_missing_TV.all(axis=0)):
        known_T = ~is_missing_TV[:, joint]
        for axis in range(poses_TVC.shape[2]):
            numbers = poses_TVC[known_T, joint, axis]
            filled_TVC[:, joint, axis] = np.interp(times_T, seen_T[known_T], numbers)
    never_V = is_missing_TV.all(axis=0)
    filled_TVC[:, never_V] = filled_TVC[:, ~never_V].mean(axis=1, keepdims=True)
    return filled_TVC


def _count_missing(numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Count the frames that are missing before each one, by their numbers.

    None are missing if fewer than half of the steps between frames are equal: such numbers do not
    count frames. A longer gap counts as MAX_GAP, enough to make a returning person a new body;
    frames without a person do not count in a clip anyway.
    """
    steps = np.diff(numbers)
    values, counts = np.unique(steps[steps > 0], return_counts=True)
    if 2 * counts.max(initial=0) < counts.sum():
        return np.zeros(len(steps) + 1, np.int64)
    usual = values[counts.argmax()] if values.size else 1.0
    missing = np.clip(np.rint(steps / usual) - 1, 0, MAX_GAP)
    return np.concatenate(([0], missing.cumsum())).astype(np.int64)


class _PersonTrack:
    """The poses of one person so far, at least one."""

    def __init__(self, own_id: Hashable, frame: int, pose_VC: Floats) -> None:
        self.own_id = own_id
        self.frames = [frame]
        self.poses_VC = [pose_VC]
        self._step_2 = np.zeros(2)

    def expect(self, frame: int) -> Floats:
        """Return the last pose's first two coordinates (V, 2), extrapolated to a frame."""
        return self.poses_VC[-1][:, :2] + self._step_2 * (frame - self.frames[-1])

    def add(self, person: _PersonTrack) -> None:
        """Continue with a person of a later frame."""
        frame, pose_VC = person.frames[0], person.poses_VC[0]
        step_V2 = (pose_VC - self.poses_VC[-1])[:, :2] / (frame - self.frames[-1])
        step_V2 = step_V2[~np.isnan(step_V2[:, 0])]
        if len(step_V2):  # over the joints in both poses, averaged with the step before
            self._step_2 = (self._step_2 + step_V2.mean(axis=0)) / 2
        self.frames.append(frame)
        self.poses_VC.append(pose_VC)

    def fill(self) -> Floats:
        """Return the poses without gaps (T, V, C) and without missing joints."""
        seen_T = np.array(self.frames) - self.frames[0]
        return fill_poses(np.stack(self.poses_VC), seen_T, np.arange(seen_T[-1] + 1))


def _match_ids(
    active: Sequence[_PersonTrack], people: Sequence[_PersonTrack], index: int
) -> list[_PersonTrack | None]:
    known = {track.own_id: track for track in active}
    if len({person.own_id for person in people}) < len(people):
        raise refusal(f"frame {index}: the same body twice")
    return [known.get(person.own_id) for person in people]


def _match(
    active: Sequence[_PersonTrack], people: Sequence[_PersonTrack], frame: int
) -> list[_PersonTrack | None]:
    """Find the track of each person: the largest overlap first, each track once.

    Somebody alone is who was alone in the frame before, also without an overlap.
    """
    chosen: list[_PersonTrack | None] = [None] * len(people)
    if not active or not people:
        return chosen
    if len(active) == len(people) == 1 and active[0].frames[-1] == frame - 1:
        return [active[0]]
    expected_AV2 = np.stack([track.expect(frame) for track in active])
    overlaps_AN = np.stack(
        [find_overlaps(expected_AV2, person.poses_VC[0][:, :2]) for person in people], axis=1
    )
    while overlaps_AN.max() > 0:
        track, person = divmod(int(overlaps_AN.argmax()), len(people))
        chosen[person] = active[track]
        overlaps_AN[track], overlaps_AN[:, person] = 0, 0
    return chosen


def find_overlaps(expected_AV2: Floats, person_V2: Floats) -> Floats:
    """Return the intersection over union of a person's box with each expected one.

    Each pair of boxes is around the joints that both poses have, since a missing hand would shrink
    one of them. The boxes are twice as wide and high as these joints.
    """
    is_in_both = ~np.isnan(expected_AV2 + person_V2)
    boxes = []
    for points_AV2 in (expected_AV2, np.broadcast_to(person_V2, expected_AV2.shape)):
        low_A2 = np.min(points_AV2, axis=1, where=is_in_both, initial=np.inf)
        high_A2 = np.max(points_AV2, axis=1, where=is_in_both, initial=-np.inf)
        margin_A2 = (high_A2 - low_A2) / 2
        boxes.append((low_A2 - margin_A2, high_A2 + margin_A2))
    (low_A2, high_A2), (other_low_A2, other_high_A2) = boxes
    sides_A2 = np.minimum(high_A2, other_high_A2) - np.maximum(low_A2, other_low_A2)
    common_A = np.prod(np.maximum(sides_A2, 0), axis=1)
    joint_A = sum(np.prod(high_A2 - low_A2, axis=1) for low_A2, high_A2 in boxes) - common_A
    shares_A: Floats = np.divide(common_A, joint_A, out=np.zeros_like(common_A), where=joint_A > 0)
    return shares_A
