"""Skeletons: which joints a pose has, how bones connect them, where its origin is.

Legend of tensor suffixes, used in the whole project: B clips in a batch, N clips of a dataset,
P poses of a dataset, W views per clip, T frames (segments), V joints, C coordinates or channels,
M bodies, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

_Name = Annotated[str, Field(strict=True, min_length=1)]
_Joint = Annotated[int, Field(strict=True, ge=0)]


@dataclass(frozen=True)
class Skeleton:
    """One kind of skeleton.

    `bones` are (child, parent) pairs of 0-based joint indices; `origin` is the joint that
    preparation puts at zero in the first frame, None if poses are not moved.
    """

    name: _Name
    joints: Annotated[tuple[_Name, ...], Field(min_length=1)]
    bones: tuple[tuple[_Joint, _Joint], ...]
    origin: _Joint | None
    num_coordinates: Annotated[int, Field(strict=True, ge=2, le=3)] = 3

    @property
    def num_joints(self) -> int:
        """Number of joints V."""
        return len(self.joints)

    @property
    def pose_size(self) -> int:
        """Numbers of a pose, V * C."""
        return self.num_joints * self.num_coordinates

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data that JSON and a checkpoint can hold."""
        plain: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return plain

    @classmethod
    def from_dict(cls, data: object) -> Skeleton:
        """Parse the output of `to_dict`; ValueError says what is wrong."""
        keys = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != keys:
            raise ValueError(f"is not a description with {', '.join(sorted(keys))}")
        try:
            skeleton = _ADAPTER.validate_python(data)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            raise ValueError(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}") from error
        joints = range(skeleton.num_joints)
        if len(set(skeleton.joints)) < len(joints):
            raise ValueError("joints is not a list of different names")
        if any(len(set(bone).intersection(joints)) < 2 for bone in skeleton.bones):
            raise ValueError("bones is not a list of pairs of different joints, by their index")
        if skeleton.origin not in (None, *joints):
            raise ValueError("origin is not a joint")
        known = NAMED.get(skeleton.name, skeleton)
        if (known.num_joints, known.num_coordinates) != (len(joints), skeleton.num_coordinates):
            raise ValueError(f"joints or num_coordinates are not those of {skeleton.name}")
        return skeleton


def describe_misfit(
    trained_on: Skeleton, skeleton: Skeleton, *, is_named: bool = True
) -> str | None:
    """Say why a model trained on one skeleton does not fit a dataset of another; None if it does.

    Only the numbers of joints and coordinates are compared if the model's skeleton is not named.
    """
    if is_named and trained_on.name != skeleton.name:
        return f"it was trained on {trained_on.name} skeletons, the dataset has {skeleton.name}"
    shape = (skeleton.num_joints, skeleton.num_coordinates)
    if (trained_on.num_joints, trained_on.num_coordinates) != shape:
        return (
            f"it was trained on {trained_on.num_joints} joints of {trained_on.num_coordinates} "
            f"coordinates, the dataset has {shape[0]} of {shape[1]}"
        )
    if is_named and trained_on.joints != skeleton.joints:
        return "the names or the order of its joints differ from the dataset's"
    if is_named and trained_on.origin != skeleton.origin:
        return "its origin joint differs from the dataset's"
    return None


def _parse(value: object) -> object:
    return Skeleton.from_dict(value) if isinstance(value, dict) else value


_ADAPTER = TypeAdapter(Skeleton)
# A field of a pydantic model: a Skeleton, or the output of `to_dict`.
SkeletonField = Annotated[Skeleton, BeforeValidator(_parse)]

# Joint order of Kinect v2, as NTU RGB+D's files list it.
NTU25 = Skeleton(
    name="ntu25",
    joints=(
        "spine base", "spine middle", "neck", "head",
        "left shoulder", "left elbow", "left wrist", "left hand",
        "right shoulder", "right elbow", "right wrist", "right hand",
        "left hip", "left knee", "left ankle", "left foot",
        "right hip", "right knee", "right ankle", "right foot",
        "spine shoulder", "left hand tip", "left thumb", "right hand tip", "right thumb",
    ),
    bones=(
        (1, 0), (20, 1), (2, 20), (3, 2),
        (4, 20), (5, 4), (6, 5), (7, 6), (21, 7), (22, 7),
        (8, 20), (9, 8), (10, 9), (11, 10), (23, 11), (24, 11),
        (12, 0), (13, 12), (14, 13), (15, 14),
        (16, 0), (17, 16), (18, 17), (19, 18),
    ),
    origin=1,
)  # fmt: skip

# Joint order of Kinect v1, as the NW-UCLA recordings list it.
KINECT20 = Skeleton(
    name="kinect20",
    joints=(
        "hip center", "spine", "shoulder center", "head",
        "left shoulder", "left elbow", "left wrist", "left hand",
        "right shoulder", "right elbow", "right wrist", "right hand",
        "left hip", "left knee", "left ankle", "left foot",
        "right hip", "right knee", "right ankle", "right foot",
    ),
    bones=(
        (1, 0), (2, 1), (3, 2),
        (4, 2), (5, 4), (6, 5), (7, 6),
        (8, 2), (9, 8), (10, 9), (11, 10),
        (12, 0), (13, 12), (14, 13), (15, 14),
        (16, 0), (17, 16), (18, 17), (19, 18),
    ),
    origin=1,
)  # fmt: skip

# Key points of COCO in image coordinates, as YOLO-pose, RTMPose, HRNet and others write them.
COCO17 = Skeleton(
    name="coco17",
    joints=(
        "nose", "left eye", "right eye", "left ear", "right ear",
        "left shoulder", "right shoulder", "left elbow", "right elbow",
        "left wrist", "right wrist", "left hip", "right hip",
        "left knee", "right knee", "left ankle", "right ankle",
    ),
    bones=(
        (1, 0), (2, 0), (3, 1), (4, 2), (5, 0), (6, 0),
        (7, 5), (8, 6), (9, 7), (10, 8), (11, 5), (12, 6),
        (13, 11), (14, 12), (15, 13), (16, 14),
    ),
    origin=11,
    num_coordinates=2,
)  # fmt: skip

# Numbers of key points of which the first 17 are COCO's: also Halpe's 26 and 136, and 133 of
# COCO-WholeBody.
COCO_COUNTS = (17, 26, 133, 136)

# The COCO model of OpenPose: COCO's key points in another order, and a neck.
OPENPOSE18 = Skeleton(
    name="openpose18",
    joints=(
        "nose", "neck", "right shoulder", "right elbow", "right wrist",
        "left shoulder", "left elbow", "left wrist",
        "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
        "right eye", "left eye", "right ear", "left ear",
    ),
    bones=(
        (0, 1), (2, 1), (3, 2), (4, 3), (5, 1), (6, 5), (7, 6),
        (8, 1), (9, 8), (10, 9), (11, 1), (12, 11), (13, 12),
        (14, 0), (15, 0), (16, 14), (17, 15),
    ),
    origin=1,
    num_coordinates=2,
)  # fmt: skip

# The BODY_25 model of OpenPose.
OPENPOSE25 = Skeleton(
    name="openpose25",
    joints=(
        "nose", "neck", "right shoulder", "right elbow", "right wrist",
        "left shoulder", "left elbow", "left wrist",
        "middle hip", "right hip", "right knee", "right ankle",
        "left hip", "left knee", "left ankle", "right eye", "left eye", "right ear", "left ear",
        "left big toe", "left small toe", "left heel",
        "right big toe", "right small toe", "right heel",
    ),
    bones=(
        (0, 1), (2, 1), (3, 2), (4, 3), (5, 1), (6, 5), (7, 6),
        (8, 1), (9, 8), (10, 9), (11, 10), (12, 8), (13, 12), (14, 13),
        (15, 0), (16, 0), (17, 15), (18, 16),
        (19, 14), (20, 19), (21, 14), (22, 11), (23, 22), (24, 11),
    ),
    origin=8,
    num_coordinates=2,
)  # fmt: skip

# World landmarks of MediaPipe, whose zero is between the hips in every frame.
MEDIAPIPE33 = Skeleton(
    name="mediapipe33",
    joints=(
        "nose", "left eye inner", "left eye", "left eye outer",
        "right eye inner", "right eye", "right eye outer", "left ear", "right ear",
        "mouth left", "mouth right", "left shoulder", "right shoulder",
        "left elbow", "right elbow", "left wrist", "right wrist",
        "left pinky", "right pinky", "left index", "right index", "left thumb", "right thumb",
        "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle",
        "left heel", "right heel", "left foot index", "right foot index",
    ),
    bones=(
        (1, 0), (2, 1), (3, 2), (7, 3), (4, 0), (5, 4), (6, 5), (8, 6), (9, 0), (10, 9),
        (11, 0), (12, 11), (13, 11), (14, 12), (15, 13), (16, 14),
        (17, 15), (18, 16), (19, 15), (20, 16), (21, 15), (22, 16),
        (23, 11), (24, 12), (25, 23), (26, 24), (27, 25), (28, 26),
        (29, 27), (30, 28), (31, 29), (32, 30),
    ),
    origin=None,
)  # fmt: skip

# Joint order of Azure Kinect's Body Tracking SDK.
AZURE32 = Skeleton(
    name="azure32",
    joints=(
        "pelvis", "spine navel", "spine chest", "neck",
        "left clavicle", "left shoulder", "left elbow", "left wrist",
        "left hand", "left hand tip", "left thumb",
        "right clavicle", "right shoulder", "right elbow", "right wrist",
        "right hand", "right hand tip", "right thumb",
        "left hip", "left knee", "left ankle", "left foot",
        "right hip", "right knee", "right ankle", "right foot",
        "head", "nose", "left eye", "left ear", "right eye", "right ear",
    ),
    bones=(
        (1, 0), (2, 1), (3, 2),
        (4, 2), (5, 4), (6, 5), (7, 6), (8, 7), (9, 8), (10, 7),
        (11, 2), (12, 11), (13, 12), (14, 13), (15, 14), (16, 15), (17, 14),
        (18, 0), (19, 18), (20, 19), (21, 20), (22, 0), (23, 22), (24, 23), (25, 24),
        (26, 3), (27, 26), (28, 26), (29, 26), (30, 26), (31, 26),
    ),
    origin=1,
)  # fmt: skip

# Those of Kinect, which the files of 2s-AGCN, CTR-GCN, PYSKL and SGN itself have; recordings keep
# their unit.
KINECT = (NTU25, KINECT20)
# Those that pose estimators write, by name; their prepared poses are in meters, which is checked.
ESTIMATED = {
    skeleton.name: skeleton for skeleton in (COCO17, OPENPOSE18, OPENPOSE25, MEDIAPIPE33, AZURE32)
}
# Those of this module; data/datasets.py adds the skeletons of published datasets.
NAMED = {skeleton.name: skeleton for skeleton in KINECT} | ESTIMATED
