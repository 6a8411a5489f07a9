"""Several seeds share a GPU: one that Ray only counts, while the workers compute on CPUs."""

from __future__ import annotations

import json
import os
import signal

import pytest

from .disturbed import end, num_epochs, train_command, wait_until
from .hosts import hosts

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Each Python process of Ray runs this first: a worker that got a GPU takes the CPU all the same.
WITHOUT_CUDA = """
import importlib.util
import sys

class Launcher:
    def find_spec(name, path=None, target=None):
        if name != "sgnray.distributed.launcher":
            return None
        sys.meta_path.remove(Launcher)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.own_device = lambda device_type: module.torch.device("cpu")

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Launcher)
"""


def test_four_seeds_train_on_one_gpu_and_the_fifth_waits(tiny_folder, tmp_path):
    output = tmp_path / "out.txt"
    with hosts(1) as (head,), output.open("wb") as out:
        (head.folder / "sitecustomize.py").write_text(WITHOUT_CUDA)
        head.start_head(
            "--num-gpus", "1", num_cpus=8, PYTHONPATH=str(head.folder), CUDA_VISIBLE_DEVICES="0"
        )  # fmt: skip
        options = ("--address", head.ray_address, "--device", "cuda", "--workers", "1")
        options += ("--seeds", "5", "--gpus-per-worker", "0.25", "train.num_epochs=100000")
        command = train_command(tiny_folder, *options)
        process = head.start(command, cwd=tmp_path, stdout=out, stderr=out)
        *first, last = (tmp_path / "runs" / f"run-seed{seed}" for seed in range(5))
        try:
            wait_until(lambda: all(map(num_epochs, first)), process, output=output)
            assert not last.exists()
            records = [json.loads((run / "environment.json").read_text()) for run in first]
            assert [record["device"] for record in records] == ["cuda"] * 4
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(100) == 130, output.read_text()
        finally:
            end(process)
