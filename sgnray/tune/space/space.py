"""What a search may change: for each recipe key, the values to try."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from sgnray import seeding
from sgnray.config import Recipe

FORMAT_VERSION = 1
# Enough to tell two trials apart, and short enough that a table shows what was run exactly.
_DIGITS = 4


SearchWay = Literal["random", "grid", "tpe"]
RangeKind = Literal["uniform", "log_uniform", "integer"]
# Where another key must be, for a key to be searched: every one of them at one of its values.
Condition = Mapping[str, tuple[Any, ...]]
# Of recipe keys, by `section.key`.
Values = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """One of several values, each as likely as the others."""

    values: tuple[Any, ...]

    def draw(self, uniform: float) -> Any:
        """Turn a number from [0, 1) into a value."""
        return self.values[int(uniform * len(self.values))]

    def extremes(self) -> tuple[Any, ...]:
        """Return the values that must be possible for all to be."""
        return self.values

    def describe(self) -> dict[str, Any]:
        """Return it as it is in a search space file."""
        return {"choice": list(self.values)}


@dataclass(frozen=True)
class Range:
    """A number between two ends, both included; `log_uniform` draws its logarithm uniformly."""

    kind: RangeKind
    low: float
    high: float

    def draw(self, uniform: float) -> float:
        """Turn a number from [0, 1) into a value, rounded to what a table shows."""
        match self.kind:
            case "uniform":
                return self.rounded(self.low + uniform * (self.high - self.low))
            case "log_uniform":
                return self.rounded(self.low * math.exp(uniform * math.log(self.high / self.low)))
            case "integer":
                return self.low + int(uniform * (self.high - self.low + 1))

    def rounded(self, value: float) -> float:
        """Round a drawn value to what tables and best.yaml show of it."""
        return min(self.high, max(self.low, float(f"{value:.{_DIGITS}g}")))

    def extremes(self) -> tuple[float, float]:
        """Return the values that must be possible for all to be."""
        return self.low, self.high

    def describe(self) -> dict[str, Any]:
        """Return it as it is in a search space file."""
        return {self.kind: [self.low, self.high]}


Axis = Choice | Range


@dataclass(frozen=True)
class Space:
    """A checked search space: an axis for each dotted recipe key, in the order of its file.

    A key with a condition is searched only where it holds, and comes after what it depends on. A
    space of `rows` has no axes: each row is a trial. `search` is its default way of search.
    """

    source: str
    axes: Mapping[str, Axis] = field(default_factory=dict)
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    rows: tuple[Values, ...] = ()
    search: SearchWay = "random"

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that a trial may change."""
        return tuple(self.axes) or tuple(dict.fromkeys(key for row in self.rows for key in row))

    def holds(self, key: str, values: Values) -> bool:
        """Tell whether a key is searched, given the values before it."""
        condition = self.conditions.get(key, {})
        return all(values.get(other, _ABSENT) in wanted for other, wanted in condition.items())

    def without_idle(self, values: Values) -> Values:
        """Remove the keys whose condition does not hold."""
        kept: Values = {}
        for key, value in values.items():
            if self.holds(key, kept):
                kept[key] = value
        return kept

    def draw(self, seed: int, index: int) -> Values:
        """Draw one configuration; it depends on (seed, index) and the axes alone."""
        uniform = seeding.uniform(seed, "tune", index, (len(self.axes),)).tolist()
        drawn = {
            key: axis.draw(u) for (key, axis), u in zip(self.axes.items(), uniform, strict=True)
        }
        return self.without_idle(drawn)

    def num_points(self) -> int:
        """Count the combinations of a grid, or the rows; every axis must be a Choice."""
        return len(self.rows) or math.prod(len(axis.extremes()) for axis in self.axes.values())

    def grid(self) -> Iterator[Values]:
        """Yield the rows, or every combination of the choices; every axis must be a Choice."""
        if self.rows:
            yield from self.rows
            return
        assert all(isinstance(axis, Choice) for axis in self.axes.values())
        for values in product(*(axis.extremes() for axis in self.axes.values())):
            yield self.without_idle(dict(zip(self.axes, values, strict=True)))

    def describe(self) -> dict[str, Any]:
        """Return it as it is in a search space file."""
        if self.rows:
            return {"rows": list(self.rows)}
        described = {key: axis.describe() for key, axis in self.axes.items()}
        for key, condition in self.conditions.items():
            if condition:
                described[key]["when"] = {other: list(ok) for other, ok in condition.items()}
        return described


_ABSENT = object()


def distinct(points: Iterable[Values]) -> list[Values]:
    """Remove points that repeat an earlier one."""
    return list({json.dumps(values): values for values in points}.values())


def dump_space(space: Space) -> str:
    """Write the space as YAML that `load_space` reads."""
    lines = [f"format_version: {FORMAT_VERSION}"]
    if not space.rows:
        lines.append(f"search: {space.search}")
    # JSON is YAML on one line.
    lines += [f"{key}: {json.dumps(value)}" for key, value in space.describe().items()]
    return "\n".join(lines) + "\n"


def with_values(recipe: Recipe, values: Values) -> Recipe:
    """Return the recipe with other values for dotted keys; RecipeError where one is impossible."""
    return recipe.replacing(values, source="the search space")


def as_overrides(values: Values) -> tuple[str, ...]:
    """Write values as `section.key=value`, the way commands take them."""
    return tuple(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in values.items()
    )
