"""`write_predictions`: rows as they come, one file in the end, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sgnray.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from sgnray.checkpoints.trained_model import load_trained_model
from sgnray.errors import OutputError, Problem, UsageError
from sgnray.predict import predict_clips, write_predictions
from sgnray.prepare import Skipped

SPAN = dict.fromkeys(("first_frame", "end_frame", "start_s", "end_s"))


@pytest.fixture(scope="module")
def recordings(tiny_raw, tmp_path_factory):
    """27 recordings, and one that cannot be used."""
    folder = tmp_path_factory.mktemp("mine")
    shutil.copytree(tiny_raw, folder, dirs_exist_ok=True)
    (folder / "broken.skeleton").write_text("x")
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("sgnray.predict.clips.PART_RECORDINGS", 4)


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text().splitlines()]


def interrupt_at(num_recordings):
    def on_progress(done, total):
        if done >= num_recordings:
            raise KeyboardInterrupt

    return on_progress


@pytest.mark.parametrize("options", [{}, {"window": 12, "stride": 6, "num_guesses": 2}])
def test_rows_are_the_predictions(recordings, tiny_run, tmp_path, options):
    plan = predict_clips(recordings, tiny_run, **options)
    done = write_predictions(plan, tmp_path / "new" / "p.jsonl")
    write_predictions(plan, tmp_path / "p.parquet")
    rows, table = read(tmp_path / "new" / "p.jsonl"), read(tmp_path / "p.parquet")
    place = str(recordings / "broken.skeleton")
    for row, columns, item in zip(rows, table, plan, strict=True):
        if isinstance(item, Skipped):
            assert row == {"clip": "broken.skeleton", "place": place, "reason": item.reason}
            assert columns == row | SPAN | {"num_poses": None, "guesses": None}
        else:
            assert row == item.to_dict()
            assert columns == SPAN | row | {"reason": None}
    assert (done.num_recordings, done.num_skipped) == (28, 1)
    assert done.num_predictions == len(rows) - 1
    assert pq.read_schema(tmp_path / "p.parquet").metadata[b"format_version"] == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "p.parquet"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.jsonl"]


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_an_interrupted_prediction_is_continued(recordings, tiny_run, tmp_path, name):
    plan = predict_clips(recordings, tiny_run)
    write_predictions(plan, tmp_path / f"whole-{name}")
    with pytest.raises(KeyboardInterrupt):
        write_predictions(plan, tmp_path / name, on_progress=interrupt_at(12))
    assert not (tmp_path / name).exists()
    with (tmp_path / f"{name}.partial" / "rows.jsonl").open("a") as file:
        file.write('{"clip": "what a power cut')
    seen = []
    again = predict_clips(recordings, tiny_run)
    write_predictions(again, tmp_path / name, on_progress=lambda *step: seen.append(step))
    assert seen[0] == (12, 28)
    assert seen[-1] == (28, 28)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    assert not (tmp_path / f"{name}.partial").exists()


def test_a_killed_prediction_is_continued(recordings, tiny_run, tmp_path):
    program = f"""
import os, signal
from pathlib import Path
from sgnray.predict import clips, predict_clips, write, write_predictions

clips.PART_RECORDINGS, write._SAVE_EVERY_S = 4, 0
plan = predict_clips(Path({str(recordings)!r}), Path({str(tiny_run)!r}))
write_predictions(plan, "p.jsonl", on_progress=lambda done, total: (
    done >= 16 and os.kill(os.getpid(), signal.SIGKILL)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["p.jsonl.partial"]
    plan, seen = predict_clips(recordings, tiny_run), []
    write_predictions(plan, tmp_path / "p.jsonl", on_progress=lambda *step: seen.append(step))
    assert seen[0] == (16, 28)
    write_predictions(plan, tmp_path / "whole.jsonl")
    assert read(tmp_path / "p.jsonl") == read(tmp_path / "whole.jsonl")


def test_rows_that_a_kill_left_beyond_the_state_are_written_again(recordings, tiny_run, tmp_path):
    plan, out = predict_clips(recordings, tiny_run), tmp_path / "p.jsonl"
    folder = tmp_path / "p.jsonl.partial"
    for num_done in (8, 12, 16):
        with pytest.raises(KeyboardInterrupt):
            write_predictions(plan, out, on_progress=interrupt_at(num_done))
        state = json.loads((folder / "state").read_text())
        assert state["written"]["num_bytes"] == (folder / "rows.jsonl").stat().st_size
        with (folder / "rows.jsonl").open("ab") as rows:
            rows.write(b'{"clip": "unsaved"}\n' * 10)
    write_predictions(plan, out)
    write_predictions(plan, tmp_path / "whole.jsonl")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("file", ["state", "rows.jsonl"])
def test_files_damaged_by_a_power_cut_are_written_again(recordings, tiny_run, tmp_path, file):
    plan, seen = predict_clips(recordings, tiny_run), []
    with pytest.raises(KeyboardInterrupt):
        write_predictions(plan, tmp_path / "p.jsonl", on_progress=interrupt_at(12))
    path = tmp_path / "p.jsonl.partial" / file
    path.write_bytes(path.read_bytes()[:-5])
    write_predictions(plan, tmp_path / "p.jsonl", on_progress=lambda *step: seen.append(step))
    assert seen[0] == (4, 28)
    assert len(read(tmp_path / "p.jsonl")) == 28


@pytest.fixture
def other_run(tiny_run, tmp_path):
    checkpoint = load_checkpoint(tiny_run / "checkpoints" / "epoch-0004" / "checkpoint.pt")
    weights = {key: value * 2 for key, value in checkpoint.weights.items()}
    save_checkpoint(tmp_path / "other.pt", checkpoint.model_copy(update={"weights": weights}))
    return tmp_path / "other.pt"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"num_guesses": 2}, ["--top"]),
        ({"num_views": 3}, ["--views"]),
        ({"window": 12}, ["--window", "--stride"]),
        ({"window": 12, "fps": 25.0}, ["--window", "--stride", "--fps"]),
        ({"precision": "bf16"}, ["--precision"]),
        ({"class_names": ("x", "y", "z")}, ["classes"]),
        ({"checkpoint": "other"}, ["model"]),
        ({"sources": "other"}, ["recordings"]),
    ],
)
def test_a_prediction_with_other_settings_is_not_continued(
    recordings, tiny_run, tiny_raw, other_run, tmp_path, changes, where
):
    given = {"sources": recordings, "checkpoint": tiny_run}
    others = {"sources": tiny_raw, "checkpoint": other_run}
    out = tmp_path / "p.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(predict_clips(**given), out, on_progress=interrupt_at(12))
    given |= {key: others.get(key, value) for key, value in changes.items()}
    other = predict_clips(**given)
    with pytest.raises(UsageError, match="started with another model") as caught:
        write_predictions(other, out)
    assert [problem.where for problem in caught.value.problems] == where
    assert not any(problem.what.endswith(".0 now") for problem in caught.value.problems)
    seen = []
    write_predictions(other, out, overwrite=True, on_progress=lambda *step: seen.append(step))
    assert seen[0][0] == (1 if "window" in changes else 4)  # from the first part on
    assert read(out)


def test_another_precision_on_other_hardware_is_not_continued(
    recordings, tiny_run, tmp_path, monkeypatch
):
    out, plan = tmp_path / "p.jsonl", predict_clips(recordings, tiny_run, precision="auto")
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})
    with pytest.raises(KeyboardInterrupt):
        write_predictions(plan, out, on_progress=interrupt_at(12))
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    with pytest.raises(UsageError) as caught:
        write_predictions(plan, out)
    assert caught.value.problems == (Problem("--precision", "bf16 before, float32 now"),)
    write_predictions(predict_clips(recordings, tiny_run, precision="bf16"), out)
    assert len(read(out)) == 28


def test_a_prediction_of_another_version_is_not_continued(
    recordings, tiny_run, tmp_path, monkeypatch
):
    out, plan = tmp_path / "p.jsonl", predict_clips(recordings, tiny_run)
    with pytest.raises(KeyboardInterrupt):
        write_predictions(plan, out, on_progress=interrupt_at(12))
    monkeypatch.setattr("sgnray.predict.write.__version__", "99.0")
    with pytest.raises(UsageError, match="started with another model") as caught:
        write_predictions(plan, out)
    assert [problem.where for problem in caught.value.problems] == ["sgnray"]


def test_a_recording_that_changed_is_not_continued(recordings, tiny_run, tmp_path):
    mine, out = tmp_path / "mine", tmp_path / "p.jsonl"
    shutil.copytree(recordings, mine)
    with pytest.raises(KeyboardInterrupt):
        write_predictions(predict_clips(mine, tiny_run), out, on_progress=interrupt_at(12))
    os.utime(min(mine.glob("S*.skeleton")), ns=(1, 1))
    with pytest.raises(UsageError, match="started with another model"):
        write_predictions(predict_clips(mine, tiny_run), out)


def test_a_finished_file_is_kept(recordings, tiny_run, tmp_path):
    plan, out = predict_clips(recordings, tiny_run), tmp_path / "p.jsonl"
    write_predictions(plan, out)
    before = out.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        write_predictions(plan, out)
    with pytest.raises(KeyboardInterrupt):
        write_predictions(plan, out, overwrite=True, on_progress=interrupt_at(8))
    assert out.read_bytes() == before
    two = predict_clips(recordings, tiny_run, num_guesses=2)
    write_predictions(two, out, overwrite=True)
    assert len(read(out)[1]["guesses"]) == 2


@pytest.mark.parametrize("name", ["p.csv", "folder.jsonl", "s3://bucket/p.jsonl", "S3://b/p.jsonl"])
def test_where_predictions_cannot_be_written(recordings, tiny_run, tmp_path, name):
    (tmp_path / "folder.jsonl").mkdir()
    plan = predict_clips(recordings, tiny_run)
    for out in (name, Path(name)) if "://" in name else (tmp_path / name,):
        with pytest.raises(UsageError, match="are written to a "):
            write_predictions(plan, out)


def test_one_writer_at_a_time(recordings, tiny_run, tmp_path):
    plan, out = predict_clips(recordings, tiny_run), tmp_path / "p.jsonl"

    def write_too(done, total):
        with pytest.raises(OutputError, match="another sgn predict is writing this file"):
            write_predictions(plan, out)

    write_predictions(plan, out, on_progress=write_too)
    assert len(read(out)) == 28


def test_an_interruption_before_the_first_part_is_saved_leaves_nothing(
    recordings, tiny_run, tmp_path
):
    plan = predict_clips(recordings, tiny_run)
    with pytest.raises(KeyboardInterrupt):
        write_predictions(plan, tmp_path / "p.jsonl", on_progress=interrupt_at(1))
    assert os.listdir(tmp_path) == []


def test_a_prediction_resumes_after_a_full_disk(recordings, tiny_run, tmp_path):
    """A limit on the size of files makes writes fail, as on a full disk."""
    program = f"""
import resource
from pathlib import Path
from sgnray.errors import OutputError
from sgnray.predict import clips, predict_clips, write, write_predictions

clips.PART_RECORDINGS, write._SAVE_EVERY_S = 4, 0
plan = predict_clips(Path({str(recordings)!r}), Path({str(tiny_run)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    write_predictions(plan, "p.jsonl")
except OutputError as error:
    print(error.now)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == "raise the limit on file sizes (ulimit -f), then run it again\n"
    plan, seen = predict_clips(recordings, tiny_run), []
    write_predictions(plan, tmp_path / "p.jsonl", on_progress=lambda *step: seen.append(step))
    assert seen[0][0] > 4
    assert len(read(tmp_path / "p.jsonl")) == 28


def test_a_name_that_is_not_utf8(recordings, tiny_run, tmp_path):
    source = min(recordings.glob("S*.skeleton"))
    mine = os.fsencode(tmp_path / "mine")
    os.mkdir(mine)
    shutil.copy(source, mine + b"/caf\xe9.skeleton")
    plan = predict_clips(tmp_path / "mine", tiny_run)
    for name in ("p.jsonl", "p.parquet"):
        write_predictions(plan, tmp_path / name)
        (row,) = read(tmp_path / name)
        assert row["clip"] == "caf\\udce9.skeleton"


def test_a_model_whose_views_turn_otherwise_continues_nothing(tiny_raw, tiny_run):
    model = load_trained_model(tiny_run)
    other = replace(model, card=model.card.replacing(turn_rad=0.0))
    one, two = (predict_clips(tiny_raw, each).describe() for each in (model, other))
    assert {key for key in one if one[key] != two[key]} == {"turned by"}


def test_an_error_names_the_output_as_the_user_did(recordings, tiny_run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError) as caught:
        write_predictions(predict_clips(recordings, tiny_run), "file/p.jsonl")
    assert caught.value.where == "file/p.jsonl"
