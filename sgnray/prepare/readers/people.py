"""Shared code of the readers of pose estimators: track the people of each frame as bodies.

Legend: N people of a frame, A active tracks, T frames, V joints, C coordinates; NaN marks a
missing joint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import Skeleton
from sgnray.errors import ClipError
from sgnray.prepare.clip import Body, Recording, as_float32, refusal

Floats = npt.NDArray[np.float64]

MIN_SCORE = 0.2  # a joint with a lower score is missing
MIN_JOINTS = 3  # with fewer it is not a person
MAX_GAP = 15  # frames, after which a person who comes back is a new body
MAX_PEOPLE = 200
# The name of an image with the number of its frame, such as clip_12.jpg or 12.
_NUMBERED = re.compile(
    r"(.*?)(\d{1,15})(\D*?(?:\.[a-z]\w*)?)", re.ASCII | re.IGNORECASE | re.DOTALL
)
_MAX_NUMBER = 2**53  # float64 is exact for integers below this
_MAX_NORMALIZED = 1.5  # of points from 0 to 1 or from -1 to 1, with those outside the image
# Lengths of an adult, which turn pixels into meters.
_LENGTHS_M = {("left shoulder", "right shoulder"): 0.36} | {
    (f"{side} {start}", f"{side} {end}"): length_m
    for side in ("left", "right")
    for start, end, length_m in (
        ("shoulder", "elbow", 0.28),
        ("elbow", "wrist", 0.25),
        ("shoulder", "hip", 0.50),
        ("hip", "knee", 0.43),
        ("knee", "ankle", 0.42),
    )
}
_NO_LIMB = "no frame shows a whole limb, so the size of its people is unknown"
_FORESHORTENED = 75  # percentile: a limb often looks shorter than it is, rarely longer


def parse_json(data: bytes) -> Any:
    """Parse JSON; ClipError says where it is malformed."""
    with json_errors():
        return json.loads(data)


@contextmanager
def json_errors() -> Iterator[None]:
    """Turn an error of a parser of JSON into a ClipError that says where it is malformed."""
    try:
        yield
    except RecursionError as error:
        raise refusal("malformed JSON: nested too deeply") from error
    except ValueError as error:
        raise refusal(f"malformed JSON: {error}") from error


@contextmanager
def in_frame(name: object) -> Iterator[None]:
    """Add the name of the frame to a ClipError."""
    try:
        yield
    except ClipError as error:
        raise refusal(f"frame {name}: {error.what}") from error


def read_numbers(values: object, *, what: str) -> Floats:
    """Convert a JSON list to an array; ClipError if it is ragged or holds something else.

    null becomes NaN: JSON has no NaN, and writers that follow the standard put null.
    """
    try:
        array = np.array(values)
    except ValueError as error:
        raise refusal(f"{what} is not a regular list") from error
    is_listed = array.ndim > 0 and array.dtype == object
    if is_listed and all(item is None or type(item) in (int, float) for item in array.flat):
        with suppress(OverflowError):
            array = array.astype(np.float64)
    if array.size and array.dtype.kind not in "fiu":
        raise refusal(f"{what} contains something that is not a number")
    return array.astype(np.float64)


def mark_missing(joints_NVC: Floats, scores_NV: Floats | None = None) -> Floats:
    """Put NaN where a joint has a low score, a NaN, or only zeros; ClipError if it is too large."""
    if np.any(np.abs(joints_NVC) > np.finfo(np.float32).max):
        raise refusal("a coordinate is not finite, or too large for float32")
    is_missing = np.isnan(joints_NVC).any(axis=-1) | np.all(joints_NVC == 0, axis=-1)
    if scores_NV is not None:
        is_missing |= ~(scores_NV >= MIN_SCORE)
    return np.where(is_missing[..., None], np.nan, joints_NVC)


def find_people(joints_NVC: Floats) -> npt.NDArray[np.bool_]:
    """Return which poses have enough joints to be a person (N,)."""
    num_seen_N: npt.NDArray[np.intp] = np.count_nonzero(~np.isnan(joints_NVC[..., 0]), axis=1)
    return num_seen_N >= MIN_JOINTS


def show_name(name: object) -> str:
    """Return the start of a name in a file, for a message of one line."""
    shown = str(name)[:40]
    return "".join(each if each.isprintable() else "?" for each in shown)


def find_repeated(values: Iterable[Hashable]) -> int | None:
    """Return the index of the first value that is equal to an earlier one."""
    seen: set[Hashable] = set()
    for index, value in enumerate(values):
        if value in seen:
            return index
        seen.add(value)
    return None


def number_frames(ids: Sequence[Any], key: str) -> list[int] | None:
    """Return the frames' numbers: integers, or in names that are otherwise the same.

    ClipError if they descend.
    """
    numbers = list(ids)
    if all(isinstance(name, str) for name in ids):
        matches = [match for name in ids if (match := _NUMBERED.fullmatch(name))]
        if len(matches) < len(ids) or len({match.group(1, 3) for match in matches}) > 1:
            return None
        numbers = [int(match[2]) for match in matches]
    elif not all(type(number) is int and abs(number) < _MAX_NUMBER for number in ids):
        return None
    for index in range(1, len(ids)):
        if numbers[index] < numbers[index - 1]:
            what = f"{show_name(ids[index])} comes after {show_name(ids[index - 1])}"
            raise refusal(f"not sorted by {key}: {what}; sort the frames by their numbers")
    return numbers


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
        scale = _estimate_scale(poses_PVC, skeleton)
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


def meters_per_pixel(frames: npt.ArrayLike, skeleton: Skeleton) -> Floats:
    """Return the factors of x and y that turn pixels into meters with y up, as in recordings.

    `frames` are (T, V, 2) or (T, M, V, 2) of the people; a joint that is NaN or zero is missing.
    Use the same factors for all frames of a clip or stream. ClipError if they have no scale.
    """
    if skeleton.num_coordinates != 2:
        raise refusal(f"the skeleton {skeleton.name} is not in an image")
    points = read_numbers(frames, what="frames")
    if points.ndim < 2 or points.shape[-2:] != (skeleton.num_joints, 2):
        raise refusal(
            f"the pixels have the shape {points.shape}, not ... x {skeleton.num_joints} x 2"
        )
    return _estimate_scale(mark_missing(points.reshape(-1, *points.shape[-2:])), skeleton)


def _estimate_scale(poses_PVC: Floats, skeleton: Skeleton) -> Floats:
    """Estimate the scale of a clip from limbs that are seen, with the sign that turns y up."""
    if np.isnan(poses_PVC).all():
        raise refusal(_NO_LIMB)
    if np.nanmax(np.abs(poses_PVC)) <= _MAX_NORMALIZED:
        raise refusal(
            "the points are normalized, which distorts them: write pixels (OpenPose without "
            "--keypoint_scale, YOLO's to_json without normalize, others times width and height)"
        )
    index = {joint: number for number, joint in enumerate(skeleton.joints)}
    ratios_LP = np.stack(
        [
            np.hypot(*(poses_PVC[:, index[end]] - poses_PVC[:, index[start]]).T) / length_m
            for (start, end), length_m in _LENGTHS_M.items()
        ]
    )
    seen = ratios_LP[~np.isnan(ratios_LP)]
    pixels_per_meter = float(np.percentile(seen, _FORESHORTENED)) if seen.size else 0.0
    if pixels_per_meter <= 0:
        raise refusal(_NO_LIMB)
    return np.array([1.0, -1.0]) / pixels_per_meter
