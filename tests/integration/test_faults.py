"""What a run survives on a cluster of its own: Ctrl-C, a killed worker, a killed driver."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import psutil
import pytest

from ..processes import maps_file
from .disturbed import (
    assert_undisturbed,
    end,
    num_epochs,
    print_seconds,
    start_train,
    train_command,
    train_workers,
    tune_command,
    wait_for_end,
    wait_for_epoch,
    wait_until,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_EPOCHS = 40  # more than a run finishes between one fault and the next


@pytest.fixture
def start(tiny_folder, tmp_path, monkeypatch):
    """Start the same `sgn train` on two workers, several times; end it afterwards."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command = train_command(
        tiny_folder, "--workers", "2", "--max-failures", "1", f"train.num_epochs={NUM_EPOCHS}"
    )
    started = []

    def run():
        started.append(start_train(tmp_path, *command))
        return started[-1]

    yield run
    for process in started:
        end(process)


def press_ctrl_c(process):
    """Send it to the whole process group, as a terminal does."""
    os.killpg(process.pid, signal.SIGINT)


def descendants(process):
    """All descendants except Ray's agents, which are slow to notice its end."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "Agent" not in child.name()]


def kill_a_worker(process):
    """Kill one of two at a random step, and return both."""
    time.sleep(random.Random().uniform(0, 0.5))
    workers = train_workers(process.pid)
    assert len(workers) == 2
    random.Random().choice(workers).kill()
    return workers


def test_a_run_survives_a_killed_worker_ctrl_c_and_a_killed_driver(start, tiny_folder, tmp_path):
    """One run goes through all three, and ends with the weights of an uninterrupted one."""
    run, output = tmp_path / "runs" / "run", tmp_path / "out.txt"
    process = start()
    print_seconds("from the command to its second epoch", wait_for_epoch(run, 2, process))
    workers = kill_a_worker(process)
    lost = wait_until(lambda: not any(map(psutil.pid_exists, ids(workers))), process, output=output)
    resumed = wait_for_epoch(run, num_epochs(run) + 1, process)
    print_seconds("from a killed worker to the next epoch", lost + resumed)

    children = descendants(process)
    press_ctrl_c(process)
    print_seconds(
        "from Ctrl-C to the end of the command", wait_for_end(process, 130, output=output)
    )
    assert not psutil.wait_procs(children, timeout=200)[1]
    assert "interrupted; rerun the same command" in output.read_text()

    process = start()
    resumed = wait_for_epoch(run, num_epochs(run) + 1, process)
    print_seconds("from the command to the next epoch of a run that it resumes", resumed)
    children = descendants(process)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(children, timeout=200)[1]
    assert num_epochs(run) < NUM_EPOCHS
    assert not (run / "report.json").exists()

    wait_for_end(start(), 0, output=output)
    assert output.read_text().count("resumes after epoch") == 2
    assert "Traceback" not in output.read_text()
    assert_undisturbed(run, tiny_folder, tmp_path, size=2)


@pytest.mark.parametrize("moment", ["it appears", "it imports torch"])
def test_a_worker_killed_during_startup_is_replaced(start, tiny_folder, tmp_path, moment):
    run, output = tmp_path / "runs" / "run", tmp_path / "out.txt"
    process = start()

    def ready():
        return [
            worker
            for worker in train_workers(process.pid)
            if moment == "it appears" or maps_file(worker.pid, "libtorch_cpu")
        ]

    wait_until(ready, process, output=output)
    ready()[0].kill()
    assert num_epochs(run) == 0
    print_seconds("from a worker killed at the start to the first epoch",
                  wait_for_epoch(run, 1, process))  # fmt: skip
    press_ctrl_c(process)
    wait_for_end(process, 130, output=output)
    assert_undisturbed(run, tiny_folder, tmp_path, size=2)


def has_child(process, name):
    return any(name in " ".join(child.cmdline()) for child in descendants(process))


STAGES = {
    "torch is imported": lambda process, run: maps_file(process.pid, "libtorch_cpu"),
    "Ray starts": lambda process, run: has_child(process, "gcs_server"),
    "Ray's node starts": lambda process, run: has_child(process, "raylet/raylet"),
    "the run is created": lambda process, run: (run / "recipe.yaml").exists(),
    "workers start": lambda process, run: train_workers(process.pid) != [],
    "training": lambda process, run: num_epochs(run) >= 1,
    "the test": lambda process, run: num_epochs(run) == 2 and not (run / "report.json").exists(),
}


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_ends_a_command_at_any_stage(stage, tiny_folder, tmp_path, monkeypatch):
    """No process is left, and the same command finishes the run."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run, output = tmp_path / "runs" / "run", tmp_path / "out.txt"
    num_views = 4000 if stage == "the test" else 5  # long enough to be seen
    command = train_command(
        tiny_folder, "--workers", "2", "train.num_epochs=2", f"evaluate.num_views={num_views}"
    )
    process = start_train(tmp_path, *command)
    try:
        wait_until(lambda: STAGES[stage](process, run), process, output=output)
        children = descendants(process)
        press_ctrl_c(process)
        seconds = wait_for_end(process, 130, output=output)
    finally:
        end(process)
    print_seconds(f"from Ctrl-C ({stage}) to the end of the command", seconds)
    assert not psutil.wait_procs(children, timeout=200)[1]
    assert "Traceback" not in output.read_text()
    assert not (run / "report.json").exists()
    if stage == "workers start":
        again = start_train(tmp_path, *command)
        try:
            wait_for_end(again, 0, output=output)
        finally:
            end(again)
        assert (run / "report.json").exists()


POOL_STAGES = {
    "Ray starts": "gcs_server",
    "Ray's node starts": "raylet/raylet",
    "workers start": "ray::_Worker",
    "scoring": "ray::_Worker.run",
}


@pytest.mark.parametrize("stage", POOL_STAGES)
@pytest.mark.parametrize("command", ["eval", "predict"])
def test_ctrl_c_ends_eval_and_predict_at_any_stage(
    command, stage, tiny_run, tiny_raw, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    output = tmp_path / "out.txt"
    words = {
        "eval": [tiny_run, "--data", tiny_folder, "--out", "report"],
        "predict": [tiny_raw, "--checkpoint", tiny_run, "--window", "12", "--out", "p.jsonl"],
    }[command]
    options = ["--workers", "2", "--device", "cpu", "--views", "20000"]  # long enough to be seen
    process = start_train(tmp_path, sys.executable, "-m", "sgnray.cli", command, *words, *options)
    try:
        wait_until(lambda: has_child(process, POOL_STAGES[stage]), process, output=output)
        children = descendants(process)
        press_ctrl_c(process)
        seconds = wait_for_end(process, 130, output=output)
    finally:
        end(process)
    print_seconds(f"from Ctrl-C ({command}, {stage}) to the end of the command", seconds)
    assert not psutil.wait_procs(children, timeout=200)[1]
    assert "Traceback" not in output.read_text()
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "p.jsonl").exists()


TUNE_STAGES = {
    "Ray starts": lambda process, search: has_child(process, "gcs_server"),
    "Ray's node starts": lambda process, search: has_child(process, "raylet/raylet"),
    "the search is created": lambda process, search: (search / "search.json").exists(),
    "a trial starts": lambda process, search: has_child(process, "ray::ImplicitFunc"),
    "a trial ended": lambda process, search: (search / "best.yaml").exists(),
}


@pytest.mark.parametrize("stage", TUNE_STAGES)
def test_ctrl_c_ends_a_search_at_any_stage(stage, tiny_folder, tmp_path, monkeypatch):
    """No process is left, and the same command finishes the search."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    search, output = tmp_path / "runs" / "search", tmp_path / "out.txt"
    (tmp_path / "space.yaml").write_text("format_version: 1\nmodel.dropout: {choice: [0.0, 0.1]}\n")
    command = tune_command(
        tiny_folder, "--name", "search", "--space", "space.yaml", "--concurrent", "1"
    )
    process = start_train(tmp_path, *command)
    try:
        wait_until(lambda: TUNE_STAGES[stage](process, search), process, output=output)
        children = descendants(process)
        press_ctrl_c(process)
        seconds = wait_for_end(process, 130, output=output)
    finally:
        end(process)
    print_seconds(f"from Ctrl-C (tune, {stage}) to the end of the command", seconds)
    assert not psutil.wait_procs(children, timeout=200)[1]
    assert "Traceback" not in output.read_text()
    assert not (search / "search.html").exists()
    if stage in ("a trial starts", "a trial ended"):
        again = start_train(tmp_path, *command)
        try:
            wait_for_end(again, 0, output=output)
        finally:
            end(again)
        assert (search / "search.html").exists()


def ids(processes):
    return [process.pid for process in processes]
