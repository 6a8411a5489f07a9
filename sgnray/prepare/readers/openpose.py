"""Reader of OpenPose's --write_json: one JSON file per frame, BODY_25 or COCO-18.

The listing joins the files of one recording into one text, frame after frame: join_frames.
AlphaPose writes COCO-18 in this way (--format open) and in that of an earlier OpenPose (cmu): a
file per image, whose name is that of the image, and one file with all of them by their names. Its
neck is the middle of the shoulders, which is computed again, since with a model of more than
COCO's 17 key points, AlphaPose writes another key point there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from sgnray.data.skeleton import OPENPOSE18, OPENPOSE25, Skeleton
from sgnray.prepare.clip import Recording, refusal
from sgnray.prepare.readers.json_values import (
    in_frame,
    number_frames,
    parse_json,
    read_numbers,
    show_name,
)
from sgnray.prepare.readers.people import Floats, mark_missing
from sgnray.prepare.readers.tracks import build_recording, check_ids

FORMAT = "OpenPose"
# NAME_000000000012_keypoints.json: the recording, and the number of the frame.
LIST_FORMAT = "OpenPose in one file"
FRAME_NAME = re.compile(r"([^\x00-\x1f]*?)_?(\d{1,18})_keypoints\.json", re.IGNORECASE | re.ASCII)
# The report of a run also has "people": groups of clips.
_PEOPLE = re.compile(
    rb'"people"\s*:(?!\s*\[\s*\{\s*"name"[^}]*"num_clips")|"bodies"\s*:\s*\[\s*\{\s*"joints"'
)
_NUMBERS = re.compile(rb'"(?:pose_keypoints(?:_2d)?|joints)"\s*:\s*\[\s*+([^\]]+)')
_LISTED = re.compile(rb"\s*\[\s*\{")
_IMAGES = re.compile(rb'\s*\{\s*"[^"]*"\s*:\s*\{.*"version"\s*:\s*"AlphaPose', re.DOTALL)
_SKELETONS = {3 * skeleton.num_joints: skeleton for skeleton in (OPENPOSE25, OPENPOSE18)}
_NECK, _SHOULDERS = 1, [2, 5]  # in both skeletons
_START = b"\x1e"  # cannot occur unescaped in JSON


def detect_openpose(head: bytes) -> Skeleton | None:
    """Detect the skeleton of a frame by its number of key points; BODY_25 if it has no people."""
    if _PEOPLE.search(head) is None:
        return None
    numbers = _NUMBERS.search(head)
    count = 0 if numbers is None else numbers[1].count(b",") + 1
    return _SKELETONS.get(count, OPENPOSE25)


def detect_list(head: bytes) -> Skeleton | None:
    """Detect a list of OpenPose's frames."""
    return detect_openpose(head) if _LISTED.match(head) else None


def detect_alphapose(head: bytes) -> Skeleton | None:
    """Detect AlphaPose's file of all images, not that of a single one."""
    return OPENPOSE18 if _IMAGES.match(head) and _PEOPLE.search(head) else None


def has_person(head: bytes) -> bool:
    """Return whether a frame has the key points of a person; else its skeleton is unknown."""
    return _NUMBERS.search(head) is not None


def join_frames(frames: Iterable[tuple[str, bytes]]) -> bytes:
    """Join the files of a recording into one text, each with its name."""
    return b"".join(
        _START + name.encode("utf-8", "backslashreplace") + b"\n" + data for name, data in frames
    )


def read_openpose(data: bytes, skeleton: Skeleton) -> Recording:
    """Read the frames of a recording; ClipError names the frame and the file that is wrong."""
    files = list(split_frames(data))
    frames: list[tuple[str, Any]] = [*files] or _list_images(data)
    poses_NVC, ids = [], []
    for number, (name, frame) in enumerate(frames):
        shown = name if files else show_name(name)
        with in_frame(f"{number} ({shown})" if name else number):
            content = parse_json(frame) if files else frame
            people = _list_people(content)
            has_neck = not _is_of_alphapose(content)
            if files and has_neck and not FRAME_NAME.fullmatch(name):
                raise refusal("it is not named NAME_000000000000_keypoints.json")
            own = [_read_person(person, skeleton, has_neck=has_neck) for person in people]
            poses_NVC.append(own)
            ids.append([_track_id(person) for person in people])
    return build_recording(poses_NVC, skeleton, check_ids(ids), _number([n for n, _ in frames]))


def _list_images(data: bytes) -> list[tuple[str, Any]]:
    """Return AlphaPose's images, each with its name: of a file of all, or of one.

    Frames of OpenPose in a list have no names.
    """
    content = parse_json(data)
    if _is_of_alphapose(content):
        return [("", content)]
    if isinstance(content, dict) and any(map(_is_of_alphapose, content.values())):
        return list(content.items())
    if isinstance(content, list) and has_person(data):
        return [("", frame) for frame in content]
    if isinstance(content, dict) and isinstance(content.get("people"), list):
        raise refusal("an OpenPose frame that is not named NAME_000000000000_keypoints.json")
    raise refusal(
        "it has `people`, but is not a frame of OpenPose: write a list of frames, each a list of "
        "people with `keypoints`"
    )


def _is_of_alphapose(content: Any) -> bool:
    return isinstance(content, dict) and "AlphaPose" in str(content.get("version"))


def _number(names: Sequence[str]) -> list[int] | None:
    """Return the numbers of the frames, by the names of OpenPose's files or of images."""
    matches = [match for name in names if (match := FRAME_NAME.fullmatch(name))]
    if len(matches) < len(names):
        return number_frames(names, "name")
    return [int(match[2]) for match in matches]


def split_frames(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each file's name and text of what join_frames gives; nothing of another text."""
    for part in data.split(_START)[1:]:
        name, _, text = part.partition(b"\n")
        yield name.decode("utf-8", "replace"), text


def _list_people(frame: Any) -> list[Any]:
    listed = frame.get("people", frame.get("bodies")) if isinstance(frame, dict) else None
    if not isinstance(listed, list):
        raise refusal("not a JSON object with a list `people`")
    return listed


def _track_id(person: dict[str, Any]) -> int | None:
    """Return the id that --tracking gave a person; without this option, there is [-1]."""
    match person.get("person_id"):
        case [int(track_id)] if track_id >= 0:
            return track_id
    return None


def _read_person(person: Any, skeleton: Skeleton, *, has_neck: bool) -> Floats:
    if not isinstance(person, dict):
        raise refusal("a person is not a JSON object")
    keys = ("pose_keypoints_2d", "pose_keypoints", "joints")
    listed = next((person[key] for key in keys if key in person), None)
    if listed == []:  # such as of a face without a body
        return np.full((skeleton.num_joints, 2), np.nan)
    numbers = read_numbers(listed, what="pose_keypoints_2d")
    if numbers.shape != (3 * skeleton.num_joints,):
        what = f"not {3 * skeleton.num_joints} as {skeleton.name}"
        raise refusal(f"pose_keypoints_2d has {numbers.size} numbers, {what}")
    joints_V3 = numbers.reshape(-1, 3)
    if not has_neck:
        joints_V3[_NECK] = joints_V3[_SHOULDERS].mean(axis=0)
        joints_V3[_NECK, 2] = joints_V3[_SHOULDERS, 2].min()  # one that is missing may be at 0
    return mark_missing(joints_V3[:, :2], joints_V3[:, 2])
