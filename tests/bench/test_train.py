"""How training uses the machine; `pytest -m bench -s tests/bench/test_train.py`.

Every figure is a ratio of two things measured in turn. SGNRAY_BENCH_ROUNDS sets how many times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from sgnray.bench import bench_recipe
from sgnray.bench.noise import known_shape, write_noise
from sgnray.bench.run import EPOCH_STEPS
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.config import load_recipe
from sgnray.metric_keys import EPOCH_S

pytestmark = [pytest.mark.bench, pytest.mark.ray, pytest.mark.timeout(3600)]

NUM_ROUNDS = int(os.environ.get("SGNRAY_BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("SGNRAY_BENCH_SECONDS", "30"))

# An empty Ray run, started as we start one; it records when the function and the run are over.
EMPTY_FIT = """
import sys, time
from sgnray.distributed.cluster import connected
with connected(num_workers=2):
    from ray.train import LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    def work(config):
        import time
        with open(config["noted"], "a") as file:
            file.write(f"{time.time()} ")
    TorchTrainer(
        work,
        train_loop_config={"noted": sys.argv[1]},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            storage_path=sys.argv[2], logging_config=LoggingConfig(log_level="ERROR")
        ),
    ).fit()
    work({"noted": sys.argv[1]})
"""


def report(what, share):
    spread = f"quartiles {share.low:.1%} to {share.high:.1%}, {share.num_rounds} rounds"
    print(f"\n{what}: {share.median:.1%} ({spread})")


@pytest.fixture
def noise(tmp_path):
    num_train = EPOCH_STEPS * load_recipe("ntu60-cs").optim.batch_size
    shape = known_shape("ntu60", "cs")[1]
    return write_noise(tmp_path / "noise", "ntu60", "cs", shape, num_train=num_train, num_test=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_from_the_command_to_the_first_step(noise, tmp_path, workers):
    for number in range(NUM_ROUNDS):
        if workers == 0:
            plain = {"import torch": timed("-c", "import torch")}
        else:
            plain = time_empty_fit(tmp_path, number)
        found = time_first_step(noise, tmp_path / f"{workers}-{number}", workers)
        others = ", ".join(f"{found - spent:+.1f} s to {name}" for name, spent in plain.items())
        print(f"\n{workers} workers: first step after {found:.1f} s, {others}")


def test_share_outside_of_the_steps():
    """On one thread: the time that two threads wait for each other would hide it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in ("ntu60-cs", "nwucla-cv"):
            measured = bench_recipe(load_recipe(name), device="cpu", seconds=SECONDS)
            report(f"{name}, outside of forward, backward and step", measured.epoch.outside)
            report_rate("data path", measured.data_clips_per_s)
    finally:
        torch.set_num_threads(before)


def timed(*arguments):
    begin = time.time()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.time() - begin


def time_first_step(noise, run, workers):
    """Seconds to the first step: from the command to the first checkpoint, less the epoch."""
    begin = time.time()
    timed(
        *("-m", "sgnray.cli", "train", "--recipe", "ntu60-cs", "--data", str(noise)),
        *("--runs", str(run.parent), "--name", run.name, "--workers", str(workers)),
        *("train.num_epochs=1", "evaluate.num_views=1"),
    )
    metrics = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    return RunFolder(run).checkpoint_path(1).stat().st_mtime - metrics[EPOCH_S] - begin


def time_empty_fit(folder, number):
    noted = folder / f"empty-{number}"
    begin = time.time()
    timed("-c", EMPTY_FIT, str(noted), str(folder / f"storage-{number}"))
    times = [float(text) - begin for text in noted.read_text().split()]
    return {"an empty function's start": times[0], "an empty fit()'s end": times[-1]}


def report_rate(what, rate):
    print(f"{what}: {rate.median:,.0f} clips/s (quartiles {rate.low:,.0f} to {rate.high:,.0f})")
