"""Run jobs on Ray actors: few in flight at a time, results in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from sgnray.distributed.cluster import connected, lost_cluster, missing_sgnray, wait_for_head
from sgnray.distributed.reserve import Reservation, Wait
from sgnray.distributed.resources import WorkerRequest, gpus_per_actor
from sgnray.errors import ClusterError, SgnError, last_line

# Jobs queued at each worker, so that it never waits for the next.
_QUEUED = 2
# Jobs in flight and results that wait for an earlier one, per worker: bounds the memory used.
_AHEAD = 4
_RETRIES = 3  # of a job whose worker was lost
_POLL_S = 0.2
# Ray may use up its retries before it notices a lost node; jobs are sent again for this long.
_NOTICE_S = 90.0

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_on_actors(
    work: Callable[[Job, str], Result],
    jobs: Iterable[Job],
    *,
    workers: int,
    address: str | None,
    now: str,
    device: str = "cpu",
    request: WorkerRequest | None = None,
    on_done: Callable[[Job], None] | None = None,
) -> Generator[Result, None, None]:
    """Yield the result of `work` for each job, in order; it runs in `workers` Ray actors.

    Each actor keeps its copy of `work`, which is called with a job and the device to use. The jobs
    of a lost actor are repeated. `on_done` is called with each job that is done, in any order.
    May wait for the cluster, at the start and after the loss of a node. Raises ClusterError, whose
    advice is `now`, and any SgnError that `work` raises.
    """
    request = request or WorkerRequest()
    with lost_cluster(now), connected(address, num_workers=workers) as resources:
        import ray  # after `connected` has set what Ray reads on import

        num_gpus = gpus_per_actor(device, resources, request)
        try:
            with Reservation(workers, resources, replace(request, num_gpus=num_gpus)) as room:
                yield from _run(work, jobs, room, workers, "cuda" if num_gpus else "cpu", on_done)
        except ray.exceptions.RayError as error:
            raise missing_sgnray(error) or ClusterError(
                f"a worker failed: {last_line(error)}",
                where="the Ray cluster",
                now=now,
            ) from error


def _run(
    work: Callable[[Job, str], Result],
    jobs: Iterable[Job],
    room: Reservation,
    num_workers: int,
    device: str,
    on_done: Callable[[Job], None] | None,
) -> Iterator[Result]:
    import ray

    options = {"max_restarts": -1, "max_task_retries": _RETRIES, **room.actor_options()}
    kind = ray.remote(**options)(_Worker)
    # In a list, a reference stays one: each actor, even a restarted one, fetches `work` once.
    shared = [ray.put(work)]
    workers = [kind.remote(device) for _ in range(num_workers)]
    starting = [worker.start.remote() for worker in workers]
    slow_start = Wait(room.needed)
    idle = workers * _QUEUED
    waiting = enumerate(jobs)
    running: dict[Any, tuple[int, Job, Any]] = {}
    arrived: dict[int, Result] = {}
    lost_at: dict[int, float] = {}
    num_yielded = 0
    while True:
        wait_for_head(seen_within_s=1.0)
        while idle and len(running) + len(arrived) < _AHEAD * num_workers:
            index, job = next(waiting, (-1, None))
            if job is None:
                break
            worker = idle.pop(0)
            running[worker.run.remote(shared, job)] = (index, job, worker)
        if not running:
            return
        done, _ = ray.wait(list(running), timeout=_POLL_S)
        if not done:
            has_room = room.check()
            if starting:
                _, starting = ray.wait(starting, num_returns=len(starting), timeout=0)
            slow_start.check(is_waiting=has_room and bool(starting))
            continue
        index, job, worker = running.pop(done[0])
        try:
            result = ray.get(done[0])
        except ray.exceptions.ActorUnavailableError:
            now = time.monotonic()
            if not room.check():
                lost_at[index] = now
            if now - lost_at.setdefault(index, now) > _NOTICE_S:
                raise
            time.sleep(_POLL_S)
            running[worker.run.remote(shared, job)] = (index, job, worker)
            continue
        if isinstance(result, SgnError):
            raise result
        idle.append(worker)
        arrived[index] = result
        if on_done is not None:
            on_done(job)
        while num_yielded in arrived:
            yield arrived.pop(num_yielded)
            num_yielded += 1


class _Worker:
    """The actor that carries out jobs, one at a time."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._work: Any = None

    def start(self) -> None:
        """Do nothing: the driver learns that this process has started."""

    def run(self, shared: list[Any], job: Any) -> Any:
        """Run a job; an SgnError is returned as its result."""
        import ray

        try:
            if self._work is None:
                if self._device == "cuda":
                    from sgnray.distributed.device import prepare_device  # loads torch

                    prepare_device("cuda")
                self._work = ray.get(shared[0])
            return self._work(job, self._device)
        except SgnError as error:
            return error
