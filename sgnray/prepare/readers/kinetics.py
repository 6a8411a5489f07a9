"""Reader of Kinetics-skeleton's JSON, as ST-GCN's tools write it: one file per recording.

It has frames with people, each a flat list of points x, y and a list of scores, in the order of
OpenPose's COCO model; and the label of the recording. Points are normalized by the size of the
image: all videos of Kinetics-skeleton were resized to 340 x 256 pixels first.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from sgnray.data.skeleton import OPENPOSE18, Skeleton
from sgnray.prepare.clip import Recording, refusal
from sgnray.prepare.readers.json_values import (
    in_frame,
    is_object_with,
    number_frames,
    parse_json,
    read_list,
    read_numbers,
)
from sgnray.prepare.readers.people import Floats, mark_missing
from sgnray.prepare.readers.tracks import build_recording

FORMAT = "Kinetics-skeleton"
_KEYS = ((b'"data"', b'"label_index"'), (b'"frame_index"', b'"skeleton"'))
_LABEL = re.compile(rb'"label"\s*:\s*("(?:[^"\\]|\\.)*")')
_NO_LABEL = "unknown"  # as ST-GCN's json_pack writes it
_SIZE_PX = (340, 256)
_MAX_NORMALIZED = 2  # of points from 0 to 1, with those outside the image


def detect_kinetics(head: bytes) -> Skeleton | None:
    """Detect the file by its frames, or by its label if it has none."""
    return OPENPOSE18 if is_object_with(head, *_KEYS) else None


def read_kinetics(data: bytes, skeleton: Skeleton) -> Recording:
    """Read the frames of a recording; ClipError names the frame that is wrong."""
    if not (frames := read_list(parse_json(data), "data")):
        raise refusal("its list `data` is empty: no frame contains a person")
    numbers = [frame.get("frame_index") if isinstance(frame, dict) else None for frame in frames]
    if not all(type(number) is int for number in numbers):
        raise refusal("frame_index is not a number in each frame")
    poses_NVC = []
    for frame in sorted(frames, key=lambda frame: frame["frame_index"]):  # json_pack may not sort
        with in_frame(frame["frame_index"]):
            people = read_list(frame, "skeleton")
            poses_NVC.append([_read_person(person, skeleton) for person in people])
    numbers_T = number_frames(sorted(numbers), "frame_index")
    return build_recording(poses_NVC, skeleton, numbers=numbers_T)


def _read_person(person: Any, skeleton: Skeleton) -> Floats:
    if not isinstance(person, dict):
        raise refusal("a person is not a JSON object")
    points = read_numbers(person.get("pose"), what="pose")
    scores_V = read_numbers(person.get("score"), what="score")
    num_joints = skeleton.num_joints
    if points.shape != (2 * num_joints,) or scores_V.shape != (num_joints,):
        what = f"pose has {points.size} numbers and score {scores_V.size}"
        raise refusal(f"{what}, not {2 * num_joints} and {num_joints} as {skeleton.name}")
    if np.any(np.abs(points) > _MAX_NORMALIZED):
        raise refusal("pose is not normalized: divide x and y by the width and height of the image")
    return mark_missing(points.reshape(-1, 2) * _SIZE_PX, scores_V)


def read_label(data: bytes) -> str:
    """Return the label of a recording, which is written after its frames; empty if it has none."""
    found = _LABEL.search(data)
    try:
        label = "" if found is None else str(json.loads(found[1]))
    except ValueError:
        return ""
    return label if label.isprintable() and label != _NO_LABEL else ""
