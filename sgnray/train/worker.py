"""One Ray Train worker: the only place that reports to Ray."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from typing import Any

import psutil
import ray.train
import torch
from ray.train import CheckpointUploadMode
from ray.train.torch import TorchConfig, get_device
from ray.train.torch.config import _TorchBackend

from sgnray.checkpoints.run_folder import RunFolder
from sgnray.data.shared import SharedDataset
from sgnray.distributed.cluster import MessageQueue
from sgnray.distributed.world import World
from sgnray.errors import RunError
from sgnray.evaluate.metrics import Tally
from sgnray.train.job import Job, run_job
from sgnray.train.loop import EpochResult
from sgnray.train.state import TrainState


@dataclass(frozen=True)
class WorkerConfig:
    """What the driver sends to each worker."""

    job: Job
    dataset: SharedDataset
    run: RunFolder
    queue: MessageQueue
    device_type: str
    num_threads: int


def train_worker(loop_config: dict[str, WorkerConfig]) -> Tally:
    """Run the job on this worker; rank 0 tells the driver of each epoch."""
    config = loop_config["config"]
    torch.set_num_threads(config.num_threads)
    world = World.current()

    letters: list[Any] = []

    def on_epoch(state: TrainState, result: EpochResult) -> None:
        report_epoch(state, result, config.run)
        if world.rank == 0:
            # The answer to the epoch before is there by now: no waiting.
            if letters and not ray.get(letters.pop()):
                raise RunError(
                    "the driver has given up", where="this worker", now="see what it says"
                )
            letters.append(config.queue.put(result))

    job = replace(_from_newest(config.job, config.run), dataset_dir=config.dataset.local_dir())
    device = _device(config.device_type)
    tally = run_job(
        job,
        device=device,
        world=world,
        on_epoch=on_epoch,
        on_progress=config.queue.put if world.rank == 0 else None,
    )
    ray.get(letters)  # the last epoch has arrived
    return tally.to(torch.device("cpu"))


def report_epoch(state: TrainState, result: EpochResult, run: RunFolder) -> None:
    """Write the epoch's checkpoint into the run on rank 0, and tell Ray of it.

    Collective: every rank must call this; `ray.train.report` is a barrier. The checkpoint lies in
    Ray's own storage, whole, before Ray hears of it: Ray's upload would write it in place.
    """
    if state.world.rank != 0:
        ray.train.report(result.metrics)
        return
    folder = run.keep_checkpoint(state.checkpoint())
    ray.train.report(
        result.metrics,
        checkpoint=ray.train.Checkpoint(str(folder)),
        checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
    )


def _from_newest(job: Job, run: RunFolder) -> Job:
    """Go on from the newest checkpoint in the run: after a lost worker Ray starts all of them anew.

    What Ray knows may lag behind the folder by epochs, whose checkpoints are gone by then.
    """
    newest = run.newest_checkpoint()
    return job if newest is None else replace(job, resume_from=newest[0])


def _device(device_type: str) -> torch.device:
    if device_type != "cuda":
        return torch.device("cpu")
    device: torch.device = get_device()
    torch.cuda.set_device(device)
    return device


@dataclass
class NodeNetworkConfig(TorchConfig):  # type: ignore[misc]
    """Ray's torch backend, on the network interface that carries each node's Ray address."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """The backend that this configures."""
        return _NodeNetworkBackend


class _NodeNetworkBackend(_TorchBackend):  # type: ignore[misc]
    """Where a host's name resolves to 127.0.0.1, gloo would listen where no other node reaches."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        # A worker that waits for a lost one does not say good-bye; Ray would give it 30 s.
        os.environ.setdefault("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", "2")
        try:
            worker_group.execute(choose_interface)
            super().on_start(worker_group, backend_config)
        except Exception:
            # Ray forgets a group that fails here, and with it the CPUs that it holds.
            worker_group._worker_group_state.shutdown()
            raise


def choose_interface() -> None:
    """Point gloo and nccl to the interface that carries this Ray node's address."""
    address = ray.util.get_node_ip_address()
    for interface, addresses in psutil.net_if_addrs().items():
        if any(
            known.address == address and known.family in (socket.AF_INET, socket.AF_INET6)
            for known in addresses
        ):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
