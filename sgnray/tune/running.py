"""A running search: which trial is next, what the trials report, and the trackers of each."""

from __future__ import annotations

import logging
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Protocol

from sgnray import metric_keys as keys
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.metric_keys import Metrics
from sgnray.storage.atomic import output_errors, write_bytes
from sgnray.storage.mirror import check_uploading
from sgnray.train.tracking.trackers import Trackers
from sgnray.tune.folder import SearchFolder
from sgnray.tune.sampler import Sampler
from sgnray.tune.space import Values
from sgnray.tune.trials import (
    Ended,
    EpochReport,
    Event,
    FailureReport,
    Reported,
    Started,
    TrialRow,
    TrialTable,
)

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Receives the state of a search between two of its steps, and must return quickly."""

    def on_update(self, rows: Sequence[TrialRow], num_trials: int, num_epochs: int) -> object:
        """Receive all trials started so far, after each epoch of any."""

    def on_trial_end(self, row: TrialRow) -> object:
        """Receive a trial that has ended."""


class RunningSearch:
    """Keeps the table, record and folder of a search up to date, and chooses the next trial.

    Ray would treat an exception in a callback as an error of the trial. So it is stored, and raised
    at the next report of any trial, or at the end.
    """

    def __init__(self, folder: SearchFolder, sampler: Sampler, listener: Listener | None) -> None:
        self.folder = folder
        self.events = folder.record.read()
        self.table = TrialTable(self.events)
        self._trackers = TrialTrackers(folder)
        self._sampler = sampler
        self._listener = listener
        self._error: Exception | None = None
        self._reasons: dict[int, str] = {}
        self._unfinished = [row for row in self.table.rows if not row.has_ended]
        self._last_number = max((row.number for row in self.table.rows), default=0)
        for row in self.ended:
            self._learn(row)

    @property
    def ended(self) -> list[TrialRow]:
        """The trials that report nothing more."""
        return [row for row in self.table.rows if row.has_ended]

    @property
    def num_left(self) -> int:
        """How many trials have not ended."""
        return self.folder.plan.num_trials - len(self.ended)

    def begin(self) -> None:
        """Write the tables before the first trial starts."""
        self.folder.write(self.table.rows)
        self._notify()

    def next_trial(self) -> Started | None:
        """Return the trial to run next, interrupted ones first; None after the last one."""
        if self._unfinished:
            row = self._unfinished.pop(0)
            number, values = row.number, row.values
        else:
            number = self._last_number + 1
            tried = [row.values for row in self.table.rows]
            proposed = self._sampler.propose(number, tried)
            if proposed is None:
                return None
            self._last_number, values = number, proposed
        trial = Started(number, values)
        self._add(trial)
        return trial

    def read_states(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the state of each unfinished trial that has one."""
        for row in self._unfinished:
            path = self.folder.state_path(row.number)
            if path.is_file():
                yield row.number, path.read_bytes()

    def save_state(self, number: int, state: bytes | None) -> None:
        """Write the state of an unfinished trial, if there is a newer one."""
        if state is not None:
            with self._errors_kept():
                write_bytes(self.folder.state_path(number), state)

    def on_report(self, number: int, report: EpochReport | FailureReport) -> None:
        """Handle an epoch or a failure that a trial reported."""
        if self._error is not None:
            raise self._error
        if isinstance(report, FailureReport):
            self._reasons[number] = report.reason
            log.debug("trial %d failed:\n%s", number, report.traceback)
            return
        with self._errors_kept():
            check_uploading(self.folder.path)
            self._add(Reported(number, report))
            log.debug(
                "trial %d, epoch %d: top-1 %s, training loss %s, validation loss %s",
                number,
                report.epoch,
                report.score,
                report.train_loss,
                report.val_loss,
            )
            self._notify()

    def on_end(self, number: int, *, is_cut: bool) -> None:
        """Record that Ray ended a trial; one that the time budget cut resumes later."""
        if number in self._reasons:
            self._end(Ended(number, "failed", self._reasons[number]))
        elif self.table.row(number).num_epochs >= self.folder.plan.num_epochs:
            self._end(Ended(number, "finished"))
        elif not is_cut:
            self._end(Ended(number, "stopped"))

    def on_lost(self, number: int, reason: str) -> None:
        """Record that a trial lost its worker too often."""
        self._end(Ended(number, "failed", reason))

    def end(self) -> None:
        """Write the results so far, whether or not the search is complete."""
        self.table.interrupt()
        self._trackers.close()
        # Earlier versions left folders here.
        rows = self.table.rows
        needed = {self.folder.state_path(row.number) for row in rows if not row.has_ended}
        for path in set(self.folder.states_dir.iterdir()) - needed:
            with suppress(OSError):  # they do no harm
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.folder.write(self.table.rows)
        self._notify()
        if self._error is not None:
            raise self._error

    def _end(self, event: Ended) -> None:
        with self._errors_kept():
            row = self._add(event)
            self.folder.state_path(row.number).unlink(missing_ok=True)
            self._learn(row)
            self.folder.write(self.table.rows)
            if self._listener is not None:
                self._listener.on_trial_end(row)
            self._notify()

    def _add(self, event: Event) -> TrialRow:
        self.folder.record.add(event)
        with self._errors_kept():
            self._trackers.apply(event)
        return self.table.apply(event)

    def _learn(self, row: TrialRow) -> None:
        scores = () if row.status == "failed" else row.scores
        self._sampler.learn(row.values, scores, is_complete=row.status == "finished")

    def _notify(self) -> None:
        if self._listener is not None:
            plan = self.folder.plan
            self._listener.on_update(self.table.rows, plan.num_trials, plan.num_epochs)

    @contextmanager
    def _errors_kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._error = self._error or error


class TrialTrackers:
    """Passes the events of a search on to the trackers that its recipe asks for.

    Each trial is a run of its own, grouped under the search's name.

    A trial that resumes first reports its earlier epochs again; its history comes from these.
    """

    def __init__(self, folder: SearchFolder) -> None:
        self._folder = folder
        self._reports: dict[int, list[EpochReport]] = defaultdict(list)
        self._open: dict[int, Trackers] = {}
        self._failed: set[str] = set()
        self._started: set[str] = set()

    def apply(self, event: Event) -> None:
        """Start, follow or finish a trial; SgnError if a tracker does not start for the first."""
        if not self._folder.plan.recipe.train.log:
            return
        match event:
            case Started(number, values) if number not in self._open:
                self._open[number] = self._start(number, values)
            case Reported(number, report) if number in self._open:
                # An epoch that is repeated after a lost worker replaces the first.
                self._reports[number][report.epoch - 1 :] = [report]
                self._open[number].log(_history(self._reports[number]))
            case Ended(number, status) if number in self._open:
                self._open.pop(number).finish(None, is_complete=status != "failed")

    def close(self) -> None:
        """Close the trackers of interrupted trials."""
        while self._open:
            self._open.popitem()[1].finish(None)

    def _start(self, number: int, values: Values) -> Trackers:
        folder = self._folder.trial_dir(number)
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        trackers = Trackers(self._folder.path.name, self._failed, self._started)
        recipe = self._folder.plan.trial_recipe(values)
        trackers.start(recipe, RunFolder(folder), _history(self._reports[number]))
        return trackers


def _history(reports: list[EpochReport]) -> list[Metrics]:
    ends_s = [0.0, *(report.duration_s for report in reports)]
    return [
        {**report.metrics, keys.EPOCH_S: end_s - before_s}
        for report, (before_s, end_s) in zip(reports, pairwise(ends_s), strict=True)
    ]
