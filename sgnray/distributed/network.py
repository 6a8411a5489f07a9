"""torch's process group on the network interface that carries each node's Ray address."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend


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
        # A worker that waits for a lost one does not shut down; Ray would give it 30 s.
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
