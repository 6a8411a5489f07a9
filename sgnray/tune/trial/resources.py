"""How a search divides the cluster among its trials."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sgnray.distributed.cluster import Resources, connected
from sgnray.errors import ClusterError, UsageError
from sgnray.tune.trial.job import Share


@dataclass(frozen=True)
class Wish:
    """What the caller asks for; None leaves it to us. GPUs may be shares of one."""

    concurrent: int | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    workers_per_trial: int = 1


@dataclass(frozen=True)
class Layout:
    """What each trial gets, and how many run at once."""

    share: Share
    at_once: int


@contextmanager
def held_cluster(address: str | None, wish: Wish) -> Iterator[Resources]:
    """Hold a cluster on which the wished trials have room; ClusterError if it cannot."""
    is_foreign = bool(address or os.environ.get("RAY_ADDRESS"))
    workers = wish.workers_per_trial
    cpus = wish.cpus_per_trial or workers
    if cpus < workers:
        raise UsageError(
            f"{workers} workers cannot share {cpus} CPUs",
            where=f"--cpus-per-trial {cpus}",
            now=f"give each trial {workers} or more",
        )
    # A cluster of our own gets as many logical CPUs as trials are to run at once.
    num_cpus = cpus if is_foreign else cpus * (wish.concurrent or 1)
    with connected(address, num_workers=num_cpus) as resources:
        yield resources


def lay_out(wish: Wish, resources: Resources, num_trials: int) -> Layout:
    """Divide a cluster: ClusterError where `concurrent` trials have no room in it."""
    workers = wish.workers_per_trial
    gpus = wish.gpus_per_trial
    if gpus is None:
        gpus = float(workers) if resources.num_gpus else 0.0
    cpus = wish.cpus_per_trial or workers
    room = resources.num_cpus // cpus
    if gpus:
        room = min(room, int(resources.num_gpus / gpus))
    if room < (wish.concurrent or 1):
        raise ClusterError(
            f"{wish.concurrent or 1} trials at once need {cpus} CPUs and {gpus:g} GPUs each, and "
            f"the cluster has {resources.num_cpus} and {resources.num_gpus}",
            where="--concurrent, --cpus-per-trial, --gpus-per-trial",
            now="ask for less, or add nodes: ray start --address HEAD:PORT",
        )
    at_once = min(wish.concurrent or room, num_trials)
    if wish.cpus_per_trial is None:
        cpus = max(cpus, resources.cpus_per_worker(at_once))
    return Layout(Share(workers, cpus, gpus), at_once)
