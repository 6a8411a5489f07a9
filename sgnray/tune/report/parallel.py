"""Parallel coordinates: each trial is a line through the values of all searched keys."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sgnray.train.tracking.plot_style import ACCENT, EDGE, INK, percent
from sgnray.tune.space.space import Axis, Choice, Integer, LogUniform, Space, Uniform
from sgnray.tune.state.board import TrialRow, best_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NUM_TICKS = 4
_MAX_TEXT = 14
_COLORS = "viridis"
_ABSENT = -0.12  # where a key was not searched in a trial


def draw_parallel(figure: Figure, rows: Sequence[TrialRow], space: Space) -> None:
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
    """Write beside an axis, legibly where lines run."""
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    axes.text(index + 0.05, height, text, fontsize=7, color=INK, va="center", zorder=4, bbox=paper)


def _place(axis: Axis) -> Callable[[object], float]:
    """Return what puts a value on its axis, from 0 to 1."""
    match axis:
        case Choice(values):
            texts = [json.dumps(value) for value in values]
            return lambda value: texts.index(json.dumps(value)) / max(1, len(texts) - 1)
        case LogUniform(low, high):
            return lambda value: math.log(_number(value) / low) / math.log(high / low)
        case Uniform(low, high) | Integer(low, high):
            return lambda value: (_number(value) - low) / (high - low)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    place = _place(axis)
    match axis:
        case Choice(values):
            return [(place(value), _text(value)) for value in values]
        case LogUniform(low, high):
            steps = [low * (high / low) ** (i / (_NUM_TICKS - 1)) for i in range(_NUM_TICKS)]
        case Uniform(low, high) | Integer(low, high):
            steps = [low + (high - low) * i / (_NUM_TICKS - 1) for i in range(_NUM_TICKS)]
    return [(place(step), f"{step:.2g}") for step in steps]


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return textwrap.shorten(text, _MAX_TEXT, placeholder="…") if " " in text else text[:_MAX_TEXT]


def _name(key: str) -> str:
    section, _, name = key.partition(".")
    return f"{section}\n" + "\n".join(textwrap.wrap(name.replace("_", " "), 12))
