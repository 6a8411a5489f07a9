"""Room for workers on the nodes of a cluster, and the wait for it.

It is requested with placement groups, which an autoscaler sees.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from sgnray.distributed.cluster import is_head_alive, wait_for_head
from sgnray.distributed.resources import Resources, WorkerRequest, check_local
from sgnray.errors import ClusterError

log = logging.getLogger(__name__)

# Workers with room import torch in seconds; a node that fetches an image takes longer.
SLOW_START_S = 60.0
_FIRST_LINE_S, _REPEAT_LINE_S = 10.0, 300.0  # of a wait
_POLL_S = 0.1
_LOOK_INTERVAL_S = 1.0


class Room:
    """Room for several workers, or groups of `size` workers, each placed independently.

    It is held inside the `with` block, or until `release`.
    """

    def __init__(self, number: int, request: WorkerRequest, *, size: int = 1) -> None:
        self._groups = [_ask(size, request) for _ in range(number)]

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def count(self) -> int:
        """Return how many of the workers or groups have room."""
        import ray

        wait_for_head()
        tables = map(ray.util.placement_group_table, self._groups)
        return sum(table["state"] == "CREATED" for table in tables)

    def release(self) -> None:
        """Give up the room, or the request for it."""
        _release(*self._groups)


class Reservation(Room):
    """Room for all workers of a pool at once, held inside the `with` block.

    Each worker gets what the request says: by default one CPU, and no GPU. Entering waits until the
    cluster has room; ClusterError if that takes longer than the request allows. `needed` describes
    the room.
    """

    def __init__(self, num_workers: int, resources: Resources, request: WorkerRequest) -> None:
        check_local(num_workers, resources, request)
        super().__init__(1, request, size=num_workers)
        self.needed = request.describe(num_workers)
        can_share = request.num_gpus == 1 and num_workers > resources.num_gpus > 0
        advice = "; with --gpus-per-worker 0.5, two workers share a GPU" if can_share else ""
        self._wait = Wait(self.needed, request, advice=advice)
        self._request = request
        self.waited_s = 0.0  # on entering

    def __enter__(self) -> Reservation:
        began = time.monotonic()
        try:
            while not self.check():
                time.sleep(_POLL_S)
        except BaseException:
            self.release()
            raise
        self.waited_s = time.monotonic() - began
        return self

    def check(self) -> bool:
        """Return whether all workers have room; a lost node takes its part away.

        Call this often while waiting for workers; ClusterError if room is missing for too long.
        """
        has_room = self.count() == 1
        self._wait.check(is_waiting=not has_room)
        return has_room

    def actor_options(self) -> dict[str, Any]:
        """Return the options of an actor that takes one worker's share of the room."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(placement_group=self._groups[0])
        return {
            "num_cpus": self._request.num_cpus or 1,
            "num_gpus": self._request.num_gpus or 0,
            "scheduling_strategy": strategy,
        }


class Wait:
    """A wait for `needed`: logged every five minutes; ClusterError once it takes too long.

    It is for the room of workers with this request, which limits it; without one, for their start.
    `waited_s` of the time has passed before. `advice` is part of the message.
    """

    def __init__(
        self,
        needed: str,
        request: WorkerRequest | None = None,
        *,
        waited_s: float = 0.0,
        advice: str = "",
    ) -> None:
        self._needed, self._request, self._advice = needed, request, advice
        self._waited_s = waited_s
        self._began: float | None = None
        self._line_at = 0.0

    def check(self, *, is_waiting: bool) -> None:
        """Call this often; the time counts from the first call of each wait."""
        if not is_waiting:
            self._began = None
            return
        now = time.monotonic()
        if self._began is None:
            self._began, self._waited_s = now - self._waited_s, 0.0
            self._line_at = now + (_FIRST_LINE_S if self._request else SLOW_START_S)
        wait_s = self._request.wait_s if self._request else None
        if wait_s is not None and now - self._began > wait_s:
            raise ClusterError(
                f"waited {wait_s:g} s for {self._needed}",
                where=f"the Ray cluster, which has {Resources.now(is_local=False)}",
                now="add nodes, ask for less, or wait longer with --wait",
            )
        if now > self._line_at:
            self._line_at = now + _REPEAT_LINE_S
            has = Resources.now(is_local=False)
            if self._request is None:
                log.warning("still starting %s; the cluster has %s", self._needed, has)
                return
            lack = self._request.describe_lack(has)
            end = f"--wait ends this after {wait_s:g} s" if wait_s else "--wait TIME limits this"
            text = "waiting for %s; the cluster has %s%s%s; %s, Ctrl-C ends it"
            log.warning(text, self._needed, has, lack, self._advice, end)


class RoomWatch:
    """Watches whether Ray Train or Ray Tune get the room that they request themselves.

    `needed` describes it for a message, `request` is that of each worker; `waited_s` of the time
    have passed before. Create this before they request room: earlier requests, by work that has
    failed since, do not count.
    """

    def __init__(self, needed: str, request: WorkerRequest, *, waited_s: float = 0.0) -> None:
        import ray

        self._wait, self._request = Wait(needed, request, waited_s=waited_s), request
        self._earlier = set(ray.util.placement_group_table())
        self._is_missing = False
        self._look_at = 0.0

    def check(self) -> bool:
        """Return whether there is room, or nothing was requested yet.

        Call this often; ClusterError if room is missing for longer than the request allows.
        """
        if time.monotonic() >= self._look_at:
            wait_for_head()
            began = time.monotonic()
            groups = _own_groups(self._earlier)
            self._is_missing = not _is_any_placed(groups) and any(map(_is_waiting, groups))
            # Ray lists all groups that ever existed: spend at most a tenth of the time on that.
            self._look_at = began + max(_LOOK_INTERVAL_S, 10 * (time.monotonic() - began))
        self._wait.check(is_waiting=self._is_missing)
        return not self._is_missing

    def cancel(self, num_workers: int) -> bool:
        """Remove the requests of this driver for so many workers, if they wait for room.

        Returns whether to call it again: False once the workers have room, or the head is lost.
        """
        if not is_head_alive():
            return False
        groups = _own_groups(self._earlier)
        for group in groups:
            if self._is_for(num_workers, group) and _is_waiting(group):
                release_group(group["placement_group_id"])
        return not _is_any_placed(groups)

    def release(self, num_workers: int) -> None:
        """Release the room of so many workers that have ended before their function was called.

        Ray Train keeps it if a worker is lost while it loads the function, which imports torch. If
        this process has several such groups, they are kept: one may be that of another run.
        """
        wait_for_head()
        groups = _own_groups(self._earlier)
        match [it for it in groups if self._is_for(num_workers, it) and it["state"] == "CREATED"]:
            case [group]:
                release_group(group["placement_group_id"])

    def _is_for(self, num_workers: int, group: dict[str, Any]) -> bool:
        bundles = group["bundles"]
        return (len(bundles), bundles[0].get("CPU")) == (num_workers, self._request.num_cpus)


def _own_groups(earlier: set[str]) -> list[dict[str, Any]]:
    """Return the placement groups of this driver except earlier ones.

    The id of a placement group ends with the id of its job, which is the driver with all actors.
    Groups that other code creates in this process count as well.
    """
    import ray

    job = ray.get_runtime_context().get_job_id()
    groups = ray.util.placement_group_table()
    return [groups[name] for name in groups.keys() - earlier if name.endswith(job)]


def _is_waiting(group: dict[str, Any]) -> bool:
    return group["state"] not in ("CREATED", "REMOVED")


def _is_any_placed(groups: list[dict[str, Any]]) -> bool:
    # Ray Tune's own group for a trial of several workers requests no CPU.
    return any(group["state"] == "CREATED" and "CPU" in group["bundles"][0] for group in groups)


def _ask(num_workers: int, request: WorkerRequest) -> Any:
    import ray

    return ray.util.placement_group(
        [request.bundle()] * num_workers,
        **({"bundle_label_selector": [request.labels] * num_workers} if request.labels else {}),
    )


def release_group(group_id: str) -> None:
    """Release the room of a placement group that Ray Train made; its workers end."""
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup

    _release(PlacementGroup(PlacementGroupID(bytes.fromhex(group_id))))


def _release(*groups: Any) -> None:
    import ray
    from ray.exceptions import RayError

    with suppress(RayError, ValueError):  # the cluster may be lost, or the group gone
        for group in groups if is_head_alive() else ():
            ray.util.remove_placement_group(group)
