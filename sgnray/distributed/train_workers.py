"""A group of Ray Train workers: started by `run_trainer`, joined by `process_group` on each worker.

torch's process group is on the network that Ray itself uses. It is created inside the train
function, so that a worker that dies meanwhile counts as lost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psutil
import torch
from torch import distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from sgnray.distributed.device import prepare_device
from sgnray.distributed.resources import WorkerRequest
from sgnray.storage.scratch import scratch_folder

# Settings that Ray Train reads from the environment.
RAY_TRAIN_VARIABLES = {
    # How often Ray Train checks whether its workers have ended; its default is 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A worker that does not answer counts as lost after this long; the default is ten minutes.
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "60",
    # Saves a process: nothing here uses its results.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
# How long Ray Train waits for room, in seconds. Forever keeps the request open, so that an
# autoscaler sees it; `RoomWatch` ends it earlier.
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
FOREVER_S = 1e6

_TIMEOUT = timedelta(minutes=30)


def run_trainer(
    work: Callable[[], None],
    *,
    name: str,
    num_workers: int,
    request: WorkerRequest,
    callbacks: list[Any] | None = None,
) -> None:
    """Call `work` on every worker of Ray Train, and wait for the end of the last one.

    `request` has the CPUs and GPUs of each worker. The caller sets RAY_TRAIN_VARIABLES and
    START_TIMEOUT. Raises what Ray raises: TrainingFailedError if a worker was lost or failed.
    """
    from ray.train import BackendConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    # We create the process group ourselves. This is not a TorchConfig, because Ray Train's
    # controller would have to load torch just to read it.
    class NoProcessGroup(BackendConfig):  # type: ignore[misc]
        backend = "none"  # TorchTrainer checks that it exists

    # Ray requires files of its own.
    with scratch_folder("sgn-ray-") as folder:
        TorchTrainer(
            work,  # no config: the controller would load torch to read it
            torch_config=NoProcessGroup(),
            scaling_config=ScalingConfig(
                num_workers=num_workers,
                use_gpu=bool(request.num_gpus),
                resources_per_worker={
                    "CPU": request.num_cpus,
                    **({"GPU": request.num_gpus} if request.num_gpus else {}),
                },
                accelerator_type=request.accelerator_type,
                label_selector=request.labels or None,
            ),
            run_config=RunConfig(
                name=name,
                storage_path=str(folder),
                callbacks=callbacks,
                # Ray Train itself would restart all workers, and from the state of this launch;
                # workers that fail while they start, it would restart forever.
                failure_config=FailureConfig(
                    max_failures=0, max_preemption_failures=0, controller_failure_limit=0
                ),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        ).fit()


@contextmanager
def process_group(device_type: str) -> Iterator[torch.device]:
    """Join the workers of this run, and yield this one's device. Collective: every rank must call.

    One rank needs no process group, but its device is prepared as well. ClusterError if Ray gave
    this worker a GPU that torch cannot use.
    """
    import ray
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero

    device = _own_device(device_type)
    rank, size = get_context().get_world_rank(), get_context().get_world_size()
    if size == 1:
        yield device
        return
    address = ray.util.get_node_ip_address()
    _choose_interface(address)
    own = None
    if rank == 0:  # port 0: the system chooses one that is free
        own = TCPStore(address, 0, size, is_master=True, timeout=_TIMEOUT, wait_for_workers=False)
    host, port = broadcast_from_rank_zero((address, own.port) if own is not None else None)
    store = own or TCPStore(host, port, size, is_master=False, timeout=_TIMEOUT)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    yield device
    # Rank 0 holds the store, which the others still use. The device avoids a warning of nccl.
    dist.barrier(device_ids=[device.index] if device.type == "cuda" else None)
    # Not after an error: nccl would wait for the other ranks, which wait in a collective, and Ray
    # would not learn of the error. The process ends, and with it the group.
    dist.destroy_process_group()


def _own_device(device_type: str) -> torch.device:
    """Return the device of this worker of Ray Train; a GPU becomes the current one."""
    prepare_device(device_type)
    if device_type == "cpu":
        return torch.device("cpu")
    from ray.train.torch import get_device

    device: torch.device = get_device()
    torch.cuda.set_device(device)
    return device


def _choose_interface(address: str) -> None:
    """Point gloo and nccl to the interface that has this Ray node's address.

    If a host's name resolves to 127.0.0.1, gloo would listen where no other node can connect.
    """
    for interface, addresses in psutil.net_if_addrs().items():
        if any(
            known.address == address and known.family in (socket.AF_INET, socket.AF_INET6)
            for known in addresses
        ):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # else it is a prefix
