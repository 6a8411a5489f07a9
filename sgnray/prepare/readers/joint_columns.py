"""Which columns of a CSV file hold the joints, their scores, the frame, the time and the body.

The headers of MediaPipe's joints by number and by name, and of Kinect's SDK begin such as:

    frame,x0,y0,z0,v0,x1,y1,z1,v1,...
    nose_x,nose_y,nose_z,nose_visibility,left_eye_inner_x,...
    Frame,TrackingId,SpineBase.X,SpineBase.Y,SpineBase.Z,SpineMid.X,...

Only letters and digits count, in any case, and the parts of a name may have any order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sgnray.data.skeleton import MEDIAPIPE33, Skeleton

AXES = ("x", "y", "z")
ENDS = ("_x", "_y", "_z")
_SCORES = ("visibility", "visible", "vis", "score", "confidence", "conf", "v")
_FRAMES = {"frame", "framenumber", "frameid", "framenum"}
_OTHER_FRAMES = {"frameidx", "frameindex", "frameno", "framecount"}  # if there is none of those
_TIMES = {"time", "timestamp", "capturetime"}
_BODIES = {"body", "bodyid", "person", "personid", "trackingid", "trackid"}
# Not poseid or personindex, which often count the people of a frame in any order, or the rows.
_OTHER_BODIES = {"bodyindex", "bodyidx", "playerid", "skeletonid"}
_RECORDINGS = {"class", "label", "action", "gesture", "video", "videoname", "videoid"}
_RECORDINGS |= {"clip", "clipname", "clipid", "file", "filename", "sequence", "sequenceid"}
_WORDS = "|".join((*AXES, *_SCORES))
# Such as nosex, and xnose or x0; a joint may also end with a letter of an axis (left index).
_COLUMNS = (
    re.compile(rf"(?P<joint>.+?)(?P<kind>{_WORDS})"),
    re.compile(rf"(?P<kind>{_WORDS})(?P<joint>.+)"),
)
_NO_JOINT = re.compile("(pose)?landmark|lm(?=[0-9])|jointtype|position")  # words to leave out
_NUMBERED = re.compile("([a-z0-9]*[a-z])?0*([0-9]{1,3})")  # a joint such as 7, 07 or pose7
_WORLD = "world"  # in the names of columns
_ALIASES = {"spinemid": "spinemiddle", "spinenaval": "spinenavel"}  # as Kinect's SDKs write it


def find_columns(names: Sequence[str], skeleton: Skeleton) -> dict[str, str]:
    """Map JOINT_AXIS, JOINT_score, frame, time, body and recording to names of columns."""
    joints = {joint_key(joint): joint for joint in skeleton.joints}
    words = [_normalize(name) for name in names]
    worlds = [skeleton is MEDIAPIPE33 and _WORLD in word for word in words]
    words = [
        _NO_JOINT.sub("", word.replace(_WORLD, "") if is_world else word)
        for word, is_world in zip(words, worlds, strict=True)
    ]
    if skeleton is MEDIAPIPE33:
        joints |= _find_numbered(words, skeleton)
    columns: dict[str, str] = {}
    other: dict[str, str] = {}
    world: dict[str, str] = {}
    for name, word, is_world in zip(names, words, worlds, strict=True):
        if word in _FRAMES:
            columns.setdefault("frame", name)
        elif word in _OTHER_FRAMES:
            other.setdefault("frame", name)
        elif word in _BODIES:
            columns.setdefault("body", name)
        elif word in _OTHER_BODIES:
            other.setdefault("body", name)
        elif word in _TIMES and names.count(name) == 1:
            columns.setdefault("time", name)
        elif word in _RECORDINGS and names.count(name) == 1:
            columns.setdefault("recording", name)
        else:
            for key, kind in _match_joint(word):
                if joint := joints.get(joint_key(key)):
                    kind = "score" if kind in _SCORES else kind
                    (world if is_world else columns).setdefault(f"{joint}_{kind}", name)
    if sum(key.endswith(ENDS) for key in world) == len(ENDS) * skeleton.num_joints:
        # Scores may be those of the image.
        columns = {key: name for key, name in columns.items() if not key.endswith(ENDS)} | world
    return other | world | columns


def has_frame_numbers(name: str) -> bool:
    """Return whether a column surely has frame numbers, not perhaps how many frames there are."""
    return _normalize(name) in _FRAMES


def _match_joint(word: str) -> list[tuple[str, str]]:
    """Return how a word can be split into a joint and an axis, or into a joint and a score."""
    matches = [match for column in _COLUMNS if (match := column.fullmatch(word))]
    return [(match["joint"], match["kind"]) for match in matches]


def _find_numbered(words: Sequence[str], skeleton: Skeleton) -> dict[str, str]:
    """Map the numbers of joints as they are written, from 0 or 1, to the joints.

    They may have a prefix if it is the only one that all joints have, and no other number.
    """
    found: dict[str, dict[tuple[int, str], str]] = {}
    for word in words:
        for key, kind in _match_joint(word):
            if kind in AXES and (match := _NUMBERED.fullmatch(key)):
                found.setdefault(match[1] or "", {})[int(match[2]), kind] = key
    numbers = {prefix: sorted({number for number, _ in own}) for prefix, own in found.items()}
    count = skeleton.num_joints
    whole = [
        prefix
        for prefix, own in numbers.items()
        if own in ([*range(count)], [*range(1, count + 1)])
        and len(found[prefix]) == count * len(AXES)
    ]
    prefix = whole[0] if len(whole) == 1 else ""
    first = 0 if 0 in numbers.get(prefix, ()) else 1
    return {
        joint_key(key): skeleton.joints[number - first]
        for (number, _), key in found.get(prefix, {}).items()
        if 0 <= number - first < count
    }


def joint_key(joint: str) -> str:
    """Normalize the name of a joint: its side first, letters and digits only."""
    word = _normalize(joint)
    word = _ALIASES.get(word, word)
    side = next((side for side in ("left", "right") if side in word), "")
    return side + word.replace(side, "", 1) if side else word


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
