"""From what Ray tells of its trials to the board, the folder, the log and the caller."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from sgnray.tune.board import Board, TrialRow
from sgnray.tune.folder import SearchFolder

log = logging.getLogger(__name__)

_MAX_REASON = 300
_OUR_ERROR = re.compile(r"^sgnray\.errors\.\w+: ")
_TERMINAL_COLOR = re.compile(r"\x1b\[[0-9;]*m")  # Ray paints its tracebacks


class Progress:
    """Keeps the board of a search, and its folder up to date.

    Ray takes an error in a callback for one of the trial's. So it is kept, and raised by the next
    epoch that any trial reports, or at the end.
    """

    def __init__(
        self,
        folder: SearchFolder,
        on_trial: Callable[[TrialRow], None] | None,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.folder = folder
        self.board = Board(folder.plan)
        self._on_trial = on_trial
        self._on_progress = on_progress
        self._failure: Exception | None = None

    def begin(self) -> None:
        """Write the table before the first trial starts; an older search's best recipe goes."""
        self.folder.best_path.unlink(missing_ok=True)
        self.folder.write_trials(self.board.rows)

    def on_epoch(self, number: int, score: float, metrics: dict[str, Any]) -> None:
        """Note that a trial reported an epoch."""
        if self._failure is not None:
            raise self._failure
        row = self.board.reported(number, score)
        ours = {key: value for key, value in metrics.items() if "/" in key}  # Ray adds its own
        log.debug("trial %d, epoch %d: %s", number, row.num_epochs, ours)
        self._guarded(self._tell_progress)

    def on_end(self, number: int) -> None:
        """Note that a trial came to its end, or was stopped before it."""
        self._guarded(lambda: self._tell(self.board.ended(number)))

    def on_failure(self, number: int, error: str | None) -> None:
        """Note that a trial raised an error, or that its worker was lost."""
        reason = _reason(error)
        story = _TERMINAL_COLOR.sub("", error or "")
        log.debug("trial %d failed: %s\n%s", number, reason, story)
        self._guarded(lambda: self._tell(self.board.failed(number, reason)))

    def end(self) -> None:
        """Write what was reached, whether the search came to its end or not."""
        self.board.interrupt()
        self.folder.write_trials(self.board.rows)
        if self._failure is not None:
            raise self._failure

    def _tell(self, row: TrialRow) -> None:
        self.folder.write_trials(self.board.rows)
        if self._on_trial is not None:
            self._on_trial(row)
        self._tell_progress()

    def _tell_progress(self) -> None:
        if self._on_progress is not None:
            self._on_progress(*self.board.progress)

    def _guarded(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:
            self._failure = self._failure or error


def _reason(error: str | None) -> str:
    """Say in one line why a trial failed: the last line of what it raised."""
    lines = _TERMINAL_COLOR.sub("", error or "").strip().splitlines()
    if not lines:
        return "no reason given"
    # Our own errors speak for themselves; of others the kind is worth knowing.
    return _OUR_ERROR.sub("", lines[-1].strip())[:_MAX_REASON]
