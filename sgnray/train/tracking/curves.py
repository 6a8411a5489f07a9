"""The curves of a run as a picture: loss, accuracies and learning rate over its epochs.

matplotlib is imported when the first picture is drawn, and only its objects are used: no window,
no global state.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sgnray import metric_keys as keys
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.config import Recipe
from sgnray.evaluate.report import Report
from sgnray.metric_keys import Metrics
from sgnray.storage.atomic import written_atomically
from sgnray.train.tracking.plot_style import (
    ACCENT,
    EDGE,
    INK,
    MAIN,
    THIRD,
    legend_above,
    new_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_FILE = "curves.png"

# A picture takes a few tenths of a second: less than a hundredth of a minute's training.
_REDRAW_INTERVAL_S = 60.0
_SIZE_INCHES, _DPI = (8.0, 6.4), 150
_HEIGHTS = (3.0, 3.0, 0.8)
_MAX_STEPS_MARKED = 8
_MAX_DOTS = 30


class Curves:
    """A tracker that keeps curves.png in the run's folder: once a minute, and at the end."""

    def start(self, recipe: Recipe, run: RunFolder, history: Sequence[Metrics]) -> int:
        """Draw nothing yet, so that training starts sooner."""
        self._path = run.path / CURVES_FILE
        self._title = f"{recipe.data.dataset} {recipe.data.case}"
        self._history: list[Metrics] = []
        self._drawn_at = time.monotonic()
        return 0

    def log(self, epoch: int, metrics: Metrics) -> None:
        """Add an epoch."""
        self._history.append(metrics)
        if time.monotonic() - self._drawn_at >= _REDRAW_INTERVAL_S:
            draw_curves(self._path, self._history, title=self._title)
            self._drawn_at = time.monotonic()

    def finish(self, report: Report | None, *, is_complete: bool) -> None:
        """Draw the whole run; an interrupted one keeps its last picture."""
        if report is not None:
            draw_curves(self._path, self._history, title=self._title, report=report)


def draw_curves(
    path: Path,
    history: Sequence[Metrics],
    *,
    title: str,
    report: Report | None = None,
) -> None:
    """Draw the metrics of at least one epoch as a PNG, which is written atomically.

    Raises OutputError. With a report, the result of the test is marked.
    """
    figure = new_figure(_SIZE_INCHES, dpi=_DPI, h_pad=0.06)
    _compose(figure, history, title, report)
    with written_atomically(path) as temporary:
        figure.savefig(temporary, format="png")


def _compose(figure: Figure, history: Sequence[Metrics], title: str, report: Report | None) -> None:
    loss, accuracy, rate = figure.subplots(3, sharex=True, height_ratios=_HEIGHTS)
    for axes in (loss, accuracy, rate):
        style_axes(axes, title if axes is loss else "")
    _draw_loss(loss, history)
    _draw_accuracy(accuracy, history, report)
    _draw_rate(rate, history)
    for step in _rate_steps(history):
        for axes in (loss, accuracy):
            axes.axvline(step - 0.5, color=EDGE, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    for axes, label in ((loss, "loss"), (accuracy, "accuracy"), (rate, "learning\nrate")):
        axes.set_ylabel(label, color=INK, fontsize=9)
    figure.align_ylabels()
    rate.set_xlabel("epoch", color=INK, fontsize=9)
    rate.set_xlim(0.5, len(history) + 0.5)
    rate.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _draw_loss(axes: Axes, history: Sequence[Metrics]) -> None:
    _line(axes, history, keys.TRAIN_LOSS, color=MAIN, label="training")
    _line(axes, history, keys.VAL_LOSS, color=ACCENT, label="validation")
    _legend(axes)


def _draw_accuracy(axes: Axes, history: Sequence[Metrics], report: Report | None) -> None:
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    _line(axes, history, keys.TRAIN_TOP1, color=MAIN, label="training")
    _line(axes, history, keys.VAL_TOP1, color=ACCENT, label="validation")
    scores = [metrics.get(keys.VAL_TOP1, -1.0) for metrics in history]
    if max(scores) >= 0:
        best = scores.index(max(scores))
        label = f"best validation {scores[best]:.1%}, epoch {best + 1}"
        _point(axes, best + 1, scores[best], color=ACCENT, marker="o", label=label)
    if report is not None:
        epoch = report.evaluated.epoch or len(history)
        label = f"test {report.top1:.1%}, epoch {epoch}"
        _point(axes, epoch, report.top1, color=THIRD, marker="D", label=label)
    axes.set_ylim(top=1.02)
    _legend(axes)


def _draw_rate(axes: Axes, history: Sequence[Metrics]) -> None:
    rates = [metrics[keys.LEARNING_RATE] for metrics in history]
    axes.step(range(1, len(rates) + 1), rates, where="mid", color=INK, linewidth=1.2)
    if len(rates) == 1:
        axes.plot([1], rates, color=INK, marker="o", markersize=3)
    levels = sorted(set(rates))
    if _rate_steps(history) and min(rates) > 0:
        axes.set_yscale("log")
        axes.minorticks_off()
    else:
        levels = [0.0, max(rates)]
        axes.set_ylim(0, 1.2 * max(rates))
    axes.set_yticks(levels, [f"{level:.2g}" for level in levels])


def _rate_steps(history: Sequence[Metrics]) -> list[int]:
    """List the epochs that began with another learning rate; none if it changes all the time."""
    rates = [metrics[keys.LEARNING_RATE] for metrics in history]
    steps = [epoch + 1 for epoch in range(1, len(rates)) if rates[epoch] != rates[epoch - 1]]
    return steps if len(steps) <= _MAX_STEPS_MARKED else []


def _line(axes: Axes, history: Sequence[Metrics], key: str, *, color: str, label: str) -> None:
    points = [(epoch, values[key]) for epoch, values in enumerate(history, 1) if key in values]
    if points:
        dots = "o" if len(points) <= _MAX_DOTS else ""
        axes.plot(*zip(*points, strict=True), color=color, label=label, marker=dots, markersize=3)


def _point(axes: Axes, epoch: int, value: float, *, color: str, marker: str, label: str) -> None:
    axes.plot(
        [epoch],
        [value],
        color=color,
        marker=marker,
        markersize=7,
        markeredgecolor="white",
        linestyle="",
        label=label,
        zorder=5,
        clip_on=False,
    )


def _legend(axes: Axes) -> None:
    legend_above(axes, ncols=4, borderaxespad=0.2, handlelength=1.4, columnspacing=1.4)
