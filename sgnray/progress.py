"""How a long task says how far it is."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called with how much is done and the total, in the unit that the function names."""


def ignore_progress(done: int, total: int) -> None:
    """Do nothing."""
