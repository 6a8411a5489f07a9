"""A search on a terminal: the trials that run, the best so far, and how much is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from . import render
from .tables import clean, duration
from .tune_tables import changes, trial_line

if TYPE_CHECKING:
    from sgnray.tune import TrialRow
    from sgnray.tune.state.running import Listener

_BEST_SHOWN, _ROWS_BESIDES = 5, 5
_BEST = "bold green"


@contextmanager
def shown_search() -> Iterator[Listener]:
    """Show a search: a live table on a terminal, else each ended trial as one line."""
    board = SearchBoard()
    with render.live(board) as is_live:
        yield board if is_live else _Lines()


class _Lines:
    """A search as plain lines."""

    def on_update(self, rows: Sequence[TrialRow], num_trials: int, num_epochs: int) -> None:
        """Print nothing: each trial is printed when it ends."""

    def on_trial_end(self, row: TrialRow) -> None:
        render.note(trial_line(row))


class SearchBoard:
    """Draws the running trials and the best ones, as high and as wide as the terminal is."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_at = clock()
        self._rows: Sequence[TrialRow] = ()
        self._num_trials = self._num_epochs = 0
        self._first_done: int | None = None

    def on_update(self, rows: Sequence[TrialRow], num_trials: int, num_epochs: int) -> None:
        """Take all trials started so far."""
        self._rows, self._num_trials, self._num_epochs = rows, num_trials, num_epochs
        if self._first_done is None:  # epochs of an earlier command took no time of this one
            self._first_done = self._done()

    def on_trial_end(self, row: TrialRow) -> None:
        """Print why a trial failed; the others are in the table."""
        if row.error is not None:
            render.note(trial_line(row))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        running = [row for row in self._rows if row.status == "running"]
        room = max(0, console.size.height - _ROWS_BESIDES)
        best = self._best()[: min(_BEST_SHOWN, room)]
        running = running[: max(0, room - len(best))]
        lines: list[RenderableType] = []
        if best:
            lines.append(Text("best so far", style="bold"))
            lines += [self._line(row, _BEST if not i else "") for i, row in enumerate(best)]
        if running:
            lines.append(Text("running", style="bold"))
            lines += [self._line(row, "") for row in running]
        yield Group(*lines, Text(self._summary(), no_wrap=True, overflow="ellipsis"))

    def _best(self) -> list[TrialRow]:
        from sgnray.tune.state.trials import rank

        return rank([row for row in self._rows if row.has_ended and row.score is not None])

    def _line(self, row: TrialRow, style: str) -> Text:
        score = "     -" if row.score is None else f"{row.score:6.1%}"
        epochs = f"{row.num_epochs:>{len(str(self._num_epochs))}}/{self._num_epochs}"
        line = f"{row.number:>5}  {score}  {epochs}  {changes(row)}"
        return Text(clean(line), style=style, no_wrap=True, overflow="ellipsis")

    def _summary(self) -> str:
        if not self._num_trials:
            return "starting"
        count = dict.fromkeys(("running", "finished", "stopped", "failed"), 0)
        for row in self._rows:
            count[row.status] = count.get(row.status, 0) + 1
        ended = sum(row.has_ended for row in self._rows)
        parts = [f"{ended} of {self._num_trials} trials"]
        parts += [
            f"{count[name]} {name}" for name in ("running", "stopped", "failed") if count[name]
        ]
        left_s = self._left_s()
        if left_s is not None:
            parts.append(f"at most {duration(left_s)} left")
        return ", ".join(parts)

    def _done(self) -> int:
        return sum(row.num_epochs for row in self._rows)

    def _left_s(self) -> float | None:
        """Estimate from the pace so far; trials that are stopped early make it less."""
        done = self._done() - (self._first_done or 0)
        if done <= 0:
            return None
        waiting = self._num_trials - len(self._rows)
        missing = sum(self._num_epochs - row.num_epochs for row in self._rows if not row.has_ended)
        epoch_s = (self._clock() - self._started_at) / done
        return (missing + waiting * self._num_epochs) * epoch_s
