"""Reader of the Northwestern-UCLA skeletons: one body of 20 Kinect v1 joints, as JSON."""

from __future__ import annotations

import re

from sgnray.data.skeleton import KINECT20, Skeleton
from sgnray.prepare.clip import Body, ClipFacts, Recording, as_float32, refusal
from sgnray.prepare.readers.json_values import (
    is_object_with,
    parse_json,
    read_list,
    read_numbers,
)

FORMAT = "NW-UCLA"
# Action numbers in the order of their labels; 7 and 10 were never released.
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)
_NUM_JOINTS = KINECT20.num_joints
# Action, subject, episode (replication) and view (camera).
_NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)\.json", re.ASCII)


def detect_nwucla(head: bytes) -> Skeleton | None:
    """Detect NW-UCLA's JSON by its key."""
    return KINECT20 if is_object_with(head, (b'"skeletons"',)) else None


def parse_nwucla_name(file_name: str) -> ClipFacts:
    """Read aAA_sSS_eEE_vVV.json: the view is the camera, the episode the replication."""
    match = _NAME.fullmatch(file_name)
    if match is None:
        raise refusal("not an NW-UCLA name (aAA_sSS_eEE_vVV.json)")
    action, subject, episode, view = (int(number) for number in match.groups())
    if action not in ACTIONS:
        raise refusal(f"action {action} is not one of NW-UCLA's")
    return ClipFacts(file_name[:-5], ACTIONS.index(action), None, view, subject, episode)


def read_nwucla(data: bytes, _: Skeleton = KINECT20) -> Recording:
    """Read one .json file; ClipError if `skeletons` is not frames x 20 x 3 finite numbers."""
    joints = read_numbers(read_list(parse_json(data), "skeletons"), what="`skeletons`")
    if joints.ndim != 3 or joints.shape[1:] != (_NUM_JOINTS, 3) or len(joints) == 0:
        raise refusal(f"`skeletons` has shape {joints.shape}, not (frames, {_NUM_JOINTS}, 3)")
    joints_TVC = as_float32(joints, "a coordinate is not finite, or too large for float32")
    return Recording(len(joints_TVC), (Body(0, joints_TVC),))
