"""A search space: the values to try for each recipe key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from sgnray import seeding

FORMAT_VERSION = 1
MAX_GRID_POINTS = 10_000
# Enough to distinguish two trials, and few enough that a table shows the exact values.
_DIGITS = 4

SearchWay = Literal["random", "grid", "tpe"]
RangeKind = Literal["uniform", "log_uniform", "integer"]
# A key is searched only if each of these other keys has one of these values.
Condition = Mapping[str, tuple[Any, ...]]
# The values of recipe keys, by `section.key`.
Values = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """One of several values, all equally likely."""

    values: tuple[Any, ...]

    def draw(self, uniform: float) -> Any:
        """Turn a number from [0, 1) into a value."""
        return self.values[int(uniform * len(self.values))]

    def extremes(self) -> tuple[Any, ...]:
        """Return the values to check: if a recipe accepts these, it accepts all."""
        return self.values

    def describe(self) -> dict[str, Any]:
        """Return it in the form of a search space file."""
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
        """Round a drawn value to the digits that tables and best.yaml show."""
        return min(self.high, max(self.low, float(f"{value:.{_DIGITS}g}")))

    def extremes(self) -> tuple[float, float]:
        """Return the values to check: if a recipe accepts these, it accepts all."""
        return self.low, self.high

    def describe(self) -> dict[str, Any]:
        """Return it in the form of a search space file."""
        return {self.kind: [self.low, self.high]}


Axis = Choice | Range


@dataclass(frozen=True)
class Space:
    """A checked search space: an axis for each dotted recipe key, in the order of its file.

    A key with a condition is active only where the condition holds, and comes after the keys that
    it depends on. A space of `rows` has no axes: each row is a trial.
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

    def keep_active(self, values: Values) -> Values:
        """Remove the keys whose condition does not hold."""
        kept: Values = {}
        for key, value in values.items():
            condition = self.conditions.get(key, {})
            if all(other in kept and kept[other] in ok for other, ok in condition.items()):
                kept[key] = value
        return kept

    def draw(self, seed: int, index: int) -> Values:
        """Draw one configuration; it depends only on (seed, index) and the axes."""
        uniform = seeding.uniform(seed, "tune", index, (len(self.axes),)).tolist()
        drawn = [axis.draw(u) for axis, u in zip(self.axes.values(), uniform, strict=True)]
        return self.keep_active(dict(zip(self.axes, drawn, strict=True)))

    @property
    def ranges(self) -> tuple[str, ...]:
        """The keys with infinitely many values, or too many for a grid."""
        return tuple(key for key, axis in self.axes.items() if isinstance(axis, Range))

    def num_points(self) -> int:
        """Count the rows, or the combinations of the choices; there must be no ranges."""
        assert not self.ranges
        return len(self.rows) or math.prod(len(axis.extremes()) for axis in self.axes.values())

    def grid(self) -> Iterator[Values]:
        """Yield the rows, or every combination of the choices; there must be no ranges."""
        assert not self.ranges
        if self.rows:
            yield from self.rows
            return
        for values in product(*(axis.extremes() for axis in self.axes.values())):
            yield self.keep_active(dict(zip(self.axes, values, strict=True)))

    def describe(self) -> dict[str, Any]:
        """Return it in the form of a search space file."""
        if self.rows:
            return {"rows": list(self.rows)}
        described = {key: axis.describe() for key, axis in self.axes.items()}
        for key, condition in self.conditions.items():
            described[key]["when"] = {other: list(ok) for other, ok in condition.items()}
        return described


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


def as_overrides(values: Values) -> tuple[str, ...]:
    """Write values as `section.key=value`, as commands accept them."""
    return tuple(f"{key}={as_text(value)}" for key, value in values.items())


def as_text(value: Any) -> str:
    """Write a value of a recipe as YAML does on one line, without quotes."""
    return value if isinstance(value, str) else json.dumps(value)
