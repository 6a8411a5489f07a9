"""Files as pose estimators and sensors write them, of stick people whose joints are known.

Legend: N people, T frames, V joints, C coordinates; meters with y up, or pixels with y down.
"""

import csv
import io
import json
import pickle
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sgnray.data.skeleton import (
    AZURE32,
    COCO17,
    KINECT20,
    MEDIAPIPE33,
    NTU25,
    OPENPOSE18,
    Skeleton,
)
from sgnray.errors import ClipError
from sgnray.prepare.readers.ntu import read_skeletons

PIXELS_PER_METER = 250
CENTER_PX = (640, 360)
# Positions of body parts, in meters from between the hips; x is that of the left side.
_PARTS = {
    "nose": (0, 0.7, 0.1), "eye": (0.03, 0.73, 0.09), "eye inner": (0.02, 0.73, 0.09),
    "eye outer": (0.05, 0.73, 0.08), "ear": (0.08, 0.71, 0), "mouth": (0.02, 0.66, 0.09),
    "head": (0, 0.72, 0), "neck": (0, 0.55, 0), "shoulder center": (0, 0.5, 0),
    "spine shoulder": (0, 0.5, 0), "spine": (0, 0.25, 0), "spine middle": (0, 0.25, 0),
    "spine navel": (0, 0.2, 0), "spine chest": (0, 0.35, 0), "clavicle": (0.04, 0.48, 0),
    "pelvis": (0, 0.02, 0),
    "spine base": (0, 0.02, 0), "hip center": (0, 0.02, 0), "middle hip": (0, 0.01, 0),
    "shoulder": (0.18, 0.5, 0), "elbow": (0.18, 0.22, 0), "wrist": (0.18, -0.03, 0),
    "hand": (0.18, -0.1, 0), "hand tip": (0.18, -0.16, 0), "pinky": (0.2, -0.12, 0),
    "index": (0.17, -0.14, 0), "thumb": (0.16, -0.09, 0.02),
    "hip": (0.18, 0, 0), "knee": (0.18, -0.43, 0), "ankle": (0.18, -0.85, 0),
    "heel": (0.18, -0.9, -0.04), "foot": (0.18, -0.92, 0.1), "foot index": (0.18, -0.92, 0.1),
    "big toe": (0.17, -0.92, 0.1), "small toe": (0.2, -0.92, 0.08),
}  # fmt: skip
_ARM = ("elbow", "wrist", "hand", "hand tip", "pinky", "index", "thumb")


def move(skeleton, num_frames=20, *, swing_rad=1.0, walk_m=0.0, seed=0):
    """Give a person (T, V, 3) in meters who swings both arms, and walks this far along x."""
    parts = [split_side(joint) for joint in skeleton.joints]
    pose_VC = np.array([np.multiply(_PARTS[part], (side or 1, 1, 1)) for side, part in parts])
    rng = np.random.default_rng(seed)
    phase_T = np.linspace(0, 2 * np.pi, num_frames) + rng.uniform(0, 0.5)
    angles_T = swing_rad * (1 - np.cos(phase_T)) / 2
    people_TVC = np.repeat(pose_VC[None], num_frames, axis=0)
    for joint, (side, part) in enumerate(parts):
        if part in _ARM:  # about the shoulder, in the plane of the image: limbs keep their length
            shoulder_C = np.multiply(_PARTS["shoulder"], (side, 1, 1))
            x, y, z = pose_VC[joint] - shoulder_C
            cos_T, sin_T = np.cos(side * angles_T), np.sin(side * angles_T)
            turned = (cos_T * x - sin_T * y, sin_T * x + cos_T * y, np.full(num_frames, z))
            people_TVC[:, joint] = shoulder_C + np.stack(turned, axis=1)
    people_TVC[..., 0] += np.linspace(-walk_m / 2, walk_m / 2, num_frames)[:, None]
    return people_TVC


def split_side(joint):
    """Give 1 for left, -1 for right or 0, and the part of the body."""
    for word, side in (("left", 1), ("right", -1)):
        if word in joint:
            return side, joint.replace(word, "").strip().replace("  ", " ")
    return 0, joint


def project(people_TVC):
    """Give the pixels (T, V, 2) of people in meters."""
    return people_TVC[..., :2] * (PIXELS_PER_METER, -PIXELS_PER_METER) + CENTER_PX


def turn(people_TVC, angle_rad):
    """Turn people in meters about the vertical axis."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return people_TVC @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])


def photograph(people_TVC, *, distance_m):
    """Give the pixels (T, V, 2) that a camera at the height of the hips sees."""
    depth_TV = distance_m - people_TVC[..., 2]
    return project(people_TVC * (distance_m / depth_TV)[..., None])


def flat(pixels_VC, scores_V):
    """Make a flat list of x, y and score, as OpenPose and COCO have it."""
    return np.column_stack([pixels_VC, scores_V]).round(3).ravel().tolist()


def scores_of(pixels_VC):
    return np.where(np.isnan(pixels_VC[:, 0]), 0.0, 0.9)


def write_openpose(folder, name, frames_NVC):
    """Write a file per frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, people_NVC in enumerate(frames_NVC):
        path = folder / f"{name}_{number:012}_keypoints.json"
        path.write_bytes(format_openpose(people_NVC))


def format_openpose(people_NVC, ids=None):
    """Write one frame; a missing joint is 0, 0, 0, and without --tracking ids are -1."""
    people = [
        {"person_id": [own], "pose_keypoints_2d": flat(np.nan_to_num(pose_VC), scores_of(pose_VC))}
        for pose_VC, own in zip(people_NVC, ids or [-1] * len(people_NVC), strict=True)
    ]
    return json.dumps({"version": 1.3, "people": people}).encode()


def list_alphapose(frames_NVC, form="open"):
    """List what AlphaPose writes of each image with --format open or cmu."""
    people_key, key = {"open": ("people", "pose_keypoints_2d"), "cmu": ("bodies", "joints")}[form]
    return [
        {
            "version": "AlphaPose v0.3",
            people_key: [
                {key: flat(np.nan_to_num(pose_VC), scores_of(pose_VC))} for pose_VC in people_NVC
            ],
        }
        for people_NVC in frames_NVC
    ]


def format_alphapose(frames_NVC, form="open"):
    """Write all images of AlphaPose, by their names."""
    images = list_alphapose(frames_NVC, form)
    return json.dumps({f"{number}.jpg": image for number, image in enumerate(images)}).encode()


def format_mmpose(frames_NVC):
    """Write COCO key points as MMPose's predictions: frames with instances and scores."""
    return json.dumps(
        [
            {
                "frame_id": number,
                "instances": [
                    {
                        "keypoints": np.nan_to_num(pose_VC).round(3).tolist(),
                        "keypoint_scores": scores_of(pose_VC).tolist(),
                    }
                    for pose_VC in people_NVC
                ],
            }
            for number, people_NVC in enumerate(frames_NVC)
        ]
    ).encode()


def format_yolo(frames_NVC):
    """Write COCO key points as a list of what YOLO's results.to_json gives of each frame."""
    return json.dumps(
        [
            [
                {
                    "name": "person",
                    "class": 0,
                    "keypoints": {
                        "x": np.nan_to_num(pose_VC[:, 0]).round(3).tolist(),
                        "y": np.nan_to_num(pose_VC[:, 1]).round(3).tolist(),
                        "visible": scores_of(pose_VC).tolist(),
                    },
                }
                for pose_VC in people_NVC
            ]
            for people_NVC in frames_NVC
        ]
    ).encode()


def format_kinetics(frames_NVC, label="clapping"):
    """Write OpenPose's COCO joints as ST-GCN does, normalized by the size of the image."""
    data = [
        {
            "frame_index": number,
            "skeleton": [
                {
                    "pose": np.divide(np.nan_to_num(pose_VC), (340, 256)).round(3).ravel().tolist(),
                    "score": scores_of(pose_VC).tolist(),
                }
                for pose_VC in people_NVC
            ],
        }
        for number, people_NVC in enumerate(frames_NVC, start=1)
    ]
    return json.dumps({"data": data, "label": label, "label_index": 55}).encode()


def format_coco(frames_NVC, key="image_id"):
    """Write COCO key points as a file of results: people in a row, with their image."""
    return json.dumps(
        [
            {key: number, "keypoints": flat(np.nan_to_num(pose_VC), scores_of(pose_VC))}
            for number, people_NVC in enumerate(frames_NVC)
            for pose_VC in people_NVC
        ]
    ).encode()


def format_lines(frames_NVC, form="OpenPifPaf"):
    """Write a frame in each line: as OpenPifPaf does, a list as YOLO's, or one of rtmlib's."""
    frames = []
    for number, people_NVC in enumerate(frames_NVC):
        points, scores = np.nan_to_num(people_NVC).round(3).tolist(), map(scores_of, people_NVC)
        people = [{"keypoints": flat(np.nan_to_num(one), scores_of(one))} for one in people_NVC]
        match form:
            case "OpenPifPaf":
                frames.append({"frame": number, "predictions": people})
            case "YOLO":
                frames.append(people)
            case "rtmlib":
                frames.append({"keypoints": points, "scores": [own.tolist() for own in scores]})
    return b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)


def format_mediapipe(person_TVC, *, is_headed=True, form="{0}"):
    """Write world landmarks, whose y is down, a row per frame with the visibility of each."""
    joints = enumerate(MEDIAPIPE33.joints)
    names = [form.format(joint.replace(" ", "_"), number) for number, joint in joints]
    header = [f"{name}_{axis}" for name in names for axis in ("x", "y", "z", "visibility")]
    rows = []
    for pose_VC in person_TVC:
        world_VC = np.nan_to_num(pose_VC * (1, -1, -1))
        rows.append(np.column_stack([world_VC, scores_of(pose_VC)]).round(5).ravel().tolist())
    return format_csv([header, *rows] if is_headed else rows)


def kinect_names(skeleton):
    """Spell joints as Kinect's SDK does: SpineBase, ShoulderLeft."""
    for joint in skeleton.joints:
        side, part = split_side(joint)
        name = part.title().replace(" ", "").replace("SpineMiddle", "SpineMid")
        yield name + {1: "Left", -1: "Right", 0: ""}[side]


def format_kinect(people_NTVC, skeleton=NTU25, *, first_id=72057594037928017):
    """Write Kinect's joints, a row for each person of a frame."""
    names = [f"{name}.{axis}" for name in kinect_names(skeleton) for axis in "XYZ"]
    rows = [
        [frame, first_id + body, *person_TVC[frame].round(5).ravel().tolist()]
        for frame in range(len(people_NTVC[0]))
        for body, person_TVC in enumerate(people_NTVC)
    ]
    return format_csv([["Frame", "TrackingId", *names], *rows])


def format_azure(people_NTVC, *, first_id=1):
    """Write Azure Kinect's joints, in millimeters with y down, as offline_processor does."""
    frames = [
        {
            "bodies": [
                {
                    "body_id": first_id + body,
                    "joint_orientations": [[1.0, 0.0, 0.0, 0.0]] * AZURE32.num_joints,
                    "joint_positions": (person_TVC[frame] * (-1000, -1000, 1000)).round(2).tolist(),
                }
                for body, person_TVC in enumerate(people_NTVC)
            ],
            "frame_id": frame,
            "num_bodies": len(people_NTVC),
            "timestamp_usec": 33_333 * frame,
        }
        for frame in range(len(people_NTVC[0]))
    ]
    names = list(azure_names())
    bones = [[names[one], names[other]] for one, other in AZURE32.bones]
    return json.dumps({"bone_list": bones, "frames": frames, "joint_names": names}).encode()


def azure_names():
    """Spell joints as Azure Kinect's SDK does: SPINE_NAVEL, HANDTIP_LEFT."""
    for joint in AZURE32.joints:
        side, part = split_side(joint)
        name = part.upper().replace("HAND TIP", "HANDTIP").replace(" ", "_")
        yield name + {1: "_LEFT", -1: "_RIGHT", 0: ""}[side]


def format_csv(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def annotate_2d(name, frames_TNVC, label=0):
    """Make an annotation of PYSKL of the people in an image."""
    joints_NTVC = np.stack(frames_TNVC).transpose(1, 0, 2, 3)
    return {
        "frame_dir": name,
        "label": label,
        "img_shape": (720, 1280),
        "total_frames": joints_NTVC.shape[1],
        "keypoint": np.nan_to_num(joints_NTVC).astype(np.float16),
        "keypoint_score": np.where(np.isnan(joints_NTVC[..., 0]), 0, 0.9).astype(np.float16),
    }


class Sample(NamedTuple):
    """A format with a file per recording; `make` writes a person (T, V, 3), whose seed it gets."""

    suffix: str
    skeleton: Skeleton
    make: Callable[[np.ndarray, int], bytes]


SAMPLES = {
    "MMPose": Sample(".json", COCO17, lambda person, _: format_mmpose(see(person))),
    "Halpe": Sample(".json", COCO17, lambda person, _: format_mmpose(add_joints(see(person), 9))),
    "YOLO": Sample(".json", COCO17, lambda person, _: format_yolo(see(person))),
    "COCO": Sample(".json", COCO17, lambda person, _: format_coco(see(person))),
    "flat list": Sample(
        ".json",
        COCO17,
        lambda person, seed: format_coco(see(person), ("frame", "frameIdx", "t")[seed % 3]),
    ),
    "lines": Sample(
        ".json",
        COCO17,
        lambda person, seed: format_lines(
            [*see(person), []], ("OpenPifPaf", "YOLO", "rtmlib")[seed % 3]
        ),
    ),
    "AlphaPose": Sample(
        ".json",
        OPENPOSE18,
        lambda person, seed: format_alphapose(see(person), ("open", "cmu")[seed % 2]),
    ),
    "Kinetics": Sample(  # in its small images
        ".json", OPENPOSE18, lambda person, _: format_kinetics(see(person) / 4)
    ),
    "PYSKL": Sample(
        ".pkl", COCO17, lambda person, _: pickle.dumps(annotate_2d("clip", see(person)))
    ),
    "MediaPipe": Sample(
        ".csv",
        MEDIAPIPE33,
        lambda person, seed: format_mediapipe(
            person, form=("{0}", "pose_{1:02}", "world_{0}")[seed % 3]
        ),
    ),
    "Azure Kinect": Sample(".json", AZURE32, lambda person, _: format_azure([person])),
    "Kinect v2": Sample(".csv", NTU25, lambda person, _: format_kinect([person])),
    "Kinect v1": Sample(".csv", KINECT20, lambda person, _: format_kinect([person], KINECT20)),
}


def make_file(kind, seed=0, num_frames=3):
    """Make a valid file of one person, in a format that has a file per recording."""
    sample = SAMPLES[kind]
    return sample.make(move(sample.skeleton, num_frames, seed=seed), seed)


def see(person_TVC):
    """Give the frames, each with one person, in pixels."""
    return project(person_TVC)[:, None]


def add_joints(frames_NVC, num_joints):
    """Give people more joints, as Halpe does, whose first are COCO's."""
    return np.pad(frames_NVC, [(0, 0), (0, 0), (0, num_joints), (0, 0)], mode="edge")


def read_skeleton(data):
    """Read one .skeleton file; ClipError if it is refused."""
    (result,) = read_skeletons([data])
    if isinstance(result, ClipError):
        raise result
    return result
