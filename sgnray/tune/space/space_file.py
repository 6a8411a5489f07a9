"""Search spaces in YAML: dotted recipe keys, each with one kind of values to try.

    optim.learning_rate: {log_uniform: [3e-4, 3e-3]}
    optim.warmup_epochs: {choice: [0, 5], when: {optim.schedule: cosine}}

or `rows:`, a list of trials. Everything is checked against the recipe before the first trial, and
all problems are told at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import get_args

from sgnray.config import Recipe
from sgnray.config.document import Document, checked_version, read_document, read_file
from sgnray.config.messages import did_you_mean
from sgnray.errors import Problem, RecipeError
from sgnray.tune.space.space import (
    FORMAT_VERSION,
    Axis,
    Choice,
    Condition,
    Integer,
    LogUniform,
    SearchWay,
    Space,
    Uniform,
)
from sgnray.tune.space.space_checks import (
    EXAMPLE,
    check_key,
    check_together,
    read_condition,
    read_rows,
    why_impossible,
)

_WAYS = get_args(SearchWay)


def load_space(name_or_path: str, recipe: Recipe) -> Space:
    """Read a shipped space or a .yaml file, and try its values in the recipe.

    RecipeError lists every problem at once: unknown keys, malformed ranges, impossible values,
    and values that are impossible together.
    """
    document = _read(name_or_path)
    problems = _outermost(document.problems)
    given = {str(key): value for key, value in document.content.items()}
    given.pop("format_version", None)
    search = given.pop("search", "random")
    if search not in _WAYS:
        problems.append(Problem("search", f"must be one of {', '.join(_WAYS)}"))
    if "rows" in given:
        space, found = read_rows(document.source, given, recipe)
    else:
        space, found = _read_axes(document, given, recipe)
    problems += found
    if not problems:
        space = replace(space, search="grid" if space.rows else search)
        problems = check_together(space, recipe)
    if problems:
        raise refused(document.source, problems)
    return space


def refused(source: str, problems: Sequence[Problem]) -> RecipeError:
    """Build the error that tells all that is wrong with a space."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return RecipeError(
        f"the search space {source} has {count}",
        where=source,
        now="correct them; 'sgn train --recipe ntu60-cs --dry-run' shows every key",
        problems=problems,
    )


def _read_axes(
    document: Document, given: dict[str, object], recipe: Recipe
) -> tuple[Space, list[Problem]]:
    problems: list[Problem] = []
    axes: dict[str, Axis] = {}
    conditions: dict[str, Condition] = {}
    for key, content in given.items():
        try:
            condition, rest = read_condition(content, axes, recipe)
            axes[key] = _read_axis(key, rest, condition, recipe)
            if condition:
                conditions[key] = condition
        except ValueError as error:
            line = document.lines.get(key)
            where = f"{key} (line {line})" if line else key
            problems += [Problem(where, str(what)) for what in error.args]
    if not axes and not problems:
        problems = [Problem("no key", f"there is nothing to search; write {EXAMPLE}")]
    return Space(document.source, axes, conditions), problems


def list_spaces() -> tuple[str, ...]:
    """List the names of the shipped search spaces."""
    shipped = resources.files("sgnray.conf.tune").iterdir()
    return tuple(sorted(item.name[:-5] for item in shipped if item.name.endswith(".yaml")))


def _read(name_or_path: str) -> Document:
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        path = Path(name_or_path).expanduser()
        text = read_file(path, kind="search space", shipped=list_spaces())
    elif name_or_path in list_spaces():
        shipped = resources.files("sgnray.conf.tune").joinpath(f"{name_or_path}.yaml")
        text = shipped.read_text(encoding="utf-8")
    else:
        raise RecipeError(
            f"there is no search space called '{name_or_path}'"
            f"{did_you_mean(name_or_path, list_spaces())}",
            where=f"shipped search spaces: {', '.join(list_spaces())}",
            now="take one of these, or give the path of a .yaml file",
        )
    try:
        document = read_document(text, source=name_or_path)
    except RecipeError as error:
        now = f"write keys and the values to try, for example '{EXAMPLE}'"
        raise RecipeError(error.what, where=error.where, now=now) from error
    return checked_version(document, kind="search space", known=FORMAT_VERSION)


def _outermost(problems: tuple[Problem, ...]) -> list[Problem]:
    """Leave out what is wrong inside of a key that is wrong as a whole."""
    keys = [problem.where.partition(" ")[0] for problem in problems]
    inside = [key.rpartition(".")[0] in keys for key in keys]
    return [problem for problem, is_inside in zip(problems, inside, strict=True) if not is_inside]


def _read_axis(key: str, given: object, condition: Condition, recipe: Recipe) -> Axis:
    """Read what to try for one key; ValueError holds all that is wrong with it."""
    check_key(key)
    axis = _parse_axis(given)
    # A key with a condition is tried where it holds.
    there = {other: wanted[0] for other, wanted in condition.items()}

    def impossible(value: object) -> str | None:
        return why_impossible({**there, key: value}, recipe)

    problems = [what for value in axis.extremes() if (what := impossible(value))]
    if (
        problems
        and isinstance(axis, Uniform | LogUniform)
        and not _takes_fractions(axis, impossible)
    ):
        problems = ["must be an integer; say {integer: [lowest, highest]}, or {choice: [...]}"]
    if problems:
        raise ValueError(*dict.fromkeys(problems))
    return axis


def _parse_axis(given: object) -> Axis:
    if not isinstance(given, dict) or len(given) != 1:
        raise ValueError(f"must be one of {', '.join(_KINDS)} with its values, like {EXAMPLE}")
    ((kind, values),) = given.items()
    if kind not in _KINDS:
        meant = did_you_mean(str(kind), _KINDS) or f"; there are {', '.join(_KINDS)}"
        raise ValueError(f"'{kind}' is no way to search{meant}")
    return _KINDS[kind](values)


def _choice(values: object) -> Axis:
    if not isinstance(values, list) or not values:
        raise ValueError("choice must be a list of values, like {choice: [10, 20, 30]}")
    texts = [json.dumps(value, default=str) for value in values]
    twice = [text for position, text in enumerate(texts) if text in texts[:position]]
    if twice:
        raise ValueError(f"choice holds {twice[0]} twice")
    return Choice(tuple(values))


def _uniform(values: object) -> Axis:
    return Uniform(*_ends("uniform", "[0, 0.5]", values))


def _log_uniform(values: object) -> Axis:
    low, high = _ends("log_uniform", "[1e-4, 1e-2]", values)
    if low <= 0:
        raise ValueError(f"log_uniform must begin above 0, got {low:g}")
    return LogUniform(low, high)


def _integer(values: object) -> Axis:
    low, high = _ends("integer", "[10, 30]", values)
    if not (low.is_integer() and high.is_integer()):
        raise ValueError(f"integer must be two integers, got [{low:g}, {high:g}]")
    return Integer(int(low), int(high))


_KINDS: dict[str, Callable[[object], Axis]] = {
    "choice": _choice,
    "uniform": _uniform,
    "log_uniform": _log_uniform,
    "integer": _integer,
}


def _ends(kind: str, example: str, values: object) -> tuple[float, float]:
    is_pair = isinstance(values, list) and len(values) == 2 and all(map(_is_number, values))
    if not is_pair:
        raise ValueError(f"{kind} must be two numbers, like {{{kind}: {example}}}")
    assert isinstance(values, list)
    low, high = float(values[0]), float(values[1])
    if low >= high:
        raise ValueError(f"{kind} must be ascending, got [{low:g}, {high:g}]")
    return low, high


def _is_number(value: object) -> bool:
    # Beyond that there is no recipe value; it also keeps out infinity and what is not a number.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _takes_fractions(
    axis: Uniform | LogUniform, impossible: Callable[[object], str | None]
) -> bool:
    """Tell whether the key's type, not the size of the numbers, refuses the ends."""
    whole = max(1, round(axis.high))
    return impossible(whole) is not None or impossible(float(whole)) is None
