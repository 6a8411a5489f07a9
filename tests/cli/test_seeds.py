"""`sgn train --seeds`: killed half-way and run again, a seed that is lost, what is refused."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sgnray.config import recipe_for
from sgnray.train import train_run, train_seeds

from ..conftest import TINY
from ..integration.disturbed import wait_until

SMALL = (*TINY, "optim.milestones=[]")
REPORT = "runs/run-seeds2.json"


@pytest.fixture
def start(tiny_folder):
    """Start `sgn train --seeds 2` in a folder, on one core: one seed after the other."""
    started = []

    def run(folder, *options):
        folder.mkdir(exist_ok=True)
        core = str(min(os.sched_getaffinity(0)))
        words = ["train", "--case", "cv", "--name", "run", "--seeds", "2", "--device", "cpu"]
        command = [sys.executable, "-m", "sgnray.cli", *words, "--data", str(tiny_folder)]
        with (folder / "out.txt").open("ab") as out:
            started.append(
                subprocess.Popen(
                    ["taskset", "-c", core, *command, *SMALL, *options],
                    cwd=folder, stdout=out, stderr=out, start_new_session=True,
                )
            )  # fmt: skip
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def num_epochs(folder, seed):
    metrics = folder / f"runs/run-seed{seed}/metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def trained(folder, seed):
    """When the last checkpoint of a seed was written."""
    newest = max((folder / f"runs/run-seed{seed}/checkpoints").glob("epoch-*/checkpoint.pt"))
    return newest.name, newest.stat().st_mtime_ns


def test_killed_half_way_and_run_again(start, tiny_folder, tmp_path):
    """Finished seeds are not trained again, and each seed equals a run of `train_run`."""
    process = start(tmp_path, "train.num_epochs=15")
    wait_until(lambda: num_epochs(tmp_path, 1) >= 2, process, output=tmp_path / "out.txt")
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()  # only the parent: the running seed must notice by itself
    assert not psutil.wait_procs(children, 300)[1]
    assert num_epochs(tmp_path, 1) < 15
    assert not (tmp_path / REPORT).exists()

    first = trained(tmp_path, 0)
    assert start(tmp_path, "train.num_epochs=15").wait(500) == 0, (tmp_path / "out.txt").read_text()
    assert trained(tmp_path, 0) == first
    report = json.loads((tmp_path / REPORT).read_text())
    assert report["missing"] == {}
    for seed, row in enumerate(report["seeds"]):
        recipe = recipe_for("synth", "cv", [*SMALL, "train.num_epochs=15", f"train.seed={seed}"])
        alone = train_run(recipe, tiny_folder, name=f"alone-{seed}", device="cpu").report
        assert (row["seed"], row["num_correct"], row["top1"]) == (
            seed,
            alone.num_correct,
            alone.top1,
        )
    tops = [row["num_correct"] / row["num_clips"] for row in report["seeds"]]
    assert report["mean_top1"] == pytest.approx(sum(tops) / 2)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_or_a_closed_terminal_ends_all_seeds_in_order(start, tmp_path, ending):
    process = start(tmp_path, "train.num_epochs=5000")
    wait_until(lambda: num_epochs(tmp_path, 0) >= 1, process, output=tmp_path / "out.txt")
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, ending)  # the whole group gets it, as in a terminal
    assert process.wait(200) == 128 + ending
    assert not psutil.wait_procs(children, 300)[1]
    printed = (tmp_path / "out.txt").read_text()
    assert "Traceback" not in printed
    assert "interrupted; rerun the same command to resume" in printed


def test_a_lost_seed_is_missing_and_the_others_finish(start, tmp_path):
    process = start(tmp_path, "train.num_epochs=30")
    wait_until(lambda: num_epochs(tmp_path, 0) >= 1, process, output=tmp_path / "out.txt")
    seed_0 = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(seed_0) == 1
    seed_0[0].kill()
    assert process.wait(500) == 1
    report = json.loads((tmp_path / REPORT).read_text())
    assert [row["seed"] for row in report["seeds"]] == [1]
    assert list(report["missing"]) == ["0"]
    assert "Traceback" not in (tmp_path / "out.txt").read_text()


def test_where_all_seeds_diverge_each_has_its_reason(sgn, tiny_folder):
    done = sgn(
        "train", "--case", "cv", "--data", str(tiny_folder), "--seeds", "2", *SMALL,
        "optim.learning_rate=1e30", "train.num_epochs=3", "train.ema_decay=0.999",
    )  # fmt: skip
    assert done.code == 1
    assert done.err.count("initial weights after all") == 1  # a warning about all seeds
    assert done.err.count("smaller optim.learning_rate") >= 2
    assert "seed 0  the loss is no longer a finite number" in done.err
    assert "seed 1  the loss is no longer a finite number" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("selection", "key"), [("last", "case"), ("last", "format_version"), ("validation", "epoch")]
)
def test_only_a_missing_report_is_computed_again(
    tiny_recipe, tiny_folder, tmp_path, caplog, selection, key
):
    """A report of another test, or of another version, is not mistaken for the seed's own."""
    recipe = tiny_recipe.replacing({"train.selection": selection})

    def train():
        with caplog.at_level(logging.INFO):
            return train_seeds(recipe, tiny_folder, num_seeds=1, runs_dir=tmp_path / "runs")

    scores = train().scores
    path = Path(scores[0].run) / "report.json"
    content = json.loads(path.read_text())
    # Of another test, or of an epoch that was the best when it was scored, but is not at the end.
    other = {"case": "cs", "format_version": 2, "epoch": content["epoch"] % 4 + 1}
    path.write_text(json.dumps(content | {key: other[key], "num_correct": 1, "num_clips": 2}))
    caplog.clear()
    assert train().scores == scores
    assert caplog.text.count("seed 0: run ") == 1
    assert "only the test is repeated" in caplog.text


def test_what_is_refused_before_a_seed_starts(sgn, tiny_folder, tmp_path):
    command = ("train", "--case", "cv", "--data", str(tiny_folder), *SMALL, "train.num_epochs=1")
    assert sgn(*command, "--seeds", "0").code == 2
    assert sgn(*command, "--seeds", "2", "--name", "../up").code == 2
    assert not (tmp_path / "runs").exists()
    assert sgn(*command, "--name", "mine-seed1").code == 0
    before = sorted((tmp_path / "runs").iterdir())
    done = sgn(*command, "--name", "mine", "--seeds", "2", "optim.label_smoothing=0.2")
    assert done.code == 1
    assert "another recipe" in done.err
    assert sorted((tmp_path / "runs").iterdir()) == before
    (tmp_path / "runs/folder-seeds2.json").mkdir()
    done = sgn(*command, "--name", "folder", "--seeds", "2")
    assert (done.code, "a folder has its name" in done.err) == (1, True)
    assert not (tmp_path / "runs/folder-seed0").exists()
