"""Room for workers on the nodes of a cluster, held until it is used: an autoscaler sees it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from sgnray.distributed.resources import Resources, Wait, WorkerRequest, check_local

_POLL_S = 0.1


class Reservation:
    """Room for all workers of a pool at once, held while in the `with` block.

    Each worker gets the CPUs of the request, one by default. Entering waits until the cluster has
    room; ClusterError if that takes longer than the request allows.
    """

    def __init__(
        self, num_workers: int, resources: Resources, request: WorkerRequest, *, num_gpus: float
    ) -> None:
        num_cpus = request.num_cpus or 1
        check_local(num_workers, resources, request, num_cpus=num_cpus, num_gpus=num_gpus)
        self._each: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self._needed = request.describe(num_workers, **self._each)
        self._wait_s = request.wait_s
        has_cpus = resources.is_local or resources.free_cpus >= num_cpus * num_workers
        self._waiting: Wait | None = Wait(
            self._needed, is_short=not has_cpus or num_gpus > 0, wait_s=self._wait_s
        )
        self._group = _ask(num_workers, request, **self._each)

    def __enter__(self) -> Reservation:
        try:
            while not self.check():
                time.sleep(_POLL_S)
        except BaseException:
            _release(self._group)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _release(self._group)

    def check(self) -> bool:
        """Return whether all workers have room: a node that is lost takes its part away.

        Call this often while workers are waited for; ClusterError when room was missing too long.
        """
        if _has_room(self._group):
            self._waiting = None
            return True
        if self._waiting is None:
            self._waiting = Wait(self._needed, is_short=True, wait_s=self._wait_s)
        self._waiting.check()
        return False

    def actor_options(self) -> dict[str, Any]:
        """Return the options of an actor that takes one worker's share of the room."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(placement_group=self._group)
        return {**self._each, "scheduling_strategy": strategy}


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
        return sum(map(_has_room, self._groups))


def _ask(num_workers: int, request: WorkerRequest, *, num_cpus: int, num_gpus: float) -> Any:
    import ray

    bundle = {"CPU": float(num_cpus)} | ({"GPU": num_gpus} if num_gpus else {})
    if request.accelerator_type:  # as Ray's own accelerator_type= asks for it
        bundle[f"accelerator_type:{request.accelerator_type}"] = 0.001
    return ray.util.placement_group(
        [bundle] * num_workers,
        **({"bundle_label_selector": [request.labels] * num_workers} if request.labels else {}),
    )


def _has_room(group: Any) -> bool:
    import ray

    return bool(ray.util.placement_group_table(group)["state"] == "CREATED")


def _release(group: Any) -> None:
    import ray
    from ray.exceptions import RayError

    with suppress(RayError):  # the cluster may be lost
        ray.util.remove_placement_group(group)
