"""A cluster that scales to zero: Ray's own autoscaler, with nodes that it fakes on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from .autoscaler import autoscaler_stopped, autoscaling_head, num_nodes, running
from .disturbed import end, num_epochs, train_command, tune_command, wait_for_end, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Longer than any test.
ENDLESS = ("--epochs", "100000", "train.num_epochs=100000")


@pytest.fixture(scope="module")
def head():
    """A head without CPUs, whose autoscaler may add two nodes of two CPUs."""
    with autoscaling_head({"CPU": 2}, max_nodes=2) as host:
        yield host


@pytest.fixture
def start(head, tmp_path):
    """Start a command on the head; ends it afterwards."""
    started = []

    def run(command):
        with (tmp_path / "out.txt").open("ab") as out:
            started.append(head.start(command, cwd=tmp_path, stdout=out, stderr=out))
        return started[-1]

    yield run
    for process in started:
        end(process)


def train(head, data, *options):
    return train_command(data, "--address", head.ray_address, "--workers", "1", *options)


def search(head, data, tmp_path, *options, points):
    """Return the words of a search named "mine" over some learning rates."""
    space = tmp_path / "space.yaml"
    space.write_text(f"optim.learning_rate: {{choice: {points}}}\n")
    options = ("--space", str(space), "--name", "mine", *options)
    return tune_command(data, "--address", head.ray_address, *options)


def evaluate(head, run, data, *options):
    command = [sys.executable, "-m", "sgnray.cli", "eval", str(run), "--data", str(data)]
    return [*command, "--address", head.ray_address, "--device", "cpu", "--workers", "1", *options]


def test_from_zero_to_training_and_back(head, start, tiny_folder, tmp_path):
    output = tmp_path / "out.txt"
    assert num_nodes(head) == 1
    with autoscaler_stopped(head):
        process = start(train(head, tiny_folder, "--cpus-per-worker", "2", "train.num_epochs=2"))
        wait_until(lambda: "waiting for 1 worker" in output.read_text(), process, output=output)
        assert "the cluster has 0 CPUs (0 free) and 0 GPUs" in output.read_text()
    wait_until(lambda: num_nodes(head) == 2, process, output=output)
    assert process.wait(300) == 0, output.read_text()
    run = tmp_path / "runs" / "run"
    assert json.loads((run / "environment.json").read_text())["threads"] == 2
    wait_until_scaled_down(head, start, output)

    with autoscaler_stopped(head):
        output.write_text("")
        scoring = start(evaluate(head, run, tiny_folder, "--cpus-per-worker", "2"))
        wait_until(lambda: "waiting for 1 worker" in output.read_text(), scoring, output=output)
    assert scoring.wait(300) == 0, output.read_text()


def wait_until_scaled_down(head, start, output):
    waiting = start(["sleep", "900"])
    wait_until(lambda: num_nodes(head) == 1, waiting, output=output)
    end(waiting)


def num_started(folder):
    """Count the trials that a search has given to Ray."""
    record = folder / "record.jsonl"
    return record.read_text().count('"event": "started"') if record.exists() else 0


def test_the_trials_of_a_search_ask_for_a_node_each(head, start, tiny_folder, tmp_path):
    output = tmp_path / "out.txt"
    wait_until_scaled_down(head, start, output)
    options = ("--cpus-per-trial", "2", *ENDLESS, "train.precision=float32")
    with autoscaler_stopped(head):
        searching = start(search(head, tiny_folder, tmp_path, *options, points=[1e-2, 2e-2]))
        folder = tmp_path / "runs" / "mine"
        wait_until(lambda: num_started(folder) == 2, searching, output=output)
    wait_until(lambda: len(running(head, "ImplicitFunc")) == 2, searching, output=output)
    assert num_nodes(head) == 3
    os.killpg(searching.pid, signal.SIGINT)
    wait_for_end(searching, 130, output=output)


def test_a_search_of_two_workers_per_trial_grows(head, start, tiny_folder, tmp_path):
    """It begins without any room; the second trial gets a node of its own."""
    output = tmp_path / "out.txt"
    wait_until_scaled_down(head, start, output)
    options = ("--workers-per-trial", "2", *ENDLESS)
    searching = start(search(head, tiny_folder, tmp_path, *options, points=[1e-2, 2e-2, 3e-2]))
    wait_until(lambda: len(running(head, "RayTrainWorker")) == 4, searching, output=output)
    record = tmp_path / "runs" / "mine" / "record.jsonl"
    reported = '"event": "reported", "number": 2'
    wait_until(lambda: reported in record.read_text(), searching, output=output)
    assert num_nodes(head) == 3
    assert len(running(head, "RayTrainWorker")) == 4
    os.killpg(searching.pid, signal.SIGINT)
    wait_for_end(searching, 130, output=output)


def test_a_search_stops_waiting_after_its_limit(head, start, tiny_folder, tmp_path):
    options = ("--gpus-per-trial", "1", "--wait", "2s", "train.precision=float32")
    searching = start(search(head, tiny_folder, tmp_path, *options, points=[1e-2, 2e-2]))
    assert searching.wait(300) == 1
    output = (tmp_path / "out.txt").read_text()
    block = output.partition("error: ")[2]
    assert block.startswith("waited 2 s for 1 trial with 1 CPU and 1 GPU\n")
    assert "Traceback" not in output


@pytest.mark.parametrize("command", ["train", "eval"])
@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        (["--cpus-per-worker", "64"], "1 worker with 64 CPUs"),
        (["--device", "cuda"], "1 worker with 1 CPU and 1 GPU"),
    ],
    ids=["CPUs", "a GPU"],
)
def test_waiting_for_resources_that_no_node_has_ends(
    head, start, tiny_folder, tiny_run, tmp_path, command, asked, needed
):
    options = [*asked, "--wait", "2s"]
    words = {
        "train": lambda: train(head, tiny_folder, *options),
        "eval": lambda: evaluate(head, tiny_run, tiny_folder, *options),
    }[command]()
    process = start(words)
    assert process.wait(300) == 1
    output = (tmp_path / "out.txt").read_text()
    block = output.partition("error: ")[2]
    assert block.startswith(f"waited 2 s for {needed}\n")
    assert block.count("\n") == 3, output
    assert "Traceback" not in output
    assert not (tmp_path / "runs" / "run" / "report.json").exists()


def test_an_elastic_run_asks_for_the_nodes_it_lacks(head, start, tiny_folder, tmp_path):
    """Runs last: the driver is killed, and Ray then keeps the requested nodes for minutes."""
    output, run = tmp_path / "out.txt", tmp_path / "runs" / "run"
    options = ["--workers", "1:2", "--cpus-per-worker", "2", "train.num_epochs=100000"]
    process = start(train(head, tiny_folder, *options))
    wait_until(lambda: len(running(head, "RayTrainWorker")) == 2, process, output=output)
    grown_at = num_epochs(run)
    wait_until(lambda: num_epochs(run) > grown_at + 1, process, output=output)
    assert num_nodes(head) == 3
