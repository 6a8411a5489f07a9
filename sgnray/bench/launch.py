"""The same training on 1 to N workers of Ray, as `sgn train` launches it, and without Ray."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sgnray.bench.alone import measure_alone
from sgnray.bench.noise import Shape, write_noise
from sgnray.bench.result import Rate, WorkersSpeed
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.config import Recipe
from sgnray.distributed.cluster import connected, is_at_hand
from sgnray.distributed.workers import Workers
from sgnray.metric_keys import CLIPS_PER_S
from sgnray.train.job import Job
from sgnray.train.launch import Executor, executor
from sgnray.train.loop import EpochResult
from sgnray.train.progress import Progress

# Epochs of so many steps, and at least so many of them; the first is not counted.
EPOCH_STEPS = 8
_MIN_EPOCHS = 4


@dataclass(frozen=True)
class WorkerScaling:
    """A short training on noise: what it trains, and about how long."""

    recipe: Recipe
    shape: Shape
    seconds: float
    clips_per_s: float

    def job_recipe(self) -> Recipe:
        """Return a recipe of as many epochs as fit into the time."""
        wanted = self.seconds * self.clips_per_s / (EPOCH_STEPS * self.recipe.optim.batch_size)
        return self.recipe.replacing(
            {
                "train.num_epochs": max(_MIN_EPOCHS, math.ceil(wanted)),
                "train.selection": "last",
                # A warmup may be longer than these few epochs, and speed does not depend on it.
                "optim.warmup_epochs": 0,
                "evaluate.num_views": 1,
            }
        )


def worker_counts(most: int) -> list[int]:
    """Return 1, 2, 4 and so on, and `most`."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


@contextmanager
def measuring(
    trial: WorkerScaling, *, most: int, device: str, address: str | None
) -> Iterator[Iterator[WorkersSpeed]]:
    """Hold a cluster of `most` workers; what is given measures each number of them in turn."""
    # Other machines see no temporary folder of this one, but maybe the current folder.
    place = Path.cwd() if is_at_hand(address) else None
    with (
        # Around the cluster, whose workers could write into it while it is removed.
        TemporaryDirectory(prefix="sgn-bench-", dir=place) as folder,
        connected(address, num_workers=most) as resources,
    ):
        yield _measure_each(
            trial,
            Path(folder),
            most=most,
            device=device,
            address=address,
            has_alone=resources.is_local,
        )


def train_on(execute: Executor, job: Job, run: RunFolder) -> list[float]:
    """Train as `sgn train` does; return the clips/s of each epoch but the first."""
    run.path.mkdir()
    history: list[dict[str, float]] = []

    def record(news: EpochResult | Progress) -> None:
        if isinstance(news, EpochResult):
            history[:] = news.history

    execute(job, run, record)
    return [metrics[CLIPS_PER_S] for metrics in history[1:]]


def _measure_each(
    trial: WorkerScaling,
    folder: Path,
    *,
    most: int,
    device: str,
    address: str | None,
    has_alone: bool,
) -> Iterator[WorkersSpeed]:
    recipe = trial.job_recipe()
    dataset = write_noise(
        folder / "noise",
        recipe,
        trial.shape,
        num_train=EPOCH_STEPS * recipe.optim.batch_size,
        num_test=most,
    )
    one_thread = None
    for count in worker_counts(most):
        with executor(
            workers=Workers.of(count), device=device, address=address, max_failures=0
        ) as execute:
            hardware = execute.hardware
            threads = hardware.threads_per_worker
            alone = None
            if has_alone and hardware.device_type == "cpu":
                alone = _alone(recipe, dataset, count, threads)
            run = RunFolder(folder / f"workers-{count}")
            rate = Rate.of(train_on(execute, Job(recipe, dataset, None), run))
        per_thread = rate.median / (count * threads)
        one_thread = one_thread or per_thread
        yield WorkersSpeed(
            num_workers=count,
            threads_per_worker=threads,
            clips_per_s=rate,
            per_thread=per_thread / one_thread,
            alone_clips_per_s=alone,
            against_alone=None if alone is None else rate.median / alone,
        )


def _alone(recipe: Recipe, dataset: Path, count: int, threads: int) -> float:
    """Sum the clips/s of `count` processes, each with a worker's share of the batch."""
    share = recipe.replacing({"optim.batch_size": max(1, recipe.optim.batch_size // count)})
    rates = measure_alone(share, dataset, num_processes=count, num_threads=threads)
    return sum(Rate.of(epochs).median for epochs in rates)
