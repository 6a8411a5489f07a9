"""Room for workers on the nodes of a cluster, held until it is used: an autoscaler sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sgnray.distributed.resources import Resources, Wait, WorkerRequest, check_local

_POLL_S = 0.1


@contextmanager
def reserved(
    num_workers: int, resources: Resources, *, request: WorkerRequest, num_gpus: float
) -> Iterator[dict[str, Any]]:
    """Wait until the cluster has room for workers, hold it, and yield the options of their actors.

    Each gets the CPUs of the request, one by default. ClusterError if that takes longer than the
    request allows.
    """
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    num_cpus = request.num_cpus or 1
    check_local(num_workers, resources, request, num_cpus=num_cpus, num_gpus=num_gpus)
    group = _ask(num_workers, request, num_cpus=num_cpus, num_gpus=num_gpus)
    needed = request.describe(num_workers, num_cpus=num_cpus, num_gpus=num_gpus)
    is_short = not resources.is_local and resources.free_cpus < num_cpus * num_workers
    waiting = Wait(needed, is_short=is_short or num_gpus > 0, wait_s=request.wait_s)
    try:
        while not group.wait(_POLL_S):
            waiting.check()
        yield {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(placement_group=group),
        }
    finally:
        _release(group)


class Room:
    """Room for several workers, each wherever it finds a place; held while in the `with` block."""

    def __init__(
        self, num_workers: int, request: WorkerRequest, *, num_cpus: int, num_gpus: float
    ) -> None:
        self._groups = [
            _ask(1, request, num_cpus=num_cpus, num_gpus=num_gpus) for _ in range(num_workers)
        ]

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None:
        for group in self._groups:
            _release(group)

    def count(self) -> int:
        """Return how many of the workers have found a place."""
        import ray

        tables = [ray.util.placement_group_table(group) for group in self._groups]
        return sum(table["state"] == "CREATED" for table in tables)


def _ask(num_workers: int, request: WorkerRequest, *, num_cpus: int, num_gpus: float) -> Any:
    import ray

    bundle = {"CPU": float(num_cpus)} | ({"GPU": num_gpus} if num_gpus else {})
    if request.accelerator_type:  # as Ray's own accelerator_type= asks for it
        bundle[f"accelerator_type:{request.accelerator_type}"] = 0.001
    return ray.util.placement_group(
        [bundle] * num_workers,
        **({"bundle_label_selector": [request.labels] * num_workers} if request.labels else {}),
    )


def _release(group: Any) -> None:
    import ray
    from ray.exceptions import RayError

    with suppress(RayError):  # the cluster may be lost
        ray.util.remove_placement_group(group)
