"""Addresses of Ray clusters: find the one to use, and check that a Ray listens there."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from sgnray.errors import ClusterError, UsageError

log = logging.getLogger(__name__)

LOCAL = "local"
CLIENT = "ray://"
_CONNECT_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 10.0  # longer: the cores of that machine may be busy


def find_address(address: str | None) -> str | None:
    """Return the address of the cluster to use; None if a new one must be started.

    In this order: `address`, RAY_ADDRESS, a Ray that `ray start` started on this machine.
    "local" means a new one. UsageError for an address that training cannot use, ClusterError if
    the Ray of this machine does not answer.
    """
    address = address or os.environ.get("RAY_ADDRESS") or _running_here()
    refuse_client(address)
    return None if address == LOCAL else address


def refuse_client(address: str | None) -> None:
    """Raise UsageError for an address of Ray Client."""
    if address is not None and address.startswith(CLIENT):
        raise UsageError(
            "Ray Client (ray://) is not supported: sgn must run on a machine of the cluster",
            where=address,
            now="run it there with --address auto, or submit it: ray job submit -- sgn ...",
        )


def _running_here() -> str | None:
    """Return the address that `ray start` recorded on this machine, if Ray listens there.

    If RAY_TMPDIR is set, only a record below it counts. ClusterError if it listens but is silent:
    it may be busy, and a second Ray would take its cores.
    """
    own = os.environ.get("RAY_TMPDIR")
    if own:
        folders = [Path(own) / "ray"]
    else:  # only `ray start` records an address in the --temp-dir of its node
        nodes = [options["--temp_dir"] for options in _own_nodes() if "--temp_dir" in options]
        folders = [Path(tempfile.gettempdir(), "ray"), *map(Path, nodes)]
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


def find_here() -> str:
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


def _own_nodes() -> list[dict[str, str]]:
    """Return the options of each Ray node that this user has on this machine, newest first.

    A node with an address that this machine does not have is in a container.
    """
    own = _own_addresses()
    found: list[tuple[float, int, dict[str, str]]] = []
    for process in raylets():
        with suppress(psutil.Error):  # it has ended, or is hidden
            if os.getuid() in (0, process.uids().real):
                options = _options(process)
                if options.get("--node_ip_address") in own:
                    # The time is in hundredths of a second.
                    found.append((process.create_time(), process.pid, options))
    found.sort(key=lambda node: node[:2], reverse=True)
    return [options for _, _, options in found]


def _options(raylet: psutil.Process) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in raylet.cmdline())


def raylets() -> Iterator[psutil.Process]:
    """Find the processes of Ray nodes on this machine, of all users."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            # An emulator may have its own name, and Ray itself looks at the first word.
            if process.name() == "raylet" or "raylet" in "".join(process.cmdline()[:1]):
                yield process


def check_same(address: str, used: str) -> None:
    """Raise UsageError if `address` names another Ray than the one that this process uses."""
    if not _is_same(address, used):
        raise UsageError(
            "this process already uses another Ray",
            where=f"{address}, and not {used}",
            now="leave the address out to use that one, or call ray.shutdown() first",
        )


def _is_same(address: str, other: str) -> bool:
    if address == other:
        return True
    (host, port), (other_host, other_port) = _split(address), _split(other)
    if port != other_port:
        return False
    own, names, other_names = _own_addresses(), _resolve(host), _resolve(other_host)
    return bool(names & other_names) or bool(names & own and other_names & own)


def node_environments(address: str) -> Iterator[dict[str, str]]:
    """Yield the environment of each node of a cluster here, if this user may read it."""
    for process in raylets():
        with suppress(psutil.Error):  # it has ended, or is another user's
            if _is_same(address, _options(process).get("--gcs-address", "")):
                yield process.environ()


def _own_addresses() -> set[str]:
    return {each.address for found in psutil.net_if_addrs().values() for each in found}


def _resolve(host: str) -> set[str]:
    with suppress(OSError, UnicodeError):
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    return set()


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
        raise no_answer(address, error) from error


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


class _SilentError(OSError):
    """Something listens but takes too long to answer."""


def no_answer(address: str, error: Exception) -> ClusterError:
    """Return the error of an address where Ray does not answer, from that of the connection."""
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


def is_listening(address: str) -> bool:
    """Return whether anything listens at an address, however busy it is."""
    host, port = _split(address)
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _split(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port  # brackets of an IPv6 address
