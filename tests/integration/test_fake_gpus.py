"""GPUs that Ray counts and gives to workers, while the workers compute on CPUs."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from .autoscaler import autoscaler_stopped, autoscaling_head, num_nodes, running
from .disturbed import end, num_epochs, train_command, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Each Python process of Ray runs this first: a worker that got a GPU takes the CPU all the same.
WITHOUT_CUDA = """
import importlib.util
import sys

def use_cpu(module):
    if module.__name__ == "sgnray.distributed.device":
        module.prepare_device = lambda device_type: None
    else:
        module._own_device = lambda device_type: module.torch.device("cpu")

class Workers:
    def find_spec(name, path=None, target=None):
        if name not in ("sgnray.distributed.device", "sgnray.distributed.train_workers"):
            return None
        sys.meta_path.remove(Workers)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, Workers)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            use_cpu(module)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Workers)
"""


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head without CPUs, whose autoscaler may add one node with eight CPUs and a GPU."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "sitecustomize.py").write_text(WITHOUT_CUDA)
    environment = {"PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": "0"}
    with autoscaling_head({"CPU": 8, "GPU": 1}, max_nodes=1, **environment) as host:
        yield host


@pytest.fixture
def start(head, tmp_path):
    """Start a command on the head; ends it afterwards."""
    started = []

    def run(command):
        command = [*command, "--address", head.ray_address]
        with (tmp_path / "out.txt").open("ab") as out:
            started.append(head.start(command, cwd=tmp_path, stdout=out, stderr=out))
        return started[-1]

    yield run
    for process in started:
        end(process)


def on_gpus(data, *options):
    return train_command(data, "--device", "cuda", "--workers", "1", *options)


def test_a_gpu_is_added_when_training_asks_for_it(head, start, tiny_folder, tmp_path):
    output = tmp_path / "out.txt"
    with autoscaler_stopped(head):
        process = start(on_gpus(tiny_folder, "train.num_epochs=2"))
        needed = "waiting for 1 worker with 1 CPU and 1 GPU; the cluster has 0 CPUs"
        wait_until(lambda: needed in output.read_text(), process, output=output)
    assert process.wait(300) == 0, output.read_text()
    record = json.loads((tmp_path / "runs" / "run" / "environment.json").read_text())
    assert record["device"] == "cuda"


def test_four_seeds_train_on_one_gpu_and_the_fifth_waits(head, start, tiny_folder, tmp_path):
    """Whether the GPU is there already, or all five have asked for it."""
    options = ("--seeds", "5", "--gpus-per-worker", "0.25", "train.num_epochs=100000")
    process = start(on_gpus(tiny_folder, *options))
    runs = [tmp_path / "runs" / f"run-seed{seed}" for seed in range(5)]
    output = tmp_path / "out.txt"
    wait_until(lambda: sum(map(bool, map(num_epochs, runs))) == 4, process, output=output)
    assert len(running(head, "RayTrainWorker")) == 4
    assert num_nodes(head) == 2
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(300) == 130, output.read_text()


def test_two_workers_do_not_wait_for_ever_for_one_gpu(start, tiny_folder, tiny_run, tmp_path):
    command = [sys.executable, "-m", "sgnray.cli", "eval", str(tiny_run)]
    command += ["--data", str(tiny_folder), "--device", "cuda", "--workers", "2", "--wait", "2s"]
    assert start(command).wait(300) == 1
    block = (tmp_path / "out.txt").read_text().partition("error: ")[2]
    assert block.startswith("waited 2 s for 2 workers with 1 CPU and 1 GPU each\n")
