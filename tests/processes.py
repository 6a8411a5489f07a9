"""Other processes and threads: waiting for them, and what they do."""

import socket
import time
from contextlib import suppress

import psutil


def wait_for(condition, found):
    """Wait until a condition holds; after five minutes, fail with what `found` returns."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, found()
        time.sleep(0.05)


def command_of(pid):
    """The words of a process; empty if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(psutil.Process(pid).cmdline())
    return ""


def maps_file(pid, name):
    """Whether a process has a file in its memory whose path contains `name`."""
    with suppress(psutil.NoSuchProcess):
        return any(name in mapped.path for mapped in psutil.Process(pid).memory_maps())
    return False


def free_port():
    """A port that no program on this machine listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
