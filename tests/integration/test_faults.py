"""What a run survives on a real cluster: Ctrl-C, and a worker that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SMALL = (
    "data.num_segments=8",
    "model.embedding_width=8",
    "model.affinity_width=8",
    "model.graph_widths=[8, 8, 8]",
    "model.frame_width=16",
    "optim.batch_size=6",
    "optim.milestones=[]",
    "train.num_epochs=30",
)


@pytest.fixture
def start(tiny_folder, tmp_path):
    """Start `sgn train` on one worker in a process group of its own; ends it afterwards."""
    started = []

    def run(*options):
        command = [sys.executable, "-m", "sgnray.cli", "train", "--case", "cv", "--workers", "1"]
        command += [
            "--data",
            str(tiny_folder),
            "--name",
            "run",
            "--device",
            "cpu",
            *options,
            *SMALL,
        ]
        with (tmp_path / "out.txt").open("a") as out:
            process = subprocess.Popen(
                command, cwd=tmp_path, stdout=out, stderr=out, start_new_session=True
            )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_epoch(folder: Path, epoch: int, process) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        metrics = folder / "metrics.jsonl"
        if metrics.exists() and len(metrics.read_text().splitlines()) >= epoch:
            return
        assert process.poll() is None, (folder.parents[1] / "out.txt").read_text()
        time.sleep(0.1)
    raise TimeoutError


def read_epochs(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["epoch"] for line in lines]


def test_ctrl_c_ends_everything_and_the_same_command_goes_on(start, tmp_path):
    folder = tmp_path / "runs" / "run"
    process = start()
    wait_for_epoch(folder, 3, process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert "interrupted; the same command continues" in (tmp_path / "out.txt").read_text()
    assert not (folder / "report.json").exists()
    again = start()
    assert again.wait(timeout=120) == 0
    assert read_epochs(folder) == list(range(1, 31))
    assert "goes on after epoch" in (tmp_path / "out.txt").read_text()


def test_a_killed_worker_is_replaced_and_changes_nothing(start, tmp_path):
    folder = tmp_path / "runs" / "run"
    process = start("--max-failures", "1")
    wait_for_epoch(folder, 3, process)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RayTrainWorker" in " ".join(child.cmdline())
    ]
    assert workers
    workers[0].kill()
    assert process.wait(timeout=180) == 0, (tmp_path / "out.txt").read_text()
    assert read_epochs(folder) == list(range(1, 31))
    disturbed = json.loads((folder / "report.json").read_text())
    losses = (folder / "metrics.jsonl").read_text().splitlines()

    straight = start("--runs", "straight", "--workers", "0")
    assert straight.wait(timeout=120) == 0
    expected = (tmp_path / "straight" / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["train/loss"] for line in losses] == [
        json.loads(line)["train/loss"] for line in expected
    ]
    report = json.loads((tmp_path / "straight" / "run" / "report.json").read_text())
    assert disturbed["loss"] == report["loss"]
