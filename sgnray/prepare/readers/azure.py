"""Reader of Azure Kinect's body tracking as the SDK's offline_processor writes it: one JSON file.

It has the names of the joints, and frames with bodies, whose joints are in millimeters from the
depth camera: x to the right, y down, z away from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sgnray.data.skeleton import AZURE32, Skeleton
from sgnray.prepare.clip import Recording, check_meters, refusal
from sgnray.prepare.readers.joint_columns import joint_key
from sgnray.prepare.readers.json_values import (
    find_repeated,
    in_frame,
    is_object_with,
    number_frames,
    parse_json,
    read_list,
    read_numbers,
    show_name,
)
from sgnray.prepare.readers.people import Floats, find_people, mark_missing
from sgnray.prepare.readers.tracks import build_recording, check_ids

# Of its bones or its first body: keys are sorted, so the names of the joints are after the frames.
_KEYS = ((b'"bone_list"', b'"SPINE_CHEST"'), (b'"body_id"', b'"joint_positions"'))
# To meters, and to the axes of Kinect v2: half a turn about the z axis.
_METERS = np.array([-0.001, -0.001, 0.001])
_SMALLEST_M = 0.1


def detect_azure(head: bytes) -> Skeleton | None:
    """Detect the file by its bones or its first body."""
    return AZURE32 if is_object_with(head, *_KEYS) else None


def read_azure(data: bytes, skeleton: Skeleton) -> Recording:
    """Read the frames of a recording; ClipError names the frame that is wrong."""
    content = parse_json(data)
    if not (frames := read_list(content, "frames")):
        raise refusal("its list `frames` is empty")
    order_V = _order_joints(content.get("joint_names"), skeleton)
    poses_NVC, ids, numbers = [], [], []
    for number, frame in enumerate(frames):
        with in_frame(number):
            bodies = _list_bodies(frame)
            poses_NVC.append([_read_body(body, skeleton)[order_V] for body in bodies])
        ids.append([_body_id(body) for body in bodies])
        numbers.append(frame.get("frame_id"))
    poses_PVC = np.reshape(
        [pose_VC for people in poses_NVC for pose_VC in people], (-1, skeleton.num_joints, 3)
    )
    people_PVC = poses_PVC[find_people(poses_PVC)]
    if len(people_PVC):
        check_meters(people_PVC, "joint_positions must be in millimeters", smallest_m=_SMALLEST_M)
    return build_recording(poses_NVC, skeleton, check_ids(ids), number_frames(numbers, "frame_id"))


def _order_joints(names: Any, skeleton: Skeleton) -> npt.NDArray[np.intp]:
    """Return where the joints of the skeleton are in the file; ClipError if one is not."""
    if not isinstance(names, list):
        raise refusal("it has no list `joint_names`")
    keys = [joint_key(str(name)) for name in names]
    if (again := find_repeated(keys)) is not None:
        raise refusal(f"joint_names has {show_name(names[again])} twice")
    wanted = {joint_key(joint): joint for joint in skeleton.joints}
    if sorted(keys) != sorted(wanted):
        missing = [joint for key, joint in wanted.items() if key not in keys]
        what = f"{missing[0]} is missing" if missing else "there are others"
        count = f"not the {len(wanted)} of {skeleton.name}"
        raise refusal(f"joint_names has {len(keys)} joints, {count}: {what}")
    return np.array([keys.index(key) for key in wanted])


def _list_bodies(frame: Any) -> list[Any]:
    bodies = frame.get("bodies") if isinstance(frame, dict) else None
    if not isinstance(bodies, list) or not all(isinstance(body, dict) for body in bodies):
        raise refusal("not a JSON object with a list `bodies`")
    if (count := frame.get("num_bodies", len(bodies))) != len(bodies):
        raise refusal(f"num_bodies is {show_name(count)}, but it has {len(bodies)}")
    return bodies


def _read_body(body: dict[str, Any], skeleton: Skeleton) -> Floats:
    numbers = read_numbers(body.get("joint_positions"), what="joint_positions")
    if numbers.shape != (skeleton.num_joints, 3):
        what = f"not {skeleton.num_joints} x 3 as {skeleton.name}"
        raise refusal(f"joint_positions has the shape {numbers.shape}, {what}")
    joints_VC: Floats = mark_missing(numbers) * _METERS
    return joints_VC


def _body_id(body: dict[str, Any]) -> int | None:
    body_id = body.get("body_id")
    return body_id if type(body_id) is int and body_id >= 0 else None
