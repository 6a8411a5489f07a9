"""Poses given in memory, as arrays or lists, prepared like those of a file.

Legend: T frames, M people, V joints, C coordinates, P poses.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import ESTIMATED, MEDIAPIPE33, NAMED, Skeleton
from sgnray.data.store import FloatArray
from sgnray.errors import ClipError, InputError
from sgnray.prepare.clip import Poses, check_meters
from sgnray.prepare.normalize import center_poses
from sgnray.prepare.readers.format_table import UTF16, is_utf16
from sgnray.prepare.readers.people import MIN_JOINTS, check_world, upside_down_share
from sgnray.prepare.readers.pixels import NORMALIZED
from sgnray.prepare.readers.tracks import fill_bodies

log = logging.getLogger(__name__)

MOST_PEOPLE = 2
_MIN_INSIDE = 0.95  # share of the coordinates of normalized points that are in the image
VIDEO_FIRST = "run a pose estimator on a video first, as the guide pose-estimators.md shows"
_IN_METERS = "give poses as in the dataset that the model was trained on, in meters with y up"
_FROM_PIXELS = (
    ": multiply x by f and y by -f, where f is 0.50 m / pixels from shoulder to hip "
    "(sgnray.predict.meters_per_pixel)"
)


def parse_frames(data: bytes) -> Any:
    """Parse JSON in UTF-8. RecursionError or ValueError; UnicodeError if it is not text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if is_utf16(data):
        raise ValueError(UTF16)
    if "\0" in text:  # the first bytes of a video may be UTF-8
        raise UnicodeError("it is not UTF-8 text")
    return json.loads(text)


def list_clip(
    joints: npt.ArrayLike, skeleton: Skeleton, *, warns_upside_down: bool = True
) -> Poses:
    """List the poses of a clip, moved to its origin: a joint of the first person's first pose.

    `joints` are (T, V, C) or (T, M, V, C); see `arrange_frames`. No person is removed as noise,
    unlike in recordings of a Kinect. InputError for another shape, numbers that are not finite,
    points normalized by the size of an image, or a clip without a person.
    """
    frames_TMVC = arrange_frames(joints, skeleton)
    is_there_TM = ~_is_absent(frames_TMVC)
    kept_T = is_there_TM.any(axis=1)
    frames, bodies = np.nonzero(is_there_TM[kept_T])
    if frames.size == 0:
        raise InputError(
            "no frame contains a person", where="the clip", now="leave out clips without people"
        )
    given_PVC = frames_TMVC[kept_T][frames, bodies]
    if _is_normalized(given_PVC, skeleton):
        now = f"multiply x by the width and y by the height of the image; then {_IN_METERS}"
        raise InputError(NORMALIZED, where="the joints", now=now + _FROM_PIXELS)
    if warns_upside_down:
        warn_upside_down(frames_TMVC, skeleton)
    try:
        poses_PVC = center_poses(given_PVC, bodies, skeleton)
    except ClipError as error:
        now = "give poses in the unit of the dataset that the model was trained on"
        raise InputError(error.what, where="the joints", now=now) from error
    return Poses(
        num_frames=int(kept_T.sum()),
        values_PD=poses_PVC.reshape(len(poses_PVC), -1),
        frames=frames.astype(np.int32),
        bodies=bodies.astype(np.int8),
    )


def _is_normalized(poses_PVC: FloatArray, skeleton: Skeleton) -> bool:
    """Return whether an image's points are from 0 to 1, most of them of people with y down.

    Meters with y up may be from 0 to 1, too.
    """
    if skeleton.name not in ESTIMATED or skeleton.num_coordinates != 2:
        return False
    # Estimators put a few joints outside the image.
    share = float(np.mean((poses_PVC >= 0) & (poses_PVC <= 1)))
    return share >= _MIN_INSIDE and upside_down_share(poses_PVC, skeleton) > 0.5


def warn_upside_down(frames_TMVC: FloatArray, skeleton: Skeleton) -> bool:
    """Warn if y is down in all frames, as MediaPipe has it; return whether it is."""
    if skeleton.name != MEDIAPIPE33.name:
        return False
    is_down = upside_down_share(frames_TMVC[~_is_absent(frames_TMVC)], skeleton) == 1
    if is_down:
        log.warning(
            "the head is below the hips in every frame: if nobody is upside down, multiply "
            "MediaPipe's world landmarks by (1, -1, -1), because y must be up"
        )
    return is_down


def arrange_frames(
    joints: npt.ArrayLike | Sequence[npt.ArrayLike],
    skeleton: Skeleton,
    *,
    may_miss_joints: bool = False,
    checks_unit: bool = True,
) -> FloatArray:
    """Arrange the frames of one or two people: float32 (T, M, V, C), NaN where one is absent.

    A person whose numbers are all zero is absent too, and an empty frame has no person. With
    `may_miss_joints`, a joint with a NaN is missing, and becomes NaN throughout; so does a person
    with fewer than MIN_JOINTS others. The unit of a pose estimator's joints is checked over all
    frames together. Raises InputError.
    """
    frames = _shape_frames(joints, skeleton)
    frames[(frames == 0).all(axis=(2, 3))] = np.nan
    is_joint_TMV = np.asarray(np.isfinite(frames).all(axis=3))
    is_person_TM = is_joint_TMV.all(axis=2)
    is_absent_TM = _is_absent(frames)
    if may_miss_joints:
        is_missing_TMV = np.asarray(np.isnan(frames).any(axis=3))
        is_person_TM = (is_joint_TMV | is_missing_TMV).all(axis=2) & is_joint_TMV.any(axis=2)
        frames[is_missing_TMV] = np.nan
        has_few_TM = is_missing_TMV.any(axis=2) & (is_joint_TMV.sum(axis=2) < MIN_JOINTS)
        is_absent_TM |= is_person_TM & has_few_TM
        is_person_TM &= ~has_few_TM
        frames[is_absent_TM] = np.nan
    is_broken_T = ~(is_person_TM | is_absent_TM).all(axis=1)
    if is_broken_T.any():
        now = "fill in single joints; an absent person is NaN or zero throughout"
        if may_miss_joints:
            now = "write null for a missing joint or an absent person"
        raise InputError(
            "a coordinate is not finite",
            where=f"frame {int(is_broken_T.argmax())} of the joints",
            now=now,
        )
    if checks_unit and skeleton.name in ESTIMATED and is_person_TM.any():
        try:
            if skeleton.name == MEDIAPIPE33.name:
                check_world(frames[is_person_TM].astype(np.float64))
            check_meters(frames[is_person_TM], "these are not meters")
        except ClipError as error:
            now = _IN_METERS + (_FROM_PIXELS if skeleton.num_coordinates == 2 else "")
            raise InputError(error.what, where="the joints", now=now) from error
    return frames


def _shape_frames(
    joints: npt.ArrayLike | Sequence[npt.ArrayLike], skeleton: Skeleton
) -> FloatArray:
    """Copy the frames to float32 (T, M, V, C); NaN if all are empty. Raises InputError."""
    shape = (skeleton.num_joints, skeleton.num_coordinates)
    now = f"a frame is {shape} for one person, ({MOST_PEOPLE}, {shape[0]}, {shape[1]}) for two"
    try:
        given = np.asarray(joints)
    except (RuntimeError, TypeError, ValueError) as error:  # a ragged list, a tensor on a GPU
        what = f"the joints are not an array of numbers: {error}"
        raise InputError(what, where="the joints", now=now) from error
    if given.ndim > 0 and len(given) == 0:
        raise InputError("there is no frame", where="the joints", now=now)
    if given.dtype.kind not in "fiu":
        raise InputError("the joints are not an array of numbers", where="the joints", now=now)
    if given.ndim > 0 and given.size == 0:
        return np.full((len(given), 1, *shape), np.nan, np.float32)
    with np.errstate(over="ignore"):  # infinite, which the caller refuses
        frames_TMVC = given.astype(np.float32)
    if frames_TMVC.ndim == 3:
        frames_TMVC = frames_TMVC[:, None]
    if frames_TMVC.ndim != 4 or frames_TMVC.shape[2:] != shape:
        person = given.shape[-2:] if given.ndim in (3, 4) else ()
        known = NAMED.values()
        found = [it.name for it in known if person == (it.num_joints, it.num_coordinates)]
        as_known = f", as {' or '.join(found)} has" if found else ""
        has_scores = person == (skeleton.num_joints, 3)
        raise InputError(
            f"a frame has the shape {given.shape[1:]}{as_known}, and one person of the skeleton "
            f"{skeleton.name} has {shape}",
            where="the joints",
            now=f"leave out the scores: {now}" if has_scores else now,
        )
    if (num_people := frames_TMVC.shape[1]) > MOST_PEOPLE:
        raise InputError(
            f"there are {num_people} people, and the model supports at most {MOST_PEOPLE}",
            where="the joints",
            now="select the people that act, for example those who move most",
        )
    return frames_TMVC


def arrange_frame(
    joints: npt.ArrayLike | None, skeleton: Skeleton, *, where: str, checks_unit: bool = True
) -> FloatArray:
    """Arrange one frame for the most people there may be: (M, V, C), NaN for the absent.

    In lists, None may take the place of a coordinate, a joint, a person or the frame. InputError,
    which names the place of the frame.
    """
    try:
        frame = read_null(joints, skeleton)
        found_MVC = arrange_frames(
            [frame], skeleton, may_miss_joints=True, checks_unit=checks_unit
        )[0]
    except InputError as error:
        raise InputError(error.what, where=where, now=error.now) from error
    absent = MOST_PEOPLE - len(found_MVC)
    return np.pad(found_MVC, ((0, absent), (0, 0), (0, 0)), constant_values=np.nan)


def read_null(frame: Any, skeleton: Skeleton) -> Any:
    """Replace None by NaN in a frame of JSON's lists: a coordinate, a joint or a person."""
    if not isinstance(frame, list):
        return () if frame is None else frame
    frame = [_shorten_null(item, depth=2) for item in frame]  # people or joints, and those of these
    if all(item is None for item in frame):
        return ()
    joint = [np.nan] * skeleton.num_coordinates
    blanks: list[Any] = [joint, np.nan]
    if any(isinstance(item, list) and any(isinstance(one, list) for one in item) for item in frame):
        blanks.insert(0, [joint] * skeleton.num_joints)
    return [_replace_null(item, blanks) for item in frame]


def _shorten_null(value: Any, depth: int) -> Any:
    """Replace a list of only None by None, after the lists in it."""
    if not isinstance(value, list) or not value or depth == 0:
        return value
    items = [_shorten_null(item, depth - 1) for item in value]
    return None if all(item is None for item in items) else items


def _replace_null(value: Any, blanks: Sequence[Any]) -> Any:
    """Replace None by the first of the blanks, and inside a list by the following ones."""
    if value is None:
        return blanks[0]
    if isinstance(value, list) and len(blanks) > 1:
        return [_replace_null(item, blanks[1:]) for item in value]
    return value


def fill_joints(frames_TMVC: FloatArray) -> FloatArray:
    """Fill in the missing joints of each person, as in recordings of pose estimators."""
    filled_TMVC = frames_TMVC.copy()
    frames, bodies = np.nonzero(~_is_absent(frames_TMVC))
    filled_TMVC[frames, bodies] = fill_bodies(frames_TMVC[frames, bodies], frames, bodies)
    return filled_TMVC


def _is_absent(frames_TMVC: FloatArray) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isnan(frames_TMVC).all(axis=(2, 3)))
