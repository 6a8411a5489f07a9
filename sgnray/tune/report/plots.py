"""A search as pictures: its history, its keys side by side, accuracy against cost, importances.

matplotlib is imported when the first picture is drawn, and only its objects are used: no window,
no global state.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sgnray.train.tracking.plot_style import ACCENT, EDGE, FAINT, INK, MAIN, dress, percent
from sgnray.tune.report.parallel import draw_parallel
from sgnray.tune.space.space import Space
from sgnray.tune.state.board import TrialRow, best_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE_INCHES, _DPI = (8.0, 4.6), 130
_MAX_LABELS = 12


def draw_pictures(
    rows: Sequence[TrialRow], space: Space, importances: Mapping[str, float]
) -> dict[str, bytes]:
    """Return PNGs by name: history, parallel, frontier, importance, where they say something."""
    told = [row for row in rows if row.score is not None]
    pictures: dict[str, bytes] = {}
    if told:
        pictures["history"] = _png(lambda figure: _draw_history(figure, told))
    if len(told) > 1 and space.axes:
        pictures["parallel"] = _png(lambda figure: draw_parallel(figure, told, space))
    compared = comparable(told)
    if len({row.flops for row in compared}) > 1:
        pictures["frontier"] = _png(lambda figure: _draw_frontier(figure, compared))
    if importances:
        pictures["importance"] = _png(lambda figure: _draw_importance(figure, importances))
    return pictures


def comparable(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the trials that went furthest: scores compare after the same number of epochs only."""
    most = max((row.num_epochs for row in rows), default=0)
    return [row for row in rows if row.num_epochs == most and row.score is not None]


def frontier(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the Pareto set, cheapest first: no other trial is as good for fewer operations."""
    best: list[TrialRow] = []
    for row in sorted(rows, key=lambda row: (row.flops, -(row.score or 0.0))):
        if not best or (row.score or 0.0) > (best[-1].score or 0.0):
            best.append(row)
    return best


def _png(draw: Callable[[Figure], None]) -> bytes:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.12)
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, facecolor="white", layout=layout)
    draw(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_history(figure: Figure, rows: Sequence[TrialRow]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    dress(axes, "history")
    best = best_of(rows)
    for row in rows:
        epochs = range(1, row.num_epochs + 1)
        is_full = row.status == "finished"
        axes.plot(epochs, row.scores, color=MAIN if is_full else EDGE, linewidth=0.9, alpha=0.55)
        end = "o" if is_full else "x"
        axes.plot(epochs[-1:], row.scores[-1:], end, color=MAIN if is_full else EDGE, markersize=4)
    if best is not None:
        label = f"best: trial {best.number}, {percent(best.score or 0.0)}"
        axes.plot(
            range(1, best.num_epochs + 1), best.scores, color=ACCENT, linewidth=2.2, label=label
        )
    axes.plot([], [], "o-", color=MAIN, markersize=4, label="ran to the end")
    if any(row.status != "finished" for row in rows):
        axes.plot([], [], "x-", color=EDGE, markersize=4, label="stopped early")
    axes.set_xlabel("epoch", color=INK, fontsize=9)
    axes.set_ylabel("validation top-1", color=INK, fontsize=9)
    axes.yaxis.set_major_formatter(lambda share, _: percent(share))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _legend(axes)


def _draw_frontier(figure: Figure, rows: Sequence[TrialRow]) -> None:
    axes = figure.subplots()
    dress(axes, "accuracy against cost")
    pareto = frontier(rows)
    for row in rows:
        axes.errorbar(
            row.flops / 1e6,
            row.score or 0.0,
            yerr=row.spread,
            fmt="o",
            color=MAIN,
            ecolor=EDGE,
            capsize=3,
            markersize=6,
        )
    axes.plot(
        [row.flops / 1e6 for row in pareto],
        [row.score or 0.0 for row in pareto],
        color=ACCENT,
        marker="o",
        markersize=7,
        linewidth=1.6,
        label="nothing better for less",
    )
    for row in pareto if len(rows) > _MAX_LABELS else rows:
        text = "\n".join(_short(key, value) for key, value in list(row.values.items())[:3])
        axes.annotate(
            text,
            (row.flops / 1e6, row.score or 0.0),
            xytext=(6, -6),
            va="top",
            textcoords="offset points",
            fontsize=7,
            color=INK,
        )
    axes.margins(x=0.12, y=0.18)
    axes.set_xlabel("million floating-point operations per clip", color=INK, fontsize=9)
    axes.set_ylabel("validation top-1", color=INK, fontsize=9)
    axes.yaxis.set_major_formatter(lambda share, _: percent(share))
    _legend(axes)


def _draw_importance(figure: Figure, importances: Mapping[str, float]) -> None:
    axes = figure.subplots()
    dress(axes, "importance of each key")
    keys = list(importances)[::-1]
    bars = axes.barh(keys, [importances[key] for key in keys], color=MAIN, height=0.6)
    axes.bar_label(bars, [f"{importances[key]:.0%}" for key in keys], padding=4, fontsize=8)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.6)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.margins(x=0.12)


def _short(key: str, value: object) -> str:
    return f"{key.rpartition('.')[2]} {json.dumps(value)}"


def _legend(axes: object) -> None:
    axes.legend(  # type: ignore[attr-defined]
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=3,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )
