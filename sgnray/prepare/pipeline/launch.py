"""Carry out the jobs of a plan: in this process, or on Ray; their parts come in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sgnray.data.skeleton import Skeleton
from sgnray.distributed.cluster import is_at_hand
from sgnray.distributed.pool import run_on_actors
from sgnray.prepare.pipeline.parts import Part, prepare_part
from sgnray.prepare.plan import PartJob

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
        return iter(())
    return run_on_actors(
        lambda job, _: prepare_part(job, skeleton),
        jobs,
        workers=workers,
        address=address,
        now="run this again: it continues with the parts that are missing",
        on_done=lambda job: on_clips(job.num_clips),
    )
