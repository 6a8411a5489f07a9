"""Files of pose estimators and Kinect, compared with the people that are in them."""

import json
import pickle
import time
import zipfile

import numpy as np
import pytest

from sgnray.data.datasets import SKELETONS
from sgnray.data.skeleton import (
    AZURE32,
    COCO17,
    KINECT20,
    MEDIAPIPE33,
    NTU25,
    OPENPOSE18,
    OPENPOSE25,
)
from sgnray.errors import ClipError, InputError
from sgnray.prepare.normalize import normalize
from sgnray.prepare.readers.detect import detect
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.openpose import join_frames, read_openpose
from sgnray.prepare.readers.pixels import meters_per_pixel
from sgnray.prepare.readers.recordings import read_recording, read_recordings
from sgnray.storage.location import locate

from ... import pose_files as files
from .conftest import assert_equal

FORMATTERS = {
    "MMPose": files.format_mmpose,
    "YOLO": files.format_yolo,
    "COCO": files.format_coco,
    "PYSKL": lambda frames_NVC: pickle.dumps(files.annotate_2d("clip", frames_NVC)),
}


@pytest.fixture
def read(tmp_path):
    """Read the bytes of one recording: its bodies, and the name of its skeleton."""

    def read_bytes(data, suffix=".json"):
        path = tmp_path / f"clip{suffix}"
        path.write_bytes(data)
        (file,) = find_recordings(path).files
        recording, skeleton = read_recording(file)
        return recording, skeleton

    return read_bytes


def read_folder(folder):
    """Read the one recording of a folder."""
    (file,) = find_recordings(folder).files
    return read_recording(file)


def refuse(read, data, suffix=".json"):
    with pytest.raises(ClipError) as caught:
        read(data, suffix)
    assert "\n" not in caught.value.what
    return caught.value.what


def distances_m(body, person_TVC):
    """The distance of each joint from where it was, after both are aligned."""
    num_axes = body.joints_TVC.shape[-1]
    found, known = body.joints_TVC, person_TVC[..., :num_axes]
    shift = np.nanmedian(found - known, axis=(0, 1))
    return np.linalg.norm(found - shift - known, axis=-1)


# ------------------------------------------------------------------------- one known result each


# The shoulders are 36 pixels apart, which is 0.36 m: 100 pixels are one meter, and y turns up.
KNOWN = {5: (118, 100), 6: (82, 100), 0: (100, 50)}
KNOWN_M = np.full((17, 2), (1.0, -0.8333333))  # the middle of those that are seen
KNOWN_M[[5, 6, 0]] = (1.18, -1), (0.82, -1), (1, -0.5)


def known_points(known=KNOWN, num_joints=17):
    points = [[0.0, 0.0] for _ in range(num_joints)]
    for joint, point in known.items():
        points[joint] = list(point)
    return points


@pytest.mark.parametrize(
    "content",
    [
        # Scores of 0.19 and NaN make a joint missing, 0.2 does not.
        [{"instances": [{"keypoints": known_points({**KNOWN, 3: (9, 9), 4: (7, 7)}),
                         "keypoint_scores": [0.2, 0, 0, 0.19, float("nan"), 1, 1, *[0] * 10]}]}],
        {"instance_info": [{"frame_id": 1, "instances": [{"keypoints": known_points()}]}]},
        [[{"keypoints": known_points()}]],
        [{"keypoints": known_points()}],
        [{"image_id": 7, "keypoints": [number for x, y in known_points() for number in (x, y, 2)]}],
        [[{"keypoints": {"x": [x or 9 for x, _ in known_points()],
                         "y": [y or 9 for _, y in known_points()],
                         "visible": [1, 0, 0, 0, 0, 1, 1, *[0] * 10]}}]],
    ],
    ids=["mmpose", "mmpose-info", "frames", "people", "coco", "yolo"],
)  # fmt: skip
def test_a_known_person_as_coco_key_points(read, content):
    recording, skeleton = read(json.dumps(content).encode())
    assert skeleton is COCO17
    (body,) = recording.bodies
    assert (recording.num_frames, body.first_frame, body.num_frames) == (1, 0, 1)
    np.testing.assert_allclose(body.joints_TVC[0], KNOWN_M, atol=1e-6)


@pytest.mark.parametrize("num_joints", [26, 133, 136])
def test_the_first_points_of_a_whole_body_are_cocos(read, num_joints):
    """Halpe's and COCO-WholeBody's, with hands and faces far away from the body."""
    points = np.array(known_points(KNOWN, num_joints))
    points[17:] = (900, 700)
    scores = [0.9] * num_joints
    flat = np.column_stack([points, scores])
    x, y = points.T.tolist()
    pickled = {"keypoint": points[None, None], "keypoint_score": np.array(scores)[None, None]}
    for content in (
        [{"instances": [{"keypoints": points.tolist(), "keypoint_scores": scores}]}],
        [[{"keypoints": flat.tolist()}]],
        [{"image_id": 7, "keypoints": flat.ravel().tolist()}],
        [[{"keypoints": {"x": x, "y": y, "visible": scores}}]],
        pickled,
    ):
        is_pickle = content is pickled
        data = pickle.dumps(content) if is_pickle else json.dumps(content).encode()
        recording, skeleton = read(data, ".pkl" if is_pickle else ".json")
        assert skeleton is COCO17
        np.testing.assert_allclose(recording.bodies[0].joints_TVC[0], KNOWN_M, atol=1e-6)


@pytest.mark.parametrize(
    ("skeleton", "key"),
    [(OPENPOSE25, "pose_keypoints_2d"), (OPENPOSE18, "pose_keypoints_2d"),
     (OPENPOSE18, "pose_keypoints")],
)  # fmt: skip
def test_a_known_person_of_openpose(tmp_path, skeleton, key):
    """Two frames; a hand is seen in the first one, and its score is too low in the second."""
    places = [skeleton.joints.index(joint) for joint in ("left shoulder", "right shoulder", "neck")]
    known = dict(zip(places, [(118, 100), (82, 100), (100, 95)], strict=True))
    for number, others in enumerate([{4: (60, 130)}, {4: (999, 999)}]):
        points = known_points({**known, **others}, skeleton.num_joints)
        flat = [number for x, y in points for number in (x, y, 0.1 if x == 999 else 0.8)]
        text = json.dumps({"version": 1.1, "people": [{key: flat}]})
        (tmp_path / f"clip_{number:012}_keypoints.json").write_text(text)
    recording, its_skeleton = read_folder(tmp_path)
    assert its_skeleton is skeleton
    (body,) = recording.bodies
    assert body.num_frames == recording.num_frames == 2
    np.testing.assert_allclose(body.joints_TVC[:, places[0]], [(1.18, -1)] * 2, atol=1e-6)
    np.testing.assert_allclose(body.joints_TVC[:, 4], [(0.6, -1.3)] * 2, atol=1e-6)


@pytest.mark.parametrize("style", ["names", "numbers from 0", "numbers from 1", "no header"])
def test_a_known_person_of_mediapipe(read, style):
    """World landmarks have y down and z away from the camera, here y is up and z is towards it."""
    points = [[0.01 * joint, 0.5, -0.2] for joint in range(33)]
    points[23], points[24] = [0.1, 0.01, 0], [-0.1, -0.01, 0]
    names = [joint.replace(" ", "_").upper() for joint in MEDIAPIPE33.joints]
    header = {
        "names": [f"{name}_{axis}" for name in names for axis in "xyz"],
        "numbers from 0": ["frame", *(f"{axis}{joint}" for joint in range(33) for axis in "xyzv")],
        "numbers from 1": [f"{axis}_{joint + 1}" for joint in range(33) for axis in "xyz"],
        "no header": None,
    }[style]
    row = [number for point in points for number in point]
    if style == "numbers from 0":
        row = [7, *(number for point in points for number in (*point, 0.9))]
    recording, skeleton = read(files.format_csv([row] if header is None else [header, row]), ".csv")
    assert skeleton is MEDIAPIPE33
    (body,) = recording.bodies
    np.testing.assert_allclose(body.joints_TVC[0], np.multiply(points, (1, -1, -1)), atol=1e-6)


@pytest.mark.parametrize(("skeleton", "delimiter"), [(NTU25, ","), (KINECT20, ";"), (NTU25, "\t")])
def test_a_known_person_of_kinect(read, skeleton, delimiter):
    """Columns in any order, others between them, and a byte order mark before."""
    names = [f"{name}_{axis}" for name in files.kinect_names(skeleton) for axis in "xyz"]
    numbers = [0.125 * index + 1 for index in range(len(names))]
    header = ["Time", *reversed(names), "ElbowLeft_state"]
    data = files.format_csv([header, ["12:30", *reversed(numbers), "Tracked"]])
    data = b"\xef\xbb\xbf" + data.replace(b",", delimiter.encode()).replace(b"\n", b"\r\n")
    recording, its_skeleton = read(data, ".tsv" if delimiter == "\t" else ".csv")
    assert its_skeleton is skeleton
    (body,) = recording.bodies
    assert body.joints_TVC[0].ravel().tolist() == numbers


@pytest.mark.parametrize("skeleton", [NTU25, KINECT20], ids=lambda item: item.name)
def test_columns_of_scores_do_not_make_kinect_another_format(read, skeleton):
    names = [
        f"{name}_{kind}"
        for name in files.kinect_names(skeleton)
        for kind in ("x", "y", "z", "confidence")
    ]
    _, its_skeleton = read(
        files.format_csv([names, [0.5 + 0.1 * i for i in range(len(names))]]), ".csv"
    )
    assert its_skeleton is skeleton


@pytest.mark.parametrize("indent", [None, 4])  # 4: as the SDK's program writes it
@pytest.mark.parametrize("start", [0, 3])
def test_a_known_person_of_azure_kinect(read, indent, start):
    """Joints are in the order of the file, which may begin with frames without people."""
    content = json.loads(files.make_file("Azure Kinect"))
    points = np.arange(96.0).reshape(32, 3) * 10 + 10
    order = np.random.default_rng(0).permutation(32)
    bodies = [{"body_id": 1, "joint_positions": points[order].tolist()}]
    content["joint_names"] = [content["joint_names"][joint] for joint in order]
    content["frames"] = [{"bodies": [], "frame_id": frame} for frame in range(start)]
    content["frames"].append({"bodies": bodies, "frame_id": start})
    recording, skeleton = read(json.dumps(content, indent=indent).encode())
    assert skeleton is AZURE32
    (body,) = recording.bodies
    np.testing.assert_allclose(body.joints_TVC[0], points * (-0.001, -0.001, 0.001), atol=1e-6)


@pytest.mark.parametrize("gap", [10, 20])
def test_people_of_azure_kinect_have_ids_and_frames(read, gap):
    """Two who walk through each other; the file lacks some frames."""
    known = [files.move(AZURE32, 40, walk_m=walk_m) for walk_m in (1.0, -1.0)]
    content = json.loads(files.format_azure(known))
    del content["frames"][10 : 10 + gap]
    recording, _ = read(json.dumps(content).encode())
    assert len(recording.bodies) == (2 if gap == 10 else 4)
    for body, person_TVC in zip(recording.bodies, known, strict=False):
        np.testing.assert_allclose(body.joints_TVC[:10], person_TVC[:10], atol=1e-5)
    assert recording.num_frames == (40 if gap == 10 else 20)


PEOPLE_NVC = files.project(files.move(OPENPOSE18, 40))[:, None] / 4  # in images of 340 x 256


@pytest.mark.parametrize("is_sorted", [True, False])
def test_people_of_kinetics_skeleton(tmp_path, read, is_sorted):
    """As OpenPose's of the same images; frames are in any order, and some of them missing."""
    content = json.loads(files.format_kinetics(PEOPLE_NVC))
    del content["data"][10:30]
    content["data"][3]["skeleton"] *= is_sorted
    for number, people_NVC in enumerate(PEOPLE_NVC):
        if not 10 <= number < 30 and (is_sorted or number != 3):
            path = tmp_path / f"frames/a_{number:012}_keypoints.json"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(files.format_openpose(people_NVC))
    if not is_sorted:
        np.random.default_rng(0).shuffle(content["data"])
    recording, skeleton = read(json.dumps(content).encode())
    expected, its_skeleton = read_folder(tmp_path / "frames")
    assert skeleton is its_skeleton is OPENPOSE18
    assert [body.num_frames for body in recording.bodies] == [10, 10]
    for body, other in zip(recording.bodies, expected.bodies, strict=True):
        assert np.abs(distances_m(body, other.joints_TVC)).max() < 0.01


def change_kinetics(**keys):
    """Change keys of the file, of the second frame, or of its person."""
    content = json.loads(files.format_kinetics(PEOPLE_NVC))
    frame = content["data"][1]
    for place in (content, frame, frame["skeleton"][0]):
        place.update({key: keys[key] for key in keys.keys() & place.keys()})
    return content


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"data": 5}, "not a JSON object with a list `data`"),
        ({"data": []}, "its list `data` is empty: no frame contains a person"),
        ({"data": [5]}, "frame_index is not a number in each frame"),
        ({"frame_index": "a"}, "frame_index is not a number in each frame"),
        ({"skeleton": 5}, "frame 2: not a JSON object with a list `skeleton`"),
        ({"skeleton": [5]}, "frame 2: a person is not a JSON object"),
        ({"pose": [0.5] * 50}, "frame 2: pose has 50 numbers and score 18, not 36 and 18 as openp"),
        ({"score": []}, "frame 2: pose has 36 numbers and score 0, not 36 and 18 as openpose18"),
        ({"pose": ["a"] * 36}, "frame 2: pose contains something that is not a number"),
        ({"pose": [170.0] * 36}, "frame 2: pose is not normalized: divide x and y by the width"),
    ],
)
def test_refused_people_of_kinetics_skeleton(read, keys, reason):
    assert refuse(read, json.dumps(change_kinetics(**keys)).encode()).startswith(reason)


@pytest.mark.parametrize("label", ['"a \\"b\\" \\u00e9"', '"unknown"', "null", '"\\ud800"'])
def test_a_recording_of_kinetics_skeleton_has_its_label(tmp_path, label):
    """Else that is its folder, which is kinetics_train for all."""
    for number, own in enumerate(["waving", "clapping", label]):
        path = tmp_path / f"kinetics_train/{number}.json"
        path.parent.mkdir(exist_ok=True)
        data = files.format_kinetics(PEOPLE_NVC + number, own)
        path.write_bytes(data.replace(json.dumps(label).encode(), label.encode()))
    plan = detect([locate(tmp_path)])
    other = 'a "b" é' if "b" in label else "kinetics_train"
    assert plan.class_names == tuple(sorted(["waving", "clapping", other]))
    assert plan.skeleton is OPENPOSE18


@pytest.mark.parametrize(
    ("labels", "warned"),
    [(["a", "unknown", "b", "unknown"], "train/1.json has no label: without a label, the folder"),
     (["unknown", "a", "b"], "train/1.json has a label in it and other files have none: without"),
     (["a", "b"], "")],
)  # fmt: skip
def test_a_missing_label_among_labels_is_named(tmp_path, caplog, labels, warned):
    """Its folder becomes a class."""
    for number, label in enumerate(labels):
        path = tmp_path / f"raw/train/{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.format_kinetics(PEOPLE_NVC + number, label))
    detect([locate(tmp_path / "raw")])
    assert caplog.text.count("train/1.json") == len(caplog.messages) == bool(warned)
    assert warned in caplog.text


def change_azure(**keys):
    """Change the second frame, or keys of the file, or of the body."""
    content = json.loads(files.make_file("Azure Kinect"))
    frame = content["frames"][1]
    for place in (content, frame, frame["bodies"][0]):
        place.update({key: keys[key] for key in keys.keys() & place.keys()})
    return content


NAMES = list(files.azure_names())


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"frames": 5}, "not a JSON object with a list `frames`"),
        ({"frames": []}, "its list `frames` is empty"),
        ({"frames": [{"bodies": []}] * 2}, "none of its 2 frames contains a person"),
        ({"frames": [5]}, "frame 0: not a JSON object with a list `bodies`"),
        ({"joint_names": None}, "it has no list `joint_names`"),
        ({"joint_names": NAMES[:-1]}, "joint_names has 31 joints, not the 32 of azure32: right"),
        ({"joint_names": [*NAMES[:-1], 5]}, "joint_names has 32 joints, not the 32 of azure32: ri"),
        ({"joint_names": [*NAMES[:-1], NAMES[0]]}, "joint_names has PELVIS twice"),
        ({"joint_names": [*NAMES, "TAIL"]}, "joint_names has 33 joints, not the 32 of azure32: th"),
        ({"bodies": 5}, "frame 1: not a JSON object with a list `bodies`"),
        ({"bodies": [5]}, "frame 1: not a JSON object with a list `bodies`"),
        ({"num_bodies": 2}, "frame 1: num_bodies is 2, but it has 1"),
        ({"joint_positions": [[1, 2, 3]] * 31}, "frame 1: joint_positions has the shape (31, 3), "),
        ({"joint_positions": [[1, 2]] * 32}, "frame 1: joint_positions has the shape (32, 2), not"),
        ({"joint_positions": [[1, 2, "a"]] * 32}, "frame 1: joint_positions contains something"),
        ({"joint_positions": [[1, 2, 1e39]] * 32}, "frame 1: a coordinate is not finite, or too"),
        ({"frame_id": -1}, "not sorted by frame_id: -1 comes after 0"),
    ],
)  # fmt: skip
def test_refused_bodies_of_azure_kinect(read, keys, reason):
    assert refuse(read, json.dumps(change_azure(**keys)).encode()).startswith(reason)


def test_many_names_of_joints_take_time_in_proportion_to_their_number(read):
    content = json.dumps(change_azure(joint_names=[f"joint{n}" for n in range(200_000)])).encode()
    started = time.process_time()
    assert refuse(read, content).startswith("joint_names has 200000 joints, not the 32 of azure32")
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("scale", "reason"),
    [(0.001, "its people are smaller than 0.1 m: "), (1000, "its people are larger than 20 m: ")],
)
def test_other_units_of_azure_kinect_are_refused(read, scale, reason):
    data = files.format_azure([files.move(AZURE32, 5) * scale + 1e-5])
    assert refuse(read, data) == reason + "joint_positions must be in millimeters"


def test_a_known_person_of_pyskl(read):
    keypoint = np.array([[known_points()]], np.float32)
    recording, skeleton = read(pickle.dumps({"keypoint": keypoint, "total_frames": 1}), ".pkl")
    assert skeleton is COCO17
    np.testing.assert_allclose(recording.bodies[0].joints_TVC[0], KNOWN_M, atol=1e-6)


# ------------------------------------------------------------------- people as estimators see them


NOISE_M = 1 / files.PIXELS_PER_METER


@pytest.mark.parametrize("turn_deg", [0, 30, 60, 90])
@pytest.mark.parametrize("size", [0.8, 1.0, 1.15])
def test_a_person_in_front_of_a_camera(size, turn_deg):
    """The guide states these errors: of the size, and of the pose if its size were known.

    The limbs of this person have the lengths of an adult only if `size` is 1.
    """
    person_TVC = files.turn(files.move(COCO17), np.radians(turn_deg))
    pixels_TVC = files.photograph(size * person_TVC, distance_m=3.0)
    hip = COCO17.origin
    found_TVC = (pixels_TVC - pixels_TVC[:1, [hip]]) * meters_per_pixel(pixels_TVC, COCO17)
    known_TVC = (person_TVC - person_TVC[:1, [hip]])[..., :2]
    found_size = float((found_TVC * known_TVC).sum() / (known_TVC**2).sum())
    assert 0.93 < found_size < 1.01
    error_m = np.linalg.norm(found_TVC / found_size - known_TVC, axis=-1)
    assert np.median(error_m) < 0.025
    assert np.percentile(error_m, 90) < 0.06


def make_crossing(skeleton, num_frames=40, seed=0, see=files.project, noise=1.0):
    """Two people who pass each other: frames of people in any order, with noise and gaps.

    They look alike, and as they meet each is nearest to where the other was.
    """
    rng = np.random.default_rng(seed)
    known = [files.move(skeleton, num_frames, walk_m=walk_m, seed=seed) for walk_m in (3.0, -3.0)]
    frames_NVC = []
    for frame in range(num_frames):
        people_NVC = np.stack([see(person[frame]) for person in known])
        people_NVC += rng.normal(0, noise, people_NVC.shape)
        people_NVC[rng.random(people_NVC.shape[:2]) < 0.1] = np.nan
        frames_NVC.append(people_NVC[rng.permutation(2)])
    return known, frames_NVC


def assert_followed(recording, known):
    """Each person is one body; a joint that is missing at an end lags behind the walk."""
    assert len(recording.bodies) == len(known)
    for body in recording.bodies:
        errors = [distances_m(body, person_TVC) for person_TVC in known]
        error = min(errors, key=np.median)
        assert body.num_frames == len(known[0])
        assert np.median(error) < 0.015
        assert np.percentile(error, 90) < 0.03
        assert error.max() < 0.25


CROSSING = FORMATTERS | {
    "AlphaPose": files.format_alphapose,
    "Kinetics": lambda frames_NVC: files.format_kinetics([each / 4 for each in frames_NVC]),
}


@pytest.mark.parametrize("kind", CROSSING)
def test_people_who_cross_stay_apart(read, kind):
    known, frames_NVC = make_crossing(files.SAMPLES[kind].skeleton)
    recording, skeleton = read(CROSSING[kind](frames_NVC), files.SAMPLES[kind].suffix)
    if kind == "AlphaPose":  # its neck is between the shoulders
        for person_TVC in known:
            person_TVC[:, 1] = person_TVC[:, [2, 5]].mean(axis=1)
    assert_followed(recording, known)
    assert normalize(recording, skeleton).bodies.max() == 1


@pytest.mark.parametrize("is_lying", [False, True], ids=["webcam", "lying"])
def test_an_actor_who_is_wider_than_high_is_kept(read, is_lying):
    """Somebody at a desk, whose legs are not seen, or on the floor; a bystander hardly moves."""
    actor_TVC = files.project(files.move(COCO17, 40))
    if is_lying:
        actor_TVC = actor_TVC[..., ::-1]
    else:
        actor_TVC[:, 11:] = np.nan
        actor_TVC[:, 9:11, 0] += (-200, 200)  # the wrists
    bystander_TVC = files.project(files.move(COCO17, 40, swing_rad=0.02)) + np.array((450, 0))
    frames_NVC = list(np.stack([bystander_TVC, actor_TVC], axis=1))
    recording, skeleton = read(files.format_mmpose(frames_NVC))
    poses = normalize(recording, skeleton)
    assert (poses.num_frames, len(poses.values_PD)) == (40, 80)
    assert any(poses.values_PD[poses.bodies == body].std(axis=0).max() > 0.1 for body in (0, 1))


@pytest.mark.parametrize("skeleton", [OPENPOSE25, OPENPOSE18], ids=lambda item: item.name)
def test_people_of_openpose_who_cross_stay_apart(tmp_path, skeleton):
    known, frames_NVC = make_crossing(skeleton)
    files.write_openpose(tmp_path / "clip", "clip", frames_NVC)
    recording, its_skeleton = read_folder(tmp_path)
    assert its_skeleton is skeleton
    assert_followed(recording, known)


@pytest.mark.parametrize("skeleton", [NTU25, KINECT20], ids=lambda item: item.name)
def test_people_of_kinect_without_ids_who_cross_stay_apart(read, skeleton):
    known, frames_NVC = make_crossing(skeleton, see=np.array, noise=NOISE_M)
    lines = files.format_kinect(np.stack(frames_NVC, axis=1), skeleton).decode().splitlines()
    cells = [line.split(",") for line in lines]
    data = files.format_csv([[frame, *joints] for frame, _, *joints in cells])
    recording, its_skeleton = read(data, ".csv")
    assert its_skeleton is skeleton
    assert_followed(recording, known)


@pytest.mark.parametrize(
    ("ids", "num_apart"), [((3, 0), 2), ((-1, -1), 0), ((1, 1), 0), ((1, -1), 0), ((1, 2.5), 0)]
)
def test_the_ids_of_openposes_tracking_are_used(ids, num_apart):
    """Two people meet and turn back, and one is hidden as they meet; -1 is no id."""
    pose_VC = files.project(files.move(OPENPOSE25, 1))[0]
    frames = []
    for frame in range(40):
        step = abs(frame - 20) * np.array((25.0, 0.0))
        people_NVC = [pose_VC - step - (20, 0), pose_VC + step + (20, 0)]
        num_seen = 1 if 15 <= frame < 28 else 2
        text = files.format_openpose(people_NVC[:num_seen], ids[:num_seen])
        frames.append((f"a_{frame}_keypoints.json", text))
    bodies = read_openpose(join_frames(frames), OPENPOSE25).bodies
    middle = (bodies[0].joints_TVC[0, 0, 0] + bodies[1].joints_TVC[0, 0, 0]) / 2
    sides = [body.joints_TVC[:, 0, 0] > middle for body in bodies]
    assert sum(side.all() or not side.any() for side in sides) == num_apart


@pytest.mark.parametrize("skeleton", [NTU25, KINECT20], ids=lambda item: item.name)
def test_kinects_own_ids_are_kept(read, skeleton):
    """They have 64 bits, more than float64 can represent exactly."""
    known = [files.move(skeleton, walk_m=walk_m) for walk_m in (1.0, -1.0)]
    recording, _ = read(files.format_kinect(known, skeleton), ".csv")
    assert len(recording.bodies) == 2
    for body, person_TVC in zip(recording.bodies, known, strict=True):
        np.testing.assert_allclose(body.joints_TVC, person_TVC, atol=1e-5)


def test_landmarks_without_a_header_may_have_their_visibility(read):
    person_TVC = files.move(MEDIAPIPE33, 5)
    recording, skeleton = read(files.format_mediapipe(person_TVC, is_headed=False), ".csv")
    assert skeleton is MEDIAPIPE33
    np.testing.assert_allclose(recording.bodies[0].joints_TVC, person_TVC, atol=1e-5)


@pytest.mark.parametrize(("noise_m", "atol"), [(0, 1e-5), (NOISE_M, 6 * NOISE_M)])
def test_missing_landmarks_are_interpolated(read, noise_m, atol):
    rng = np.random.default_rng(0)
    person_TVC = files.move(MEDIAPIPE33, 30)
    seen_TVC = np.where(rng.random((30, 33, 1)) < 0.1, np.nan, person_TVC)
    seen_TVC += rng.normal(0, noise_m, seen_TVC.shape)
    recording, _ = read(files.format_mediapipe(seen_TVC), ".csv")
    (body,) = recording.bodies
    error = np.linalg.norm(body.joints_TVC - person_TVC, axis=-1)
    assert error[~np.isnan(seen_TVC[..., 0])].max() < atol
    assert error.max() < 0.1


def test_somebody_who_leaves_and_comes_back(read):
    """After a short absence it is the same body, interpolated; after a long one, another body."""
    person_TVC = files.move(COCO17, 60)
    frames_NVC = list(files.project(person_TVC)[:, None])
    nobody = np.empty((0, 17, 2))
    for gap, num_bodies, num_frames in ((10, 1, 60), (20, 2, 40)):
        some = [nobody if 20 <= t < 20 + gap else frame for t, frame in enumerate(frames_NVC)]
        recording, _ = read(files.format_mmpose(some))
        assert (len(recording.bodies), recording.num_frames) == (num_bodies, num_frames)


@pytest.mark.parametrize("kind", ["COCO", "OpenPose", "Kinect"])
@pytest.mark.parametrize("step", [1, 3])  # 3: not all frames of the camera were processed
@pytest.mark.parametrize(("gap", "num_bodies", "num_frames"), [(10, 1, 60), (20, 2, 40)])
def test_a_missing_frame_has_no_people(read, tmp_path, kind, step, gap, num_bodies, num_frames):
    """As above, in files that have no frames without people."""
    seen = [frame for frame in range(60) if not 20 <= frame < 20 + gap]
    numbers = [5 + step * frame for frame in seen]
    skeleton = {"COCO": COCO17, "OpenPose": OPENPOSE25, "Kinect": NTU25}[kind]
    person_TVC = files.move(skeleton, 60)[seen]
    frames_NVC = files.project(person_TVC)[:, None]
    if kind == "OpenPose":
        for number, people_NVC in zip(numbers, frames_NVC, strict=True):
            path = tmp_path / f"a_{number:012}_keypoints.json"
            path.write_bytes(files.format_openpose(people_NVC))
        recording, _ = read_folder(tmp_path)
    elif kind == "COCO":
        people = json.loads(files.format_coco(frames_NVC))
        images = [{"image_id": number} for number in numbers]
        recording, _ = read(
            json.dumps([one | its for one, its in zip(people, images, strict=True)]).encode()
        )
    else:
        header, *rows = files.format_kinect([person_TVC]).decode().splitlines()
        cells = [row.partition(",")[2] for row in rows]
        lines = [header, *(f"{n},{row}" for n, row in zip(numbers, cells, strict=True))]
        recording, _ = read("\n".join(lines).encode(), ".csv")
    assert (len(recording.bodies), recording.num_frames) == (num_bodies, num_frames)
    assert sum(body.num_frames for body in recording.bodies) == num_frames


def test_numbers_that_do_not_count_frames_are_ignored(read):
    """Such as times, or images of a set: otherwise most frames would be 15 or more apart."""
    images = np.random.default_rng(0).choice(10_000, 60, replace=False)
    people = json.loads(files.format_coco(files.project(files.move(COCO17, 60))[:, None]))
    listed = [one | {"image_id": int(n)} for one, n in zip(people, np.sort(images), strict=True)]
    recording, _ = read(json.dumps(listed).encode())
    assert (len(recording.bodies), recording.num_frames) == (1, 60)


def test_a_misnamed_frame_among_openpose_frames_is_refused():
    text = files.format_openpose(files.project(files.move(OPENPOSE25, 1)))
    named = [(f"a_{number:012}_keypoints.json", text) for number in range(3)]
    assert read_openpose(join_frames(named), OPENPOSE25).num_frames == 3
    with pytest.raises(ClipError, match=r"frame 3 \(b\): it is not named"):
        read_openpose(join_frames([*named, ("b", text)]), OPENPOSE25)


def test_frames_without_people_before_and_after_do_not_count(read):
    frames_NVC = list(files.project(files.move(COCO17, 12))[:, None])
    nobody = [np.empty((0, 17, 2))] * 5
    recording, _ = read(files.format_mmpose([*nobody, *frames_NVC, *nobody]))
    assert (recording.num_frames, recording.bodies[0].first_frame) == (12, 0)


# -------------------------------------------------------------------------------------- refusals


def person(**keys):
    return [{"instances": [keys]}]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (person(keypoints=known_points(KNOWN, 21)),
         "frame 0: a person has 21 joints, not the 17 of coco17, or 26 or 133 or 136 that"),
        (person(keypoints=[[1, 2, 3, 4]] * 17), "frame 0: keypoints has the shape (17, 4)"),
        (person(keypoints=[[1, 2]] * 16 + [[1]]), "frame 0: keypoints is not a regular list"),
        (person(keypoints=[["a", "b"]] * 17), "frame 0: keypoints contains something that is not"),
        (person(keypoints=[[1e39, 1]] * 17), "frame 0: a coordinate is not finite, or too large"),
        (person(keypoints=[[float("inf"), 1]] * 17), "frame 0: a coordinate is not finite"),
        (person(keypoints=[[10**400, 1]] * 17),
         "frame 0: keypoints contains something that is not"),
        (person(keypoints=[[float("nan")] * 2] * 17), "none of its 1 frames contains a person"),
        (person(keypoints=[[5, 5]] * 17), "no frame shows a whole limb"),
        (person(keypoints=known_points(), keypoint_scores=[1.0] * 16),
         "frame 0: a person has 16 scores for 17 joints"),
        (person(keypoints=known_points(), keypoint_scores=[0.1] * 17),
         "none of its 1 frames contains a person"),
        (person(keypoints=None), "frame 0: keypoints"),
        (person(keypoints={"x": [1] * 17}), "frame 0: keypoints"),
        ([{"instances": [{"keypoints": known_points()}]}, {"instances": 5}], "frame 1: neither"),
        ([{"instances": [{"keypoints": known_points()}]}, 7], "frame 1: neither a list of people"),
        ([{"instances": []}, {"instances": []}], "none of its 2 frames contains a person"),
        ([[{"keypoints": known_points()}] * 201], "frame 0: 201 people, more than 200"),
        ({"instance_info": {"a": 1}}, "neither a list of frames nor an object with a list"),
        ({"instance_info": []}, "neither a list of frames nor an object with a list"),
        ([{"image_id": image, "keypoints": known_points()} for image in (1, 2, 1)],
         "not sorted by image_id: 1 appears again after another"),
    ],
)  # fmt: skip
def test_refused_key_points(read, content, reason):
    assert refuse(read, json.dumps(content).encode()).startswith(reason)


@pytest.mark.parametrize("kind", [kind for kind in FORMATTERS if kind != "PYSKL"])
def test_a_short_file_is_refused(read, kind):
    data = files.make_file(kind)
    for cut in (1, len(data) // 2, len(data) - 60):
        assert refuse(read, data[:-cut]).startswith("malformed JSON: ")


def test_deep_nesting_is_refused(read):
    assert "nested too deeply" in refuse(read, b'[{"keypoints": ' + b"[" * 100_000)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ('{"people": [', "frame 1 (a_1_keypoints.json): malformed JSON: "),
        ('{"people": 5}', "frame 1 (a_1_keypoints.json): not a JSON object with a list `people`"),
        ("[]", "frame 1 (a_1_keypoints.json): not a JSON object with a list `people`"),
        ("", "frame 1 (a_1_keypoints.json): malformed JSON: "),
        ('{"people": [7]}', "frame 1 (a_1_keypoints.json): a person is not a JSON object"),
        (
            json.dumps({"people": [{"pose_keypoints_2d": [1] * 54}]}),
            "frame 1 (a_1_keypoints.json): pose_keypoints_2d has 54 numbers, not 75 as openpose25",
        ),
        (
            json.dumps({"people": [{}]}),
            "frame 1 (a_1_keypoints.json): pose_keypoints_2d contains something that is "
            "not a number",
        ),
    ],
)
def test_refused_frames_of_openpose(tmp_path, frame, reason):
    people_NVC = files.project(files.move(OPENPOSE25, 1))
    files.write_openpose(tmp_path, "a", [people_NVC])
    (tmp_path / "a_1_keypoints.json").write_text(frame)
    (file,) = find_recordings(tmp_path).files
    with pytest.raises(ClipError) as caught:
        read_recording(file)
    assert caught.value.what.startswith(reason)


@pytest.mark.parametrize("skeleton", [OPENPOSE25, OPENPOSE18], ids=lambda item: item.name)
def test_people_of_openpose_without_a_pose_are_nobody(tmp_path, skeleton):
    """Such as a face without a body, also in the frame by which the skeleton is detected."""
    frames_NVC = files.project(files.move(skeleton, 5))[:, None]
    for folder in ("some", "face"):
        files.write_openpose(tmp_path / folder, "a", frames_NVC)
    face = {"person_id": [-1], "pose_keypoints_2d": [], "face_keypoints_2d": [0.5] * 210}
    for number in (0, 3):
        path = tmp_path / f"face/a_{number:012}_keypoints.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({"people": [face, *content["people"]]}))
    recording, its_skeleton = read_folder(tmp_path / "face")
    assert its_skeleton is skeleton
    assert_equal(recording, read_folder(tmp_path / "some")[0])
    for path in (tmp_path / "face").iterdir():
        path.write_text(json.dumps({"people": [face]}))
    with pytest.raises(InputError, match="no recording found that can be used"):
        find_recordings(tmp_path / "face")


@pytest.mark.parametrize("skeleton", [OPENPOSE25, OPENPOSE18], ids=lambda item: item.name)
def test_the_frames_of_openpose_may_be_in_a_list(tmp_path, skeleton):
    frames_NVC = [*files.project(files.move(skeleton, 5))[:, None], []]
    files.write_openpose(tmp_path / "frames", "a", frames_NVC)
    frames = [json.loads(files.format_openpose(people_NVC)) for people_NVC in frames_NVC]
    for number in range(2):  # not two frames of a recording
        (tmp_path / f"clip{number}.json").write_text(json.dumps(frames))
    *clips, expected = sorted(find_recordings(tmp_path).files, key=lambda file: file.name)
    assert [file.name for file in clips] == ["clip0.json", "clip1.json"]
    for file in clips:
        recording, its_skeleton = read_recording(file)
        assert its_skeleton is skeleton
        assert_equal(recording, read_recording(expected)[0])
    (tmp_path / "clip1.json").write_text(json.dumps([*frames, 5]))
    with pytest.raises(ClipError, match="frame 6: not a JSON object with a list `people`"):
        read_folder(tmp_path / "clip1.json")
    (tmp_path / "clip1.json").write_text('[{"people": [{"keypoints": [1, 2, 3]}]}]')
    with pytest.raises(ClipError, match="it has `people`, but is not a frame of OpenPose: write"):
        read_folder(tmp_path / "clip1.json")


def test_a_frame_of_openpose_with_another_name_is_refused(read):
    reason = refuse(read, files.format_openpose(files.project(files.move(OPENPOSE25, 1))))
    assert reason == "an OpenPose frame that is not named NAME_000000000000_keypoints.json"


def test_a_recording_of_openpose_without_people_is_refused(tmp_path):
    files.write_openpose(tmp_path / "raw" / "wave" / "empty", "f", [np.empty((0, 25, 2))] * 2)
    for find in (find_recordings, lambda folder: detect([locate(folder)])):
        with pytest.raises(InputError, match=r"no (recording|raw data) found") as caught:
            find(tmp_path / "raw")
        assert caught.value.problems[0].what == "none of its 2 frames contains a person"


def test_the_order_of_openposes_frames_is_by_number(tmp_path):
    """Even without leading zeros, when the names sort differently."""
    person_TVC = files.move(OPENPOSE25, 12, walk_m=1.0)
    for number, pose_VC in enumerate(files.project(person_TVC)):
        files.write_openpose(tmp_path / "one", "a", [pose_VC[None]])
        (tmp_path / "one/a_000000000000_keypoints.json").rename(
            tmp_path / f"a_{number}_keypoints.json"
        )
    (body,) = read_folder(tmp_path)[0].bodies
    assert distances_m(body, person_TVC).max() < 0.01


def mediapipe_rows():
    return [line.split(",") for line in files.make_file("MediaPipe").decode().splitlines()]


def change_cell(row, column, text):
    rows = mediapipe_rows()
    rows[row][column] = text
    return files.format_csv(rows)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (files.format_csv(mediapipe_rows()[:1]), "it has no rows"),
        (change_cell(0, 2, "nose_depth"), "column not found: nose_z"),
        (change_cell(0, 1, "nose_x"), "column not found: nose_y"),
        (change_cell(0, 3, "nose_x"), "there are several columns 'nose_x'"),
        (change_cell(2, 1, "high"), "malformed CSV: line 3, column nose_y: invalid value 'high'"),
        (
            change_cell(2, 1, "inf"),
            "row 2 below the header: a coordinate is not finite, or too large for float32",
        ),
        (
            change_cell(2, 1, "1e39"),
            "row 2 below the header: a coordinate is not finite, or too large for float32",
        ),
        (files.format_csv([*mediapipe_rows(), ["1", "2"]]), "malformed CSV: CSV parse error"),
        (
            files.format_mediapipe(np.full((3, 33, 3), np.nan)),
            "none of its 3 frames contains a person",
        ),
        (
            files.format_mediapipe(files.move(MEDIAPIPE33, 3) + np.array((0.5, -0.6, 0))),
            "these are not world landmarks: their origin is not between the hips",
        ),
    ],
)
def test_refused_landmarks(read, data, reason):
    assert refuse(read, data, ".csv").startswith(reason)


@pytest.mark.parametrize(
    ("column", "cells", "reason"),
    [
        (0, ("0", "2", "1"), "row 3 below the header: its frame is not a number, or lower"),
        (0, ("0", "", "1"), "row 2 below the header: its frame is not a number, or lower"),
        (0, ("0", "0", "1"), "frame 0: the same body twice"),
        (1, ("7", "", "7"), "row 2 below the header: it has no TrackingId"),
    ],
)
def test_refused_frame_numbers_and_bodies(read, column, cells, reason):
    rows = [line.split(",") for line in files.make_file("Kinect v2").decode().splitlines()]
    for row, cell in zip(rows[1:], cells, strict=True):
        row[column] = cell
    assert refuse(read, files.format_csv(rows), ".csv").startswith(reason)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"keypoint": np.zeros((1, 2, 25, 3), "f4")}, "the poses have 25 x 3 joints x coordinates"),
        ({"keypoint": np.zeros((1, 2, 26, 3), "f4")}, "the poses have 26 x 3 joints x coordinates"),
        ({"keypoint": np.zeros((1, 2, 21, 2), "f4")}, "the poses have 21 x 2 joints x coordinates"),
        ({"keypoint": np.zeros((1, 2, 17, 2), "i4")}, "keypoint contains int32, not floats"),
        ({"keypoint": np.zeros((17, 2), "f4")}, "keypoint has the shape (17, 2)"),
        ({"keypoint": np.zeros((0, 2, 17, 2), "f4")}, "keypoint has the shape (0, 2, 17, 2)"),
        ({"keypoint": np.zeros((1, 2, 17, 2), "f4")}, "none of its 2 frames contains a person"),
        ({"keypoint": np.full((1, 2, 17, 2), np.inf, "f4")}, "frame 1: a coordinate is not finite"),
        ({"keypoint": "text"}, "keypoint is not an array"),
        (
            {"keypoint": np.ones((1, 2, 17, 2), "f4"), "keypoint_score": np.ones((1, 2), "f4")},
            "keypoint_score has the shape (1, 2), not (1, 2, 17)",
        ),
    ],
)
def test_refused_pickles_of_one_clip(read, item, reason):
    found = refuse(read, pickle.dumps(item), ".pkl")
    assert found.removeprefix("the pickle cannot be used: ").startswith(reason)


def test_a_pickle_of_one_clip_runs_nothing(read, tmp_path):
    class Evil:
        def __reduce__(self):
            return (type(tmp_path).touch, (tmp_path / "ran",))

    assert "could run code" in refuse(read, pickle.dumps({"keypoint": Evil()}), ".pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".json", ".csv", ".pkl"])
@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"a,b\n1,2\n", b"[1, 2, 3]"])
def test_a_file_that_is_not_a_recording_is_refused(read, suffix, data):
    with pytest.raises(InputError) as caught:
        read(data, suffix)
    assert caught.value.where.endswith(f"clip{suffix}")


# -------------------------------------------------------------- folders, .zip files, many in one


@pytest.mark.parametrize("kind", files.SAMPLES)
def test_folders_and_zips_give_the_same(tmp_path, kind):
    suffix = files.SAMPLES[kind].suffix
    folder = tmp_path / "tree"
    for number, name in enumerate(("a/one", "a/two", "b/one")):
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.make_file(kind, seed=number))
    assert_same_in_zip(folder, tmp_path / "tree.zip", files.SAMPLES[kind].skeleton)


@pytest.mark.parametrize("is_by_folder", [True, False])
def test_folders_and_zips_of_openpose_give_the_same(tmp_path, is_by_folder):
    folder = tmp_path / "tree"
    for number, name in enumerate(("a/one", "a/two", "b/one", "b/two")):
        frames_NVC = files.project(files.move(OPENPOSE18, 3, seed=number))[:, None]
        place, start = (folder / name, "f") if is_by_folder else (folder / name[0], name[2:])
        files.write_openpose(place, start, frames_NVC)
    paths = assert_same_in_zip(folder, tmp_path / "tree.zip", OPENPOSE18)
    assert paths == ["a/one", "b/one", "a/two", "b/two"]


def test_folders_of_openpose_are_recordings_or_classes(tmp_path):
    frames_NVC = files.project(files.move(OPENPOSE18, 3))[:, None]
    for place, start in (("a/one", "f"), ("b/one", "f"), ("b/two", "f"), ("b/two", "g")):
        files.write_openpose(tmp_path / "mixed" / place, start, frames_NVC)
    assert len(find_recordings(tmp_path / "mixed").files) == 4
    with pytest.raises(InputError, match="have the frames of several recordings") as caught:
        detect([locate(tmp_path / "mixed")])
    assert caught.value.where.endswith("b/two")
    for path in (tmp_path / "mixed" / "b" / "two").glob("g_*"):  # as before, but with nobody in it
        path.write_text('{"people": []}')
    with pytest.raises(InputError, match="have the frames of several recordings") as caught:
        detect([locate(tmp_path / "mixed")])
    assert caught.value.where.endswith("mixed")
    for place, start in (("a", "f"), ("b", "f"), ("b", "g")):  # a class may have one recording
        files.write_openpose(tmp_path / "classes" / place, start, frames_NVC)
    found = [file.path for file in find_recordings(tmp_path / "classes").files]
    assert found == ["a/f", "b/f", "b/g"]


@pytest.mark.parametrize("is_mixed", [False, True])
def test_folders_of_openpose_may_be_in_several_places(tmp_path, is_mixed):
    """Paths in a .zip are not absolute, and those on a disk are."""
    frames_NVC = files.project(files.move(OPENPOSE18, 3))[:, None]
    names = [("wave", folder, start) for folder in ("wave", "bow") for start in ("f", "g")]
    names += [("clap", "clap", "f"), ("clap", "bow", "f"), ("clap", "bow", "h")]
    if is_mixed:  # the folder `one` could be a class or a recording
        names.append(("clap", "clap/one", "f"))
    for place, folder, start in names:
        files.write_openpose(tmp_path / place / folder, start, frames_NVC)
    with zipfile.ZipFile(tmp_path / "clap.zip", "w") as archive:
        for path in (tmp_path / "clap").rglob("*.json"):
            archive.write(path, path.relative_to(tmp_path / "clap"))
    raw = [locate(tmp_path / "wave"), locate(tmp_path / "clap.zip")]
    if is_mixed:
        with pytest.raises(InputError, match="have the frames of several recordings") as caught:
            detect(raw)
        assert caught.value.where.endswith("bow")
    else:
        assert detect(raw).class_names == ("bow", "clap", "wave")


def pack(folder, archive):
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(folder.rglob("*.*")):
            out.write(path, path.relative_to(folder.parent))


def assert_same_in_zip(folder, archive, skeleton):
    pack(folder, archive)
    plain, packed = find_recordings(folder).files, find_recordings(archive).files
    assert [file.path for file in packed] == [f"tree/{file.path}" for file in plain]
    for one, other in zip(read_recordings(plain), read_recordings(packed), strict=True):
        assert one[1] is other[1] is skeleton is SKELETONS[skeleton.name]
        pairs = zip(one[2].bodies, other[2].bodies, strict=True)
        assert all(np.array_equal(mine.joints_TVC, its.joints_TVC) for mine, its in pairs)
    return [file.path for file in plain]


def test_a_damaged_member_of_a_zip_does_not_stop_the_others(tmp_path):
    data = [files.make_file("MMPose", seed) for seed in range(2)]
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for number, text in enumerate(data):
            archive.writestr(f"{number}.json", text)
    damaged = bytearray((tmp_path / "two.zip").read_bytes())
    damaged[damaged.index(data[0]) + len(data[0]) - 5] ^= 1
    (tmp_path / "two.zip").write_bytes(damaged)
    listing = find_recordings(tmp_path)
    assert ["Bad CRC-32" in item.reason for item in listing.refused] == [True]
    assert [found.num_frames for _, _, found in read_recordings(listing.files)] == [3]


def test_a_damaged_frame_of_openpose_in_a_zip_is_named(tmp_path):
    frames_NVC = files.project(files.move(OPENPOSE25, 3))[:, None]
    files.write_openpose(tmp_path / "raw", "a", frames_NVC)
    pack(tmp_path / "raw", tmp_path / "raw.zip")
    damaged = bytearray((tmp_path / "raw.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "raw.zip") as archive:
        for member in archive.infolist():
            damaged[member.header_offset + 150] ^= 1
    (tmp_path / "raw.zip").write_bytes(damaged)
    with pytest.raises(InputError, match="no recording found that can be used") as caught:
        find_recordings(tmp_path / "raw.zip")
    (problem,) = caught.value.problems
    assert problem.what.startswith("frame a_000000000000_keypoints.json: cannot be read: ")


@pytest.mark.parametrize("is_packed", [False, True])
def test_openpose_recordings_without_a_person_do_not_set_the_skeleton(tmp_path, is_packed):
    """Recordings of 18 joints with frames that are empty, and a recording without any person."""
    people = list(files.project(files.move(OPENPOSE18, 3))[:, None])
    nobody = np.empty((0, 18, 2))
    for action in ("wave", "clap"):
        files.write_openpose(tmp_path / "raw" / action / "some", "f", [nobody, *people, nobody])
    files.write_openpose(tmp_path / "raw" / "wave" / "empty", "f", [nobody] * 4)
    source = tmp_path / "raw"
    if is_packed:
        pack(source, tmp_path / "raw.zip")
        source = tmp_path / "raw.zip"
    listing = find_recordings(source)
    assert {file.skeleton for file in listing.files} == {"openpose18"}
    plan = detect([locate(source)])
    assert (plan.skeleton, plan.num_clips) == (OPENPOSE18, 2)
    for refused in (listing.refused, plan.skipped):
        assert [item.name.endswith("wave/empty") for item in refused] == [True]
        assert refused[0].reason == "none of its 4 frames contains a person"


def test_a_damaged_frame_does_not_hide_the_skeleton(tmp_path):
    """The largest frame is damaged: another one shows that there are 18 joints."""
    person_NVC = files.project(files.move(OPENPOSE18, 1))[:, None][0]
    frames_NVC = [person_NVC, np.concatenate([person_NVC, person_NVC])]
    files.write_openpose(tmp_path / "raw", "a", frames_NVC)
    pack(tmp_path / "raw", tmp_path / "raw.zip")
    damaged = bytearray((tmp_path / "raw.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "raw.zip") as archive:
        damaged[archive.infolist()[1].header_offset + 150] ^= 1
    (tmp_path / "raw.zip").write_bytes(damaged)
    (file,) = find_recordings(tmp_path / "raw.zip").files
    assert file.skeleton == "openpose18"
    with pytest.raises(ClipError, match=r"frame a_000000000001_keypoints.json: cannot be read"):
        read_recording(file)


def test_clips_of_a_pickle_of_many_are_read_one_by_one(tmp_path):
    known = [files.move(COCO17, 4 + number, seed=number) for number in range(3)]
    annotations = [
        files.annotate_2d(f"clip {number}", files.project(person_TVC)[:, None])
        for number, person_TVC in enumerate(known)
    ]
    annotations[0]["keypoint"][0, 1, 9] = 5
    annotations[0]["keypoint_score"][0, 1, 9] = 0.1  # the wrist is interpolated
    path = tmp_path / "many.pkl"
    path.write_bytes(pickle.dumps({"split": {}, "annotations": annotations}))
    listed = find_recordings(path).files
    assert [file.name for file in listed] == ["clip 0", "clip 1", "clip 2"]
    for (_, skeleton, recording), person_TVC in zip(read_recordings(listed), known, strict=True):
        assert skeleton is COCO17
        error_TV = distances_m(recording.bodies[0], person_TVC)
        assert np.delete(error_TV, 9, axis=1).max() < 0.01  # float16 of pixels
        assert error_TV.max() < 0.5


def test_clips_of_a_pickle_with_the_same_name_are_all_read(tmp_path):
    annotations = [
        files.annotate_2d("clip", files.project(files.move(COCO17, num_frames))[:, None])
        for num_frames in (4, 5, 6)
    ]
    path = tmp_path / "many.pkl"
    path.write_bytes(pickle.dumps({"annotations": annotations}))
    listed = find_recordings(path).files
    assert [file.name for file in listed] == ["clip", "clip (1)", "clip (2)"]
    assert [found.num_frames for _, _, found in read_recordings(listed)] == [4, 5, 6]


def test_clips_of_a_pickle_without_a_name_are_numbered(tmp_path):
    """A list that holds another one twice doubles in length with each level, as text."""
    person_TNVC = files.project(files.move(COCO17, 4))[:, None]
    nested = ["a"]
    for _ in range(3):
        nested = [nested, nested]
    names = ("clip", None, nested, "a\nb", "")
    path = tmp_path / "many.pkl"
    path.write_bytes(pickle.dumps([files.annotate_2d(name, person_TNVC) for name in names]))
    assert [file.name for file in find_recordings(path).files] == ["1", "2", "3", "4", "clip"]


def test_a_damaged_array_in_a_pickle_of_many_does_not_stop_the_others(tmp_path):
    """In protocol 2 an array is text, each of whose characters has to be one byte."""
    people = [files.project(files.move(COCO17, 20, seed=seed))[:, None] for seed in range(2)]
    items = [files.annotate_2d(f"clip {number}", item) for number, item in enumerate(people)]
    for item in items:
        del item["keypoint_score"]
    data = bytearray(pickle.dumps(items, protocol=2))
    data[data.rindex(b"\xc3")] += 1
    (tmp_path / "many.pkl").write_bytes(data)
    found = [found for *_, found in read_recordings(find_recordings(tmp_path / "many.pkl").files)]
    assert found[0].num_frames == 20
    assert found[1].what == "an array's bytes are damaged"


def test_a_pickle_of_clips_in_3d_must_be_prepared_first(tmp_path):
    item = {"frame_dir": "a", "label": 0, "keypoint": np.ones((1, 2, 25, 3), "f4")}
    (tmp_path / "many.pkl").write_bytes(pickle.dumps([item]))
    with pytest.raises(InputError, match="do not have COCO's 17 joints in 2D") as caught:
        find_recordings(tmp_path / "many.pkl")
    assert caught.value.now.startswith("prepare them first")


def test_a_file_of_unknown_format_among_recordings_is_named(tmp_path):
    (tmp_path / "a.json").write_bytes(files.make_file("YOLO"))
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")  # another suffix, so it is ignored
    listing = find_recordings(tmp_path)
    assert [file.name for file in listing.files] == ["a.json"]
    assert [item.name for item in listing.refused] == ["b.json"]


@pytest.mark.parametrize("kind", FORMATTERS)
@pytest.mark.parametrize("scale", [(1 / 1280, 1 / 720), (1 / 640, 1 / 360)], ids=["0..1", "-1..1"])
def test_normalized_points_are_refused(read, kind, scale):
    """They are distorted: the image is wider than high."""
    offset = 1 if scale[0] > 1 / 1000 else 0
    frames_NVC = files.project(files.move(COCO17, 6))[:, None] * scale - offset
    data = FORMATTERS[kind](frames_NVC)
    assert refuse(read, data, files.SAMPLES[kind].suffix).startswith(
        "the points are normalized, which distorts them: write pixels"
    )


def test_normalized_points_of_openpose_are_refused(tmp_path):
    frames_NVC = files.project(files.move(OPENPOSE25, 6))[:, None] / (1280, 720)
    files.write_openpose(tmp_path / "clip", "clip", frames_NVC)
    with pytest.raises(ClipError, match="without --keypoint_scale"):
        read_folder(tmp_path)
