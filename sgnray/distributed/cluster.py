"""Connect to a Ray cluster or start a local one: what all launchers share."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgnray.errors import ClusterError, first_line
from sgnray.storage.atomic import output_errors

log = logging.getLogger(__name__)

# Ray would take 30 % of memory. Only preparation passes poses, a few MB for each worker at a time.
_OBJECT_STORE_BYTES = 256 * 2**20
_CONNECT_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 60.0
_ACCELERATOR = "accelerator_type:"
_PIECE_BYTES = 8 * 2**20
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_TRAIN = {
    # Ray Train takes one epoch per look, and notices the end at the next one; its default is 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A worker that does not answer is given up after this long, not after ten minutes.
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "60",
    # Room that was taken meanwhile is looked for anew after this long, not after a minute.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
}


@dataclass(frozen=True)
class Resources:
    """What the cluster has; `is_local` tells that it was started here and ends here."""

    num_cpus: int
    num_gpus: int
    is_local: bool
    accelerators: tuple[str, ...] = ()

    def cpus_per_worker(self, num_workers: int) -> int:
        """Share the logical CPUs of a local cluster; on a foreign one take one each."""
        return max(1, self.num_cpus // num_workers) if self.is_local else 1


def is_at_hand(address: str | None) -> bool:
    """Tell whether a cluster runs already, so that none would have to be started."""
    if address or os.environ.get("RAY_ADDRESS"):
        return True
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def connected(address: str | None = None, *, num_workers: int) -> Iterator[Resources]:
    """Use the cluster at `address` or RAY_ADDRESS, else start one on this machine.

    A local cluster gets at least one logical CPU for each worker, so that any number of workers
    runs on a laptop; an existing one that is too small is refused. ClusterError says why.
    """
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    for name, value in _TRAIN.items():  # read when a training starts
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield _checked(ray, num_workers, is_local=not address)
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with _sigterm_restored():
        _connect(ray, address, num_workers)
    try:
        yield _checked(ray, num_workers, is_local=not address)
    finally:
        ray.shutdown()


@contextmanager
def _sigterm_restored() -> Iterator[None]:
    """Give a handler of the caller's own back; Ray replaces it when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _connect(ray: Any, address: str | None, num_workers: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        check_listening(address)
        try:
            ray.init(address=address, **quiet)
        except ConnectionError as error:
            raise _no_answer(address) from error
        except (RuntimeError, ValueError, TimeoutError) as error:
            raise ClusterError(
                f"the Ray cluster does not take this driver: {first_line(error)}",
                where=address,
                now="use the same versions of Python and Ray on all machines, and its token if "
                "it asks for one",
            ) from error
        return
    cores = num_cores()
    if num_workers > cores:
        log.warning(
            "%d workers share the %d cores of this machine, one thread each: "
            "good for a trial, not faster",
            num_workers,
            cores,
        )
    log.info("starting Ray on this machine")
    try:
        ray.init(
            address="local",
            num_cpus=max(cores, num_workers),
            include_dashboard=False,
            dashboard_host="127.0.0.1",
            object_store_memory=_OBJECT_STORE_BYTES,
            **quiet,
        )
    except (
        Exception
    ) as error:  # Ray raises a bare Exception where its node does not come up in time
        raise ClusterError(
            f"Ray could not be started: {first_line(error)}",
            where="this machine",
            now="run it again when the machine is less busy, or without Ray: --workers 0",
        ) from error


def num_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_listening(address: str) -> None:
    """Raise ClusterError where nothing listens at an address; Ray would try for a minute."""
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            "this is the address of a dashboard, which takes jobs and no drivers",
            where=address,
            now="use it with 'ray job submit', or name the cluster as HOST:6379",
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # an IPv6 address
    if not host or not port.isdecimal():
        return  # "auto" and the like: Ray finds it
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise _no_answer(address) from error


def _checked(ray: Any, num_workers: int, *, is_local: bool) -> Resources:
    found = ray.cluster_resources()
    resources = Resources(
        num_cpus=int(found.get("CPU", 0)),
        num_gpus=int(found.get("GPU", 0)),
        is_local=is_local,
        accelerators=tuple(
            sorted(name.partition(":")[2] for name in found if name.startswith(_ACCELERATOR))
        ),
    )
    if resources.num_cpus < num_workers:
        raise ClusterError(
            f"{num_workers} workers need {num_workers} CPUs, and the cluster has "
            f"{resources.num_cpus}",
            where="the Ray cluster",
            now=f"ask for --workers {max(1, resources.num_cpus)}, or add nodes: "
            "ray start --address HEAD:PORT",
        )
    return resources


def _no_answer(address: str) -> ClusterError:
    return ClusterError(
        "no Ray cluster answers",
        where=address,
        now="start one there with 'ray start --head', correct --address or RAY_ADDRESS, set "
        "RAY_AUTH_MODE=token if it asks for one, or leave it out to use this machine",
    )


class MessageQueue:
    """Messages from workers to the driver, over a Ray actor on its node that takes no CPU.

    Workers put without waiting; the driver takes all that has come, until it closes the box.
    """

    def __init__(self) -> None:
        self._actor: Any = _beside_driver(_Messages).remote()

    def put(self, message: object) -> Any:
        """Send a message; returns Ray's reference to whether the box was open."""
        return self._actor.put.remote(message)

    def close(self) -> None:
        """Tell those who put from now on that nobody takes any more."""
        self._actor.close.remote()

    def take(self) -> list[Any]:
        """Return the messages since the last call, oldest first."""
        import ray

        messages: list[Any] = ray.get(self._actor.take.remote(), timeout=_ANSWER_TIMEOUT_S)
        return messages


class FileServer:
    """Files of the driver's machine, which workers on machines that do not see them can copy."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._actor: Any = _beside_driver(_Files).remote(folder, self._names)

    def copy_to(self, folder: Path) -> None:
        """Copy all files into a folder here, a piece at a time; raises OutputError."""
        import ray

        for name in self._names:
            with (folder / name).open("wb") as file:
                while piece := ray.get(self._actor.read.remote(name, file.tell())):
                    with output_errors(folder / name):
                        file.write(piece)


def _beside_driver(kind: type) -> Any:
    """Make a class an actor on the driver's machine that takes no CPU."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(kind)


class _Files:
    """The actor behind a FileServer; it reads the files that it was given and no others."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._names = names

    def read(self, name: str, start: int) -> bytes:
        """Read one piece of a file; empty at its end."""
        assert name in self._names
        with (self._folder / name).open("rb") as file:
            file.seek(start)
            return file.read(_PIECE_BYTES)


class _Messages:
    """The actor behind a queue."""

    def __init__(self) -> None:
        self._messages: list[object] = []
        self._is_open = True

    def put(self, message: object) -> bool:
        """Keep a message; tell whether anybody will take it."""
        self._messages.append(message)
        return self._is_open

    def close(self) -> None:
        """Let later messages be answered with a no."""
        self._is_open = False

    def take(self) -> list[object]:
        """Hand all messages over."""
        messages, self._messages = self._messages, []
        return messages
