"""Room for Ray actors, held all at once: an autoscaler sees the request as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sgnray.distributed.resources import Resources, Wait, WorkerRequest

_POLL_S = 0.1


@contextmanager
def reserved(
    num_workers: int, resources: Resources, *, request: WorkerRequest, num_gpus: float
) -> Iterator[dict[str, Any]]:
    """Wait until the cluster has room for workers, hold it, and yield the options of their actors.

    Each gets the CPUs of the request, one by default. ClusterError if that takes longer than the
    request allows.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    num_cpus = request.num_cpus or 1
    bundle = {"CPU": float(num_cpus)} | ({"GPU": num_gpus} if num_gpus else {})
    if request.accelerator_type:  # as Ray's own accelerator_type= asks for it
        bundle[f"accelerator_type:{request.accelerator_type}"] = 0.001
    group = ray.util.placement_group(
        [bundle] * num_workers,
        **({"bundle_label_selector": [request.labels] * num_workers} if request.labels else {}),
    )
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
        with suppress(RayError):  # the cluster may be lost
            ray.util.remove_placement_group(group)
