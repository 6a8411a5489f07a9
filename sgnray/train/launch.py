"""Train a recipe: in this process, or with Ray Train on a cluster; the result is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from sgnray.checkpoints.checkpoint import pack_checkpoint
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.config import Recipe
from sgnray.data.fetch import SharedDataset
from sgnray.distributed.cluster import connected
from sgnray.distributed.device import choose_device, describe_device
from sgnray.distributed.gauges import Gauges
from sgnray.distributed.launcher import Hardware, RayLauncher, Worker
from sgnray.distributed.precision import choose_precision, without_auto
from sgnray.distributed.resources import WorkerRequest, Workers
from sgnray.distributed.world import World
from sgnray.evaluate.metrics import Tally
from sgnray.metric_keys import WAIT_S
from sgnray.train.job import OnTrainProgress, TrainProgress, run_job
from sgnray.train.loop import EpochResult
from sgnray.train.state import TrainState

# How many lost workers an elastic run tolerates by default; an error that repeats ends it.
ELASTIC_MAX_FAILURES = 10


@contextmanager
def open_executor(
    *,
    workers: Workers,
    device: str,
    address: str | None,
    max_failures: int | None,
    request: WorkerRequest | None = None,
) -> Iterator[Executor]:
    """Choose where recipes are trained, and keep the cluster connected meanwhile.

    `max_failures` None means 0 for a fixed number of workers, ELASTIC_MAX_FAILURES for a range.
    """
    if workers.most == 0:
        here, num_threads = choose_device(device), torch.get_num_threads()
        yield Executor(Hardware(here.type, describe_device(here), workers, num_threads))
        return
    if max_failures is None:
        max_failures = ELASTIC_MAX_FAILURES if workers.is_elastic else 0
    with connected(address, num_workers=workers.fewest) as resources:
        launcher = RayLauncher(
            resources,
            workers,
            device=device,
            max_failures=max_failures,
            request=request or WorkerRequest(),
        )
        yield Executor(launcher.hardware, launcher)


@dataclass(frozen=True)
class Executor:
    """Trains under DDP on the workers of a launcher, or in this process if there is none."""

    hardware: Hardware
    launcher: RayLauncher | None = None

    def without_auto(self, recipe: Recipe) -> Recipe:
        """Replace the precision `auto` by bf16 if the hardware has it; may wait for a node."""
        if self.launcher is not None:
            return without_auto(recipe, self.launcher.choose_precision)
        return without_auto(recipe, partial(choose_precision, self.hardware.device_type))

    def run(
        self,
        recipe: Recipe,
        dataset_dir: Path,
        run: RunFolder,
        on_epoch: Callable[[EpochResult], None],
        on_progress: OnTrainProgress | None = None,
    ) -> Tally:
        """Train and return the tally of the test clips; only this process writes the run.

        `on_epoch` and `on_progress` are called in this process, `on_epoch` after the epoch's
        checkpoint is in the run. ClusterError if workers were lost too often.
        """
        if self.launcher is not None:
            return _run_on_ray(self.launcher, recipe, dataset_dir, run, on_epoch, on_progress)

        def keep(state: TrainState, result: EpochResult) -> None:
            run.keep_checkpoint(state.epoch, pack_checkpoint(state.checkpoint()))
            on_epoch(result)

        return run_job(
            recipe,
            dataset_dir,
            device=torch.device(self.hardware.device_type),
            world=World(),
            on_epoch=keep,
            resume_from=run.newest_checkpoint_bytes(),
            on_progress=on_progress,
        )


def _run_on_ray(
    launcher: RayLauncher,
    recipe: Recipe,
    dataset_dir: Path,
    run: RunFolder,
    on_epoch: Callable[[EpochResult], None],
    on_progress: OnTrainProgress | None,
) -> Tally:
    gauges = Gauges(run.path.name)

    def on_message(message: FinishedEpoch | TrainProgress) -> None:
        if isinstance(message, TrainProgress):
            if on_progress is not None:
                on_progress(message)
            return
        run.keep_checkpoint(message.result.epoch, message.checkpoint)
        gauges.set(
            {**message.result.metrics, "epoch": message.result.epoch, WAIT_S: message.waited_s}
        )
        on_epoch(message.result)

    tally: Tally = launcher.run(
        partial(_train_on_worker, recipe=recipe, dataset=SharedDataset.of(dataset_dir)),
        name=run.path.name,
        state=run.newest_checkpoint_bytes,
        on_message=on_message,
    )
    return tally


@dataclass(frozen=True)
class FinishedEpoch:
    """The message of rank 0 to the driver after each epoch; `checkpoint` is the file's content.

    `waited_s` is how many seconds rank 0 waited for the driver when it sent the previous message.
    """

    result: EpochResult
    checkpoint: bytes
    waited_s: float


def _train_on_worker(
    worker: Worker, state: bytes | None, *, recipe: Recipe, dataset: SharedDataset
) -> Tally:
    """Train on this worker from the driver's state; rank 0 sends each epoch to the driver."""
    is_first = worker.world.rank == 0

    def on_epoch(trained: TrainState, result: EpochResult) -> None:
        message: FinishedEpoch | None = None
        if is_first:
            checkpoint = pack_checkpoint(trained.checkpoint())
            message = FinishedEpoch(result, checkpoint, worker.waited_s)
        worker.deliver(message)

    tally = run_job(
        recipe,
        dataset.local_dir(),
        device=worker.device,
        world=worker.world,
        on_epoch=on_epoch,
        resume_from=state,
        on_progress=worker.send if is_first else None,
    )
    return tally.to(torch.device("cpu"))
