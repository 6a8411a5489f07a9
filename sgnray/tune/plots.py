"""The pictures of a search: history, parallel coordinates, accuracy against cost, importances.

matplotlib is imported by the first picture, and only its objects are used: no window, no global
state.
"""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sgnray.train.tracking.plot_style import (
    ACCENT,
    EDGE,
    FAINT,
    INK,
    MAIN,
    legend_above,
    new_figure,
    style_axes,
)
from sgnray.tune.space import Axis, Choice, Range, Space, as_text
from sgnray.tune.trials import TrialRow, best_of, comparable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = "viridis"
_MAX_LABELS = 12
_NUM_TICKS = 4
_MAX_TEXT = 14
_ABSENT = -0.12  # height of a line where a key was not searched in its trial


def draw_pictures(
    rows: Sequence[TrialRow], space: Space, importances: Mapping[str, float]
) -> dict[str, bytes]:
    """Return PNGs by name: history, parallel, frontier, importance; only those with data."""
    scored = [row for row in rows if row.score is not None]
    compared = comparable(scored)
    pictures: dict[str, bytes] = {}
    if scored:
        pictures["history"] = _png(lambda axes: _draw_history(axes, scored))
    if len(scored) > 1 and space.axes:
        pictures["parallel"] = _png(lambda axes: _draw_parallel(axes, scored, space))
    if len({row.flops for row in compared}) > 1:
        pictures["frontier"] = _png(lambda axes: _draw_frontier(axes, compared))
    if importances:
        pictures["importance"] = _png(lambda axes: _draw_importance(axes, importances))
    return pictures


def frontier(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the Pareto set, cheapest first: no other trial is as good for fewer operations."""
    best: list[TrialRow] = []
    for row in sorted(rows, key=lambda row: (row.flops, -_score(row))):
        if not best or _score(row) > _score(best[-1]):
            best.append(row)
    return best


def _score(row: TrialRow) -> float:
    return row.score or 0.0


def _png(draw: Callable[[Axes], None]) -> bytes:
    figure = new_figure((8.0, 4.6), dpi=130, h_pad=0.08)
    draw(figure.subplots())
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_history(axes: Axes, rows: Sequence[TrialRow]) -> None:
    from matplotlib.ticker import MaxNLocator

    style_axes(axes, "history")
    for row in rows:
        epochs = range(1, row.num_epochs + 1)
        color, end = (MAIN, "o") if row.status == "finished" else (EDGE, "x")
        axes.plot(epochs, row.scores, color=color, linewidth=0.9, alpha=0.55)
        axes.plot(epochs[-1:], row.scores[-1:], end, color=color, markersize=4)
    best = best_of(rows)
    if best is not None:
        label = f"best: trial {best.number}, {_score(best):.1%}"
        epochs = range(1, best.num_epochs + 1)
        axes.plot(epochs, best.scores, color=ACCENT, linewidth=2.2, label=label)
    axes.plot([], [], "o-", color=MAIN, markersize=4, label="ran to the end")
    if any(row.status != "finished" for row in rows):
        axes.plot([], [], "x-", color=EDGE, markersize=4, label="not finished")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _label_score(axes, "epoch")


def _draw_parallel(axes: Axes, rows: Sequence[TrialRow], space: Space) -> None:
    """Draw at least two trials with scores over at least one axis."""
    import matplotlib

    axes.set_title("keys and score", loc="left", fontweight="bold", fontsize=12, color=INK, pad=10)
    rows = sorted(rows, key=_score)
    low, high = _score(rows[0]), _score(rows[-1])
    colors = matplotlib.colormaps[_COLORS]
    best = best_of(rows)
    for row in rows:
        heights = [
            _height(axis, row.values[key]) if key in row.values else _ABSENT
            for key, axis in space.axes.items()
        ]
        share = (_score(row) - low) / ((high - low) or 1.0)
        if row is best:
            axes.plot([*heights, share], color=ACCENT, linewidth=2.4, zorder=3)
        else:
            axes.plot([*heights, share], color=colors(share), linewidth=1.0, alpha=0.6)
    ticks = [*map(_ticks, space.axes.values()), [(0.0, f"{low:.1%}"), (1.0, f"{high:.1%}")]]
    # The text at an axis stays readable over the lines.
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    for x, labels in enumerate(ticks):
        axes.axvline(x, color=EDGE, linewidth=0.8, zorder=1)
        for height, text in labels:
            axes.text(
                x + 0.05, height, text, fontsize=7, color=INK, va="center", zorder=4, bbox=paper
            )
    names = [*map(_title, space.axes), "validation\ntop-1"]
    axes.set_xticks(range(len(names)), names, fontsize=8, color=INK)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlim(-0.15, len(space.axes) + 0.55)


def _height(axis: Axis, value: Any) -> float:
    """Return the position of a value on its axis, from 0 to 1."""
    match axis:
        case Choice(values):
            texts = [json.dumps(each) for each in values]
            return texts.index(json.dumps(value)) / max(1, len(texts) - 1)
        case Range("log_uniform", low, high):
            return math.log(value / low) / math.log(high / low)
        case Range(_, low, high):
            return float((value - low) / (high - low))


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    """Return the positions and texts of the labels of an axis."""
    if isinstance(axis, Choice):
        return [(_height(axis, value), _shorten(as_text(value))) for value in axis.values]
    spaced = np.geomspace if axis.kind == "log_uniform" else np.linspace
    values = spaced(axis.low, axis.high, _NUM_TICKS)
    return [(_height(axis, value), f"{value:.2g}") for value in values]


def _shorten(text: str) -> str:
    return textwrap.shorten(text, _MAX_TEXT, placeholder="…") if " " in text else text[:_MAX_TEXT]


def _title(key: str) -> str:
    section, _, name = key.partition(".")
    return f"{section}\n" + "\n".join(textwrap.wrap(name.replace("_", " "), 12))


def _draw_frontier(axes: Axes, rows: Sequence[TrialRow]) -> None:
    style_axes(axes, "accuracy against cost")
    for row in rows:
        axes.errorbar(
            row.flops / 1e6,
            _score(row),
            yerr=row.spread,
            fmt="o",
            color=MAIN,
            ecolor=EDGE,
            capsize=3,
            markersize=6,
        )
    pareto = frontier(rows)
    axes.plot(
        [row.flops / 1e6 for row in pareto],
        [_score(row) for row in pareto],
        "o-",
        color=ACCENT,
        markersize=7,
        linewidth=1.6,
        label="Pareto front",
    )
    for row in pareto if len(rows) > _MAX_LABELS else rows:
        changes = [
            f"{key.rpartition('.')[2]} {json.dumps(value)}" for key, value in row.values.items()
        ]
        axes.annotate(
            "\n".join(changes[:3]),
            (row.flops / 1e6, _score(row)),
            xytext=(6, -6),
            va="top",
            textcoords="offset points",
            fontsize=7,
            color=INK,
        )
    axes.margins(x=0.12, y=0.18)
    _label_score(axes, "million floating-point operations per clip")


def _draw_importance(axes: Axes, importances: Mapping[str, float]) -> None:
    style_axes(axes, "importance of each key")
    keys = list(importances)[::-1]
    bars = axes.barh(keys, [importances[key] for key in keys], color=MAIN, height=0.6)
    axes.bar_label(bars, [f"{importances[key]:.0%}" for key in keys], padding=4, fontsize=8)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.6)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.margins(x=0.12)


def _label_score(axes: Axes, xlabel: str) -> None:
    """Label a panel whose height is the score."""
    axes.set_xlabel(xlabel, color=INK, fontsize=9)
    axes.set_ylabel("validation top-1", color=INK, fontsize=9)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    legend_above(axes, ncols=3)
