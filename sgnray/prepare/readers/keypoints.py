"""Reader of COCO's 17 key points as JSON, one file per recording: YOLO-pose, RTMPose and others.

    what is in the file, a frame, a person          written by           read by
    file: [frame, ...], or one after another        YOLO, JSON lines     _list_frames
    file: {"instance_info": [frame, ...]}           MMPose               _list_frames
    file: [person with a key of the frame, ...]     COCO, AlphaPose      _list_frames
    a file for each image: frame                    MMPose, AlphaPose    _list_images
    frame: [person, ...]                            YOLO                 _list_people
    frame: {"instances": [person, ...]}             MMPose               _list_people
    frame: {"instance_info": [person, ...]}         MMPose's demo        _list_people
    frame: {"predictions": [person, ...]}           OpenPifPaf           _list_people
    frame: {"predictions": [[person, ...]]}         MMPose's inferencer  _list_people
    frame: {"keypoints": ..., "scores": ...}        rtmlib               _list_people
    person: {"keypoints": 17 x 2 or 17 x 3}         MMPose               _read_person
    person: {"keypoints": 51 numbers}               COCO                 _read_person
    person: {"keypoints": {"x", "y", "visible"}}    YOLO                 _read_person

The key of the frame is `image_id` in COCO's results; others are in `_NUMBER_KEYS`. The listing
joins files of one image each as it joins OpenPose's frames. Points of x and y may have
`keypoint_scores` or `scores`. Of COCO-WholeBody's and Halpe's points, the first 17 are read.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgnray.data.skeleton import COCO17, COCO_COUNTS, Skeleton
from sgnray.errors import ClipError
from sgnray.prepare.clip import Recording, refusal
from sgnray.prepare.readers.json_values import (
    find_repeated,
    in_frame,
    json_errors,
    number_frames,
    parse_json,
    read_numbers,
    show_name,
)
from sgnray.prepare.readers.openpose import split_frames
from sgnray.prepare.readers.people import Floats, mark_missing
from sgnray.prepare.readers.tracks import build_recording, check_ids, find_overlaps

FORMAT = "COCO key points"
IMAGE_FORMAT = "COCO key points of one image"
IMAGE_NAME = re.compile(
    r"([^\x00-\x1f]*?)_?(\d{1,15})(?:_?[a-z]+)?(?:\.[a-z]+)?\.json", re.ASCII | re.IGNORECASE
)
NO_FRAME = "its list is empty: no frame contains a person"
# Frames may also be JSON in strings, which reading refuses.
_KEYS = re.compile(rb'^\s*[\[{].*"(keypoints|instances|instance_info)\\?"', re.DOTALL)
_PEOPLE = re.compile(rb'\s*\[\s*\{.*"keypoints"', re.DOTALL)
_FRAMES = re.compile(rb'"(?:instances|predictions|image_id)"|"keypoints"\s*+:\s*+\[\s*+\[\s*+\[')
_KEYS_OF_FRAME = {"instances", "predictions", "scores", "keypoint_scores"}
_FRAME = re.compile(rb'"(?:%s)"\s*+:' % "|".join(_KEYS_OF_FRAME).encode())
_LINES = re.compile(rb"[\]}]\s*+[\[{]")  # a value after another one, as in JSON lines
# Of the frame, in a list of people: keys in lower case without _, the first one that changes.
_FRAME_NUMBER_KEYS = (
    *("imageid", "frameid", "frame", "framenumber", "frameindex", "frameidx", "framenum"),
    "frameno",
)
_IMAGE_KEYS = ("image", "imagename", "img", "filename")
_NUMBER_KEYS = (*_FRAME_NUMBER_KEYS, *_IMAGE_KEYS, "timestamp", "time", "t")
# Anyone's file is searched with these: where two repetitions in a row match the same bytes, or a
# search scans to the end in vain, the time would grow with the square of its size.
_NUMBERS = re.compile(
    rb'"(frame(?:_?(?:id|number|index|idx|num|no))?|image(?:_?name)?|img|file_?name|time(?:_?stamp)?'
    rb'|t)"\s*+:\s*+([^,}\]]++)([,}\]]?)',
    re.IGNORECASE,
)
_EMPTY_FRAMES = re.compile(rb"\s*\[(?:[\s,]*\[\s*\])*[\s,]*(?:[\[\]]\s*)?")

# A label of YOLO: class, box and points of x and y, or of x, y and score; then a score and an id.
_LABEL = re.compile(
    rb"\d+(?: [-+.\de]+){4}(?:(?: [-+.\de]+){34}|(?: [-+.\de]+){51})(?: [-+.\de]+){0,2}(?:\s*\n|\Z)"
)

_SPACE = re.compile(r"[ \t\r\n]*+")  # of JSON
_MIN_BOX_SCORE = 0.1  # people with a lower score are dropped
# People on each other, and the overlap of one with the next; fewer frames are no body anyway.
_MIN_STACKED, _STACKED = 12, 0.5
_COCO_DATASETS = ("coco", "coco_wholebody", "halpe", "halpe26")
_MAX_SCORE = 10  # a larger third number is a coordinate; heat maps may give a little more than 1


def detect_keypoints(head: bytes) -> Skeleton | None:
    """Detect key points by the names of their keys; ClipError if all frames are empty."""
    if _EMPTY_FRAMES.fullmatch(head):
        if head.count(b"[") == head.count(b"]"):
            raise refusal(NO_FRAME if head.count(b"[") == 1 else "no frame contains a person")
        return COCO17  # the head has only the first of its frames
    return COCO17 if _KEYS.match(head) else None


def detect_image(head: bytes) -> Skeleton | None:
    """Detect the people of a single image, in a list or in an object."""
    if not _KEYS.match(head) or _LINES.search(head):
        return None
    if b'"instance_info"' in head:  # of people; in a video, of frames
        is_listed = b'"instances"' not in head
    elif head.lstrip().startswith(b"{"):
        is_listed = _FRAME.search(head) is not None
    else:
        is_listed = _PEOPLE.match(head) is not None and not _FRAMES.search(head)
    if not is_listed:
        return None
    # A number without an end is cut off by the end of the head.
    numbers = {(key, number.strip()) for key, number, end in _NUMBERS.findall(head) if end}
    is_image = len(numbers) == len({key for key, _ in numbers})
    return COCO17 if is_image else None


def is_label(head: bytes) -> bool:
    """Return whether a text has YOLO's labels of people (save_txt), normalized by the image."""
    return _LABEL.match(head) is not None


def read_keypoints(data: bytes, skeleton: Skeleton) -> Recording:
    """Read the frames of a recording; ClipError names the frame that is wrong."""
    files = list(split_frames(data))
    content: Any = None if files else _parse(data)
    frames, numbers = _list_images(files) if files else _list_frames(content)
    names = [f" ({name})" for name, _ in files] or [""] * len(frames)
    listed = []
    for number, frame in enumerate(frames):
        with in_frame(f"{number}{names[number]}"):
            listed.append(_list_people(frame))
    poses_NVC, ids = [], []
    for number, people in enumerate(_drop_unsure(listed)):
        with in_frame(f"{number}{names[number]}"):
            poses_NVC.append([_read_person(person, skeleton) for person in people])
        ids.append([_track_id(person) for person in people])
    is_image = len(frames) == 1 and (not isinstance(content, list) or _is_person(content[0]))
    if files or is_image:
        _check_apart(poses_NVC)
    return build_recording(poses_NVC, skeleton, check_ids(ids), numbers)


def _parse(data: bytes) -> Any:
    """Parse JSON, or several values as a list of them."""
    if not _LINES.search(data):
        return parse_json(data)
    decoder, values, at = json.JSONDecoder(), [], 0
    with json_errors():
        text = data.decode("utf-8-sig").rstrip()
        while at < len(text):
            if space := _SPACE.match(text, at):
                value, at = decoder.raw_decode(text, space.end())
                values.append(value)
    return values if len(values) > 1 else values[0]


def _list_images(files: Sequence[tuple[str, bytes]]) -> tuple[list[Any], list[int] | None]:
    """Return the frames in files of one image each, and their numbers."""
    frames = []
    for number, (name, text) in enumerate(files):
        with in_frame(f"{number} ({name})"):
            frames.append(parse_json(text))
    return frames, number_frames([name for name, _ in files], "name")


def _list_frames(content: Any) -> tuple[list[Any], list[int] | None]:
    """Return the frames and their numbers, if they have any."""
    content = _unwrap(content)
    if isinstance(content, dict) and content.keys() & _KEYS_OF_FRAME:
        content = [content]
    if not isinstance(content, list) or not content:
        raise refusal("neither a list of frames nor an object with a list `instance_info`")
    if not all(map(_is_person, content)):
        key = _find_key(content, (*_FRAME_NUMBER_KEYS, *_IMAGE_KEYS))
        ids = [frame.get(key) if isinstance(frame, dict) else None for frame in content]
        try:
            return content, number_frames(ids, key)
        except ClipError:
            if _key_word(key) in _FRAME_NUMBER_KEYS:
                raise
            return content, None  # names of images may have any order
    # A list of people: each has the id of its image, or the number of its frame, or all are in one.
    key = _find_key(content, _NUMBER_KEYS)
    groups = [
        (own, list(people))
        for own, people in itertools.groupby(content, lambda item: item.get(key))
    ]
    images = [str(own) for own, _ in groups]
    if (again := find_repeated(images)) is not None:
        what = f"{show_name(images[again])} appears again after another"
        raise refusal(f"not sorted by {key}: {what}")
    return [people for _, people in groups], number_frames([own for own, _ in groups], key)


def _is_person(item: Any) -> bool:
    """Return whether an item has the key points of one person, not those of all in a frame."""
    if not isinstance(item, dict) or "keypoints" not in item:
        return False
    match item["keypoints"]:
        case [[[*_], *_], *_]:
            return False
    return True


def _find_key(items: Sequence[Any], keys: Sequence[str]) -> str:
    """Return the one of `keys` that has the frame of people, or of lists of people."""
    known = {word: number for number, word in enumerate(keys)}
    values: dict[str, set[str]] = {}
    for item in items:
        for key in item if isinstance(item, dict) else ():
            if _key_word(key) in known:
                values.setdefault(key, set()).add(str(item[key]))
    found = sorted(values, key=lambda key: known[_key_word(key)])
    return next((key for key in found if len(values[key]) > 1), "frame")


def _key_word(key: str) -> str:
    return key.lower().replace("_", "")


def _check_apart(frames_NVC: Sequence[Sequence[Floats]]) -> None:
    """Raise ClipError if most frames have many people on each other: one person in many frames."""
    counts = []
    for people_NVC in filter(None, frames_NVC):
        pairs = itertools.pairwise(people_NVC)
        overlaps = [find_overlaps(one[None], other)[0] for one, other in pairs]
        is_stacked = len(people_NVC) >= _MIN_STACKED and np.median(overlaps) > _STACKED
        counts.append(len(people_NVC) if is_stacked else 0)
    stacked = [count for count in counts if count]
    if 2 * len(stacked) > len(counts):
        what = f"a frame has {max(stacked)} people at the same place"
        raise refusal(f"{what}: if they are one person, give each its frame, as `frame`")


def _check_names(meta: Any) -> None:
    """Raise ClipError if MMPose's description of the joints is not COCO's."""
    if not isinstance(meta, dict):
        return
    names, dataset = meta.get("keypoint_id2name"), meta.get("dataset_name", "another dataset")
    if isinstance(names, dict):
        first = [str(name).replace("_", " ") for name in names.values()][: COCO17.num_joints]
        is_coco = first == list(COCO17.joints) and len(names) in COCO_COUNTS
    else:
        is_coco = dataset in _COCO_DATASETS or "dataset_name" not in meta
    if not is_coco:
        what = f"the key points are those of {show_name(dataset)}, not of COCO"
        raise refusal(f"{what}: choose a model of MMPose that was trained on COCO")


def _unwrap(content: Any) -> Any:
    """Return the frames or people that MMPose describes, or else the content itself."""
    if not isinstance(content, dict) or "instance_info" not in content:
        return content
    _check_names(content.get("meta_info"))
    return content["instance_info"]


def _list_people(frame: Any) -> list[Any]:
    listed = frame = _unwrap(frame)
    if isinstance(frame, dict):
        listed = frame.get("instances", frame.get("predictions", frame.get("keypoints")))
    if isinstance(listed, str):
        raise refusal("it is text: json.loads each frame before you write them")
    if not isinstance(listed, list):
        raise refusal("neither a list of people nor an object with a list `instances`")
    if listed is frame or listed is not frame.get("keypoints"):
        match listed:
            case [[*people]]:  # MMPose's inferencer lists the people of each image
                return people
        return listed
    scores = frame.get("keypoint_scores", frame.get("scores"))
    if not isinstance(scores, list):
        return [{"keypoints": points} for points in listed]
    if len(scores) != len(listed):
        raise refusal(f"{len(scores)} lists of scores for {len(listed)} people")
    pairs = zip(listed, scores, strict=True)
    return [{"keypoints": points, "keypoint_scores": own} for points, own in pairs]


def _drop_unsure(frames: Sequence[list[Any]]) -> list[list[Any]]:
    """Drop people with a low box score, unless the scores are sums as AlphaPose's."""
    scores = [[_box_score(person) for person in people] for people in frames]
    if not all(0 <= score <= 1 for own in scores for score in own):
        return list(frames)
    return [
        [person for person, score in zip(people, own, strict=True) if score >= _MIN_BOX_SCORE]
        for people, own in zip(frames, scores, strict=True)
    ]


def _box_score(person: Any) -> float:
    """Return how sure the detector was of a person, by a key of YOLO, MMPose or COCO's results."""
    if not isinstance(person, dict):
        return 1.0
    keys = ("confidence", "bbox_score", *(("score",) if "image_id" in person else ()))
    return next((person[key] for key in keys if type(person.get(key)) is float), 1.0)


def _track_id(person: dict[str, Any]) -> int | None:
    """Return the id that YOLO's or AlphaPose's tracker gave a person."""
    track_id = person.get("track_id", person.get("idx"))
    return track_id if type(track_id) is int else None


def _read_person(person: Any, skeleton: Skeleton) -> Floats:
    if not isinstance(person, dict) or "keypoints" not in person:
        raise refusal("a person has no `keypoints`")
    points, is_flat = person["keypoints"], False
    if isinstance(points, dict):  # of YOLO
        numbers = read_numbers([points.get("x"), points.get("y")], what="keypoints").T
    else:
        numbers = read_numbers(points, what="keypoints")
        if numbers.ndim == 1 and numbers.size % 3 == 0:  # of COCO
            is_flat, numbers = True, numbers.reshape(-1, 3)
    if numbers.ndim != 2 or numbers.shape[1] not in (2, 3):
        raise refusal(f"keypoints has the shape {numbers.shape}, not joints x 2 or 3")
    num_joints = len(numbers)
    if num_joints not in COCO_COUNTS:
        others = " or ".join(map(str, COCO_COUNTS[1:]))
        what = f"not the {skeleton.num_joints} of {skeleton.name}, or {others} that begin with them"
        raise refusal(f"a person has {num_joints} joints, {what}")
    scores = _list_scores(person, num_joints)
    if scores is None:
        scores_V = numbers[:, 2] if numbers.shape[1] == 3 else None
        has_large = bool(np.any(np.abs(numbers[:, 2:]) > _MAX_SCORE))
        is_3d = has_large and num_joints > skeleton.num_joints
    else:
        scores_V = read_numbers(scores, what="the scores")
        if scores_V.shape != (num_joints,):
            raise refusal(f"a person has {scores_V.size} scores for {num_joints} joints")
        is_3d = numbers.shape[1] == 3 and not is_flat
    if is_3d:
        listed = "no scores" if scores is None else "keypoint_scores"
        what = f"the keypoints are 3D (x, y, z and {listed})"
        raise refusal(f"{what}: write a 2D estimator's x and y in pixels")
    return mark_missing(numbers[:, :2], scores_V)[: skeleton.num_joints]


def _list_scores(person: dict[str, Any], num_joints: int) -> Any:
    """Return the scores of the joints, which have a list of their own; None if they have not."""
    if isinstance(person["keypoints"], dict):
        return person["keypoints"].get("visible")
    if "keypoint_scores" in person:
        return person["keypoint_scores"]
    if "keypoints_scores" in person:
        what = "keypoints_scores are torchvision's logits, not probabilities"
        raise refusal(f"{what}: write keypoints of x and y, and keypoint_scores from 0 to 1")
    scores = person.get("scores")  # of the joints, or of the person
    return scores if isinstance(scores, list) and len(scores) == num_joints else None
