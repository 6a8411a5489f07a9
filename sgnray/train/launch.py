"""Carry a job out: in this process, or with Ray Train on a cluster; the result is the same.

Ray is imported by the first run that asks for workers, never before.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from sgnray.checkpoints.run_folder import RunFolder
from sgnray.data.shared import SharedDataset
from sgnray.distributed.cluster import MessageQueue, Resources, connected
from sgnray.distributed.device import choose_device, describe_device
from sgnray.distributed.workers import Workers
from sgnray.distributed.world import World
from sgnray.errors import ClusterError, SgnError
from sgnray.evaluate.metrics import Tally
from sgnray.train.job import Job, run_job
from sgnray.train.loop import EpochResult
from sgnray.train.progress import Progress
from sgnray.train.state import TrainState

log = logging.getLogger(__name__)

Record = Callable[[EpochResult | Progress], None]

# Losses that an elastic run survives unless told otherwise; an error that comes again ends it too.
ELASTIC_MAX_FAILURES = 10
_QUEUE_INTERVAL_S = 0.1
# A run grows into room that has been there for so long; growing costs the epoch it is in.
_RESIZE_INTERVAL_S = 10.0


@dataclass(frozen=True)
class Hardware:
    """Where a job will run, for the records."""

    device_type: str
    description: str
    workers: Workers
    threads_per_worker: int


class Executor(Protocol):
    """Carries a job out. `record` is called here once an epoch's checkpoint is in the run."""

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
        use_gpu = _use_gpu(device, resources, workers)
        yield OnRay(resources, workers, use_gpu=use_gpu, max_failures=max_failures)


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

    def __init__(
        self, resources: Resources, workers: Workers, *, use_gpu: bool, max_failures: int
    ) -> None:
        self._max_failures = max_failures
        gpu = " ".join(["cuda", *(f"({name})" for name in resources.accelerators)])
        self.hardware = Hardware(
            "cuda" if use_gpu else "cpu",
            gpu if use_gpu else describe_device(torch.device("cpu")),
            workers,
            resources.cpus_per_worker(workers.most),
        )

    def __call__(self, job: Job, run: RunFolder, record: Record) -> Tally:
        """Train on the cluster; ClusterError where workers were lost once too often."""
        from ray.exceptions import RayError
        from ray.train import TrainingFailedError

        from sgnray.train.worker import WorkerConfig

        # Where training goes on is decided from the run folder; what Ray noted of an earlier
        # launch would only contradict it.
        (run.checkpoints_dir / "checkpoint_manager_snapshot.json").unlink(missing_ok=True)
        queue = MessageQueue()
        hardware = self.hardware
        config = WorkerConfig(
            job,
            SharedDataset.of(job.dataset_dir),
            RunFolder(run.path.resolve()),
            queue,
            hardware.device_type,
            hardware.threads_per_worker,
        )
        with _recording(queue, record):
            try:
                return self._fit(config, run)
            except (TrainingFailedError, RayError, ConnectionError) as error:
                raise _explain(error) from error

    def _fit(self, config: object, run: RunFolder) -> Tally:
        from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig

        from sgnray.distributed.ray_trainer import Trainer
        from sgnray.train.worker import NodeNetworkConfig, train_worker

        use_gpu = self.hardware.device_type == "cuda"
        workers = self.hardware.workers
        trainer = Trainer(
            train_worker,
            train_loop_config={"config": config},
            torch_config=NodeNetworkConfig(),
            scaling_config=ScalingConfig(
                num_workers=(workers.fewest, workers.most) if workers.is_elastic else workers.most,
                elastic_resize_monitor_interval_s=_RESIZE_INTERVAL_S,
                use_gpu=use_gpu,
                resources_per_worker={
                    "CPU": self.hardware.threads_per_worker,
                    **({"GPU": 1} if use_gpu else {}),
                },
            ),
            run_config=RunConfig(
                name=run.checkpoints_dir.name,
                storage_path=str(run.path.resolve()),
                failure_config=FailureConfig(max_failures=self._max_failures),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )
        tally: Tally = trainer.fit().return_value
        return tally


@contextmanager
def _recording(queue: MessageQueue, record: Record) -> Iterator[None]:
    """Record the epochs that workers tell of, in a thread: Ray wants the main one.

    What `record` raises stops the training and is raised here, as in this process it would be.
    """
    from ray.exceptions import RayError

    done = threading.Event()
    failures: list[BaseException] = []

    def drain() -> None:
        try:
            while True:
                is_last = done.wait(_QUEUE_INTERVAL_S)
                for result in queue.take():
                    record(result)
                if is_last:
                    return
        except RayError as failure:  # the cluster is gone; what carries the job out tells it
            log.debug("no more news from the workers: %s", failure)
        except BaseException as failure:
            failures.append(failure)
            queue.close()  # the workers end after their next epoch

    thread = threading.Thread(target=drain, name="sgn-queue", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if failures:
            raise failures[0]


def _use_gpu(device: str, resources: Resources, workers: Workers) -> bool:
    if device == "cpu" or (device == "auto" and resources.num_gpus == 0):
        return False
    if resources.num_gpus < workers.fewest:
        raise ClusterError(
            f"{workers.fewest} workers need {workers.fewest} GPUs, and the cluster has "
            f"{resources.num_gpus}",
            where=f"--workers {workers} --device {device}",
            now="ask for fewer workers, add nodes with GPUs, or train with --device cpu",
        )
    return True


def _explain(error: Exception) -> SgnError:
    """Return the error that a worker raised for the user; else say that a worker was lost."""
    from ray.train import TrainingFailedError

    from sgnray.distributed.ray_trainer import told_by_worker

    told = told_by_worker(error)
    if told is not None:
        return told
    lines = str(error).strip().splitlines() or [repr(error)]
    if not isinstance(error, TrainingFailedError):
        return ClusterError(
            f"the Ray cluster was lost: {lines[0]}",
            where="its head node, or this machine's",
            now="start it again; the same command goes on after the last finished epoch",
        )
    return ClusterError(
        f"training stopped on the cluster: {lines[-1]}",
        where="a Ray worker; what it raised is in log.txt of the run",
        now="the same command goes on after the last finished epoch; --max-failures N "
        "survives lost workers",
    )
