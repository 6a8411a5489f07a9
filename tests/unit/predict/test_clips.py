"""`predict_clips` on raw files and datasets, against direct calls of the model."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from sgnray import seeding
from sgnray.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from sgnray.checkpoints.trained_model import load_trained_model
from sgnray.config import recipe_for
from sgnray.data.skeleton import NTU25
from sgnray.data.skipped import Skipped
from sgnray.data.store import CLIPS_FILE
from sgnray.errors import CheckpointError, ClipError, InputError, UsageError
from sgnray.predict import (
    Prediction,
    build_table,
    predict_clips,
    read_clip,
    refuse_skipped,
    write_predictions,
)
from sgnray.prepare.normalize import normalize
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.recordings import read_recording
from sgnray.train import train_run

from ... import pose_files


@pytest.fixture(scope="module")
def flat_run(flat_folder, tmp_path_factory):
    """A run on a custom skeleton."""
    changes = [f"model.{key}_width=8" for key in ("embedding", "affinity", "frame")]
    recipe = recipe_for(
        "mine",
        "people",
        [*changes, "model.graph_widths=[8, 8, 8]", "data.num_segments=8", "train.num_epochs=1"],
    )
    return train_run(recipe, flat_folder, runs_dir=tmp_path_factory.mktemp("runs")).folder


@pytest.fixture
def flat_table(flat_folder):
    """The clips of the run's dataset, as a table without labels."""
    return pa.ipc.open_file(str(flat_folder / CLIPS_FILE)).read_all().select(["name", "poses"])


@pytest.fixture(scope="module")
def from_files(tiny_run, tiny_raw):
    return {item.clip: item for item in predict_clips(tiny_raw, tiny_run)}


def test_no_views(tiny_raw, tiny_run):
    with pytest.raises(UsageError, match="invalid number of views: 0"):
        predict_clips(tiny_raw, tiny_run, num_views=0)


def test_a_prediction_is_the_output_of_the_model(from_files, tiny_run, tiny_dataset):
    """One clip by hand: two views, each of 8 windows, the second one turned, in float64."""
    trained_model = load_trained_model(tiny_run)
    row = 5
    poses = tiny_dataset.poses_PVC[tiny_dataset.offsets[row] : tiny_dataset.offsets[row + 1]]
    width = len(poses) // 8
    logits = 0
    for view in range(2):
        draws = seeding.uniform(0, "evaluation view", view, (1, 8))[0]
        index = [width * t + min(int(draws[t] * width), width - 1) for t in range(8)]
        x, y, z = np.array(poses[index], np.float64).transpose(2, 0, 1)
        cos, sin = math.cos(0.5 * view), math.sin(0.5 * view)
        clip = torch.from_numpy(np.stack([x * cos - z * sin, y, x * sin + z * cos], axis=-1))
        logits = logits + trained_model.model.double()(clip[None])[0] / 2
    expected = logits.softmax(dim=0).detach()
    found = from_files[f"{tiny_dataset.clips.names[row]}.skeleton"]
    assert sorted(guess.label for guess in found.guesses) == [0, 1, 2]
    for guess in found.guesses:
        assert guess.probability == pytest.approx(float(expected[guess.label]), abs=1e-5)
        assert guess.name == tiny_dataset.info.class_names[guess.label]
    probabilities = [guess.probability for guess in found.guesses]
    assert probabilities == sorted(probabilities, reverse=True)


def test_raw_files_and_the_dataset_made_of_them_agree(from_files, tiny_run, tiny_folder):
    items = list(predict_clips(tiny_folder, tiny_run))
    assert [f"{item.clip}.skeleton" for item in items] == sorted(from_files)
    for item in items:
        other = from_files[f"{item.clip}.skeleton"]
        assert item.num_poses == other.num_poses
        assert probabilities(item) == pytest.approx(probabilities(other), abs=1e-6)


def test_other_clips_do_not_change_a_prediction(from_files, tiny_run, tiny_raw):
    name = sorted(from_files)[7]
    (alone,) = predict_clips(tiny_raw / name, tiny_run)
    assert probabilities(alone) == pytest.approx(probabilities(from_files[name]), abs=1e-6)


def test_a_zip_is_read_as_it_is(from_files, tiny_run, tiny_raw, tmp_path):
    names = sorted(from_files)[:3]
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for name in names:
            archive.write(tiny_raw / name, f"nturgb+d_skeletons/{name}")
    found = list(predict_clips(tmp_path / "some.zip", tiny_run))
    assert [item.clip for item in found] == names
    assert probabilities(found[0]) == pytest.approx(probabilities(from_files[names[0]]), abs=1e-6)


def test_any_name_will_do(tiny_run, tiny_raw, tmp_path):
    shutil.copy(min(tiny_raw.glob("*.skeleton")), tmp_path / "my recording.skeleton")
    (found,) = predict_clips(tmp_path / "my recording.skeleton", tiny_run)
    assert found.clip == "my recording.skeleton"


def test_a_broken_file_does_not_stop_the_others(tiny_run, tiny_raw, tmp_path):
    path = min(tiny_raw.glob("*.skeleton"))
    text = path.read_text().split("\n")
    shutil.copy(path, tmp_path / "a.skeleton")
    text[4] = "nan " + text[4].partition(" ")[2]
    (tmp_path / "b.skeleton").write_text("\n".join(text))
    shutil.copy(path, tmp_path / "c.skeleton")
    good, bad, again = predict_clips(tmp_path, tiny_run)
    assert isinstance(good, Prediction)
    assert isinstance(again, Prediction)
    assert (bad.name, bad.reason) == ("b.skeleton", "line 5: the coordinate 'nan' is not a number")


def test_bad_paths_are_skipped_on_request(from_files, tiny_run, tiny_raw, tmp_path):
    """A dead path, a text, and a recording of another skeleton: rows in a table, as in a file."""
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "other.csv").write_bytes(pose_files.make_file("MediaPipe"))
    (tmp_path / "empty").mkdir()
    good = min(tiny_raw.glob("*.skeleton"))
    reasons = {
        "gone.skeleton": "file or folder not found",
        "text.json": "not a recording: its content has no format that sgnray reads",
        "other.csv": "the model supports ntu25 skeletons, these are mediapipe33",
        "empty": "no recording found",
    }
    paths = [str(good), *(tmp_path / name for name in reasons)]
    with pytest.raises(UsageError, match="4 of 5 paths contain nothing"):
        predict_clips(paths, tiny_run)
    *bad, found = predict_clips(paths, tiny_run, skip_bad_paths=True)
    assert probabilities(found) == pytest.approx(probabilities(from_files[good.name]), abs=1e-6)
    assert bad == [
        Skipped(name, reason, place=str(tmp_path / name)) for name, reason in reasons.items()
    ]
    rows = build_table([*bad, found]).to_pylist()
    assert [row["reason"] for row in rows] == [*reasons.values(), None]
    assert rows[-1]["guesses"] == found.to_dict()["guesses"]


def test_progress_counts_refused_recordings_too(tiny_run, tiny_raw, tmp_path):
    shutil.copy(min(tiny_raw.glob("*.skeleton")), tmp_path / "a.skeleton")
    (tmp_path / "b.skeleton").write_text("x")
    steps = []
    list(predict_clips(tmp_path, tiny_run).run(on_progress=lambda *step: steps.append(step)))
    assert steps == [(2, 2)]


def test_windows_give_a_timeline(tiny_run, tiny_raw):
    path = min(tiny_raw.glob("*.skeleton"))
    found = list(predict_clips(path, tiny_run, window=12, stride=6))
    assert len(found) > 2
    assert [item.span.first for item in found[:3]] == [0, 6, 12]
    content = found[1].to_dict()
    assert (content["start_s"], content["end_s"]) == (0.2, 0.6)
    assert len({probabilities(item) for item in found}) > 1
    (again, *_) = list(predict_clips(path, tiny_run, window=12, stride=6, fps=60))[1:]
    assert (again.span.start_s, again.span.end_s) == (0.1, 0.3)
    assert again.guesses == found[1].guesses


def test_classes_of_another_name(tiny_run, tiny_raw):
    path = min(tiny_raw.glob("*.skeleton"))
    (found,) = predict_clips(path, tiny_run, class_names=("x", "y", "z"), num_guesses=2)
    assert {guess.name for guess in found.guesses} < {"x", "y", "z"}
    assert len(found.guesses) == 2
    with pytest.raises(UsageError, match="2 class names for 3 classes"):
        predict_clips(path, tiny_run, class_names=("x", "y"))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("gone.skeleton", UsageError, "not found"),
        ("film.avi", InputError, "this is a video, and sgnray reads skeletons"),
        ("clips.csv", InputError, "not a recording: its content has no format"),
        ("notes.unknown", InputError, "this is a .unknown file"),
        ("empty", InputError, "no recording found"),
        ("torn.zip", InputError, "zip cannot be read"),
        ("a01_s01_e00_v01.json", CheckpointError, "supports ntu25 skeletons, these are kinect20"),
    ],
)
def test_unusable_sources_are_refused(tiny_run, tmp_path, name, kind, message):
    if name == "empty":
        (tmp_path / name).mkdir()
    elif name != "gone.skeleton":
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(kind, match=message) as caught:
        predict_clips(tmp_path / name, tiny_run)
    if name in ("film.avi", "clips.csv"):
        assert "or a table of clips" in caught.value.now


def test_a_dataset_of_another_skeleton(tiny_run, flat_folder):
    what = "it was trained on ntu25 skeletons, the dataset has flat17"
    with pytest.raises(CheckpointError, match=what):
        predict_clips(flat_folder, tiny_run)


def test_a_dataset_whose_poses_have_another_form_than_the_models(tiny_run, tiny_folder):
    model = load_trained_model(tiny_run)
    other = replace(model.card.skeleton, origin=0)
    model = replace(model, card=model.card.model_copy(update={"skeleton": other}))
    with pytest.raises(CheckpointError, match="its origin joint differs from the dataset's"):
        predict_clips(tiny_folder, model)


def test_clips_by_name(tiny_run, tiny_folder, tiny_raw, tiny_dataset):
    name = tiny_dataset.clips.names[3]
    (found,) = predict_clips(tiny_folder, tiny_run, clips=[name])
    assert found.clip == name
    with pytest.raises(UsageError, match=r"clip '.*' not found") as caught:
        predict_clips(tiny_folder, tiny_run, clips=[f"{name}x"])
    assert name in caught.value.now
    with pytest.raises(UsageError, match="--clip needs a prepared dataset"):
        predict_clips(tiny_raw, tiny_run, clips=[name])


def test_bf16_predictions_are_close_to_float32(from_files, tiny_run, tiny_raw):
    found = list(predict_clips(tiny_raw, tiny_run, precision="bf16"))
    exact = [probabilities(from_files[item.clip]) for item in found]
    rounded = [probabilities(item) for item in found]
    assert rounded != exact
    np.testing.assert_allclose(rounded, exact, atol=0.02)


def test_a_stride_needs_a_window(tiny_run, tiny_raw):
    with pytest.raises(UsageError, match="a stride needs a window"):
        predict_clips(tiny_raw, tiny_run, stride=5)
    with pytest.raises(UsageError, match="a frame rate needs a window"):
        predict_clips(tiny_raw, tiny_run, fps=25)
    with pytest.raises(UsageError, match="invalid frame rate"):
        predict_clips(tiny_raw, tiny_run, window=5, fps=float("nan"))


def test_prediction_needs_neither_ray_nor_a_dataset(tiny_run, tiny_raw, tmp_path):
    shutil.copy(tiny_run / "checkpoints" / "epoch-0004" / "checkpoint.pt", tmp_path / "a.pt")
    program = (
        "import sys; from pathlib import Path; from sgnray import predict_clips\n"
        f"print(len(list(predict_clips(Path({str(tiny_raw)!r}), Path('a.pt')))))\n"
        "assert 'ray' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("27\n", 0), done.stderr


def probabilities(item):
    return tuple(guess.probability for guess in sorted(item.guesses, key=lambda g: g.label))


def test_unreadable_members_of_a_zip_are_named(tiny_run, tiny_raw, tmp_path):
    path = min(tiny_raw.glob("*.skeleton"))
    with zipfile.ZipFile(tmp_path / "mix.zip", "w") as archive:
        archive.write(path, path.name)
        archive.write(path, "packed.skeleton", compress_type=zipfile.ZIP_BZIP2)
    hidden, found = predict_clips(tmp_path / "mix.zip", tiny_run)
    assert hidden.name == "packed.skeleton"
    assert found.place == f"{tmp_path / 'mix.zip'}, {path.name}"


def test_files_of_one_name_are_kept_apart(tiny_run, tiny_raw, tmp_path):
    for name, path in zip("ab", sorted(tiny_raw.glob("*.skeleton")), strict=False):
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name / "x.skeleton")
    found = list(predict_clips([tmp_path / "a", tmp_path / "b"], tiny_run))
    assert [item.place for item in found] == [str(tmp_path / n / "x.skeleton") for n in "ab"]
    assert found[0].to_dict()["place"] == found[0].place


def test_a_model_with_nan_weights_is_refused(tiny_run, tiny_raw, tmp_path):
    checkpoint = load_checkpoint(tiny_run / "checkpoints" / "epoch-0004" / "checkpoint.pt")
    weights = {key: value * float("nan") for key, value in checkpoint.weights.items()}
    save_checkpoint(tmp_path / "nan.pt", checkpoint.model_copy(update={"weights": weights}))
    with pytest.raises(CheckpointError, match="logits of the model are not finite"):
        list(predict_clips(tiny_raw, tmp_path / "nan.pt"))


def test_a_diverged_model_is_not_blamed_on_a_clip(flat_run, flat_table, tmp_path):
    """All its weights are finite."""
    checkpoint = load_checkpoint(max(flat_run.glob("checkpoints/*/checkpoint.pt")))
    weights = {
        key: value * 1e38 if value.is_floating_point() else value
        for key, value in checkpoint.weights.items()
    }
    save_checkpoint(tmp_path / "far.pt", checkpoint.model_copy(update={"weights": weights}))
    pq.write_table(flat_table, tmp_path / "new.parquet")
    with pytest.raises(CheckpointError, match="logits of the model are not finite"):
        list(predict_clips(tmp_path / "new.parquet", tmp_path / "far.pt"))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_table_of_new_clips_needs_no_labels(flat_run, flat_folder, flat_table, tmp_path, suffix):
    """Several row groups, batches and parts; and a part of the table in a worker of its own."""
    path = tmp_path / f"new.{suffix}"
    if suffix == "parquet":
        pq.write_table(flat_table, path, row_group_size=7)
    else:
        with pa.ipc.new_file(str(path), flat_table.schema) as writer:
            writer.write_table(flat_table, max_chunksize=7)
    found = list(predict_clips(path, flat_run))
    expected = list(predict_clips(flat_folder, flat_run))
    assert [item.clip for item in found] == [item.clip for item in expected]
    for item, other in zip(found, expected, strict=True):
        assert (item.place, item.num_poses) == (str(path), 12)
        assert probabilities(item) == pytest.approx(probabilities(other), abs=1e-6)
    (source,) = predict_clips(path, flat_run).sources
    some = [item.clip for item in pickle.loads(pickle.dumps(source.part(9, 40))).read()]
    assert some == [item.clip for item in expected[9:]]


def test_an_invalid_row_does_not_stop_the_others(flat_run, flat_table, tmp_path):
    rows = flat_table.slice(0, 3).to_pylist()
    rows[1] |= {"name": None, "poses": [*rows[1]["poses"][:5], rows[1]["poses"][5][:-1]]}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "new.parquet")
    good, bad, again = predict_clips(tmp_path / "new.parquet", flat_run)
    assert (good.clip, again.clip) == ("clip-00", "clip-02")
    assert bad.name == "row 1 of new.parquet"
    assert bad.reason == "33 numbers in a pose instead of 34"


def test_tables_that_cannot_be_recognized(flat_run, tiny_run, flat_table, tmp_path):
    path = tmp_path / "new.parquet"
    pq.write_table(flat_table, path)
    with pytest.raises(InputError, match="no clips of ntu25 skeletons") as caught:
        predict_clips(path, tiny_run)
    assert "must be a list of poses, each 75 numbers" in caught.value.problems[0].what
    pq.write_table(flat_table.select(["name"]), path)
    with pytest.raises(InputError, match="no clips of flat17 skeletons") as caught:
        predict_clips(path, flat_run)
    assert [problem.what for problem in caught.value.problems] == ["column poses not found"]
    pq.write_table(flat_table.slice(0, 0), path)
    with pytest.raises(InputError, match="no rows"):
        predict_clips(path, flat_run)


@pytest.mark.parametrize("window", [None, 4])
def test_a_clip_with_a_non_finite_result_does_not_stop_the_others(
    flat_run, flat_table, tmp_path, window
):
    """Its coordinates are finite in float32, but their products are not."""
    path = tmp_path / "new.parquet"
    rows = flat_table.slice(0, 3).to_pylist()
    poses = np.array(rows[1]["poses"])
    poses[:8] *= 1e30
    rows[1]["poses"] = poses.tolist()
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = list(predict_clips(path, flat_run, window=window))
    bad = [item for item in found if isinstance(item, Skipped)]
    assert {(item.name, item.place) for item in bad} == {("clip-01", str(path))}
    assert len(bad) == (1 if window is None else 4)
    assert all(item.reason.startswith("the model gives no finite result") for item in bad)
    good = Counter(item.clip for item in found if item not in bad)
    per_clip = (1, 0, 1) if window is None else (5, 1, 5)
    assert good == Counter(dict(zip(("clip-00", "clip-01", "clip-02"), per_clip, strict=True)))
    with pytest.raises(InputError, match="1 of 3 recordings could not be used") as caught:
        refuse_skipped(bad, num_files=3)
    (problem,) = caught.value.problems
    assert problem.where == "clip-01"
    assert problem.what.startswith("frames 0 to 3: " if window else "the model")
    if window:
        plan = predict_clips(path, flat_run, window=window)
        done = write_predictions(plan, tmp_path / "p.parquet")
        assert (done.num_predictions, done.num_skipped) == (11, 1)
        rows = pq.read_table(tmp_path / "p.parquet", filters=pc.field("reason").is_valid())
        assert rows.column("first_frame").to_pylist() == [0, 2, 4, 6]


def test_timestamps_are_not_mistaken_for_frame_numbers(flat_run, flat_table, tmp_path):
    rows = flat_table.slice(0, 3).to_pylist()
    for row, step in zip(rows, (1, 10, 33), strict=True):
        row["frame"] = [7 + step * pose for pose in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "new.parquet")
    assert len(list(predict_clips(tmp_path / "new.parquet", flat_run))) == 3
    found = list(predict_clips(tmp_path / "new.parquet", flat_run, window=60))
    assert Counter(item.clip for item in found[:-1]) == {"clip-00": 1, "clip-01": 3}
    assert found[-1].reason.startswith("its poses are 33 frames apart")


class Watched:
    """Clips of which the event is set when they are read; a clip that is None fails."""

    def __init__(self, items, is_read):
        self.items, self.is_read = items, is_read

    def __len__(self):
        return len(self.items)

    def part(self, first, end):
        return Watched(self.items[first:end], self.is_read[first:end])

    def read(self):
        for item, event in zip(self.items, self.is_read, strict=True):
            event.set()
            if item is None:
                raise InputError("gone", where="the source", now="find it")
            yield item


@pytest.fixture
def watched(tiny_run, tiny_raw, monkeypatch):
    """A plan for nine clips, a block each, and the events."""
    monkeypatch.setattr("sgnray.predict.clips.PART_RECORDINGS", 1)
    (source,) = predict_clips(tiny_raw, tiny_run).sources
    items, is_read = list(source.part(0, 9).read()), [threading.Event() for _ in range(9)]

    def build(*changes, **options):
        plan = predict_clips(tiny_raw, tiny_run, **options)
        return replace(plan, sources=(Watched([*items, *changes][-9:], is_read),))

    yield build, is_read
    assert not [one for one in threading.enumerate() if one.name.startswith("sgn-reader")]


@pytest.mark.parametrize("options", [{}, {"window": 12, "stride": 6}])
def test_the_next_recording_is_read_while_one_is_recognized(watched, options):
    build, is_read = watched
    plan, ahead = build(**options), []

    def wait_for_the_next(module, inputs):
        number = len(ahead)
        assert is_read[min(number + 1, 8)].wait(300), (
            f"{number} is recognized, and no other is read"
        )
        ahead.append(sum(event.is_set() for event in is_read) - number)

    plan.model.model.register_forward_pre_hook(wait_for_the_next)
    assert len(list(plan.run())) == len(ahead) == 9
    assert max(ahead) <= 3


def test_a_reader_that_fails_stops(watched):
    build, _ = watched
    found = build(None, None).run()
    assert len([next(found) for _ in range(7)]) == 7
    with pytest.raises(InputError, match="gone"):
        next(found)


def test_the_reader_of_an_abandoned_prediction_stops(watched):
    build, is_read = watched
    found = build().run()
    next(found)
    found.close()
    assert not is_read[5].is_set()


def test_an_interrupted_reader_stops(watched):
    def interrupt(done, total):
        raise KeyboardInterrupt

    build, is_read = watched
    with pytest.raises(KeyboardInterrupt):
        list(build().run(on_progress=interrupt))
    assert not is_read[5].is_set()


@pytest.mark.parametrize("kind", ["MMPose", "MediaPipe", "Kinect v2", "PYSKL"])
def test_the_format_of_a_clip_in_bytes_is_detected(kind, tmp_path):
    suffix = {"PYSKL": ".pkl", "MMPose": ".json"}.get(kind, ".csv")
    data = pose_files.make_file(kind, num_frames=5)
    (tmp_path / f"clip{suffix}").write_bytes(data)
    recording, skeleton = read_recording(find_recordings(tmp_path).files[0])
    expected = normalize(recording, skeleton)
    np.testing.assert_array_equal(read_clip(data, skeleton).values_PD, expected.values_PD)
    with pytest.raises(ClipError, match="the model supports only flat17") as caught:
        read_clip(data, replace(skeleton, name="flat17"))
    assert caught.value.where == "the clip"


def test_clips_in_bytes_may_be_skeleton_text_or_json(tiny_raw, tiny_dataset):
    name = tiny_dataset.clips.names[0]
    found = read_clip((tiny_raw / f"{name}.skeleton").read_bytes(), NTU25)
    np.testing.assert_array_equal(
        found.values_PD, tiny_dataset.poses_PVC[tiny_dataset.rows_of(0)].reshape(-1, 75)
    )
    frames_TVC = np.random.default_rng(0).normal(size=(4, 25, 3)).round(3)
    found = read_clip(json.dumps(frames_TVC.tolist()).encode(), NTU25)
    np.testing.assert_allclose(
        found.values_PD, (frames_TVC - frames_TVC[0, 1]).reshape(4, -1), atol=1e-6
    )
    video = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41\0\0\0\x08free"
    for data in (b"", b"\x00\xff", b"a,b\n1,2\n", b"[" * 100_000, video):
        with pytest.raises(InputError, match="neither a recording nor JSON") as caught:
            read_clip(data, NTU25)
        assert "run a pose estimator on a video first" in caught.value.now
