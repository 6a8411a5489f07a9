"""torch's process group between Ray Train workers, on the network that Ray itself uses.

It is created inside the train function, so that a worker that dies meanwhile counts as lost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psutil
import torch
from torch import distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

_TIMEOUT = timedelta(minutes=30)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the workers of this run. Collective: every rank must call this. One rank needs none."""
    import ray
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero

    rank, size = get_context().get_world_rank(), get_context().get_world_size()
    if size == 1:
        yield
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
    yield
    # Rank 0 holds the store, which the others still use. The device avoids a warning of nccl.
    dist.barrier(device_ids=[device.index] if device.type == "cuda" else None)
    # Not after an error: nccl would wait for the other ranks, which wait in a collective, and Ray
    # would not learn of the error. The process ends, and with it the group.
    dist.destroy_process_group()


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
