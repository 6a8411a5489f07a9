"""Hosts of a small network on this machine: network namespaces on one bridge, for root on Linux.

Each host has an address, its own loopback and nothing else; commands run inside it, its cable can
be pulled, and whatever runs in it ends with it. Names carry this process's id; only processes that
`ip netns pids` lists for such a name are ever killed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_HEAD_PORT = 6379
# Ray waits only 15 s for an agent to report a port that it chose: not enough under load.
_AGENT_PORTS = {
    "--dashboard-agent-grpc-port": "6380",
    "--dashboard-agent-listen-port": "6381",
    "--metrics-export-port": "6382",
    "--runtime-env-agent-port": "6383",
}
# In a mount namespace of its own, a host has an empty file system where the others have files.
_HIDE = 'mount -t tmpfs none "$1" && shift && exec "$@"'


def _reason_to_skip() -> str | None:
    """Say why hosts cannot be built here, None where they can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "building hosts takes root and iproute2"
    name = f"sgnprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "this machine does not let root build network namespaces"
    _ip("netns", "del", name)
    return None


@dataclass
class Host:
    """One host: a network namespace with one cable to the bridge."""

    name: str
    cable: str
    address: str
    folder: Path
    hidden: Path | None = None
    """A folder that appears empty to commands of this host."""
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[str], **settings: object) -> subprocess.Popen[bytes]:
        """Start a command inside the host."""
        hide = ["unshare", "--mount", "sh", "-c", _HIDE, "sh", str(self.hidden)]
        inside = ["ip", "netns", "exec", self.name, *(hide if self.hidden else []), *command]
        process = subprocess.Popen(inside, start_new_session=True, **settings)  # type: ignore[call-overload]
        self.started.append(process)
        return process

    @property
    def ray_address(self) -> str:
        """The address of Ray, if this host is the head."""
        return f"{self.address}:{_HEAD_PORT}"

    def start_head(self, *options: str, num_cpus: int = 1, **environment: str) -> None:
        """Start a Ray cluster."""
        head = ("--head", "--port", str(_HEAD_PORT), "--include-dashboard=false")
        self._start_ray(*head, *options, num_cpus=num_cpus, **environment)

    def join(self, head: Host, *options: str, **environment: str) -> None:
        """Join the Ray cluster of another host."""
        self._start_ray("--address", head.ray_address, *options, **environment)

    def _start_ray(self, *options: str, num_cpus: int = 1, **environment: str) -> None:
        """Start a Ray node; it stays when the command that starts it is done."""
        command = [
            "ray", "start", "--node-ip-address", self.address,
            "--num-cpus", str(num_cpus), "--object-store-memory", "100000000",
            "--disable-usage-stats", "--temp-dir", str(self.folder / "ray"),
            *itertools.chain(*_AGENT_PORTS.items()), *options,
        ]  # fmt: skip
        for _ in range(4):  # Ray gives a node 30 s, which is not enough under load
            with (self.folder / "ray.txt").open("ab") as out:
                settings = {"env": os.environ | environment, "stdout": out, "stderr": out}
                if self.start(command, **settings).wait(200) == 0:
                    return
            self.kill_all()
        raise AssertionError((self.folder / "ray.txt").read_text())

    def add_default_route(self) -> None:
        """Add a default route: programs find the host's own address through it."""
        _ip("-n", self.name, "route", "add", "default", "dev", "eth0")

    def pull_cable(self) -> None:
        """Cut the host off without notifying any other host."""
        _ip("link", "set", self.cable, "down")

    def plug_cable(self) -> None:
        """Connect the host again."""
        _ip("link", "set", self.cable, "up")

    def kill_all(self) -> None:
        """Kill whatever runs in the host, and wait until it is gone."""
        for _ in range(100):
            pids = self.pids()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self.started:
                process.poll()
            if not pids:
                return
            time.sleep(0.05)
        raise AssertionError(f"{pids} do not end")

    def pids(self) -> list[int]:
        """List the processes inside the host."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True
        )
        return [int(pid) for pid in listed.stdout.split()]


@contextlib.contextmanager
def hosts(number: int) -> Iterator[list[Host]]:
    """Build hosts on one bridge, for commands of Ray; always remove them at the end."""
    reason = _reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    bridge = f"sgn{os.getpid()}"
    built: list[Host] = []
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "disabled")  # no token of an earlier Ray on this machine
    patch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    patch.delenv("RAY_ADDRESS", raising=False)
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        for index in range(number):
            built.append(_describe(index))
            _build(built[-1], bridge)
        yield built
    finally:
        for host in built:
            _remove(host)
        patch.undo()
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


def _describe(index: int) -> Host:
    name = f"sgn{os.getpid()}h{index}"
    # Short: the paths of Ray's sockets have a limit.
    folder = Path(tempfile.mkdtemp(prefix="sgn-host-"))
    return Host(name, f"{name}v", f"10.77.{os.getpid() % 250}.{index + 1}", folder)


def _build(host: Host, bridge: str) -> None:
    _ip("netns", "add", host.name)
    _ip("link", "add", host.cable, "type", "veth", "peer", "name", "eth0", "netns", host.name)
    _ip("link", "set", host.cable, "master", bridge)
    _ip("link", "set", host.cable, "up")
    _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
    for link in ("lo", "eth0"):
        _ip("-n", host.name, "link", "set", link, "up")


def _remove(host: Host) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):
        host.kill_all()
    for process in host.started:
        process.wait()
    subprocess.run(["ip", "netns", "del", host.name], capture_output=True, check=False)
    shutil.rmtree(host.folder, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
