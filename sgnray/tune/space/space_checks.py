"""What may stand in a search space: its keys, conditions, rows, and what goes together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, product

from sgnray.config import Recipe, to_dict
from sgnray.config.messages import unknown_key
from sgnray.config.schema import dotted_keys, sections
from sgnray.errors import Problem, RecipeError
from sgnray.tune.space.space import Axis, Choice, Condition, Space, Values, distinct, with_values

EXAMPLE = "optim.learning_rate: {log_uniform: [3e-4, 3e-3]}"
# Trials obey the search or the dataset in these, so that a value would do nothing.
_FIXED = {
    "data.dataset": "is the dataset's; name another one with --data",
    "data.case": "must be the same in all trials; choose it with --case",
    "train.num_epochs": "is the same in all trials; set it with --epochs",
    "train.selection": "does nothing in a trial, which is scored after its last epoch",
    "evaluate.num_views": "does nothing in a trial, which is scored from one view",
}
_MAX_POINTS = 10_000


def check_key(key: str) -> None:
    """Raise ValueError where a key cannot be searched."""
    if key in sections():
        raise ValueError(f"is a section; write its keys as {key}.key, like {EXAMPLE}")
    if key not in dotted_keys():
        raise ValueError(unknown_key(key))
    if key in _FIXED:
        raise ValueError(_FIXED[key])


def why_impossible(values: Values, recipe: Recipe) -> str | None:
    """Say what is wrong with values in a recipe, None where they are possible."""
    try:
        with_values(recipe, values)
    except RecipeError as error:
        return error.problems[0].what
    return None


def read_condition(
    given: object, axes: Mapping[str, Axis], recipe: Recipe
) -> tuple[Condition, object]:
    """Split an axis into its condition on keys before it, and the rest; raises ValueError.

    A condition on a key that is not searched holds always, or is refused.
    """
    if not isinstance(given, dict) or "when" not in given:
        return {}, given
    rest = {key: value for key, value in given.items() if key != "when"}
    when = given["when"]
    if not isinstance(when, dict) or not when:
        raise ValueError("when must name a key and its values, like when: {optim.schedule: cosine}")
    condition = {}
    for other, wanted in when.items():
        values = tuple(wanted) if isinstance(wanted, list) else (wanted,)
        if _is_searched(str(other), values, axes, recipe):
            condition[str(other)] = values
    return condition, rest


def _is_searched(
    other: str, wanted: tuple[object, ...], axes: Mapping[str, Axis], recipe: Recipe
) -> bool:
    if other not in dotted_keys():
        raise ValueError(f"depends on {other}, which {unknown_key(other)}")
    axis = axes.get(other)
    if axis is None:
        section, _, name = other.partition(".")
        value = to_dict(recipe)[section][name]
        if value in wanted:
            return False
        raise ValueError(
            f"depends on {other}, which is {value} in the recipe and not searched above it"
        )
    if not isinstance(axis, Choice):
        raise ValueError(f"depends on {other}, which is a range; only a choice can be waited for")
    never = [value for value in wanted if value not in axis.values]
    if never:
        raise ValueError(f"waits for {other} to be {never[0]}, which it never is")
    return True


def read_rows(source: str, given: dict[str, object], recipe: Recipe) -> tuple[Space, list[Problem]]:
    """Read a space of rows, and all that is wrong with it."""
    rows, others = given["rows"], [key for key in given if key != "rows"]
    problems = [Problem(key, "stands beside rows; a space has rows or axes") for key in others]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        problems.append(
            Problem("rows", "must be a list of trials, like [{model.dropout: 0.2}, {}]")
        )
        return Space(source), problems
    for number, row in enumerate(rows, start=1):
        problems += [Problem(f"row {number}", what) for what in _wrong_with(row, recipe)]
    if not problems and len(distinct(rows)) < len(rows):
        problems.append(Problem("rows", "holds a trial twice"))
    return Space(source, rows=tuple(rows)), problems


def _wrong_with(row: Values, recipe: Recipe) -> list[str]:
    wrong = []
    for key in row:
        try:
            check_key(str(key))
        except ValueError as error:
            wrong.append(f"{key} {error}")
    if not wrong and (what := why_impossible(row, recipe)):
        wrong.append(what)
    return wrong


def check_together(space: Space, recipe: Recipe) -> list[Problem]:
    """List the points that are impossible though each value alone is possible.

    All points of a grid are tried; else the ends of each two keys with each other.
    """
    points = distinct(space.grid() if _is_small_grid(space) else _pairs(space))
    found: dict[str, Problem] = {}
    for values in points:
        what = why_impossible(values, recipe)
        if what is not None and what not in found:
            found[what] = Problem(", ".join(f"{key}={values[key]}" for key in values), what)
    return list(found.values())


def _is_small_grid(space: Space) -> bool:
    is_grid = all(isinstance(axis, Choice) for axis in space.axes.values())
    return is_grid and space.num_points() <= _MAX_POINTS


def _pairs(space: Space) -> Iterator[Values]:
    for (first, one), (second, other) in combinations(space.axes.items(), 2):
        for ends in product(one.extremes(), other.extremes()):
            yield space.without_idle(dict(zip((first, second), ends, strict=True)))
