"""How far the work inside an epoch, or inside the final test, has come: news that costs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sgnray.train.state import TrainState

_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Progress:
    """`done` of `total`: steps of the epoch that runs, counted from 1, or clips of the test."""

    stage: Literal["train", "test"]
    epoch: int
    num_epochs: int
    done: int
    total: int
    num_workers: int


class OnProgress(Protocol):
    """Hears of progress every second or so."""

    def __call__(self, progress: Progress, /) -> object:
        """Show it or send it on, and return at once."""


@dataclass
class ProgressReporter:
    """Tells of a worker's progress, at most once a second however often it hears of it.

    It counts what the host has launched, a little ahead of a GPU: the device is never asked.
    """

    state: TrainState
    on_progress: OnProgress | None
    clock: Callable[[], float] = time.monotonic
    _told_at: float = field(default=float("-inf"), init=False)

    def on_step(self, done: int, total: int) -> None:
        """Hear of a step of the epoch that runs."""
        self._tell("train", done, total)

    def on_clips(self, done: int, total: int) -> None:
        """Hear of clips that were tested."""
        self._tell("test", done, total)

    def _tell(self, stage: Literal["train", "test"], done: int, total: int) -> None:
        now = self.clock()
        if self.on_progress is None or now - self._told_at < _INTERVAL_S:
            return
        self._told_at = now
        num_epochs = self.state.recipe.train.num_epochs
        epoch = min(self.state.epoch + 1, num_epochs)
        num_workers = self.state.world.size
        self.on_progress(Progress(stage, epoch, num_epochs, done, total, num_workers))
