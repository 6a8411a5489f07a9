"""A search as it goes: which trial comes next, and what became of the others."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sgnray.metric_keys import VAL_TOP1
from sgnray.tune.space.sampler import Sampler
from sgnray.tune.space.space import Values
from sgnray.tune.state.board import TrialRow, TrialTable
from sgnray.tune.state.events import Ended, Event, Reported, Started
from sgnray.tune.state.folder import SearchFolder
from sgnray.tune.trial import folds, job

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Hears how a search goes; it is called between two steps of the search and must be quick."""

    def on_board(self, rows: Sequence[TrialRow], num_trials: int, num_epochs: int) -> object:
        """Hear of all trials begun so far, after each epoch of any."""

    def on_trial(self, row: TrialRow) -> object:
        """Hear of a trial that has ended."""


class Progress:
    """Keeps the board of a search, its record and its folder.

    Ray takes an error in a callback for one of the trial's. So it is kept, and raised by the next
    epoch that any trial reports, or at the end.
    """

    def __init__(self, folder: SearchFolder, sampler: Sampler, listener: Listener | None) -> None:
        self.folder = folder
        folder.record.mend()
        self.events = folder.record.read()
        self.board = TrialTable(sampler.num_trials, folder.plan.num_epochs, self.events)
        self._sampler = sampler
        self._listener = listener
        self._failure: Exception | None = None
        self._reasons: dict[int, str] = {}
        self._unfinished = [row for row in self.board.rows if not row.has_ended]
        self._last_number = max((row.number for row in self.board.rows), default=0)
        for row in self.ended:
            self._learn(row)

    @property
    def ended(self) -> list[TrialRow]:
        """The trials of which nothing more will come."""
        return [row for row in self.board.rows if row.has_ended]

    def begin(self) -> None:
        """Write the tables before the first trial starts."""
        self.folder.write(self.board.rows)
        self._show()

    def next_trial(self) -> dict[str, Any] | None:
        """Return number and values of the trial to run next: first those that were interrupted."""
        if self._unfinished:
            row = self._unfinished.pop(0)
            number, values = row.number, row.values
        else:
            number = self._last_number + 1
            proposed = self._sampler.propose(number)
            if proposed is None:
                return None
            self._last_number, values = number, proposed
        self._note(Started(number, values))
        return {job.NUMBER: number, job.VALUES: values}

    def on_epoch(self, number: int, values: Values, metrics: dict[str, Any]) -> None:
        """Note what a trial reported: an epoch, or that it failed."""
        if self._failure is not None:
            raise self._failure
        if job.FAILURE in metrics:
            self._reasons[number] = metrics[job.FAILURE]
            log.debug("trial %d failed:\n%s", number, metrics[job.STORY])
            return
        self._guarded(lambda: self._take(number, values, metrics))

    def on_end(self, number: int, *, is_cut: bool) -> None:
        """Note that a trial came to its end, or was stopped; `is_cut` is one that goes on later."""
        row = self.board.row(number)
        if number in self._reasons:
            event = Ended(number, "failed", self._reasons[number])
        elif row.num_epochs >= self.board.num_epochs:
            event = Ended(number, "finished")
        elif is_cut:
            return
        else:
            event = Ended(number, "stopped")
        self._guarded(lambda: self._end(event))

    def on_lost(self, number: int, reason: str) -> None:
        """Note that a trial lost its worker once too often."""
        self._guarded(lambda: self._end(Ended(number, "failed", reason)))

    def end(self) -> None:
        """Write what was reached, whether the search came to its end or not."""
        self.board.interrupt()
        self._tidy()
        self.folder.write(self.board.rows)
        self._show()
        if self._failure is not None:
            raise self._failure

    def _take(self, number: int, values: Values, metrics: dict[str, Any]) -> None:
        if json.dumps(values) != json.dumps(self.board.row(number).values):
            self._note(Started(number, values))  # PBT has changed them
        self._note(
            Reported(
                number,
                metrics[folds.EPOCH],
                metrics[VAL_TOP1],
                metrics[folds.SPREAD],
                metrics[folds.DURATION_S],
                metrics[folds.NUM_PARAMETERS],
                metrics[folds.FLOPS],
                metrics[job.NODE],
            )
        )
        ours = {key: value for key, value in metrics.items() if "/" in key}  # Ray adds its own
        log.debug("trial %d, epoch %d: %s", number, metrics[folds.EPOCH], ours)
        self._show()

    def _end(self, event: Ended) -> None:
        row = self._note(event)
        self._drop_state(row.number)
        self._learn(row)
        self.folder.write(self.board.rows)
        if self._listener is not None:
            self._listener.on_trial(row)
        self._show()

    def _tidy(self) -> None:
        """Keep only what unfinished trials need; Ray leaves its own, and stragglers theirs."""
        needed = {f"{row.number:04d}" for row in self.board.rows if not row.has_ended}
        for path in self.folder.states_dir.iterdir():
            if path.name not in needed:
                shutil.rmtree(path, ignore_errors=True)

    def _drop_state(self, number: int) -> None:
        shutil.rmtree(self.folder.states_dir / f"{number:04d}", ignore_errors=True)

    def _note(self, event: Event) -> TrialRow:
        self.folder.record.add(event)
        return self.board.apply(event)

    def _learn(self, row: TrialRow) -> None:
        scores = () if row.status == "failed" else row.scores
        is_complete = row.status == "finished"
        self._sampler.learn(row.number, row.values, scores, is_complete=is_complete)

    def _show(self) -> None:
        if self._listener is not None:
            board = self.board
            self._listener.on_board(board.rows, board.num_trials, board.num_epochs)

    def _guarded(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:
            self._failure = self._failure or error
