"""`sgn eval`: one model or several, on the screen, as JSON and as files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run, to write reports into."""
    shutil.copytree(tiny_run, tmp_path / "runs" / "first")
    return tmp_path / "runs" / "first"


def test_a_run(sgn, run):
    done = sgn("eval")
    assert done.code == 0, done.err
    assert "9, the test part of synth cv" in done.out
    assert "probabilities are off by" in done.out
    assert "by people    1 person " in done.out
    assert "by setup     setup 1 " in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines() if "checkpoint.pt" not in line)
    assert done.err == "using runs/first\nwritten: runs/first/report.html\n"
    assert json.loads((run / "report.json").read_text())["top1_by_views"]


def test_a_run_that_a_search_has_trained_is_the_newest(sgn, run):
    shutil.move(run, run.parent / "tune" / "final-trial-0001")
    done = sgn("eval")
    assert (done.code, done.err.splitlines()[0]) == (0, "using runs/tune/final-trial-0001")


def test_several_models(sgn, run):
    older = run / "checkpoints" / "epoch-0003"
    done = sgn("eval", "first", str(older), "--out", "both")
    assert done.code == 0, done.err
    assert "each alone" in done.out
    assert "2 models" in done.out
    assert "trained for 3 of 4 epochs" in done.out
    content = json.loads(Path("both/report.json").read_text())
    assert [member["epoch"] for member in content["members"]] == [4, 3]
    assert content["num_parameters"] == 2 * content_of(run)["num_parameters"]


def test_json_and_files_are_the_same(sgn, run):
    done = sgn("eval", "first", "--views", "3", "--json")
    printed = json.loads(done.out)
    assert printed == json.loads(next(run.glob("eval-cv-3views-*/report.json")).read_text())
    assert len(printed["top1_by_views"]) == 3
    assert content_of(run)["num_views"] == 2  # training's own report is still there


def test_a_place_that_cannot_be_written(sgn, run, tmp_path):
    left = tmp_path / "out" / f"report.html.{os.getpid()}.partial"
    left.mkdir(parents=True)
    done = sgn("eval", "first", "--out", "out")
    assert done.code == 1
    assert "top-1" in done.out  # what was computed is not lost
    assert "error: it could not be written" in done.err
    assert list((tmp_path / "out").iterdir()) == [left]


@pytest.mark.parametrize(
    ("out", "code", "what"),
    [("file", 2, "this is a file"), ("file/inside", 1, "it could not be written: Not a directory")],
)
def test_a_wrong_place_is_refused_before_any_clip_is_scored(sgn, run, tmp_path, out, code, what):
    (tmp_path / "file").write_text("")
    done = sgn("eval", "first", "--out", out)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"error: {what}\n  where  {out}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs"]


def test_the_report_is_written_even_if_stdout_is_closed(run):
    (run / "report.html").unlink(missing_ok=True)
    command = [sys.executable, "-m", "sgnray.cli", "eval", "first", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.close()
    assert process.returncode == 1
    assert (run / "report.html").is_file()


def test_an_unknown_run_is_refused(sgn, run):
    done = sgn("eval", "first", "secnod")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: run or checkpoint not found\n")


def test_a_folder_that_is_no_run_is_refused(sgn, tmp_path):
    done = sgn("eval", str(tmp_path))
    assert done.code == 2
    assert done.err.startswith(f"error: this is not the folder of a run\n  where  {tmp_path}\n")


def content_of(run):
    return json.loads((run / "report.json").read_text())


@pytest.mark.parametrize("option", [("--address", "ray://head:10001"), ("--wait", "5s")])
@pytest.mark.parametrize("command", ["eval", "predict"])
def test_options_of_ray_need_workers(sgn, run, tiny_raw, command, option):
    arguments = (run,) if command == "eval" else (tiny_raw, "--checkpoint", run)
    done = sgn(command, *map(str, arguments), *option)
    assert done.code == 2
    assert done.err.startswith("error: without workers, Ray is not used\n")


@pytest.mark.parametrize("command", ["train", "eval", "predict"])
def test_each_option_of_workers_is_passed_on(sgn, run, tiny_raw, tiny_folder, command):
    """Without workers, those that were passed on are refused by their names."""
    words = {
        "train": ("--case", "cv", "--data", tiny_folder, "--workers", "0"),
        "eval": (run, "--data", tiny_folder),
        "predict": (tiny_raw, "--checkpoint", run),
    }[command]
    given = ["--cpus-per-worker", "3", "--gpus-per-worker", "0.25", "--accelerator-type", "H100"]
    given += ["--label", "a=b", "--label", "c=d", "--wait", "9s"]
    done = sgn(command, *map(str, words), *given)
    assert done.code == 2
    assert f"\n  where  {' '.join(given)}\n" in done.err
