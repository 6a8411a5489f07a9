"""The first Ctrl-C, SIGTERM or SIGHUP ends a command cleanly; the second ends it at once."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# The last one: the terminal was closed, or its connection was lost.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REPEAT_S = 0.2
# The terminal and a parent process may both forward the same Ctrl-C.
_SAME_SIGNAL_S = 0.5


@contextmanager
def interruptible() -> Iterator[InterruptHandler]:
    """Raise KeyboardInterrupt at the first signal that ends, repeatedly until the command ends."""
    ending = InterruptHandler()
    before = {number: signal.getsignal(number) for number in _ENDING}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # by nohup
        del before[signal.SIGHUP]
    atexit.register(ending.ignore_signals)  # before those of other libraries, so that it runs last
    try:
        for number in before:
            signal.signal(number, ending.on_signal)
        yield ending
    finally:
        ending.stop_repeating()
        if ending.signal is None:  # else a second signal may still cut the exit short
            atexit.unregister(ending.ignore_signals)
            for number, handler in before.items():
                signal.signal(number, handler)


class InterruptHandler:
    """Raises KeyboardInterrupt again if the first one was lost.

    A signal handler raises it wherever the main thread currently is. If that is inside a callback
    of a C library, an import started by pyarrow or a `__del__`, Python prints or drops the
    exception, and the command would continue.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the command; at the second signal, exit without cleaning up."""
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
            signal.signal(signal.SIGALRM, self._repeat)
            signal.setitimer(signal.ITIMER_REAL, _REPEAT_S, _REPEAT_S)
            if not _is_importing_torch(frame):
                raise KeyboardInterrupt
        elif time.monotonic() - self._since > _SAME_SIGNAL_S:
            os._exit(128 + number)

    def stop_repeating(self) -> None:
        """Stop raising KeyboardInterrupt: the command has unwound."""
        if self.signal is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def ignore_signals(self) -> None:
        """Ignore further signals: Python resets its handlers, and one would kill the process."""
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)

    def _repeat(self, number: int, frame: FrameType | None) -> None:
        if not _is_unwinding() and not _is_importing_torch(frame):
            raise KeyboardInterrupt


def _is_importing_torch(frame: FrameType | None) -> bool:
    """Return whether torch is being imported: an exception in its C++ would abort the process."""
    while frame is not None:
        is_torch = frame.f_globals.get("__name__", "").partition(".")[0] == "torch"
        if is_torch and frame.f_code.co_name == "<module>":
            return True
        frame = frame.f_back
    return False


def _is_unwinding() -> bool:
    """Return whether a KeyboardInterrupt is being handled, usually by cleanup code."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
