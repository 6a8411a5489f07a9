"""What is said about files that look like recordings and are not, or not ones that can be read."""

import json
import pickle
import zipfile

import numpy as np
import pytest

from sgnray.data.skeleton import COCO17
from sgnray.errors import ClipError, InputError
from sgnray.prepare.readers.detect import detect
from sgnray.prepare.readers.find_recordings import find_labels, find_recordings
from sgnray.prepare.readers.recordings import read_recording
from sgnray.storage.location import locate

from ... import pose_files as files

FRAMES = json.loads(files.make_file("YOLO"))


@pytest.fixture
def said(tmp_path):
    """Read a file: what is said about it."""

    def refuse(data, name="clip.json"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        with pytest.raises((ClipError, InputError)) as caught:
            read_recording(*find_recordings(path).files)
        assert "\n" not in caught.value.what
        assert getattr(caught.value, "problems", ()) == ()
        return caught.value.what

    return refuse


def test_files_of_another_kind_could_be_a_table(tmp_path):
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / name for name in ("a.dat", "b.npy", "c.npz", "folder/a.dat")]
    for path in paths:
        path.write_text("1 2 3")
    np.save(paths[1], np.zeros(3))
    np.savez(paths[2], joints=np.zeros(3))
    refused = [lambda path=path: detect([locate(path)]) for path in (*paths[:3], paths[3].parent)]
    refused += [lambda path=path: find_recordings(path) for path in paths[:3]]
    for refuse in refused:
        with pytest.raises(InputError) as caught:
            refuse()
        assert (
            "clips of your own go into a table that a .yaml file describes: 'Your"
            in caught.value.now
        )
    for number in range(20):
        (paths[3].parent / f"{number}.{('PNG', 'dat', 'png', 'doc', 'x')[number % 5]}").touch()
    for refuse in (refused[3], lambda: find_recordings(paths[3].parent)):
        with pytest.raises(InputError) as caught:
            refuse()
        kinds = "8 .png files, 5 .dat files, 4 .doc files and others"
        assert caught.value.what.endswith(f" found, only {kinds}")


@pytest.mark.parametrize("content", [[], [[]], [[], [], []], [[] for _ in range(30_000)]])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_file_of_empty_frames_has_no_person(said, content, indent):
    assert "contains a person" in said(json.dumps(content, indent=indent).encode())


@pytest.mark.parametrize("text", ["{}", "\ufeff { }\n"])
def test_an_object_without_frames_has_no_person(said, text):
    """As AlphaPose writes it of a video without people."""
    assert said(text.encode()) == "its object is empty: no frame contains a person"


def test_many_empty_frames_do_not_hide_the_format(tmp_path):
    path = tmp_path / "clip.json"
    path.write_text(json.dumps([[] for _ in range(30_000)] + FRAMES))
    (file,) = find_recordings(path).files
    recording, skeleton = read_recording(file)
    assert (recording.num_frames, skeleton) == (3, COCO17)


def test_json_in_strings(said):
    content = [json.dumps(frame) for frame in FRAMES]
    assert said(content) == "frame 0: it is text: json.loads each frame before you write them"


@pytest.mark.parametrize(
    "content", [{"frames": [{"people": FRAMES[0]}]}, {"0.jpg": {"people": []}}]
)
def test_people_that_openpose_did_not_write(said, content):
    assert said(content).startswith("it has `people`, but is not a frame of OpenPose: write a list")


def test_the_report_of_a_run_is_not_a_frame(said):
    people = [{"name": "1 person", "num_clips": 3, "num_correct": 2, "top1": 0.67}]
    assert "OpenPose" not in said({"top1": 0.67, "groups": {"people": people}})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", ["YOLO", "MediaPipe", "Kinect v2"])
def test_utf_16(said, encoding, kind):
    """As PowerShell's > writes it, with a byte order mark."""
    mark = "" if encoding == "utf-16" else "\ufeff"
    data = (mark + files.make_file(kind).decode()).encode(encoding)
    name = "clip.json" if kind == "YOLO" else "clip.csv"
    assert said(data, name) == "it is UTF-16 text: save it as UTF-8"


@pytest.mark.parametrize("num_more", [0, 1, 2])  # the score of the box, and the id of the person
@pytest.mark.parametrize("is_scored", [True, False])
def test_labels_of_yolo(tmp_path, num_more, is_scored):
    """Of save_txt=True: they have no size of the image. Other texts are not labels."""
    point = "0.5 0.25 0.9" if is_scored else "0.5 1e-05"
    line = " ".join(["0 0.5 0.5 0.2 0.4", *[point] * 17, *["1"] * num_more])
    (tmp_path / "labels").mkdir()
    path = tmp_path / "labels/clip_1.txt"
    path.write_text(f"{line}\n{line}\n")
    (tmp_path / "clip.mp4").touch()
    for place in (path, path.parent, tmp_path):
        for find in (find_recordings, lambda place: detect([locate(place)])):
            with pytest.raises(InputError) as caught:
                find(place)
            assert caught.value.what == "clip_1.txt has YOLO's labels, which lack the image's size"
            assert caught.value.now.startswith("write pixels with YOLO's to_json, as the guide")
    for other in ("hello", line + " 1 1 1", line.replace("0.25", "a").replace("1e-05", "a")):
        path.write_text(other)
        assert find_labels(locate(path), [locate(path).entry()]) == ""
        with pytest.raises(InputError, match="sgnray reads"):  # also if a format has this suffix
            find_recordings(path)


def azure_columns():
    """Azure Kinect's joints: 22 have names of Kinect v2, and 17 names of MediaPipe."""
    parts = ["SHOULDER", "ELBOW", "WRIST", "HAND", "HANDTIP", "THUMB", "HIP", "KNEE", "ANKLE"]
    parts += ["CLAVICLE", "FOOT", "EYE", "EAR"]
    joints = ["PELVIS", "SPINE_NAVEL", "SPINE_CHEST", "NECK", "HEAD", "NOSE"]
    joints += [f"{part}_{side}" for part in parts for side in ("LEFT", "RIGHT")]
    return [f"{joint}_{axis}" for joint in joints for axis in "xyz"]


def test_azure_kinect_is_not_mediapipe(said):
    columns = azure_columns()
    assert said(files.format_csv([columns, [1.0] * len(columns)]), "clip.csv").startswith(
        "column not found: spine base_x, spine base_y, spine base_z, spine middle_x, "
        "spine middle_y and 4 more (of the 75 of ntu25)"
    )


def test_columns_that_are_few_are_no_format(said):
    columns = [f"{axis}{joint}" for joint in range(15, 33) for axis in "xyz"]
    assert said(files.format_csv([columns, [1.0] * len(columns)]), "clip.csv").startswith(
        "not a recording: its content has no format that sgnray reads"
    )


def test_what_a_csv_lacks_is_said(said):
    """Such as key points in 2D, one row per joint, or an order of words that is unknown."""
    columns = ["frame", "nose_a", "nose_b", "l\tsho", "chin", "r"]
    assert said(files.format_csv([columns, [1.0] * 6]), "clip.csv").partition(": its columns")[
        2
    ] == (
        " are frame, nose_a, nose_b, l?sho, chin and 1 more, not x, y and z of the joints of "
        "MediaPipe or Kinect, such as nose_x or SpineBase.X"
    )


@pytest.mark.parametrize("key", ["box", "bbox"])
def test_a_model_without_key_points_is_said_to_be_one(said, key):
    data = json.dumps([[{"name": "person", "class": 0, key: {"x1": 1.0}}]]).encode()
    reason = said(data, "clip.json")
    assert reason.endswith(
        "it has boxes but no keypoints: use a pose model, such as yolo11n-pose.pt"
    )


@pytest.mark.parametrize("is_list", [True, False])
def test_a_pickle_of_many_clips_in_a_folder_is_said_to_be_one(tmp_path, is_list):
    people_NVC = files.project(files.move(COCO17, 3))[:, None]
    items = [files.annotate_2d(f"clip {number}", people_NVC) for number in range(2)]
    content = items if is_list else {"split": {}, "annotations": items}
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/many.pkl").write_bytes(pickle.dumps(content))
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.write(tmp_path / "raw/many.pkl", "raw/many.pkl")
    for path in ("raw", "raw.zip"):
        with pytest.raises(InputError) as caught:
            find_recordings(tmp_path / path)
        (problem,) = caught.value.problems
        assert problem.what == "it is a pickle of many clips: name this file itself, unpacked"
    (tmp_path / "raw/one.pkl").write_bytes(pickle.dumps(items[0]))
    (refused,) = find_recordings(tmp_path / "raw").refused
    assert refused.reason.startswith("it is a pickle of many clips")


def test_arrays_that_must_be_prepared_are_said_to_be(tmp_path):
    """Padded clips of CTR-GCN; other arrays cannot be prepared."""
    poses, labels = np.zeros((2, 3, 150), np.float32), np.eye(2)
    named = {"x_train": poses, "y_train": labels, "x_test": poses, "y_test": labels}
    np.savez(tmp_path / "clips.npz", **named)
    np.savez(tmp_path / "shape.npz", **named | {"x_train": labels})
    np.savez(tmp_path / "other.npz", keypoints=poses)
    np.save(tmp_path / "one.npy", poses)
    with pytest.raises(InputError, match="padded clips, which have to be prepared first") as caught:
        find_recordings(tmp_path / "clips.npz")
    assert caught.value.now.startswith(f"sgn prepare --raw {tmp_path / 'clips.npz'}")
    for name in ("other.npz", "shape.npz", "one.npy"):
        with pytest.raises(InputError, match="file of NumPy arrays, and sgnray reads") as caught:
            find_recordings(tmp_path / name)
        assert "sgn prepare" not in caught.value.now
