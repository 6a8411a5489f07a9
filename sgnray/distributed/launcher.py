"""Run a function on several Ray Train workers, and pass their messages to the driver.

The driver chooses the number of workers, replaces lost ones and keeps the state to resume from;
Ray Train starts one group of workers of a fixed size at a time. Ray is imported only at the first
launch.

A group waits for room. Once its workers have joined the process group, rank 0 sends `_Started`, and
then the messages of the work. The group ends with one outcome, and the driver

- returns the result of `_Finished`: the work is done,
- raises an SgnError that a worker sent,
- starts another group after `_StopWork`: it had asked this one to stop, because it can grow,
- starts a smaller group after `_NoRoom`: others took the room before the workers got it,
- starts another group after any other exception, which means a lost worker, `max_failures` times.

Another group resumes from the state that the driver has then.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from sgnray.config.schema import Precision
from sgnray.distributed.cluster import (
    lost_cluster,
    missing_sgnray,
    set_environment,
    wait_for_head,
)
from sgnray.distributed.device import describe_device
from sgnray.distributed.driver_actors import MessageQueue
from sgnray.distributed.precision import ask_precision
from sgnray.distributed.reserve import Reservation, Room, RoomWatch, Wait
from sgnray.distributed.resources import (
    Resources,
    WorkerRequest,
    Workers,
    check_local,
    use_gpu,
    warn_of_few_cpus,
)
from sgnray.distributed.train_workers import (
    FOREVER_S,
    RAY_TRAIN_VARIABLES,
    START_TIMEOUT,
    process_group,
    run_trainer,
)
from sgnray.distributed.world import World
from sgnray.errors import ClusterError, SgnError, last_line

log = logging.getLogger(__name__)

_POLL_S = 0.1
# An elastic run grows when resources have been free for this long.
_GROW_INTERVAL_S = 10.0
# How long to wait for the cluster to free the resources of lost or ended workers.
_RELEASE_S = 10.0
# An elastic run whose room was taken before its workers got it chooses its size again after this.
_RETRY_START_S = 30.0

_lost_cluster = partial(
    lost_cluster, "rerun the same command to resume after the last finished epoch"
)

# The function of a launch: called on each worker with the state to resume from.
Work = Callable[["Worker", bytes | None], Any]


@dataclass(frozen=True)
class Hardware:
    """Where a job runs, for the records."""

    device_type: str
    description: str
    workers: Workers
    threads_per_worker: int


class RayLauncher:
    """Several workers of a Ray cluster, with torch's process group between them."""

    def __init__(
        self,
        resources: Resources,
        workers: Workers,
        *,
        device: str,
        max_failures: int,
        request: WorkerRequest,
    ) -> None:
        self._max_failures = max_failures
        self._resources = resources
        self._waited_s = 0.0  # for room, since it was created
        on_gpu = use_gpu(device, resources, request)
        kinds = resources.accelerators
        if request.accelerator_type:
            kinds = (request.accelerator_type,)
        gpu = " ".join(["cuda", *(f"({kind})" for kind in kinds)])
        # The CPUs of a cluster may differ from that of this machine.
        cpu = describe_device(torch.device("cpu")) if resources.is_local else "cpu"
        if not (on_gpu or request.num_cpus):
            warn_of_few_cpus(workers.most, resources)
        cpus = request.num_cpus or (1 if on_gpu else resources.cpus_per_worker(workers.most))
        num_gpus = (request.num_gpus or 1) if on_gpu else 0
        self._request = replace(request, num_cpus=cpus, num_gpus=num_gpus)
        check_local(workers.fewest, resources, self._request)
        self.hardware = Hardware(
            "cuda" if on_gpu else "cpu",
            gpu if on_gpu else cpu,
            workers,
            cpus,
        )

    def choose_precision(self) -> Precision:
        """Return what the precision `auto` is, see `ask_precision`; may wait for a node."""
        if self._request.wait_s is not None and not self._resources.is_local:  # it counts once
            with _lost_cluster(), Reservation(1, self._resources, self._request) as room:
                # The workers may get the room of this one a moment later.
                self._waited_s = max(0.0, min(room.waited_s, self._request.wait_s - _RELEASE_S))
        return ask_precision(self.hardware.device_type, self._resources, self._request)

    @set_environment(RAY_TRAIN_VARIABLES)
    @set_environment({START_TIMEOUT: str(FOREVER_S)}, replace=True)
    def run(
        self,
        work: Work,
        *,
        name: str,
        state: Callable[[], bytes | None],
        on_message: Callable[[Any], None],
    ) -> Any:
        """Call `work` on every worker, and return what it returned on rank 0.

        `name` is shown in Ray's dashboard. `state` is called before each start of the workers and
        returns the state to resume from. `on_message` is called in this thread with each message
        of a worker. Raises ClusterError if workers were lost more often than `max_failures`, and
        any SgnError that a worker raised.
        """
        workers = self.hardware.workers
        num_lost, size = 0, self._choose_size(workers.most)
        while True:
            # Fewer workers might find room soon; only the fewest that the run may have wait for it.
            may_shrink = size > workers.fewest
            os.environ[START_TIMEOUT] = str(_RETRY_START_S if may_shrink else FOREVER_S)
            with _lost_cluster():
                request = replace(self._request, wait_s=None) if may_shrink else self._request
                room_watch = RoomWatch(
                    self._request.describe(size), request, waited_s=self._waited_s
                )
                self._waited_s = 0.0
            group = _Group(
                size,
                partial(self._run_workers, work, state(), name, size),
                partial(room_watch.cancel, size),
            )
            with group:
                self._follow(group, room_watch, on_message)
            match group.outcome:
                case _Finished(result):
                    return result
                case SgnError() as error:
                    raise error
                case _StopWork():
                    size = self._choose_size(workers.most)
                case _NoRoom():
                    log.warning("the room for %d workers was taken before they got it", size)
                    size = max(workers.fewest, min(self._choose_size(size), size - 1))
                # Only managed clusters, such as Anyscale's, report their limits to Ray.
                case lost if _controller_failure(lost) == "InsufficientClusterResourcesError":
                    raise ClusterError(
                        f"the cluster can never have {self._request.describe(size)}",
                        where=" ".join(str(lost).splitlines()[1:3]),
                        now="ask for less, or raise the limits of the autoscaler",
                    ) from lost
                case lost if (missing := missing_sgnray(lost)) is not None:
                    raise missing from lost
                case lost:
                    num_lost += 1
                    if not group.is_started:
                        with _lost_cluster():
                            room_watch.release(size)
                    if num_lost > self._max_failures:
                        raise ClusterError(
                            f"training stopped on the cluster: {last_line(lost)}",
                            where="a Ray worker; the traceback is in log.txt of the run",
                            now="rerun the same command to resume after the last finished epoch; "
                            "sgn train --max-failures N tolerates lost workers",
                        ) from lost
                    log.warning(
                        "a worker failed (%s); the run resumes after its last finished epoch",
                        last_line(lost),
                    )
                    log.debug("how it failed", exc_info=lost)
                    size = self._choose_size(size)

    def _follow(
        self, group: _Group, room_watch: RoomWatch, on_message: Callable[[Any], None]
    ) -> None:
        """Pass on the messages of a group of workers until it ends.

        Once the group has started, an elastic run requests room for its missing workers.
        """
        starting = Wait(self._request.describe(group.size))
        room: Room | None = None
        grow_at, had_room = 0.0, False
        with ExitStack() as held:
            while group.outcome is None:
                messages: list[Any] = []
                with _lost_cluster():
                    wait_for_head(seen_within_s=1.0)
                    if not group.is_started:
                        starting.check(is_waiting=room_watch.check())
                    elif room is None:
                        missing = self.hardware.workers.most - group.size
                        room = held.enter_context(Room(missing, self._request))
                        grow_at = time.monotonic() + _GROW_INTERVAL_S
                    elif time.monotonic() > grow_at:
                        has_room = room.count() > 0
                        if has_room and had_room:
                            group.queue.ask_to_stop()
                        grow_at, had_room = time.monotonic() + _GROW_INTERVAL_S, has_room
                    messages.extend(group.next_messages())
                for message in messages:  # an error of the caller is not one of the cluster
                    on_message(message)

    def _choose_size(self, wanted: int) -> int:
        """Return how many workers of an elastic run have room now.

        Resources are freed a moment after workers end: waits up to 10 s for room for `wanted`.
        """
        workers = self.hardware.workers
        if not workers.is_elastic:
            return workers.most
        give_up = time.monotonic() + _RELEASE_S
        with _lost_cluster(), Room(workers.most, self._request) as room:
            while (found := room.count()) < wanted and time.monotonic() < give_up:
                time.sleep(_POLL_S)
        return max(workers.fewest, found)

    def _run_workers(
        self, work: Work, state: bytes | None, name: str, size: int, queue: MessageQueue
    ) -> None:
        import ray

        hardware = self.hardware
        shared = None if state is None else ray.put(state)
        run_trainer(
            partial(
                _run_worker, work, shared, queue, hardware.device_type, hardware.threads_per_worker
            ),
            name=name,
            num_workers=size,
            request=self._request,
        )


class Worker:
    """A worker as seen by the work that runs on it: its only connection to the driver."""

    def __init__(self, queue: MessageQueue, device: torch.device) -> None:
        self.device = device
        self.world = World.current()
        self.waited_s = 0.0  # for the driver, in the last call of `deliver`
        self._queue = queue
        self._answer: Any = None

    def send(self, message: object) -> None:
        """Send a message to the driver and return at once."""
        self._queue.send(message)

    def deliver(self, message: object) -> None:
        """Send rank 0's message to the driver. Collective: every rank must call this.

        Waits until the driver has handled the previous message. If the driver answers that it wants
        another number of workers, this does not return, and the work ends on all ranks.
        """
        should_stop = torch.zeros(1, device=self.device)
        if self.world.rank == 0:
            start = time.perf_counter()
            should_stop += self.flush()
            self.waited_s = time.perf_counter() - start
            self._answer = self._queue.put(message)
        if self.world.size > 1:
            torch.distributed.broadcast(should_stop, 0)
        if should_stop.item():
            raise _StopWork

    def flush(self) -> bool:
        """Wait until the driver has handled the last message; return whether to stop."""
        import ray

        answer, self._answer = self._answer, None
        return False if answer is None else bool(ray.get(answer))


class _StopWork(Exception):  # noqa: N818 - nothing went wrong
    """The driver wants another number of workers."""


@dataclass(frozen=True)
class _Started:
    """The workers have joined the process group."""


@dataclass(frozen=True)
class _NoRoom:
    """The workers did not get their room in time; none was started."""


@dataclass(frozen=True)
class _Finished:
    """The work is done; `result` is rank 0's."""

    result: Any


class _Group:
    """One group of workers from its start to its end; Ray Train runs it in a thread of the driver.

    In a thread, Ray does not handle Ctrl-C. `outcome` is None while the group runs; then it is the
    first message that ends the work, else _NoRoom, or the exception that Ray raised for a lost
    worker. `run` runs the workers, which send to its queue; `cancel` removes the request for room,
    see `RoomWatch`.
    """

    def __init__(
        self, size: int, run: Callable[[MessageQueue], None], cancel: Callable[[], bool]
    ) -> None:
        self.size = size
        self._cancel = cancel
        self.queue = MessageQueue()
        self.is_started = False
        self.outcome: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, args=(run,), name="sgn-fit", daemon=True)
        self._thread.start()

    def __enter__(self) -> _Group:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Ask the remaining workers to stop after their epoch, or as soon as they start."""
        from ray.exceptions import RayError

        with suppress(RayError):  # the cluster may be lost
            self.queue.ask_to_stop()
        is_lost = kind is not None and issubclass(kind, ClusterError)  # then they cannot end
        if kind is None or (self.is_started and issubclass(kind, Exception) and not is_lost):
            self._thread.join(_RELEASE_S)
        elif not self.is_started:  # the request would outlive this run, and an autoscaler sees it
            give_up = time.monotonic() + _RELEASE_S
            with suppress(RayError):
                while self._thread.is_alive() and time.monotonic() < give_up and self._cancel():
                    self._thread.join(_POLL_S)

    def _fit(self, run: Callable[[MessageQueue], None]) -> None:
        try:
            run(self.queue)
        except BaseException as error:
            self._error = error

    def next_messages(self) -> Iterator[Any]:
        """Yield the messages that arrive within a moment, and record the outcome."""
        from ray.train import TrainingFailedError

        self._thread.join(_POLL_S)
        is_over = not self._thread.is_alive()
        outcome: Any = None
        for message in self.queue.take():
            match message:
                case _Started():
                    self.is_started = True
                case _Finished() | _StopWork() | SgnError():
                    outcome = outcome or message
                case _:
                    yield message
        if is_over and outcome is None:
            assert self._error is not None, "the workers ended without a result"
            if not isinstance(self._error, TrainingFailedError):
                raise self._error
            has_no_room = _controller_failure(self._error) == "WorkerGroupStartupTimeoutError"
            outcome = _NoRoom() if has_no_room else self._error
        self.outcome = outcome


def _controller_failure(error: BaseException) -> str:
    """Return Ray's class of an error of Ray Train's controller; empty for any other error."""
    from ray.train import ControllerError

    # These classes are not public. If one is renamed, its errors count as lost workers.
    return type(error.controller_failure).__name__ if isinstance(error, ControllerError) else ""


def _run_worker(
    work: Work, state: Any, queue: MessageQueue, device_type: str, num_threads: int
) -> None:
    """Run the work on one worker; `state` is Ray's reference to the bytes, or None."""
    import ray

    torch.set_num_threads(num_threads)
    state = None if state is None else ray.get(state)
    with ExitStack() as stack:
        try:
            device = stack.enter_context(process_group(device_type))
        except SgnError as error:
            ray.get(queue.put(error))
            raise
        worker = Worker(queue, device)
        outcome: object
        try:
            worker.deliver(_Started())
            outcome = _Finished(work(worker, state))
        except _StopWork as stop:
            outcome = stop
        except SgnError as error:
            worker.flush()  # a small message may overtake the last epoch
            # Send it inside the process group: once this rank leaves, Ray ends all the others.
            ray.get(queue.put(error))
            raise
        worker.flush()
        if worker.world.rank == 0:
            ray.get(queue.put(outcome))  # wait, or the message would be lost with this process
