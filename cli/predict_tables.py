"""Predictions as tables: five actions of a clip, a line for each of many, or a timeline."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType

from .tables import SafeTable, make_table

if TYPE_CHECKING:
    from sgnray.predict import Prediction

_NUM_SHOWN_WHOLE = 3  # clips that get a table of their own
_BAR_WIDTH = 20


def predictions(found: Sequence[Prediction]) -> list[RenderableType]:
    """Show all predictions in the way that fits their number."""
    if any(item.span is not None for item in found):
        groups = itertools.groupby(found, key=lambda item: (item.place, item.clip))
        return _joined([_timeline(clip, list(items)) for (_, clip), items in groups])
    if len(found) <= _NUM_SHOWN_WHOLE:
        return _joined([_guesses(item) for item in found])
    return [_line(item) for item in found]


def _guesses(item: Prediction) -> SafeTable:
    table = make_table(item.clip, "probability>", "")
    for guess in item.guesses:
        table.add_row(guess.name, f"{guess.probability:.1%}", _bar(guess.probability))
    return table


def _line(item: Prediction) -> str:
    guesses = ", ".join(f"{guess.name} {guess.probability:.1%}" for guess in item.guesses)
    return f"{item.clip}: {guesses}"


def _timeline(clip: str, items: Sequence[Prediction]) -> SafeTable:
    """Show windows one after the other; those with the same action that touch are one row."""
    table = make_table(f"{clip}, seconds", "action", "probability>", "")
    for windows in _runs(items):
        first, last = windows[0].span, windows[-1].span
        assert first is not None
        assert last is not None
        mean = sum(window.guesses[0].probability for window in windows) / len(windows)
        time = f"{first.start_s:.1f} to {last.end_s:.1f}"
        table.add_row(time, windows[0].guesses[0].name, f"{mean:.1%}", _bar(mean))
    return table


def _runs(items: Sequence[Prediction]) -> list[list[Prediction]]:
    runs: list[list[Prediction]] = []
    for item in items:
        before = runs[-1][-1] if runs else None
        if (
            before is not None
            and before.span is not None
            and item.span is not None
            and item.span.first <= before.span.end
            and item.guesses[0].name == before.guesses[0].name
        ):
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def _bar(share: float) -> str:
    return "█" * round(share * _BAR_WIDTH)


def _joined(tables: Sequence[SafeTable]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for table in tables:
        parts += ["", table] if parts else [table]
    return parts
