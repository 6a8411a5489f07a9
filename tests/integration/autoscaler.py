"""Ray's own autoscaler on one host, with nodes that it fakes there.

Everything is in one network namespace. A test can stop the autoscaler's process, so that a command
waits for a node while the test observes it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from .hosts import Host, hosts


@contextmanager
def autoscaling_head(
    resources: dict[str, int], *, max_nodes: int, **environment: str
) -> Iterator[Host]:
    """Start a head without CPUs, whose autoscaler may add nodes with these resources."""
    with hosts(1) as (host,):
        host.add_default_route()
        config = host.folder / "autoscaler.yaml"
        config.write_text(json.dumps(_describe(host, resources, max_nodes)))
        host.start_head(
            f"--autoscaling-config={config}", num_cpus=0,
            RAY_FAKE_CLUSTER="1", RAY_TMPDIR=str(host.folder), AUTOSCALER_UPDATE_INTERVAL_S="1",
            **environment,
        )  # fmt: skip
        yield host


def _describe(host: Host, resources: dict[str, int], max_nodes: int) -> dict[str, object]:
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    node = {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": max_nodes}
    return {
        "cluster_name": "fake",
        "max_workers": max_nodes,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": host.ray_address,
            "disable_node_updaters": True,
            "use_node_id_as_ip": True,  # all nodes have the same address
        },
        "available_node_types": {"ray.head.default": head, "worker": node},
        "head_node_type": "ray.head.default",
        # `ray up` would fill these in.
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{key: [] for key in ("cluster_synced_files", "initialization_commands")},
        **{f"{kind}setup_commands": [] for kind in ("", "head_", "worker_")},
        **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
    }


def running(head: Host, program: str) -> list[int]:
    """Return the processes of the host that run a program."""
    found = []
    for pid in head.pids():
        try:
            if any(program in word for word in psutil.Process(pid).cmdline()[:3]):
                found.append(pid)
        except psutil.NoSuchProcess:
            pass
    return found


def num_nodes(head: Host) -> int:
    """Count the nodes of the cluster, the head included."""
    return len(running(head, "raylet/raylet"))


@contextmanager
def autoscaler_stopped(head: Host) -> Iterator[None]:
    """Keep the autoscaler from adding or removing nodes."""
    (pid,) = running(head, "autoscaler/_private/monitor.py")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
