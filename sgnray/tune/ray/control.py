"""What ends a search before its time: its time budget, and Ctrl-C."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class Budget:
    """The time that a search may take; trials that it cuts go on with the next one."""

    def __init__(self, budget_s: float | None) -> None:
        self._end = None if budget_s is None else time.monotonic() + budget_s
        self.is_spent = False

    def is_over(self) -> bool:
        """Tell whether the time is over, and remember it."""
        if not self.is_spent and self._end is not None and time.monotonic() >= self._end:
            log.info("the time budget is spent; the same command goes on")
            self.is_spent = True
        return self.is_spent


class Interrupt:
    """Remembers Ctrl-C: somewhere in its loop Ray may catch the KeyboardInterrupt, and go on."""

    def __init__(self) -> None:
        self._came = False

    def on_signal(self, *_: object) -> None:
        """Interrupt whatever runs now."""
        self._came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Interrupt again where the first one was lost."""
        if self._came:
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Remember Ctrl-C while Ray runs."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():  # no signal comes here
        yield interrupt
        return
    before = signal.signal(signal.SIGINT, interrupt.on_signal)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
