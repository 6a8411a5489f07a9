"""Run a job: in this process, or with Ray Train on a cluster; the result is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch

from sgnray.checkpoints.run_folder import RunFolder
from sgnray.data.shared import SharedDataset
from sgnray.distributed.cluster import connected
from sgnray.distributed.device import choose_device, describe_device
from sgnray.distributed.launcher import Hardware, RayLauncher, Worker
from sgnray.distributed.workers import Workers
from sgnray.distributed.world import World
from sgnray.evaluate.metrics import Tally
from sgnray.train.job import Job, TrainProgress, run_job
from sgnray.train.loop import EpochResult
from sgnray.train.state import TrainState

Record = Callable[[EpochResult | TrainProgress], None]

# Losses that an elastic run survives by default; an error that comes again ends it too.
ELASTIC_MAX_FAILURES = 10


class Executor(Protocol):
    """Runs a job. `record` is called here once an epoch's checkpoint is in the run."""

    hardware: Hardware

    def __call__(self, job: Job, run: RunFolder, record: Record) -> Tally:
        """Train and return the tally of the test clips."""


@contextmanager
def executor(
    *, workers: Workers, device: str, address: str | None, max_failures: int | None
) -> Iterator[Executor]:
    """Choose where the job runs, and hold the cluster while it does.

    `max_failures` None means 0 for a fixed number of workers, ELASTIC_MAX_FAILURES for a range.
    """
    if workers.most == 0:
        yield InProcess(choose_device(device))
        return
    if max_failures is None:
        max_failures = ELASTIC_MAX_FAILURES if workers.is_elastic else 0
    with connected(address, num_workers=workers.fewest) as resources:
        yield OnRay(RayLauncher(resources, workers, device=device, max_failures=max_failures))


class InProcess:
    """One worker, this process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.hardware = Hardware(
            device.type, describe_device(device), Workers(0, 0), torch.get_num_threads()
        )

    def __call__(self, job: Job, run: RunFolder, record: Record) -> Tally:
        """Train here."""

        def on_epoch(state: TrainState, result: EpochResult) -> None:
            run.keep_checkpoint(state.checkpoint())
            record(result)

        return run_job(
            job, device=self._device, world=World(), on_epoch=on_epoch, on_progress=record
        )


class OnRay:
    """Several workers of a Ray cluster under DDP."""

    def __init__(self, launcher: RayLauncher) -> None:
        self._launcher = launcher
        self.hardware = launcher.hardware

    def __call__(self, job: Job, run: RunFolder, record: Record) -> Tally:
        """Train on the cluster; ClusterError if workers were lost once too often."""
        run = RunFolder(run.path.resolve())
        work = partial(
            _train_on_worker, job=job, dataset=SharedDataset.of(job.dataset_dir), run=run
        )
        tally: Tally = self._launcher.run(work, folder=run.checkpoints_dir, on_message=record)
        return tally


def _train_on_worker(worker: Worker, *, job: Job, dataset: SharedDataset, run: RunFolder) -> Tally:
    """Run the job on this worker; rank 0 writes the checkpoints and sends the driver each epoch."""
    is_first = worker.world.rank == 0

    def on_epoch(state: TrainState, result: EpochResult) -> None:
        folder = run.keep_checkpoint(state.checkpoint()) if is_first else None
        worker.report(result.metrics, checkpoint=folder)
        if is_first:
            worker.deliver(result)

    # After a lost worker Ray starts all of them again. What Ray knows may be epochs behind the run
    # folder, and their checkpoints are removed by then.
    newest = run.newest_checkpoint()
    resume_from = job.resume_from if newest is None else newest[0]
    tally = run_job(
        replace(job, dataset_dir=dataset.local_dir(), resume_from=resume_from),
        device=worker.device,
        world=worker.world,
        on_epoch=on_epoch,
        on_progress=worker.send if is_first else None,
    )
    return tally.to(torch.device("cpu"))
