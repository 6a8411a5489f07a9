"""Connect to a Ray cluster: the one that is named, one that runs on this machine, or a new one."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

import psutil

from sgnray.distributed.resources import Resources
from sgnray.errors import ClusterError, UsageError, first_line

log = logging.getLogger(__name__)

LOCAL = "local"
_CLIENT = "ray://"
# Ray's default is 30% of memory. Only preparation sends poses: a few MB per worker at a time.
_OBJECT_STORE_BYTES = 256 * 2**20
_MAX_STARTS = 3
_CONNECT_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 10.0  # longer: the cores of that machine may be busy
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
# Linux: the control groups of this process, and the files of all of them.
_OWN_CGROUPS, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def find_address(address: str | None) -> str | None:
    """Return the address of the cluster to use; None if a new one must be started.

    In this order: `address`, RAY_ADDRESS, a Ray that `ray start` started on this machine.
    "local" means a new one. UsageError for an address that training cannot use, ClusterError if
    the Ray of this machine does not answer.
    """
    address = address or os.environ.get("RAY_ADDRESS") or _running_here()
    _refuse_client(address)
    return None if address == LOCAL else address


def _refuse_client(address: str | None) -> None:
    if address is not None and address.startswith(_CLIENT):
        raise UsageError(
            "Ray Client (ray://) is not supported: sgn must run on a machine of the cluster",
            where=address,
            now="run it there with --address auto, or submit it: ray job submit -- sgn ...",
        )


def is_at_hand(address: str | None) -> bool:
    """Return whether a cluster is already running, so that no new one is started."""
    ray = sys.modules.get("ray")
    return (ray is not None and bool(ray.is_initialized())) or find_address(address) is not None


def own_address(address: str | None) -> str | None:
    """Return the address for a child process: the given one, else that of this process's Ray."""
    ray = sys.modules.get("ray")
    if address is None and ray is not None and ray.is_initialized():
        return str(ray.get_runtime_context().gcs_address)
    return address


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
    import ray

    if ray.is_initialized():
        _refuse_client(_CLIENT if ray.util.client.ray.is_connected() else address)
        is_own = _has_started_ray()
        if address and address != "auto" and not (address == LOCAL and is_own):
            _check_same(address, str(ray.get_runtime_context().gcs_address))
        yield Resources.now(is_local=is_own and address in (None, LOCAL))
        return
    wanted = find_address(address)
    if wanted == "auto":
        wanted = _find_here()
    with set_environment(_QUIET):
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

    host, port = _split(str(ray.get_runtime_context().gcs_address))
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


@contextmanager
def lost_cluster(now: str) -> Iterator[None]:
    """Turn errors of Ray itself into a ClusterError: the cluster is lost. `now` is its advice.

    An error of a file or a pipe has a number, and is not one of Ray.
    """
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, ConnectionError, TimeoutError) as error:
        if not isinstance(error, RayError) and error.errno is not None:
            raise
        raise ClusterError(
            f"the Ray cluster was lost: {first_line(error)}",
            where="its head node, or Ray on this machine",
            now=f"start it again; {now}",
        ) from error


@contextmanager
def set_environment(variables: Mapping[str, str], *, replace: bool = False) -> Iterator[None]:
    """Set variables that Ray reads, and restore them at the end.

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


def _running_here() -> str | None:
    """Return the address that `ray start` recorded on this machine, if Ray listens there.

    If RAY_TMPDIR is set, only a record below it counts. ClusterError if it listens but is silent:
    it may be busy, and a second Ray would take its cores.
    """
    own = os.environ.get("RAY_TMPDIR")
    folders = [Path(own) / "ray"] if own else [Path(tempfile.gettempdir(), "ray"), *_temp_dirs()]
    silent: ClusterError | None = None
    for folder in folders:
        try:
            record = folder / "ray_current_cluster"
            address = record.read_text().strip()
            check_listening(address)
            if os.getuid() not in (0, owner := record.stat().st_uid) and owner != 0:
                # Anyone can write to /tmp.
                log.warning(
                    "not using the Ray of another user at %s: name it with --address", address
                )
                continue
        except ClusterError as error:
            if isinstance(error.__cause__, _SilentError):
                silent = silent or error  # else it was stopped
        except (OSError, ValueError, UsageError):
            pass  # never started
        else:
            return address
    if silent is not None:
        raise silent
    return None


def _find_here() -> str:
    """Return the address of a Ray on this machine, also of one that another process started.

    ClusterError if none answers.
    """
    if recorded := _running_here():
        return recorded
    for options in _own_nodes():
        with suppress(ClusterError, UsageError):
            check_listening(options.get("--gcs-address", ""))
            return options["--gcs-address"]
    raise ClusterError(
        "no Ray cluster answers on this machine",
        where="auto, as --address or RAY_ADDRESS",
        now="start one with 'ray start --head', name one as HOST:6379, or use --address local",
    )


def _temp_dirs() -> list[Path]:
    """Return the `--temp-dir` of each Ray node of `_own_nodes`.

    Only `ray start` records an address there.
    """
    return [Path(options["--temp_dir"]) for options in _own_nodes() if "--temp_dir" in options]


def _own_nodes() -> list[dict[str, str]]:
    """Return the options of each Ray node that this user has on this machine, newest first.

    A node with an address that this machine does not have is in a container.
    """
    own = _own_addresses()
    found: list[tuple[float, int, dict[str, str]]] = []
    for process in _raylets():
        with suppress(psutil.Error):  # it has ended, or is hidden
            if os.getuid() in (0, process.uids().real):
                options = dict(word.partition("=")[::2] for word in process.cmdline())
                if options.get("--node_ip_address") in own:
                    # The time is in hundredths of a second.
                    found.append((process.create_time(), process.pid, options))
    found.sort(key=lambda node: node[:2], reverse=True)
    return [options for _, _, options in found]


def _raylets() -> Iterator[psutil.Process]:
    """Find the processes of Ray nodes on this machine, of all users."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            # An emulator may have its own name, and Ray itself looks at the first word.
            if process.name() == "raylet" or "raylet" in "".join(process.cmdline()[:1]):
                yield process


def _has_started_ray() -> bool:
    """Return whether this process has started the Ray that it uses, rather than connected to it."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended
            if child.name() == "gcs_server" and child.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _check_same(address: str, used: str) -> None:
    """Raise UsageError if `address` names another Ray than the one that this process uses."""
    if address == used:
        return
    (host, port), (used_host, used_port) = _split(address), _split(used)
    if port == used_port:
        own, names, used_names = _own_addresses(), _resolve(host), _resolve(used_host)
        if names & used_names or (names & own and used_names & own):
            return
    raise UsageError(
        "this process already uses another Ray",
        where=f"{address}, and not {used}",
        now="leave the address out to use that one, or call ray.shutdown() first",
    )


def _own_addresses() -> set[str]:
    return {each.address for found in psutil.net_if_addrs().values() for each in found}


def _resolve(host: str) -> set[str]:
    with suppress(OSError, UnicodeError):
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    return set()


@contextmanager
def _sigterm_restored() -> Iterator[None]:
    """Restore the caller's SIGTERM handler, which Ray replaces when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _connect(ray: Any, address: str) -> None:
    check_listening(address)
    give_up = time.monotonic() + _JOIN_S
    while next(_raylets(), None) is None:  # Ray would look for one for a minute
        if time.monotonic() > give_up:
            raise _not_a_node(address)
        time.sleep(_JOIN_S / 20)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise _no_answer(address, error) from error
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
            raise ClusterError(
                f"Ray could not be started: {first_line(error)}",
                where="this machine",
                now="run it again when the machine is less busy, or without Ray: --workers 0",
            ) from error


def num_cores() -> int:
    """Count the cores that this process may use; a container may have a share of them."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), *_cpu_quotas())
    return os.cpu_count() or 1


def _cpu_quotas() -> list[int]:
    """Return the CPUs that each control group above this process allows, rounded up."""
    quotas = [sys.maxsize]
    with suppress(OSError):
        for line in _OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers:  # version 1
                root, files = _CGROUPS / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            else:
                root, files = _CGROUPS, ["cpu.max"]
            if controllers and "cpu" not in controllers.split(","):
                continue
            below = PurePath(path.lstrip("/"))
            for folder in (below, *below.parents):
                with suppress(OSError, ValueError):  # it is not seen from here, or "max"
                    words = " ".join((root / folder / name).read_text() for name in files)
                    quota, period = map(int, words.split())
                    if quota > 0:
                        quotas.append(math.ceil(quota / period))
    return quotas


def check_listening(address: str) -> None:
    """Raise ClusterError if no Ray listens at an address; Ray itself would retry for a minute.

    UsageError for text that is not an address.
    """
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            "this is the address of a dashboard, which accepts jobs but not drivers",
            where=address,
            now="use it with 'ray job submit', or name the cluster as HOST:6379",
        )
    if address == "auto":
        return  # Ray finds it
    host, port = _split(address)
    if not host or not port.isdecimal():
        raise UsageError(
            "this is not the address of a Ray cluster",
            where=address,
            now="name it as HOST:6379, or use auto or local",
        )
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S) as connection:
            _check_http2(connection)
    except (OSError, OverflowError) as error:
        raise _no_answer(address, error) from error


def _split(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port  # brackets of an IPv6 address


class _SilentError(OSError):
    """Something listens but takes too long to answer."""


def _check_http2(connection: socket.socket) -> None:
    """Raise OSError if the other end does not answer in HTTP/2, as Ray's gRPC does."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return  # the connection is encrypted
    # The client preface and an empty SETTINGS frame; the server also begins with SETTINGS.
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
    connection.settimeout(_ANSWER_TIMEOUT_S)
    try:
        answer = connection.recv(9)
    except TimeoutError as error:
        raise _SilentError("it does not answer") from error
    if answer[3:4] != b"\x04":
        raise ConnectionError("it is not Ray")


def _no_answer(address: str, error: Exception) -> ClusterError:
    if isinstance(error, _SilentError):
        return ClusterError(
            "a Ray cluster, or something else, listens but does not answer",
            where=address,
            now="rerun the command when that machine is less busy, end a Ray that never answers "
            "with 'ray stop --force', or use --address of another cluster or --address local",
        )
    return ClusterError(
        "no Ray cluster answers",
        where=address,
        now="start one there with 'ray start --head', correct --address or RAY_ADDRESS, set "
        "RAY_AUTH_MODE=token if it requires a token, or use --address local",
    )
