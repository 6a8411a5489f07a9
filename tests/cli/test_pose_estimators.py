"""From files of a pose estimator to a prediction, as in the guide pose-estimators.md."""

import json
import pickle
from pathlib import Path

import pytest

from sgnray.data.skeleton import COCO17, MEDIAPIPE33, OPENPOSE25

from .. import pose_files as files
from ..conftest import TINY
from .test_road import SMALL


def write_mediapipe(folder, name, seed, swing_rad):
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        files.format_mediapipe(files.move(MEDIAPIPE33, seed=seed, swing_rad=swing_rad))
    )
    return path


def write_openpose(folder, name, seed, swing_rad):
    pixels_TVC = files.project(files.move(OPENPOSE25, seed=seed, swing_rad=swing_rad))
    files.write_openpose(folder / name, "frame", pixels_TVC[:, None])
    return folder / name


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_mediapipe, write_openpose], ids=["mediapipe", "openpose"])
def test_actions_of_a_folder_tree_are_recognized(sgn, write):
    """The model distinguishes people who wave from people who do not; constant poses would fail."""
    for label, swing_rad in (("still", 0.05), ("wave", 2.0)):
        for seed in range(8):
            write(Path("gestures"), f"{label}/clip{seed}", seed, swing_rad)
        for seed in (20, 21):
            write(Path("new"), f"{label}{seed}", seed, swing_rad)
    assert sgn("prepare", "--raw", "gestures").code == 0
    long = ("train.num_epochs=40", "optim.batch_size=4", "optim.learning_rate=0.005")
    done = sgn("train", "--case", "random", "--workers", "0", *TINY, *long)
    assert done.code == 0, done.err
    done = sgn("predict", "new", "--json")
    assert done.code == 0, done.err
    predictions = json.loads(done.out)["predictions"]
    found = {Path(item["clip"]).stem: item["guesses"][0]["name"] for item in predictions}
    assert found == {"still20": "still", "still21": "still", "wave20": "wave", "wave21": "wave"}


@pytest.mark.parametrize(
    ("write", "skeleton"),
    [(write_mediapipe, "mediapipe33"), (write_openpose, "openpose25")],
    ids=["mediapipe", "openpose"],
)
def test_from_a_folder_tree_to_a_prediction(sgn, write, skeleton):
    for label, swing_rad in (("still", 0.05), ("wave", 2.0)):
        for seed in range(5):
            write(Path("gestures"), f"{label}/clip{seed}", seed, swing_rad)
    (Path("gestures") / "wave/broken.csv").write_text("nose_x,nose_y\n1,2\n")

    done = sgn("prepare", "--raw", "gestures", "--json")
    assert done.code == 0, done.err
    prepared = json.loads(done.out)
    assert prepared["splits"] == {"random": {"train": 8, "test": 2}}
    info = json.loads(Path("data/gestures/dataset.json").read_text())
    assert (info["layout"], info["class_names"]) == (skeleton, ["still", "wave"])

    done = sgn("train", "--case", "random", "--workers", "0", *SMALL, "optim.batch_size=4")
    assert done.code == 0, done.err

    unseen = write(Path("new"), "unseen", 9, 2.0)
    done = sgn("predict", str(unseen), "--json")
    assert done.code == 0, done.err
    (prediction,) = json.loads(done.out)["predictions"]
    assert {guess["name"] for guess in prediction["guesses"]} == {"still", "wave"}
    in_tree = json.loads(sgn("predict", "new", "--json").out)["predictions"]
    assert [guess["probability"] for guess in in_tree[0]["guesses"]] == [
        guess["probability"] for guess in prediction["guesses"]
    ]

    done = sgn("view", str(unseen), "--out", "clip.gif")
    assert done.code == 0, done.err
    assert Path("clip.gif").read_bytes().startswith(b"GIF8")

    Path("other.json").write_bytes(files.make_file("YOLO"))
    done = sgn("predict", "other.json")
    assert (done.code, done.out) == (1, "")
    assert f"the model supports {skeleton} skeletons, these are coco17" in done.err


def test_a_pickle_of_pyskl_in_2d(sgn):
    annotations = [
        files.annotate_2d(
            f"c{seed}", files.project(files.move(COCO17, seed=seed))[:, None], seed % 2
        )
        for seed in range(6)
    ]
    split = {"train": [f"c{seed}" for seed in range(4)], "val": ["c4", "c5"]}
    Path("gym.pkl").write_bytes(pickle.dumps({"split": split, "annotations": annotations}))
    done = sgn("prepare", "--raw", "gym.pkl", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["splits"] == {"fixed": {"train": 4, "test": 2}}
    done = sgn("train", "--case", "fixed", "--workers", "0", *SMALL, "optim.batch_size=4")
    assert done.code == 0, done.err
    predictions = json.loads(sgn("predict", "gym.pkl", "--json").out)["predictions"]
    again = json.loads(sgn("predict", "data/gym", "--json").out)["predictions"]
    assert [item["clip"] for item in predictions] == [f"c{seed}" for seed in range(6)]
    assert [item["guesses"] for item in predictions] == [item["guesses"] for item in again]


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("prepare", "--raw", "videos"), 1, "no recording found, only videos such as a.mp4"),
        (("prepare", "--raw", "mixed"), 1, "these recordings have different formats"),
        (("prepare", "--raw", "unlabeled"), 1, "no recording has a known label"),
        (("prepare", "--raw", "unlabeled", "--name-pattern", "{age}"), 2, "{age} is unknown"),
        (("prepare", "--raw", "nobody"), 1, "none of its 3 frames contains a person"),
        (("view", "videos/a.mp4"), 1, "this is a video, and sgnray reads skeletons"),
    ],
)
def test_unusable_input_is_one_block_and_leaves_no_files(sgn, arguments, code, what):
    for name, kind in (
        ("mixed/wave/a.json", "YOLO"),
        ("mixed/clap/a.csv", "MediaPipe"),
        ("unlabeled/a.csv", "MediaPipe"),
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(files.make_file(kind))
    Path("data").mkdir()
    Path("videos").mkdir()
    Path("videos/a.mp4").touch()
    for label in ("wave", "clap"):
        Path("nobody", label).mkdir(parents=True)
        empty = files.format_mmpose([[], [], []])
        Path("nobody", label, "a.json").write_bytes(empty)
    before = sorted(Path().rglob("*"))
    done = sgn(*arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.count("error: ") == 1
    assert what in " ".join(done.err.split())
    assert [line.split()[0] for line in done.err.splitlines()[-2:]] == ["where", "now"]
    assert sorted(Path().rglob("*")) == before
