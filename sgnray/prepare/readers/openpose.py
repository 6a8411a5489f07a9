"""Reader of OpenPose's --write_json: one JSON file per frame, BODY_25 or COCO-18.

The listing joins the files of one recording into one text, frame after frame: join_frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from sgnray.data.skeleton import OPENPOSE18, OPENPOSE25, Skeleton
from sgnray.errors import ClipError
from sgnray.prepare.clip import refusal
from sgnray.prepare.readers.people import (
    Floats,
    build_recording,
    check_ids,
    in_frame,
    mark_missing,
    parse_json,
    read_numbers,
)
from sgnray.prepare.recording import Recording

FORMAT = "OpenPose"
# NAME_000000000012_keypoints.json: the recording, and the number of the frame.
FRAME_NAME = re.compile(r"([^\x00-\x1f]*?)_?(\d{1,18})_keypoints\.json", re.IGNORECASE | re.ASCII)
_PEOPLE = re.compile(rb'"people"\s*:')
_NUMBERS = re.compile(rb'"pose_keypoints(?:_2d)?"\s*:\s*\[([^\]]*)')
_SKELETONS = {3 * skeleton.num_joints: skeleton for skeleton in (OPENPOSE25, OPENPOSE18)}
_START = b"\x1e"  # cannot occur unescaped in JSON


def detect_openpose(head: bytes) -> Skeleton | None:
    """Detect the skeleton of a frame by its number of key points; BODY_25 if it has no people."""
    if _PEOPLE.search(head) is None:
        return None
    numbers = _NUMBERS.search(head)
    count = 0 if numbers is None else numbers[1].count(b",") + 1
    return _SKELETONS.get(count, OPENPOSE25)


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
    frames = list(split_frames(data))
    if not frames:
        raise _refuse_file(parse_json(data))
    poses_NVC, numbers, ids = [], [], []
    for number, (name, text) in enumerate(frames):
        with in_frame(f"{number} ({name})"):
            match = FRAME_NAME.fullmatch(name)
            if match is None:
                raise refusal("it is not named NAME_000000000000_keypoints.json")
            numbers.append(int(match[2]))
            people = _list_people(parse_json(text))
            poses_NVC.append([_read_person(person, skeleton) for person in people])
            ids.append([_track_id(person) for person in people])
    return build_recording(poses_NVC, skeleton, check_ids(ids), numbers)


def _refuse_file(content: Any) -> ClipError:
    """Build the error for a file that is not one of the frames of a recording."""
    is_frame = isinstance(content, dict) and isinstance(content.get("people"), list)
    if is_frame and "AlphaPose" not in str(content.get("version")):
        return refusal("an OpenPose frame that is not named NAME_000000000000_keypoints.json")
    return refusal(
        "it has `people`, but is not a frame of OpenPose: write a list of frames, each a list of "
        "people with `keypoints` (AlphaPose does without --format)"
    )


def split_frames(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each file's name and text of what join_frames gives; nothing of another text."""
    for part in data.split(_START)[1:]:
        name, _, text = part.partition(b"\n")
        yield name.decode("utf-8", "replace"), text


def _list_people(frame: Any) -> list[Any]:
    listed = frame.get("people") if isinstance(frame, dict) else None
    if not isinstance(listed, list):
        raise refusal("not a JSON object with a list `people`")
    return listed


def _track_id(person: dict[str, Any]) -> int | None:
    """Return the id that --tracking gave a person; without this option, there is [-1]."""
    match person.get("person_id"):
        case [int(track_id)] if track_id >= 0:
            return track_id
    return None


def _read_person(person: Any, skeleton: Skeleton) -> Floats:
    if not isinstance(person, dict):
        raise refusal("a person is not a JSON object")
    listed = person.get("pose_keypoints_2d", person.get("pose_keypoints"))
    numbers = read_numbers(listed, what="pose_keypoints_2d")
    if numbers.shape != (3 * skeleton.num_joints,):
        what = f"not {3 * skeleton.num_joints} as {skeleton.name}"
        raise refusal(f"pose_keypoints_2d has {numbers.size} numbers, {what}")
    joints_V3 = numbers.reshape(-1, 3)
    return mark_missing(joints_V3[:, :2], joints_V3[:, 2])
