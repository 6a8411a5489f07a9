"""The lock of a folder at a URI, which is a file in it."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from sgnray.errors import RunError, SgnError
from sgnray.storage.location import Location

log = logging.getLogger(__name__)

LEASE_FILE = ".lease"
_LEASE_VERSION = 1
_RENEW_EVERY_S, _LEASE_S = 20.0, 90.0
_SILENT_S = 30.0  # an owner that has not renewed its lease for so long may be lost
_LOOK_EVERY_S = 2.0  # at the lease of an owner that does not respond
_WRITE_RACE_S = 0.5  # longer than the time from reading a lease to writing one


class Lease:
    """A file that names the command that writes a folder at a URI, where there are no locks.

    It is valid for _LEASE_S after it was last renewed; the clocks of two machines must differ by
    less than that. On the machine where its owner was killed, it ends at once.
    """

    def __init__(self, place: Location, busy: SgnError) -> None:
        self._place = place
        self._file = place.child(LEASE_FILE)
        self._busy = busy
        self._owner = uuid.uuid4().hex
        self._renewed = 0.0

    def take(self) -> None:
        """Become the owner; raises `busy` if another one is alive, RunError if that is unknown."""
        self.check_free()
        self._write()
        time.sleep(_WRITE_RACE_S)
        if self._read_owner() != self._owner:  # if two write at once, the last one has it
            raise self._busy

    def check_free(self) -> None:
        """Raise `busy` if another owner is alive, RunError if that is unknown.

        An owner that does not respond may be lost: waits until it does, or its lease ends.
        """
        seen: float | None = None
        while (found := self._read_live()) is not None:
            renewed = float(found["renewed"])
            age_s = time.time() - renewed
            host = found.get("host", "another machine")
            is_silent = age_s > _SILENT_S and found.get("machine") != _machine()
            if not is_silent or seen not in (None, renewed):
                what = f"{self._busy.what}: on {host}, {max(0.0, age_s):.0f} s ago"
                raise type(self._busy)(what, where=self._busy.where, now=self._busy.now)
            if seen is None:
                log.warning(
                    "%s: its owner on %s has not responded for %.0f s; waiting until %s",
                    self._place,
                    host,
                    age_s,
                    time.strftime("%H:%M:%S", time.localtime(renewed + _LEASE_S)),
                )
            seen = renewed
            time.sleep(_LOOK_EVERY_S)

    def _read_live(self) -> dict[str, Any] | None:
        """Read the lease of an owner that may be alive; RunError for one of another version."""
        found = self._read()
        if found is not None and found.get("format_version", _LEASE_VERSION) != _LEASE_VERSION:
            raise RunError(
                "a command of another version of sgnray may be using this folder",
                where=str(self._file),
                now="update sgnray, or remove that file if no command uses the folder",
            )
        return found if found is not None and _is_alive(found) else None

    def renew(self) -> None:
        """Write it again if it is due; RunError if another command has taken over the folder."""
        # By the wall clock, because time.monotonic() stops while a machine sleeps.
        if abs(time.time() - self._renewed) > _RENEW_EVERY_S:
            self.check()
            self._write()

    def check(self) -> None:
        """Raise RunError if another command has taken over the folder, or may have had it."""
        owner = self._read_owner()
        has_ended = time.time() - self._renewed > _LEASE_S
        if owner != self._owner and (owner is not None or has_ended):
            raise RunError(
                "another command has taken over this folder, because this one did not respond",
                where=str(self._place),
                now="rerun the command when the other one has ended, or choose another --name",
            )

    def release(self) -> None:
        """Release the folder; if that fails, others have to wait for the end of the lease."""
        with suppress(SgnError):
            if self._read_owner() == self._owner:
                self._file.remove()

    def _write(self) -> None:
        now = time.time()
        content = {
            "format_version": _LEASE_VERSION,
            "owner": self._owner,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "renewed": now,
        }
        self._file.put(json.dumps(content).encode())
        self._renewed = now

    def _read(self) -> dict[str, Any] | None:
        try:
            content = json.loads(self._file.get())
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def _read_owner(self) -> object:
        found = self._read()
        return None if found is None else found.get("owner")


def _is_alive(lease: dict[str, Any]) -> bool:
    renewed, pid = lease.get("renewed"), lease.get("pid")
    if not isinstance(renewed, int | float) or time.time() - renewed > _LEASE_S:
        return False
    if lease.get("machine") != _machine() or not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _machine() -> str:
    """Identify this machine since its boot, and the pid namespace of this process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex  # differs in each process, so that pids are not compared
