"""Connect to a Ray cluster, or start one on this machine, and watch its head node."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from sgnray.distributed.address import (
    CLIENT,
    LOCAL,
    check_listening,
    check_same,
    find_address,
    find_here,
    is_listening,
    no_answer,
    node_environments,
    raylets,
    refuse_client,
)
from sgnray.distributed.cores import num_cores
from sgnray.distributed.resources import Resources
from sgnray.errors import ClusterError, first_line

log = logging.getLogger(__name__)

# Ray's default is 30% of memory. Only preparation sends poses: a few MB per worker at a time.
_OBJECT_STORE_BYTES = 256 * 2**20
_MAX_STARTS = 3
# If the head does not answer for this long, Ray ends the process without an exception.
_HEAD_TIMEOUT, _HEAD_TIMEOUT_S = "RAY_gcs_rpc_server_reconnect_timeout_s", 60.0
_END_S = 20.0  # a command needs less than this to end
_HEAD_POLL_S = 1.0
_head_seen_at: dict[str, float] = {}  # by its address
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# A Ray started here has no dashboard. Without this, Ray Train asks that of any other Ray, at the
# default port of this machine or at the user's own address, whether the run is still there, and
# ends the workers of a run that the other does not know. Nothing listens at port 0.
_NO_DASHBOARD = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:0"}

_JOIN_S = 10.0  # for the process of a node that is starting


def is_at_hand(address: str | None) -> bool:
    """Return whether a cluster is already running, so that no new one is started."""
    return _used_ray() is not None or find_address(address) is not None


def own_address(address: str | None) -> str | None:
    """Return the address for a child process: the given one, else that of this process's Ray."""
    ray = _used_ray()
    if address is None and ray is not None:
        return str(ray.get_runtime_context().gcs_address)
    return address


def _used_ray() -> Any:
    """Return the module ray if this process uses a cluster already, without importing it."""
    ray = sys.modules.get("ray")
    return ray if ray is not None and ray.is_initialized() else None


@contextmanager
def connected(
    address: str | None = None, *, num_workers: int, is_announced: bool = True
) -> Iterator[Resources]:
    """Use the cluster that `find_address` finds, else start one on this machine.

    A new cluster gets at least one logical CPU for each worker, so that any number of workers
    runs on a laptop. ClusterError if no cluster can be used. A process that uses Ray already keeps
    its cluster; UsageError if `address` names another one. A cluster that was found without an
    address is logged if `is_announced`.
    """
    used = _used_ray()
    if used is not None:
        refuse_client(CLIENT if used.util.client.ray.is_connected() else address)
        is_own = _has_started_ray()
        if address and address != "auto" and not (address == LOCAL and is_own):
            check_same(address, str(used.get_runtime_context().gcs_address))
        yield Resources.now(is_local=is_own and address in (None, LOCAL))
        return
    wanted = find_address(address)
    if wanted == "auto":
        wanted = find_here()
    if wanted is not None:
        _wait_for_node(wanted)
    with set_environment(_QUIET | _token_mode(wanted)):
        import ray  # reads the mode once

        with _sigterm_restored():
            if wanted is None:
                with set_environment(_NO_DASHBOARD, replace=True):  # its processes inherit them
                    _start(ray, num_workers)
            else:
                if not address and is_announced:
                    log.info(
                        "using the Ray cluster at %s; --address local starts a new one", wanted
                    )
                _connect(ray, wanted)
        try:
            yield Resources.now(is_local=wanted is None)
        finally:
            ray.shutdown()


def _token_mode(address: str | None) -> dict[str, str]:
    """Return the variable that makes Ray send the user's token, if the cluster requires one.

    `ray start` requires a token as soon as there is one, and a Ray that Python starts, as in
    `sgn demo`, leaves one in the home folder. Ray sends it only if it looks for the cluster itself.
    The node of another user does not show whether it requires one.
    """
    requires_token = address is not None and any(
        node.get("RAY_AUTH_MODE", "").lower() == "token" for node in node_environments(address)
    )
    return {"RAY_AUTH_MODE": "token"} if requires_token else {}


def wait_for_head(*, seen_within_s: float = 0.0) -> None:
    """Wait until the head node of the connected cluster listens; ConnectionError if it is lost.

    Call this often, and before a call that asks Ray about the cluster: without a head, it would
    block, and after a minute Ray would end this process without an exception. A loop that asks
    nothing may pass over a look if the head was seen within some time.
    """
    import ray

    address = str(ray.get_runtime_context().gcs_address)
    if time.monotonic() - _head_seen_at.get(address, -math.inf) < seen_within_s:
        return
    if is_head_alive():
        _head_seen_at[address] = time.monotonic()
        return
    log.warning("the head node of the Ray cluster does not answer; waiting for it")
    timeout_s = float(os.environ.get(_HEAD_TIMEOUT, _HEAD_TIMEOUT_S))
    give_up = time.monotonic() + timeout_s - _END_S
    while time.monotonic() < give_up:
        time.sleep(_HEAD_POLL_S)
        if is_head_alive():
            return
    raise ConnectionError("its head node does not answer")


def is_head_alive() -> bool:
    """Return whether the head node of the connected cluster listens, however busy it is."""
    import ray

    return is_listening(str(ray.get_runtime_context().gcs_address))


def missing_sgnray(error: Exception) -> ClusterError | None:
    """Return the error of a machine on which a worker could not import sgnray; None for others."""
    if "No module named 'sgnray'" not in str(error):
        return None
    return ClusterError(
        "a machine of the cluster does not have sgnray",
        where="a Ray worker",
        now="install the same version of sgnray on all machines",
    )


@contextmanager
def lost_cluster(now: str) -> Iterator[None]:
    """Turn errors of Ray itself into a ClusterError: the cluster is lost. `now` is its advice.

    An error of a file or a pipe has a number, and is not one of Ray.
    """
    try:
        yield
    except Exception as error:
        from ray.exceptions import RayError  # after `connected` has set what Ray reads on import

        is_of_ray = isinstance(error, RayError) or (
            isinstance(error, (ConnectionError, TimeoutError)) and error.errno is None
        )
        if not is_of_ray:
            raise
        raise missing_sgnray(error) or ClusterError(
            f"the Ray cluster was lost: {first_line(error)}",
            where="its head node, or Ray on this machine",
            now=f"start it again; {now}",
        ) from error


@contextmanager
def set_environment(variables: Mapping[str, str], *, replace: bool = False) -> Iterator[None]:
    """Set environment variables, and restore them at the end.

    Those that the user has set are kept, unless `replace`.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(
        {name: value for name, value in variables.items() if replace or before[name] is None}
    )
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _has_started_ray() -> bool:
    """Return whether this process has started the Ray that it uses, rather than connected to it."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended
            if child.name() == "gcs_server" and child.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


@contextmanager
def _sigterm_restored() -> Iterator[None]:
    """Restore the caller's SIGTERM handler, which Ray replaces when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _wait_for_node(address: str) -> None:
    """Wait for a node of Ray on this machine, which may be starting; Ray itself waits a minute."""
    check_listening(address)
    give_up = time.monotonic() + _JOIN_S
    while next(raylets(), None) is None:
        if time.monotonic() > give_up:
            raise _not_a_node(address)
        time.sleep(_JOIN_S / 20)


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise no_answer(address, error) from error
    except (RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        if "No node info found" in str(error):  # the nodes here are of another cluster
            raise _not_a_node(address) from error
        raise ClusterError(
            f"the Ray cluster does not accept this driver: {first_line(error)}",
            where=address,
            now="use the same versions of Python and Ray on all machines, and a token if "
            "the cluster requires one",
        ) from error


def _not_a_node(address: str) -> ClusterError:
    return ClusterError(
        "this machine is not a node of that Ray cluster",
        where=address,
        now="run sgn on one of its nodes, submit a job: ray job submit -- sgn ..., or let this "
        f"machine join: ray start --address {address}",
    )


def _start(ray: Any, num_workers: int) -> None:
    cores = num_cores()
    if num_workers > cores:
        log.warning(
            "%d workers share the %d cores of this machine, one thread each: "
            "fine for a test, but not faster",
            num_workers,
            cores,
        )
    log.info("starting Ray on this machine")
    for attempt in range(1, _MAX_STARTS + 1):
        try:
            with sighup_blocked():
                ray.init(
                    address=LOCAL,
                    num_cpus=max(cores, num_workers),
                    include_dashboard=False,
                    dashboard_host="127.0.0.1",
                    object_store_memory=_OBJECT_STORE_BYTES,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            return
        # Ray raises a bare Exception if its node does not start within 30 s, on a busy machine.
        except Exception as error:
            if "timed out during startup" in str(error) and attempt < _MAX_STARTS:
                log.warning("Ray did not start in time; trying again")
                continue
            now = "run it again when the machine is less busy"
            path = getattr(error, "filename", None)
            if path is not None and Path(path).is_relative_to(os.path.expanduser("~")):
                now = "set HOME to a folder that can be written: Ray keeps its token there"
            raise ClusterError(
                f"Ray could not be started: {first_line(error)}", where="this machine", now=now
            ) from error


@contextmanager
def sighup_blocked() -> Iterator[None]:
    """Let a closed terminal end the processes that start now only through this one.

    They inherit the signal mask of this thread; a SIGHUP to this process is delivered afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
