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

from sgnray.train.tracking.plot_style import ACCENT, EDGE, FAINT, INK, MAIN, dress, percent
from sgnray.tune.space.space import Axis, Choice, Range, Space
from sgnray.tune.state.trials import TrialRow, best_of, comparable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE_INCHES, _DPI = (8.0, 4.6), 130
_COLORS = "viridis"
_MAX_LABELS = 12
_NUM_TICKS = 4
_MAX_TEXT = 14
_ABSENT = -0.12  # height of a line where a key was not searched in its trial


def draw_pictures(
    rows: Sequence[TrialRow], space: Space, importances: Mapping[str, float]
) -> dict[str, bytes]:
    """Return PNGs by name: history, parallel, frontier, importance; those with anything to show."""
    scored = [row for row in rows if row.score is not None]
    pictures: dict[str, bytes] = {}
    if scored:
        pictures["history"] = _png(lambda figure: _draw_history(figure, scored))
    if len(scored) > 1 and space.axes:
        pictures["parallel"] = _png(lambda figure: _draw_parallel(figure, scored, space))
    compared = comparable(scored)
    if len({row.flops for row in compared}) > 1:
        pictures["frontier"] = _png(lambda figure: _draw_frontier(figure, compared))
    if importances:
        pictures["importance"] = _png(lambda figure: _draw_importance(figure, importances))
    return pictures


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


def _draw_parallel(figure: Figure, rows: Sequence[TrialRow], space: Space) -> None:
    """Draw at least two trials with scores over at least one axis."""
    import matplotlib

    axes = figure.subplots()
    axes.set_title("keys and score", loc="left", fontweight="bold", fontsize=12, color=INK, pad=10)
    scores = [row.score or 0.0 for row in rows]
    low, high = min(scores), max(scores)
    span = (high - low) or 1.0
    colors = matplotlib.colormaps[_COLORS]
    places = {key: _place(axis) for key, axis in space.axes.items()}
    best = best_of(rows)
    for row in sorted(rows, key=lambda row: row.score or 0.0):
        heights = [
            place(row.values[key]) if key in row.values else _ABSENT
            for key, place in places.items()
        ]
        share = ((row.score or 0.0) - low) / span
        is_best = best is not None and row.number == best.number
        axes.plot(
            range(len(heights) + 1),
            [*heights, share],
            color=ACCENT if is_best else colors(share),
            linewidth=2.4 if is_best else 1.0,
            alpha=1.0 if is_best else 0.6,
            zorder=3 if is_best else 2,
        )
    for index, axis in enumerate(space.axes.values()):
        axes.axvline(index, color=EDGE, linewidth=0.8, zorder=1)
        for height, text in _ticks(axis):
            _label(axes, index, height, text)
    axes.axvline(len(places), color=EDGE, linewidth=0.8, zorder=1)
    for share, score in ((0.0, low), (1.0, high)):
        _label(axes, len(places), share, percent(score))
    names = [_name(key) for key in space.axes]
    axes.set_xticks(range(len(places) + 1), [*names, "validation\ntop-1"], fontsize=8, color=INK)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlim(-0.15, len(places) + 0.55)


def _label(axes: Axes, index: int, height: float, text: str) -> None:
    """Write beside an axis, readable over the lines."""
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    axes.text(index + 0.05, height, text, fontsize=7, color=INK, va="center", zorder=4, bbox=paper)


def _place(axis: Axis) -> Callable[[Any], float]:
    """Return the function that maps a value to its position on the axis, from 0 to 1."""
    match axis:
        case Choice(values):
            texts = [json.dumps(value) for value in values]
            return lambda value: texts.index(json.dumps(value)) / max(1, len(texts) - 1)
        case Range("log_uniform", low, high):
            return lambda value: math.log(value / low) / math.log(high / low)
        case Range(_, low, high):
            return lambda value: (value - low) / (high - low)


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    if isinstance(axis, Choice):
        place = _place(axis)
        return [(place(value), _text(value)) for value in axis.values]
    shares = [tick / (_NUM_TICKS - 1) for tick in range(_NUM_TICKS)]
    if axis.kind == "log_uniform":
        steps = [axis.low * (axis.high / axis.low) ** share for share in shares]
    else:
        steps = [axis.low + (axis.high - axis.low) * share for share in shares]
    return [(share, f"{step:.2g}") for share, step in zip(shares, steps, strict=True)]


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return textwrap.shorten(text, _MAX_TEXT, placeholder="…") if " " in text else text[:_MAX_TEXT]


def _name(key: str) -> str:
    section, _, name = key.partition(".")
    return f"{section}\n" + "\n".join(textwrap.wrap(name.replace("_", " "), 12))


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


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=3,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )
