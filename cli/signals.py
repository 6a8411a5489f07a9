"""The first Ctrl-C or SIGTERM ends a command in order; the second ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_REPEAT_S = 0.2
# A terminal and what runs `sgn` may both pass the same Ctrl-C on.
_SAME_SIGNAL_S = 0.5


@contextmanager
def ending_in_order() -> Iterator[Ending]:
    """Raise KeyboardInterrupt at the first SIGINT or SIGTERM, until the command has unwound."""
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():  # python refuses handlers there
        yield ending
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, ending.on_signal)
        yield ending
    finally:
        ending.stop_repeating()
        if ending.signal is None:  # else one more signal may still cut Python's own exit short
            for number, handler in before.items():
                signal.signal(number, handler)


class Ending:
    """Raises again where the exception was lost.

    An exception of a signal handler is raised wherever the main thread is. If that is inside a
    callback of a C library, an import that pyarrow starts or a `__del__`, Python prints or drops
    it, and the command would continue.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Start to end; at the second signal, end without cleaning up."""
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
            signal.signal(signal.SIGALRM, self._repeat)
            signal.setitimer(signal.ITIMER_REAL, _REPEAT_S, _REPEAT_S)
            if not _is_importing_torch(frame):
                raise KeyboardInterrupt
        elif time.monotonic() - self._since > _SAME_SIGNAL_S:
            os._exit(128 + number)

    def stop_repeating(self) -> None:
        """Raise no more: the command has unwound."""
        if self.signal is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def _repeat(self, number: int, frame: FrameType | None) -> None:
        if not _is_unwinding() and not _is_importing_torch(frame):
            raise KeyboardInterrupt


def _is_importing_torch(frame: FrameType | None) -> bool:
    """Return whether a module of torch is being imported: an exception in its C++ would abort."""
    while frame is not None:
        is_torch = frame.f_globals.get("__name__", "").partition(".")[0] == "torch"
        if is_torch and frame.f_code.co_name == "<module>":
            return True
        frame = frame.f_back
    return False


def _is_unwinding() -> bool:
    """Return whether this code runs while a KeyboardInterrupt is handled: cleaning up, mostly."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
