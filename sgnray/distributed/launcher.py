"""Run a function on several Ray Train workers, and pass on what they send to the driver.

Ray is imported by the first launch, never before.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sgnray.distributed.cluster import MessageQueue, Resources
from sgnray.distributed.device import describe_device
from sgnray.distributed.workers import Workers
from sgnray.distributed.world import World
from sgnray.errors import ClusterError, RunError, SgnError

log = logging.getLogger(__name__)

_QUEUE_INTERVAL_S = 0.1
# A run grows when resources have been free for this long; growing costs the epoch it is in.
_RESIZE_INTERVAL_S = 10.0


@dataclass(frozen=True)
class Hardware:
    """Where a job runs, for the records."""

    device_type: str
    description: str
    workers: Workers
    threads_per_worker: int


class RayLauncher:
    """Several workers of a Ray cluster, with torch's process group between them."""

    def __init__(
        self, resources: Resources, workers: Workers, *, device: str, max_failures: int
    ) -> None:
        self._max_failures = max_failures
        use_gpu = _use_gpu(device, resources, workers)
        gpu = " ".join(["cuda", *(f"({name})" for name in resources.accelerators)])
        self.hardware = Hardware(
            "cuda" if use_gpu else "cpu",
            gpu if use_gpu else describe_device(torch.device("cpu")),
            workers,
            resources.cpus_per_worker(workers.most),
        )

    def run(
        self, work: Callable[[Worker], Any], *, folder: Path, on_message: Callable[[Any], None]
    ) -> Any:
        """Call `work` on every worker, and return what it returned on rank 0.

        `folder` is where Ray keeps its own notes of the run. `on_message` gets what workers send,
        in a thread. ClusterError if more workers were lost than `max_failures`.
        """
        from ray.exceptions import RayError
        from ray.train import TrainingFailedError

        # Where to resume is decided by `work`; what Ray noted of an earlier launch would only
        # contradict it.
        (folder / "checkpoint_manager_snapshot.json").unlink(missing_ok=True)
        queue = MessageQueue()
        task = _Task(work, queue, self.hardware.device_type, self.hardware.threads_per_worker)
        with _receiving(queue, on_message):
            try:
                return self._trainer(task, folder.resolve()).fit().return_value
            except (TrainingFailedError, RayError, ConnectionError) as error:
                raise _explain(error) from error

    def _trainer(self, task: _Task, folder: Path) -> Any:
        from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig

        from sgnray.distributed.network import NodeNetworkConfig
        from sgnray.distributed.ray_trainer import Trainer

        hardware, workers = self.hardware, self.hardware.workers
        use_gpu = hardware.device_type == "cuda"
        return Trainer(
            _run_worker,
            train_loop_config={"task": task},
            torch_config=NodeNetworkConfig(),
            scaling_config=ScalingConfig(
                num_workers=(workers.fewest, workers.most) if workers.is_elastic else workers.most,
                elastic_resize_monitor_interval_s=_RESIZE_INTERVAL_S,
                use_gpu=use_gpu,
                resources_per_worker={
                    "CPU": hardware.threads_per_worker,
                    **({"GPU": 1} if use_gpu else {}),
                },
            ),
            run_config=RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=FailureConfig(max_failures=self._max_failures),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )


class Worker:
    """One worker, as the work that runs on it sees it: the only place that reports to Ray."""

    def __init__(self, queue: MessageQueue, device: torch.device) -> None:
        self.device = device
        self.world = World.current()
        self._queue = queue
        self._unconfirmed: list[Any] = []

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None = None) -> None:
        """Report an epoch to Ray. Collective: every rank must call this; it is a barrier.

        The checkpoint is already complete in Ray's own storage: Ray's upload would write it in
        place.
        """
        import ray.train
        from ray.train import CheckpointUploadMode

        if checkpoint is None:
            ray.train.report(dict(metrics))
            return
        ray.train.report(
            dict(metrics),
            checkpoint=ray.train.Checkpoint(str(checkpoint)),
            checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
        )

    def send(self, message: object) -> None:
        """Send a message to the driver and return at once; it may not be taken any more."""
        self._queue.put(message)

    def deliver(self, message: object) -> None:
        """Send a message to the driver; RunError if it did not take the one before."""
        import ray

        # The acknowledgement of the message before has arrived by now: no waiting.
        if self._unconfirmed and not ray.get(self._unconfirmed.pop()):
            raise RunError(
                "the driver has stopped", where="this worker", now="see the driver's own error"
            )
        self._unconfirmed.append(self._queue.put(message))

    def flush(self) -> None:
        """Wait until the last message has arrived."""
        import ray

        ray.get(self._unconfirmed)


@dataclass(frozen=True)
class _Task:
    """What the driver sends to each worker."""

    work: Callable[[Worker], Any]
    queue: MessageQueue
    device_type: str
    num_threads: int


def _run_worker(config: dict[str, _Task]) -> Any:
    task = config["task"]
    torch.set_num_threads(task.num_threads)
    worker = Worker(task.queue, _own_device(task.device_type))
    result = task.work(worker)
    worker.flush()
    return result


def _own_device(device_type: str) -> torch.device:
    if device_type != "cuda":
        return torch.device("cpu")
    from ray.train.torch import get_device

    device: torch.device = get_device()
    torch.cuda.set_device(device)
    return device


@contextmanager
def _receiving(queue: MessageQueue, on_message: Callable[[Any], None]) -> Iterator[None]:
    """Pass on what workers send, in a thread: Ray wants the main one.

    What `on_message` raises stops the workers and is raised here.
    """
    from ray.exceptions import RayError

    done = threading.Event()
    failures: list[BaseException] = []

    def drain() -> None:
        try:
            while True:
                is_last = done.wait(_QUEUE_INTERVAL_S)
                for message in queue.take():
                    on_message(message)
                if is_last:
                    return
        except RayError as failure:  # the cluster is lost; the launch itself reports it
            log.debug("no more messages from the workers: %s", failure)
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
    """Return the error that a worker raised for the user; otherwise, that a worker was lost."""
    from ray.train import TrainingFailedError

    from sgnray.distributed.ray_trainer import told_by_worker

    raised = told_by_worker(error)
    if raised is not None:
        return raised
    lines = str(error).strip().splitlines() or [repr(error)]
    if not isinstance(error, TrainingFailedError):
        return ClusterError(
            f"the Ray cluster was lost: {lines[0]}",
            where="its head node, or this machine's",
            now="start it again; rerun the same command to resume after the last finished epoch",
        )
    return ClusterError(
        f"training stopped on the cluster: {lines[-1]}",
        where="a Ray worker; what it raised is in log.txt of the run",
        now="rerun the same command to resume after the last finished epoch; --max-failures N "
        "survives lost workers",
    )
