"""Search spaces in YAML: dotted recipe keys, each with one kind of values to try.

    optim.learning_rate: {log_uniform: [3e-4, 3e-3]}
    optim.warmup_epochs: {choice: [0, 5], when: {optim.schedule: cosine}}

or `rows:`, a list of trials. Everything is checked against the recipe before the first trial, and
all problems are reported at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations, product
from typing import get_args

from sgnray.config import Recipe, dotted_values
from sgnray.config.document import Document, checked_version, read_document, read_named
from sgnray.config.messages import did_you_mean, unknown_key
from sgnray.config.schema import dotted_keys, field_of, sections
from sgnray.errors import Problem, RecipeError, UsageError, count_problems
from sgnray.tune.space import (
    FORMAT_VERSION,
    MAX_GRID_POINTS,
    Axis,
    Choice,
    Condition,
    Range,
    RangeKind,
    SearchWay,
    Space,
    Values,
    distinct,
)

_PACKAGE = "sgnray.conf.tune"
_EXAMPLE = "optim.learning_rate: {log_uniform: [3e-4, 3e-3]}"
# The search or the dataset sets these keys in a trial, so a value would have no effect.
_FIXED = {
    "data.dataset": "comes from the dataset; choose another with --data",
    "data.case": "must be the same in all trials; choose it with --case",
    "train.num_epochs": "is the same in all trials; set it with --epochs",
    "train.selection": "does nothing in a trial, which is scored after its last epoch",
    "evaluate.num_views": "does nothing in a trial, which is scored from one view",
    "evaluate.turn_rad": "does nothing in a trial, whose view is not turned",
    "train.log": "does not change the score; set it for all trials, as train.log=[...]",
    "data.pose_device": "does not change the score; set it for all trials, as data.pose_device=...",
}
# Each kind of range, with an example for the error messages.
_RANGES: dict[RangeKind, str] = {
    "uniform": "[0, 0.5]",
    "log_uniform": "[1e-4, 1e-2]",
    "integer": "[10, 30]",
}
_WAYS = get_args(SearchWay)


def load_space(
    name_or_path: str, recipe: Recipe, check: Callable[[Recipe], object] = lambda recipe: None
) -> Space:
    """Read a shipped space or a .yaml file, and try its values in the recipe.

    `check` raises UsageError for a recipe that is valid but cannot be trained, for example on too
    many workers; it is called at the ends of the space. RecipeError lists every problem at once:
    unknown keys, malformed ranges, impossible values, and values that are impossible together.
    """
    document = _read(name_or_path)
    problems = _outermost(document.problems)
    given = {str(key): value for key, value in document.content.items()}
    given.pop("format_version", None)
    search = given.pop("search", "random")
    if search not in _WAYS:
        problems.append(Problem("search", f"must be one of {', '.join(_WAYS)}"))
    read = _read_rows if "rows" in given else _read_axes
    space, found = read(document, given, recipe)
    problems += found
    if not problems:
        space = replace(space, search="grid" if space.rows else search)
        problems = _check_together(space, recipe, check)
    if problems:
        raise RecipeError(
            f"the search space {document.source} has {count_problems(problems)}",
            where=document.source,
            now="correct them; 'sgn train --recipe ntu60-cs --dry-run' shows every key",
            problems=problems,
        )
    return space


def _read(name_or_path: str) -> Document:
    text, source = read_named(name_or_path, kind="search space", package=_PACKAGE)
    try:
        document = read_document(text, source=source)
    except RecipeError as error:
        now = f"write keys and the values to try, for example '{_EXAMPLE}'"
        raise RecipeError(error.what, where=error.where, now=now) from error
    return checked_version(document, kind="search space", known=FORMAT_VERSION)


def _outermost(problems: tuple[Problem, ...]) -> list[Problem]:
    """Drop problems inside of a key that has a problem itself."""
    keys = [problem.where.partition(" ")[0] for problem in problems]
    outer_keys = [key.rpartition(".")[0] for key in keys]
    return [each for each, outer in zip(problems, outer_keys, strict=True) if outer not in keys]


def _read_rows(
    document: Document, given: Mapping[str, object], recipe: Recipe
) -> tuple[Space, list[Problem]]:
    rows, others = given["rows"], [key for key in given if key != "rows"]
    problems = [
        Problem(key, "is given with rows; a space has rows or keys, not both") for key in others
    ]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        problems.append(
            Problem("rows", "must be a list of trials, like [{model.dropout: 0.2}, {}]")
        )
        return Space(document.source), problems
    for number, row in enumerate(rows, start=1):
        keys = {str(key): _why_not_searched(str(key)) for key in row}
        wrong = [f"{key} {why}" for key, why in keys.items() if why]
        if not wrong and (why := _why_impossible(row, recipe)):
            wrong = [why]
        problems += [Problem(f"row {number}", what) for what in wrong]
    if not problems and len(distinct(rows)) < len(rows):
        problems.append(Problem("rows", "contains a trial twice"))
    return Space(document.source, rows=tuple(rows)), problems


def _read_axes(
    document: Document, given: Mapping[str, object], recipe: Recipe
) -> tuple[Space, list[Problem]]:
    problems: list[Problem] = []
    axes: dict[str, Axis] = {}
    conditions: dict[str, Condition] = {}
    for key, content in given.items():
        try:
            condition, values = _read_condition(content, axes, recipe)
            axes[key] = _read_axis(key, values, condition, recipe)
            if condition:
                conditions[key] = condition
        except ValueError as error:
            problems += [Problem(document.where(key), str(what)) for what in error.args]
    if not axes and not problems:
        problems = [Problem("no key", f"no key to search; write one like {_EXAMPLE}")]
    return Space(document.source, axes, conditions), problems


def _read_condition(
    given: object, axes: Mapping[str, Axis], recipe: Recipe
) -> tuple[Condition, object]:
    """Split an axis into its condition on keys before it, and the rest; raises ValueError.

    A condition on a key that is not searched must hold in the recipe.
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
        raise ValueError(f"depends on {other}: {unknown_key(other)}")
    axis = axes.get(other)
    if axis is None:
        value = dotted_values(recipe)[other]
        if value in wanted:
            return False
        raise ValueError(
            f"depends on {other}, which is {value} in the recipe and not searched above it"
        )
    if not isinstance(axis, Choice):
        raise ValueError(f"depends on {other}, which is a range; a condition needs a choice")
    never = [value for value in wanted if value not in axis.values]
    if never:
        raise ValueError(f"needs {other} to be {never[0]}, which is not among its choices")
    return True


def _read_axis(key: str, given: object, condition: Condition, recipe: Recipe) -> Axis:
    """Read the values of one key; the arguments of ValueError are all its problems."""
    if why := _why_not_searched(key):
        raise ValueError(why)
    axis = _parse_axis(given)
    if field_of(key).annotation is int and isinstance(axis, Range) and axis.kind != "integer":
        raise ValueError("must be an integer; use {integer: [lowest, highest]}, or {choice: [...]}")
    # A key with a condition is tried with values that fulfill the condition.
    others = {other: wanted[0] for other, wanted in condition.items()}
    tried = [_why_impossible({**others, key: value}, recipe) for value in axis.extremes()]
    if problems := dict.fromkeys(why for why in tried if why):
        raise ValueError(*problems)
    return axis


def _why_not_searched(key: str) -> str | None:
    """Return why a key cannot be searched; None if it can."""
    if key in sections():
        return f"is a section; write its keys as {key}.key, like {_EXAMPLE}"
    if key not in dotted_keys():
        return unknown_key(key)
    return _FIXED.get(key)


def _why_impossible(
    values: Values, recipe: Recipe, check: Callable[[Recipe], object] = lambda recipe: None
) -> str | None:
    """Return the problem with values in a recipe; None if they are possible."""
    try:
        check(recipe.replacing(values))
    except UsageError as error:
        return error.problems[0].what if error.problems else f"{error.what}: {error.now}"
    return None


def _parse_axis(given: object) -> Axis:
    kinds = ("choice", *_RANGES)
    if not isinstance(given, dict) or len(given) != 1:
        raise ValueError(f"must be one of {', '.join(kinds)} with its values, like {_EXAMPLE}")
    ((kind, values),) = given.items()
    if kind == "choice":
        return _parse_choice(values)
    if kind in _RANGES:
        return _parse_range(kind, values)
    meant = did_you_mean(str(kind), kinds) or f"; use one of {', '.join(kinds)}"
    raise ValueError(f"unknown kind of values '{kind}'{meant}")


def _parse_choice(values: object) -> Choice:
    if not isinstance(values, list) or not values:
        raise ValueError("choice must be a list of values, like {choice: [10, 20, 30]}")
    texts = [json.dumps(value, default=str) for value in values]
    twice = [text for position, text in enumerate(texts) if text in texts[:position]]
    if twice:
        raise ValueError(f"choice has {twice[0]} twice")
    return Choice(tuple(values))


def _parse_range(kind: RangeKind, values: object) -> Range:
    if not (isinstance(values, list) and len(values) == 2 and all(map(_is_number, values))):
        raise ValueError(f"{kind} must be two numbers, like {{{kind}: {_RANGES[kind]}}}")
    low, high = map(float, values)
    if low >= high:
        raise ValueError(f"{kind} must be ascending, got [{low:g}, {high:g}]")
    if kind == "log_uniform" and low <= 0:
        raise ValueError(f"log_uniform must start above 0, got {low:g}")
    if kind != "integer":
        return Range(kind, low, high)
    if not (low.is_integer() and high.is_integer()):
        raise ValueError(f"integer must be two integers, got [{low:g}, {high:g}]")
    return Range(kind, int(low), int(high))


def _is_number(value: object) -> bool:
    # No recipe value is larger; this also excludes infinity and NaN.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _check_together(
    space: Space, recipe: Recipe, check: Callable[[Recipe], object]
) -> list[Problem]:
    """Return the problems of points that are impossible together, or that fail the check.

    All points of a grid are tried; in other spaces, the extremes of each key and pair of keys.
    """
    is_grid = not space.ranges and space.num_points() <= MAX_GRID_POINTS
    found: dict[str, Problem] = {}
    for values in distinct(space.grid() if is_grid else _extreme_points(space)):
        why = _why_impossible(values, recipe, check)
        if why is not None and why not in found:
            found[why] = Problem(", ".join(f"{key}={values[key]}" for key in values), why)
    return list(found.values())


def _extreme_points(space: Space) -> Iterator[Values]:
    for key, axis in space.axes.items():
        for value in axis.extremes():
            yield space.keep_active({key: value})
    for (first, one), (second, other) in combinations(space.axes.items(), 2):
        for ends in product(one.extremes(), other.extremes()):
            yield space.keep_active(dict(zip((first, second), ends, strict=True)))
