"""Progress of long tasks."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called with how much is done and the total, in the unit that the function names."""


def ignore_progress(done: int, total: int) -> None:
    """Do nothing."""


class Progress:
    """Adds up what is done, and reports it in units of `unit`."""

    def __init__(self, on_progress: OnProgress, total: int, *, unit: int = 1) -> None:
        self._on_progress, self._total, self._unit = on_progress, total, unit
        self._num_done = 0

    def add(self, amount: int) -> None:
        """Count `amount` more as done."""
        self._num_done += amount
        self._on_progress(self._num_done // self._unit, self._total // self._unit)
