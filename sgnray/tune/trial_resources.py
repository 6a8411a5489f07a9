"""How a search divides the cluster among its trials."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from sgnray.distributed.address import find_address
from sgnray.distributed.cluster import connected
from sgnray.distributed.reserve import Room, RoomWatch
from sgnray.distributed.resources import (
    Resources,
    WorkerRequest,
    check_local,
    check_training_gpus,
    use_gpu,
    warn_of_few_cpus,
)
from sgnray.errors import UsageError, count_of


@dataclass(frozen=True)
class TrialResources:
    """The resources of each trial, shared by its workers, and how many trials run at once.

    `allocate` fills in what is None. `num_gpus` may be a fraction for a single worker. If
    `concurrent` is None after that, as many trials run as the cluster has room for at any time.
    `room` is for trials of several workers, whose size Ray Tune does not know: this many may start
    at once, and more as they get room; None leaves it to Ray Tune. `request` says which nodes to
    use, and how long to wait for the first of them; its counts are not used.
    """

    num_workers: int = 1
    num_cpus: int | None = None
    num_gpus: float | None = None
    concurrent: int | None = None
    request: WorkerRequest = field(default_factory=WorkerRequest)
    room: int | None = None

    @property
    def device(self) -> str:
        """What `--device` would be for a single trial."""
        if self.num_gpus is None:
            return "auto"
        return "cuda" if self.num_gpus else "cpu"

    @property
    def num_threads(self) -> int:
        """Threads of each worker."""
        return max(1, self._min_cpus // self.num_workers)

    @property
    def worker_request(self) -> WorkerRequest:
        """The request of each worker."""
        num_gpus = (self.num_gpus or 0) / self.num_workers
        return replace(self.request, num_cpus=self.num_threads, num_gpus=num_gpus)

    def connected(self, address: str | None) -> AbstractContextManager[Resources]:
        """Connect to a cluster for these trials; UsageError or ClusterError if impossible."""
        if self._min_cpus < self.num_workers:
            raise UsageError(
                f"{self.num_workers} workers cannot share {count_of(self._min_cpus, 'CPU')}",
                where=f"--cpus-per-trial {self._min_cpus}",
                now=f"give each trial {self.num_workers} or more",
            )
        if self.num_gpus:
            check_training_gpus(
                self.num_gpus / self.num_workers,
                self.num_workers,
                where=f"--gpus-per-trial {self.num_gpus:g}",
                now=f"give each trial {self.num_workers}, or 0 to train on CPUs; for more, choose "
                "as many --workers-per-trial",
            )
        is_existing = find_address(address) is not None
        # A local cluster gets a logical CPU for each worker of the trials that run at once.
        at_once = 1 if is_existing else self.concurrent or 1
        return connected(address, num_workers=self.num_workers * at_once)

    def allocate(self, cluster: Resources, num_trials: int) -> TrialResources:
        """Replace what is None; UsageError if a local cluster has no room for the trials.

        On an existing cluster, trials queue in Ray, so that an autoscaler sees them.
        """
        gpus = self.num_gpus
        if gpus is None:
            wants_gpus = use_gpu(
                self.device, cluster, self.request, option=f"--gpus-per-trial {self.num_workers}"
            )
            gpus = float(self.num_workers) if wants_gpus else 0.0
        if not (gpus or self.num_cpus):
            warn_of_few_cpus(self.num_workers, cluster, option="--cpus-per-trial")
        request = replace(self.request, num_cpus=self._min_cpus, num_gpus=gpus)
        check_local(self.concurrent or 1, cluster, request, what="trial")
        room = cluster.num_cpus // self._min_cpus
        if gpus:
            room = min(room, int(cluster.num_gpus / gpus))
        at_once = self.concurrent
        if cluster.is_local:
            at_once = min(at_once or room, num_trials)
        num_trials = min(at_once or num_trials, num_trials)
        # Nodes with GPUs may have fewer CPUs than a share of all.
        share = 1 if gpus and not cluster.is_local else cluster.cpus_per_worker(num_trials)
        cpus = self.num_cpus or max(self._min_cpus, share)
        is_open = self.num_workers > 1 and at_once is None
        return replace(
            self,
            num_cpus=cpus,
            num_gpus=gpus,
            concurrent=at_once,
            room=room if is_open else None,
        )

    def ask_room(self) -> Room:
        """Request room for one more trial of several workers; an autoscaler sees the request."""
        return Room(1, self.worker_request, size=self.num_workers)

    def watch_room(self) -> RoomWatch:
        """Watch the room that Ray Tune requests, which is missing while no trial has room."""
        request = replace(self.request, num_cpus=self._min_cpus, num_gpus=self.num_gpus)
        return RoomWatch(request.describe(1, what="trial"), self.worker_request)

    @property
    def _min_cpus(self) -> int:
        return self.num_cpus or self.num_workers
