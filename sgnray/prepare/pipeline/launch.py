"""Carry out the jobs of a plan: in this process, or on Ray; their parts come in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sgnray.data.skeleton import Skeleton
from sgnray.distributed.cluster import connected, is_at_hand
from sgnray.distributed.reserve import reserved
from sgnray.distributed.resources import WorkerRequest
from sgnray.errors import ClusterError, SgnError
from sgnray.prepare.pipeline.parts import Part, prepare_part
from sgnray.prepare.plan import PartJob

# Jobs that a worker has at hand, so that it never waits for the next.
_QUEUED = 2
# Parts that may wait for an earlier one, for each worker: what bounds the memory of this process.
_AHEAD = 4
_RETRIES = 3  # of a job whose worker was lost

# What one process reads while Ray starts and stops, 6 s, and while it connects and sends workers.
_STARTING_BYTES = 1500 * 10**6
_CONNECTING_BYTES = 250 * 10**6

OnClips = Callable[[int], None]


def is_worth_ray(num_bytes: int, address: str | None) -> bool:
    """Tell whether Ray's workers would be done before this process alone."""
    return num_bytes >= (_CONNECTING_BYTES if is_at_hand(address) else _STARTING_BYTES)


def run_here(jobs: Sequence[PartJob], skeleton: Skeleton, on_clips: OnClips) -> Iterator[Part]:
    """Carry out jobs one after the other; `on_clips` gets the number of clips done."""
    for job in jobs:
        yield prepare_part(job, skeleton, lambda: on_clips(1))


def run_on_ray(
    jobs: Sequence[PartJob],
    skeleton: Skeleton,
    on_clips: OnClips,
    *,
    workers: int,
    address: str | None,
) -> Iterator[Part]:
    """Carry out jobs on `workers` Ray actors, one job at a time each; raises ClusterError."""
    if not jobs:
        return
    import ray

    with (
        connected(address, num_workers=workers) as resources,
        reserved(workers, resources, request=WorkerRequest(), num_gpus=0) as room,
    ):
        kind = ray.remote(max_restarts=-1, max_task_retries=_RETRIES, **room)(_Preparer)
        idle = [kind.remote(skeleton) for _ in range(workers)] * _QUEUED
        running: dict[Any, tuple[int, Any]] = {}
        arrived: dict[int, Part] = {}
        num_started = num_yielded = 0
        try:
            while num_yielded < len(jobs):
                end = min(len(jobs), num_yielded + _AHEAD * workers)
                while idle and num_started < end:
                    worker = idle.pop(0)
                    running[worker.prepare.remote(jobs[num_started])] = (num_started, worker)
                    num_started += 1
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                index, worker = running.pop(done)
                idle.append(worker)
                arrived[index] = _unwrap(ray.get(done))
                on_clips(jobs[index].num_clips)
                while num_yielded in arrived:
                    yield arrived.pop(num_yielded)
                    num_yielded += 1
        except ray.exceptions.RayError as error:
            raise ClusterError(
                f"a worker failed: {str(error).strip().splitlines()[-1]}",
                where="the Ray cluster",
                now="run this again: it continues with the parts that are missing",
            ) from error


class _Preparer:
    """The actor that carries out jobs, one at a time."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton

    def prepare(self, job: PartJob) -> Part | SgnError:
        """Prepare a part; an error that the user can understand is a result."""
        try:
            return prepare_part(job, self._skeleton)
        except SgnError as error:
            return error


def _unwrap(outcome: Part | SgnError) -> Part:
    if isinstance(outcome, SgnError):
        raise outcome
    return outcome
