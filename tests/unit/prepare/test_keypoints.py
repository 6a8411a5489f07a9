"""COCO key points as each estimator writes them: what is not COCO's, scores, numbers, ids."""

import json
import time

import numpy as np
import pytest

from sgnray.data.skeleton import COCO17
from sgnray.errors import ClipError
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.keypoints import detect_image, detect_keypoints, read_keypoints
from sgnray.prepare.readers.openpose import join_frames
from sgnray.prepare.readers.recordings import read_recording

from ... import pose_files as files
from .conftest import assert_equal

PIXELS_TVC = files.project(files.move(COCO17, 6))
NAMES = [joint.replace(" ", "_") for joint in COCO17.joints]


def frames_of(**keys):
    """Frames of MMPose with one person each, who has these keys, too."""
    return [{"instances": [{"keypoints": pose.tolist()} | keys]} for pose in PIXELS_TVC]


def read(content):
    return read_keypoints(json.dumps(content).encode(), COCO17)


def refusal_of(content):
    with pytest.raises(ClipError) as caught:
        read(content)
    assert "\n" not in caught.value.what
    return caught.value.what


@pytest.mark.parametrize(
    ("detect", "head"),
    [
        (detect_keypoints, b"[" + b" " * 400_000 + b"x"),
        (detect_keypoints, b"[" + b"[ ], " * 80_000 + b"x"),
        (detect_image, b'[{"keypoints": [], "frame":' + b" " * 1_000_000),
        (detect_image, b'[{"keypoints": [], ' + b'"frame":' * 200_000),
        (detect_image, b'[{"keypoints": [], ' + b'"frame" ' * 200_000),
        (detect_image, b'[{"keypoints": [], ' + b'"frame_' * 200_000),
    ],
)
def test_detection_takes_time_in_proportion_to_the_size(detect, head):
    """Detection reads files of anybody: none may take minutes."""
    started = time.process_time()
    detect(head)
    assert time.process_time() - started < 20


def test_a_long_list_of_people_takes_time_in_proportion_to_its_length():
    images = [*range(100_000), 99_998]
    content = [{"image_id": image, "keypoints": []} for image in images]
    started = time.process_time()
    assert refusal_of(content) == "not sorted by image_id: 99998 appears again after another"
    assert time.process_time() - started < 20


@pytest.mark.parametrize("form", ["listed", "nested", "files"])
def test_results_of_mmposes_inferencer(form):
    """Written as Python has them: a list of one image's people in the list of the images."""
    frames = [frame["instances"] for frame in (frames_of(keypoint_scores=[0.9] * 17))]
    frames[2:3] = [[]]
    results = [{"visualization": [], "predictions": [people]} for people in frames]
    if form == "nested":
        results = [[people] for people in frames]
    data = json.dumps(results).encode()
    assert detect_keypoints(data) is COCO17
    if form == "files":
        data = [json.dumps(frame).encode() for frame in results]
        assert detect_image(data[0]) is COCO17
        one = read_keypoints(join_frames([("clip_0.json", data[0])]), COCO17)
        assert one.num_frames == 1
        data = join_frames((f"clip_{number}.json", frame) for number, frame in enumerate(data))
    assert_equal(read_keypoints(data, COCO17), read(frames))


@pytest.mark.parametrize("person", [{"name": "person", "confidence": 0.9}, 7, [], [[{}]]])
def test_people_without_key_points_are_refused(person):
    content = [[frame["instances"][0], person] for frame in frames_of()]
    assert refusal_of(content) == "frame 0: a person has no `keypoints`"


# ----------------------------------------------------------------------------------- other joints


def test_points_in_3d_are_refused():
    """MMPose's human3d: x, y and z in the order of Human3.6M, and separate scores."""
    content = frames_of(keypoints=[[0.1, 0.2, 0.9]] * 17, keypoint_scores=[1.0] * 17)
    assert refusal_of(content).startswith("frame 0: the keypoints are 3D (x, y, z and keypoint_sc")


@pytest.mark.parametrize("num_joints", [26, 133, 136])
def test_whole_bodies_in_3d_are_refused(num_joints):
    """Such as RTMW3D's, or 3D joints of another set that are as many."""
    points = np.full((num_joints, 3), 100.0)
    content = frames_of(keypoints=points.tolist(), keypoint_scores=[1.0] * num_joints)
    assert refusal_of(content).startswith("frame 0: the keypoints are 3D (x, y, z and keypoint_sc")
    for points_V3 in (points.tolist(), points.ravel().tolist()):
        content = frames_of(keypoints=points_V3)
        assert refusal_of(content).startswith("frame 0: the keypoints are 3D (x, y, z and no sc")


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"dataset_name": "coco"}, ""),
        ({"dataset_name": "ochuman", "keypoint_id2name": dict(enumerate(NAMES))}, ""),
        ({"dataset_name": "halpe26"}, ""),
        ({"keypoint_id2name": dict(enumerate([*NAMES, *(f"hand{n}" for n in range(116))]))}, ""),
        (
            {"keypoint_id2name": dict(enumerate([*NAMES, "neck"]))},
            "the key points are those of another dataset, not of COCO",
        ),
        ({"dataset_name": "h36m"}, "the key points are those of h36m, not of COCO"),
        ({"keypoint_id2name": dict(enumerate(["root", *NAMES[1:]]))}, "the key points are those"),
        (
            {
                "dataset_name": "posetrack18",
                "keypoint_id2name": dict(
                    enumerate(["nose", "head_bottom", "head_top", *NAMES[3:]])
                ),
            },
            "the key points are those of posetrack18, not of COCO",
        ),
    ],
)
def test_key_points_of_another_dataset_are_refused(meta, reason):
    content = {"meta_info": {"num_keypoints": 17} | meta, "instance_info": frames_of()}
    if reason:
        assert refusal_of(content).startswith(reason)
    else:
        assert read(content).num_frames == 6


# ----------------------------------------------------------------------------------------- scores


def test_scores_of_each_joint_are_used_whatever_their_key():
    """Hugging Face's ViTPose has `scores`; a joint with a low one is missing."""
    scores = [0.9] * 13 + [0.02] * 4
    expected = read(frames_of(keypoint_scores=scores))
    assert_equal(read(frames_of(scores=scores)), expected)
    # Those of the person are not those of the joints.
    assert_equal(read(frames_of(scores=[0.02])), read(frames_of()))
    assert_equal(read(frames_of(scores=0.02)), read(frames_of()))


def test_logits_are_not_scores():
    content = frames_of(keypoints_scores=[12.0] * 17)
    assert refusal_of(content).startswith("frame 0: keypoints_scores are torchvision's logits, not")


# ---------------------------------------------------------------------------------- frame numbers


def results(images, **keys):
    """COCO's results: one person in each image."""
    pixels_TVC = files.project(files.move(COCO17, len(images)))
    return [
        {"image_id": image, "keypoints": pose.tolist()} | keys
        for image, pose in zip(images, pixels_TVC, strict=True)
    ]


@pytest.mark.parametrize(
    "name", ["{}", "{}.jpg", "{:06}.png", "a2/frame_{}.mp4", "cam1_{:012}_rgb.jpg"]
)
def test_names_of_images_have_the_number_of_their_frame(name):
    """AlphaPose's 12.jpg: frames without people are missing."""
    numbers = [*range(8, 18), *range(37, 47)]
    recording = read(results([name.format(number) for number in numbers]))
    assert_equal(recording, read(results(numbers)))
    assert len(recording.bodies) == 2


KEYS = [
    *("frame_id", "frame", "frame_number", "timestamp", "frame_idx", "frame_index", "frame_no"),
    *("frame_num", "frameId", "frameIndex", "img", "image", "image_name", "file_name", "filename"),
    *("t", "time"),
]


@pytest.mark.parametrize("key", KEYS)
def test_people_may_have_the_number_of_their_frame(key):
    numbers = [*range(8, 18), *range(37, 47)]
    expected = read(results(numbers))
    people = [{key: one.pop("image_id"), **one} for one in results(numbers)]
    assert_equal(read(people), expected)
    # A name of the image comes before it.
    named = [one | {"image_id": f"{number}.jpg"} for number, one in enumerate(people)]
    assert_equal(read(named), read(results(range(20))))
    # But not the name of the video.
    assert_equal(read([one | {"image_id": "clip.mp4"} for one in people]), expected)
    assert refusal_of([*people, people[0]]) == f"not sorted by {key}: 8 appears again after another"


@pytest.mark.parametrize("images", [["b3", "a1", "c2", "a0"], ["x", "y", "a", "b"]])
def test_names_that_do_not_count_frames_are_in_the_order_of_the_file(images):
    assert_equal(read(results(images)), read(results(range(4))))


@pytest.mark.parametrize("images", [["0.jpg", "1.jpg", "10.jpg", "2.jpg"], [0, 1, 10, 2]])
def test_frames_that_are_not_sorted_by_number_are_refused(images):
    later, earlier = images[2:]
    assert refusal_of(results(images)) == (
        f"not sorted by image_id: {earlier} comes after {later}; sort the frames by their numbers"
    )


def test_mmpose_numbers_its_frames():
    """Frames without people may be left out."""
    numbers = [*range(8, 11), *range(37, 40)]
    frames = [frame | {"frame_id": n} for frame, n in zip(frames_of(), numbers, strict=True)]
    assert len(read(frames).bodies) == 2
    assert len(read({"instance_info": frames}).bodies) == 2
    assert len(read([*frames_of(), *frames]).bodies) == 1  # not all frames have a number
    assert refusal_of([*frames, *frames]).startswith("not sorted by frame_id: 8 comes after 39")


@pytest.mark.parametrize("key", ["frame_index", "frame", "frameId", "image_id"])
def test_lists_of_people_may_have_the_number_of_their_frame(key):
    numbers = [*range(8, 11), *range(37, 40)]
    frames = [{key: n, **frame} for frame, n in zip(frames_of(), numbers, strict=True)]
    assert len(read(frames).bodies) == 2
    named = [{"image": f"{n}.jpg", **frame} for frame, n in zip(frames_of(), numbers, strict=True)]
    assert len(read(named).bodies) == 2


@pytest.mark.parametrize("form", ["flat", "one image", "files"])
def test_many_people_at_the_same_place_are_one_person_in_many_frames(form):
    """Whose frames nobody wrote down: they would become one frame."""
    pixels_TVC = files.project(files.move(COCO17, 40, walk_m=4.0))
    people = [{"keypoints": pose.tolist()} for pose in pixels_TVC]
    if form == "one image":
        people = [one | {"image_id": "clip.mp4"} for one in people]
    data = json.dumps(people).encode()
    if form == "files":
        data = join_frames([(f"clip_{number}.json", data) for number in range(3)])
    with pytest.raises(ClipError, match="40 people at the same place: if they are one person, gi"):
        read_keypoints(data, COCO17)


def test_a_crowd_side_by_side_is_one_frame():
    pixels_VC = files.project(files.move(COCO17, 1))[0]
    shoulders_px = pixels_VC[5, 0] - pixels_VC[6, 0]
    crowd = [
        {"keypoints": (pixels_VC + np.array((n * shoulders_px, 0))).tolist()} for n in range(20)
    ]
    recording = read(crowd)
    assert (recording.num_frames, len(recording.bodies)) == (1, 20)
    assert len(read(crowd[:1] * 5).bodies) == 5  # a detector may find somebody again
    framed = [[{"keypoints": pixels_VC.tolist()}] * 10]
    assert len(read(framed).bodies) == 10
    close = [{"keypoints": (pixels_VC + np.array((12.0 * n, 0))).tolist()} for n in range(6)]
    assert len(read(close).bodies) == 6


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("time", [30, 31, 32, 30, 31, 33]),  # how long the model took
        ("t", [0, 33, 66, 2066, 2099, 2133]),
        (
            "image",
            ["img_19.jpg", "img_2.jpg", "img_20.jpg", "img_21.jpg", "img_3.jpg", "img_4.jpg"],
        ),
    ],
)
def test_other_values_of_listed_frames_are_no_numbers_of_frames(key, values):
    frames = [{key: value, **frame} for value, frame in zip(values, frames_of() * 6, strict=False)]
    recording = read(frames)
    assert (recording.num_frames, len(recording.bodies)) == (6, 1)


# -------------------------------------------------------------------------------------- track ids


def meet(key, ids=(1, 2)):
    """Two people who meet and turn back, of whom one is hidden as they meet."""
    steps = np.abs(np.arange(40) - 20)[:, None, None] * (25.0, 0.0)
    pose_VC = files.project(files.move(COCO17, 1))[0]
    frames = []
    for frame, step in enumerate(steps):
        people = [(ids[0], pose_VC - step - (20, 0)), (ids[1], pose_VC + step + (20, 0))]
        seen = people[: 1 if 15 <= frame < 28 else 2]
        frames.append([{key: own_id, "keypoints": pose.tolist()} for own_id, pose in seen])
    return frames


@pytest.mark.parametrize("key", ["track_id", "idx"])
def test_given_ids_identify_people(key):
    assert_apart(read(meet(key)))


@pytest.mark.parametrize("ids", [(1, 1), (1, None), (1.0, 2.0), ([1.0], [2.0]), (True, False)])
def test_ids_that_do_not_identify_people_are_ignored(ids):
    assert_equal(read(meet("idx", ids)), read(meet("name")))


def test_some_people_without_ids_are_followed_by_overlap():
    frames = meet("track_id")
    del frames[30][1]["track_id"]
    assert_equal(read(frames), read(meet("name")))


def assert_apart(recording):
    """Each person stays on their own side."""
    left, right = sorted(recording.bodies, key=lambda body: body.joints_TVC[0, 0, 0])
    assert (left.num_frames, right.num_frames) == (40, 40)
    assert left.joints_TVC[:, 0, 0].max() < right.joints_TVC[:, 0, 0].min()


# ----------------------------------------------------------------------------------- box scores


@pytest.mark.parametrize(
    ("form", "key"), [("frames", "confidence"), ("frames", "bbox_score"), ("results", "score")]
)
def test_people_whom_the_detector_is_not_sure_of_are_dropped(form, key):
    frames = [[{"keypoints": pose.tolist(), key: 0.9}] for pose in PIXELS_TVC]
    noise = [{"keypoints": (PIXELS_TVC[0] / 2 + n).tolist(), key: 0.09} for n in range(3)]
    expected, with_noise = frames, [frame + noise for frame in frames]
    if form == "results":
        expected, with_noise = (
            [{"image_id": n, **person} for n, frame in enumerate(content) for person in frame]
            for content in (expected, with_noise)
        )
    assert_equal(read(with_noise), read(expected))


@pytest.mark.parametrize(
    "keys", [{"score": 0.01}, {"image_id": 1, "score": 0}, {"confidence": None}]
)
def test_other_scores_do_not_drop_people(keys):
    person = {"keypoints": PIXELS_TVC[0].tolist()}
    assert_equal(read([person | keys]), read([person]))


def test_scores_of_alphapose_are_sums():
    content = results(range(4), score=2.9)
    content[2]["score"] = 0.05
    assert read(content).num_frames == 4


def test_one_person_alone_is_the_same_however_far_they_move():
    """In frames that follow one another; several people may have changed places."""
    pose_VC = files.project(files.move(COCO17, 1))[0]
    far = [pose_VC + np.array((900 * (frame % 3), 0)) for frame in range(6)]
    recording = read([[{"keypoints": pose.tolist()}] for pose in far])
    assert [body.num_frames for body in recording.bodies] == [6]
    two = [[{"keypoints": pose.tolist()} for pose in (far[0], other)] for other in far[1:3]]
    later = [*two, [{"keypoints": (far[0] + np.array((0, 2000))).tolist()}]]
    assert len(read(later).bodies) == 4
    places = zip((0, 1, 5, 6), (0, 0, 1, 1), strict=True)  # somebody else may have come
    apart = [{"frame": frame, "keypoints": far[place].tolist()} for frame, place in places]
    assert [body.num_frames for body in read(apart).bodies] == [2, 2]


# ----------------------------------------------------------------------------- a frame in each line


FRAMES_NVC = [[], *np.stack([PIXELS_TVC, PIXELS_TVC + 600], axis=1), []]  # two people in each


@pytest.mark.parametrize("form", ["OpenPifPaf", "YOLO", "rtmlib"])
@pytest.mark.parametrize("is_indented", [False, True])
@pytest.mark.parametrize("name", ["clip_1.json", "clip_1.jsonl", "clip.mp4.openpifpaf.json"])
def test_frames_may_be_in_lines(tmp_path, form, is_indented, name):
    """One after the other, or several lines each, also in the list that they should be in."""
    data = files.format_lines(FRAMES_NVC, form)
    content = [json.loads(line) for line in data.splitlines()]
    expected = read([[{"keypoints": one.round(3).tolist()} for one in own] for own in FRAMES_NVC])
    assert [body.num_frames for body in expected.bodies] == [6, 6]
    assert_equal(read(content), expected)
    if is_indented:
        data = b"\n".join(json.dumps(frame, indent=2).encode() for frame in content)
    for number, text in enumerate((data, json.dumps(content).encode())):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        path.write_bytes(text)
        (file,) = find_recordings(path.parent).files
        assert (file.name, file.kind) == (name, "COCO key points")
        assert_equal(read_recording(file)[0], expected)


def test_people_in_lines_have_frames():
    people = results([*range(8, 18), *range(37, 47)])
    lines = b"\n".join(json.dumps(one).encode() for one in people)
    assert_equal(read_keypoints(lines, COCO17), read(people))


def test_lines_may_have_numbers_of_frames():
    lines = files.format_lines(FRAMES_NVC).splitlines()
    lines = [lines[1], *lines[2:4], *(line.replace(b'me": ', b'me": 4') for line in lines[4:7])]
    assert len(read_keypoints(b"\n".join(lines), COCO17).bodies) == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-40], "malformed JSON: "),
        (lambda data: data + b'{"a": 1}', "frame 8: neither a list of people nor an object"),
        (lambda data: data + b"5", "frame 8: neither a list of people nor an object"),
        (lambda data: data + b"\xff", "malformed JSON: "),
        (lambda data: data + b"[" * 100_000, "malformed JSON: nested too deeply"),
        (lambda data: data.replace(b'es": [[', b'es": [[0.9], ['), "frame 1: 3 lists of scores fo"),
        (lambda data: data.replace(b'es": [[', b'es": [[0.9, '), "frame 1: a person has 18 scores"),
    ],
)  # fmt: skip
def test_refused_lines(change, reason):
    with pytest.raises(ClipError) as caught:
        read_keypoints(change(files.format_lines(FRAMES_NVC, "rtmlib")), COCO17)
    assert caught.value.what.startswith(reason)


def test_many_lines_take_time_in_proportion_to_their_number():
    started = time.process_time()
    with pytest.raises(ClipError, match="none of its 20000 frames contains a person"):
        read_keypoints((b"[]" + b" " * 2_000 + b"\n") * 20_000, COCO17)
    assert time.process_time() - started < 20


def test_brackets_in_a_name_are_not_lines():
    content = [[{"name": "] [", **person[0]}] for person in frames_to_lists()]
    assert_equal(read(content), read(frames_to_lists()))


def frames_to_lists():
    return [[{"keypoints": pose.tolist()}] for pose in PIXELS_TVC]
