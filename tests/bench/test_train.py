"""How training uses the machine; `pytest -m bench -s tests/bench/test_train.py`.

Every figure is a ratio of two things measured in turn. SGNRAY_BENCH_ROUNDS sets how many times.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

import pytest
import torch

from sgnray.bench import bench_recipe
from sgnray.bench.alone import measure_alone
from sgnray.bench.launch import EPOCH_STEPS, WorkerScaling, train_on
from sgnray.bench.noise import known_shape, write_noise
from sgnray.bench.result import Rate
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.config import load_recipe
from sgnray.distributed.cluster import connected
from sgnray.distributed.workers import Workers
from sgnray.metric_keys import EPOCH_S
from sgnray.train.job import Job
from sgnray.train.launch import executor

pytestmark = [pytest.mark.bench, pytest.mark.ray, pytest.mark.timeout(3600)]

NUM_ROUNDS = int(os.environ.get("SGNRAY_BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("SGNRAY_BENCH_SECONDS", "30"))

# An empty run of Ray as we start it; it notes when the function begins and when all is over.
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
    told = f"quartiles {share.low:.1%} to {share.high:.1%}, {share.num_rounds} rounds"
    print(f"\n{what}: {share.median:.1%} ({told})")


@pytest.fixture
def trial():
    recipe = load_recipe("ntu60-cs")
    return WorkerScaling(
        recipe, known_shape("ntu60", "cs")[1], seconds=SECONDS / 3, clips_per_s=100
    )


@pytest.fixture
def noise(trial, tmp_path):
    recipe = trial.job_recipe()
    num_train = EPOCH_STEPS * recipe.optim.batch_size
    return write_noise(tmp_path / "noise", recipe, trial.shape, num_train=num_train, num_test=2)


@pytest.mark.ray
def test_two_workers_against_two_processes(trial, noise, tmp_path):
    """One thread each; the processes with a worker's share of the batch, and with all of it."""
    recipe = trial.job_recipe()
    halves = {"batch_size": recipe.optim.batch_size // 2}
    half = recipe.model_copy(update={"optim": recipe.optim.model_copy(update=halves)})
    against = {"half the batch each": half, "the whole batch each": recipe}
    shares = {name: [] for name in against}
    with connected(num_workers=2):
        for number in range(NUM_ROUNDS):
            run = RunFolder(tmp_path / f"run-{number}")
            with executor(
                workers=Workers.of(2), device="cpu", address=None, max_failures=0
            ) as execute:
                assert execute.hardware.threads_per_worker == 1, "measure this on two cores"
                two = statistics.median(train_on(execute, Job(recipe, noise, None), run))
            for name, told in against.items():
                apart = measure_alone(told, noise, num_processes=2, num_threads=1)
                shares[name].append(two / sum(map(statistics.median, apart)))
    for name, found in shares.items():
        report(f"two workers of two processes with {name}", Rate.of(found))


@pytest.mark.parametrize("workers", [0, 2])
def test_from_the_command_to_the_first_step(noise, tmp_path, workers):
    for number in range(NUM_ROUNDS):
        if workers == 0:
            plain = {"import torch": timed("-c", "import torch")}
        else:
            plain = time_empty_fit(tmp_path, number)
        found = time_first_step(noise, tmp_path / f"{workers}-{number}", workers)
        told = ", ".join(f"{found - spent:+.1f} s to {name}" for name, spent in plain.items())
        print(f"\n{workers} workers: first step after {found:.1f} s, {told}")


def test_share_outside_of_the_steps():
    """On one thread: two that wait for each other would hide it."""
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
    """From the command to the first epoch: its checkpoint's time, less what the epoch took."""
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
