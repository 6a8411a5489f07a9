"""A training run: a live table of its last epochs on a terminal, else each epoch as one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

from rich import box
from rich.console import (
    Console,
    ConsoleOptions,
    ConsoleRenderable,
    Group,
    RenderableType,
    RenderResult,
)
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from sgnray.metric_keys import (
    CLIPS_PER_S,
    EPOCH_S,
    LEARNING_RATE,
    TRAIN_LOSS,
    TRAIN_TOP1,
    VAL_TOP1,
    Metrics,
)

from . import render
from .tables import duration

if TYPE_CHECKING:
    from sgnray.train import EpochResult
    from sgnray.train.job import TrainProgress

_MAX_ROWS, _ROWS_BESIDES = 10, 6  # header, rule, best, its rule, progress line, cursor line
_RECENT = 5
_GAP = 2
_MIN_BAR, _MAX_BAR = 8, 30
_BEST = "bold green"
# Columns in the order in which they are dropped on a narrow terminal.
_DROPPED = ("time", "clips/s", "lr", "", "train", "val", "loss")


@contextmanager
def shown_epochs(workers: str = "") -> Iterator[TrainingTable | TrainingLines]:
    """Show a training run on `workers`; call the yielded object with each finished epoch."""
    table = TrainingTable(workers=workers)
    with render.live(LiveTraining(table, render.stderr())) as is_live:
        try:
            yield table if is_live else TrainingLines()
        finally:
            table.end()


class TrainingLines:
    """Prints each epoch as one line of less than 80 columns."""

    def __init__(self) -> None:
        self._on_test = render.lines_of_progress("test clips")
        self._epoch, self._on_steps = 0, render.lines_of_progress("steps")

    def __call__(self, epoch: EpochResult) -> None:
        """Print a finished epoch."""
        figures = _figures(epoch.metrics)
        parts = [
            f"epoch {epoch.epoch:>{len(str(epoch.num_epochs))}}/{epoch.num_epochs}",
            f"loss {figures['loss']}",
            *(f"{name} {figures[name]:>6}" for name in ("train", "val") if figures[name]),
            f"lr {figures['lr']}",
            f"{figures['clips/s']} clips/s",
        ]
        render.note("  ".join(parts))

    def on_progress(self, progress: TrainProgress) -> None:
        """Print the progress of a long epoch and of the final test."""
        if progress.stage == "test":
            self._on_test(progress.done, progress.total)
            return
        if progress.epoch != self._epoch:
            what = f"epoch {progress.epoch}/{progress.num_epochs}, steps"
            self._epoch = progress.epoch
            self._on_steps = render.lines_of_progress(what, interval_s=render.LONG_INTERVAL_S)
        self._on_steps(progress.done, progress.total)


class TrainingTable:
    """Draws the last epochs, the best one, and how far the run has come.

    It adapts to the current size of the terminal. The best epoch is the one with the highest
    validation accuracy; without a validation part, no epoch is marked as best.
    """

    def __init__(self, *, workers: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._clock = clock
        self._epochs: EpochResult | None = None
        self._progress: TrainProgress | None = None
        self._first: tuple[float, TrainProgress] | None = None
        self._num_seen = 0
        self._started_at = self._epoch_at = clock()
        self._is_over = False
        self._drawn: list[int] = []

    def __call__(self, epoch: EpochResult) -> None:
        """Add a finished epoch."""
        self._epochs, self._progress = epoch, None
        self._num_seen += 1
        self._epoch_at = self._clock()

    def on_progress(self, progress: TrainProgress) -> None:
        """Update the progress within the epoch or the test."""
        if self._first is None:
            self._first = (self._clock(), progress)
        self._progress = progress
        if self._workers:  # else the run trains in this process
            self._workers = str(progress.num_workers)

    def end(self) -> None:
        """Replace the progress line with a summary, which stays on the screen."""
        self._is_over = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table in the current size of the terminal."""
        parts: list[RenderableType] = []
        num_rows = min(_MAX_ROWS, console.size.height - _ROWS_BESIDES)
        if self._epochs is not None and num_rows > 0:
            parts.append(_table(self._epochs.history, num_rows, options.max_width))
        parts.append(self._summary() if self._is_over else self._line(options.max_width))
        lines = console.render_lines(Group(*parts), options, pad=False)
        self._drawn = [Segment.get_line_length(line) for line in lines]
        for line in lines:
            yield from line
            yield Segment.line()

    def num_rows_wrapped(self, width: int) -> int:
        """Count the extra rows of the last frame after a terminal of this width wraps it."""
        return sum((length - 1) // width for length in self._drawn if length)

    def _summary(self) -> Text:
        if self._epochs is None:
            return Text("no epoch was finished")
        epochs = self._epochs
        spent = duration(self._clock() - self._started_at)
        done = f"{epochs.epoch} of {epochs.num_epochs} epochs"
        return Text(f"{done} done in {spent}", no_wrap=True, overflow="ellipsis")

    def _line(self, width: int) -> RenderableType:
        """Show the progress of the run; parts that do not fit are dropped from the right."""
        head, share, tail = self._where()
        if self._workers:
            tail.append(f"{self._workers} worker{'' if self._workers == '1' else 's'}")
        while tail and _width(head, *tail) + _GAP + _MIN_BAR > width:
            tail.pop()
        room = width - _width(head, *tail) - _GAP
        line = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
        cells: list[RenderableType] = [Text(head, no_wrap=True, overflow="ellipsis")]
        if room >= _MIN_BAR:
            cells.append(ProgressBar(total=1.0, completed=share, width=min(room, _MAX_BAR)))
        cells += [Text(part, no_wrap=True) for part in tail]
        line.add_row(*cells)
        return line

    def _where(self) -> tuple[str, float, list[str]]:
        """Return the current stage, the finished share of it, and details."""
        progress, epochs = self._progress, self._epochs
        if progress is not None and progress.stage == "test":
            count = f"{progress.done:,}/{progress.total:,} clips"
            return "test", progress.done / max(1, progress.total), [count]
        left = self._left_s()
        tail = [f"{duration(left)} left"] if left is not None else []
        if progress is not None:
            count = f"step {progress.done:,}/{progress.total:,}"
            head = f"epoch {progress.epoch}/{progress.num_epochs}"
            return head, progress.done / max(1, progress.total), [*tail, count]
        if epochs is None:
            return "starting", 0.0, []
        if epochs.epoch == epochs.num_epochs:
            return "test", 0.0, []
        # If steps are reported, the bar shows the steps of an epoch, and the next report is soon.
        share = epochs.epoch / epochs.num_epochs if self._first is None else 0.0
        return f"epoch {epochs.epoch + 1}/{epochs.num_epochs}", share, tail

    def _left_s(self) -> float | None:
        """Estimate the seconds until the last epoch ends; None if nothing is known yet."""
        now = self._clock()
        if self._epochs is not None:
            recent = self._epochs.history[-min(_RECENT, self._num_seen) :]
            epoch_s = median(metrics[EPOCH_S] for metrics in recent)
            num_left = self._epochs.num_epochs - self._epochs.epoch
            return max(num_left * epoch_s - (now - self._epoch_at), (num_left - 1) * epoch_s, 0.0)
        if self._first is None or self._progress is None:
            return None
        (since, first), progress = self._first, self._progress
        if progress.done <= first.done:
            return None
        step_s = (now - since) / (progress.done - first.done)
        steps_left = (progress.num_epochs - progress.epoch + 1) * progress.total - progress.done
        return steps_left * step_s


class LiveTraining(Live):
    """Redraws a training table in place, even after the terminal has become narrower."""

    def __init__(self, table: TrainingTable, console: Console) -> None:
        super().__init__(table, console=console, vertical_overflow="crop")
        self._table = table

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Also erase the extra rows into which the terminal has wrapped the last frame."""
        parts = super().process_renderables(renderables)
        num_rows = self._table.num_rows_wrapped(self.console.width)
        if num_rows == 0:
            return parts
        up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2))
        return [
            Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up * num_rows),
            *parts,
        ]


def _table(history: Sequence[Metrics], num_rows: int, width: int) -> Table:
    best = _best(history)
    columns = _columns(len(history), width, has_validation=best is not None)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),  # the box separates columns by one more
        header_style="bold",
    )
    for name, column_width in columns.items():
        table.add_column(name, justify="right", no_wrap=True, width=column_width)
    first = max(1, len(history) - num_rows + 1)
    earlier = [best] if best is not None and best < first else []
    for epoch in (*earlier, *range(first, len(history) + 1)):
        metrics, is_best = history[epoch - 1], epoch == best
        cells = {"epoch": str(epoch), "time": duration(metrics[EPOCH_S]), **_figures(metrics)}
        cells[""] = "best" if is_best else ""
        shown = (cells[name] for name in columns)
        table.add_row(*shown, style=_BEST if is_best else None, end_section=epoch < first)
    return table


def _columns(num_epochs: int, width: int, *, has_validation: bool) -> dict[str, int]:
    """Choose the columns that fit, with their widths."""
    columns = {"epoch": max(5, len(str(num_epochs))), "loss": 6, "train": 6}
    if has_validation:
        columns["val"] = 6
    columns |= {"lr": 7, "clips/s": 9, "time": 7}
    if has_validation:
        columns[""] = 4
    for name in _DROPPED:
        if sum(columns.values()) + _GAP * (len(columns) - 1) <= width:
            break
        columns.pop(name, None)
    return columns


def _figures(metrics: Metrics) -> dict[str, str]:
    return {
        "loss": f"{metrics[TRAIN_LOSS]:.3f}",
        "train": f"{metrics[TRAIN_TOP1]:.1%}",
        "val": f"{metrics[VAL_TOP1]:.1%}" if VAL_TOP1 in metrics else "",
        "lr": learning_rate(metrics[LEARNING_RATE]),
        "clips/s": f"{metrics[CLIPS_PER_S]:,.0f}",
    }


def learning_rate(value: float) -> str:
    """Write a learning rate with two digits, in at most 7 characters."""
    return f"{value:.2g}"


def _best(history: Sequence[Metrics]) -> int | None:
    """Return the epoch of the highest validation accuracy, counted from 1."""
    scores = [metrics.get(VAL_TOP1, -1.0) for metrics in history]
    return scores.index(max(scores)) + 1 if max(scores) >= 0 else None


def _width(*parts: str) -> int:
    return sum(map(len, parts)) + _GAP * (len(parts) - 1)
