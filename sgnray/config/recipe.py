"""Recipes: YAML with one level of `base`, `section.key=value` on top, checked as a whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sgnray.config.document import (
    Document,
    checked_version,
    is_path,
    list_shipped,
    read_document,
    read_named,
    read_value,
)
from sgnray.config.messages import COMMAND_LINE, explain, explain_together, unknown_key
from sgnray.config.schema import (
    RENAMED_KEYS,
    NotHashed,
    RecipeSections,
    dotted_keys,
    field_of,
    sections,
)
from sgnray.errors import Problem, RecipeError, count_problems

FORMAT_VERSION = 1
_PACKAGE = "sgnray.conf"
CUSTOM = "custom"  # the dataset and the case of recipes for any data
_HEADER_KEYS = ("base", "format_version")


class Recipe(RecipeSections):
    """Everything that decides a training run, except the dataset itself and the machines."""

    def replacing(self, values: Mapping[str, Any], *, source: str = "the recipe") -> Recipe:
        """Return a recipe with other values for dotted keys such as `train.precision`.

        RecipeError names `source` and lists every invalid value.
        """
        data = to_dict(self)
        for key, value in values.items():
            section, _, name = key.partition(".")
            data[section] = {**data.get(section, {}), name: value}
        return parse_recipe(data, source=source)

    def makes_same_run(self, other: Recipe) -> bool:
        """Return whether both make the same run: the same weights, tested in the same way."""
        return _deciding_values(self) == _deciding_values(other)


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe or a .yaml file, apply `section.key=value`, and check everything.

    RecipeError lists every problem of the file, of its base and of the overrides at once.
    """
    document = _read(str(name_or_path))
    layers = [document]
    if "base" in document.content:
        layers.insert(0, _read_base(document))
    problems = [problem for layer in layers for problem in layer.problems]
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _merge(merged, layer.content)
        is_base = layer is not document
        origins |= {
            RENAMED_KEYS.get(key, key): f"{layer.source} line {line}" if is_base else f"line {line}"
            for key, line in layer.lines.items()
        }
    problems += _apply_overrides(merged, origins, overrides)
    return _validate(merged, source=document.source, origins=origins, problems=problems)


def recipe_for(dataset: str, case: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load the shipped recipe of a dataset and case, or the one for all others."""
    name = f"{dataset}-{case}"
    if name in list_recipes():
        return load_recipe(name, overrides)
    # JSON quotes a name that YAML would take for a number or a truth value.
    own = [f"data.dataset={json.dumps(dataset)}", f"data.case={json.dumps(case)}"]
    return load_recipe(CUSTOM, [*own, *overrides])


def parse_recipe(data: Mapping[str, Any], *, source: str = "the recipe") -> Recipe:
    """Check a resolved recipe that comes from a checkpoint or a run folder."""
    return _validate(_with_present_names(data), source=source, origins={}, problems=[])


def list_recipes() -> tuple[str, ...]:
    """List the names of the shipped recipes."""
    return list_shipped(_PACKAGE)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain data that JSON can hold."""
    return recipe.model_dump(mode="json")


def dotted_values(recipe: Recipe) -> dict[str, Any]:
    """Return the values by dotted key, as plain data that JSON can hold."""
    return {
        f"{section}.{key}": value
        for section, values in to_dict(recipe).items()
        for key, value in values.items()
    }


def recipe_hash(recipe: Recipe) -> str:
    """Return 8 hex digits that change with every value that affects the weights or their test.

    Only values that differ from the defaults count, so that adding a key changes no hash.
    """
    defaults = _deciding_values(Recipe())
    changed = {
        key: value for key, value in _deciding_values(recipe).items() if value != defaults[key]
    }
    text = json.dumps(changed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def dump_recipe(recipe: Recipe) -> str:
    """Write the resolved recipe as YAML that `load_recipe` reads; each key under its help."""
    lines = [f"format_version: {FORMAT_VERSION}"]
    for section, values in to_dict(recipe).items():
        lines += ["", f"{section}:"]
        for key, field in sections()[section].model_fields.items():
            lines.append(f"  # {field.description}")
            lines.append(f"  {key}: {_write_value(values[key])}")
    return "\n".join(lines) + "\n"


def _write_value(value: Any) -> str:
    """Write a value in one line that `read_value` reads."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf).splitlines()[0]
    # By YAML 1.1, the name 1e3 needs no quotes.
    return text if read_value(text) == value else json.dumps(value)


def _deciding_values(recipe: Recipe) -> dict[str, Any]:
    """Return the values that affect the weights or their test, by dotted key."""
    return {
        key: value
        for key, value in dotted_values(recipe).items()
        if NotHashed() not in field_of(key).metadata
    }


def _read(name_or_path: str, *, folder: Path = Path()) -> Document:
    text, source = read_named(name_or_path, kind="recipe", package=_PACKAGE, folder=folder)
    return checked_version(read_document(text, source=source), kind="recipe", known=FORMAT_VERSION)


def _read_base(document: Document) -> Document:
    name = document.content["base"]
    line = f"{document.source}:{document.lines['base']}"
    if not isinstance(name, str):
        raise RecipeError(
            f"base must be the name of a recipe or a path, got {name!r}",
            where=line,
            now="write 'base: ntu60-cs', for example",
        )
    folder = Path(document.source).parent if is_path(document.source) else Path()
    try:
        base = _read(name, folder=folder)
    except RecipeError as error:
        raise RecipeError(
            f"its base cannot be used: {error.what}", where=line, now=error.now
        ) from error
    if "base" in base.content:
        raise RecipeError(
            f"its base {name} also has a base, and only one level is supported",
            where=line,
            now=f"write 'base: {base.content['base']}' and repeat what {name} changes",
        )
    return base


def _merge(merged: dict[str, Any], content: Mapping[str, Any]) -> None:
    for section, values in _with_present_names(content).items():
        if section in _HEADER_KEYS:
            continue
        if values is None:  # a section whose keys are all commented out
            values = {}
        known = merged.setdefault(section, {})
        if isinstance(known, dict) and isinstance(values, dict):
            merged[section] = known | values
        else:
            merged[section] = values


def _with_present_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """Rename old keys; if the new name is also there, the old one stays and is refused later."""
    renamed = dict(content)
    for old, new in RENAMED_KEYS.items():
        section, _, old_name = old.partition(".")
        new_name, values = new.partition(".")[2], renamed.get(section)
        if isinstance(values, dict) and old_name in values and new_name not in values:
            renamed[section] = {
                new_name if key == old_name else key: value for key, value in values.items()
            }
    return renamed


def _apply_overrides(
    merged: dict[str, Any], origins: dict[str, str], overrides: Sequence[str]
) -> list[Problem]:
    problems = []
    for text in overrides:
        key, equals, value = text.partition("=")
        key = RENAMED_KEYS.get(key.strip(), key.strip())
        what = _wrong_override(key, bool(equals))
        if what is None:
            try:
                parsed = read_value(value)
            except ValueError as error:
                what = f"is not a value: {error}"
        if what is not None:
            problems.append(Problem(f"{text} ({COMMAND_LINE})", what))
            continue
        section, _, name = key.partition(".")
        if isinstance(merged.setdefault(section, {}), dict):
            merged[section] = merged[section] | {name: parsed}
        origins[key] = COMMAND_LINE
    return problems


def _wrong_override(key: str, has_equals: bool) -> str | None:
    if not has_equals:
        return (
            "is not section.key=value, like optim.batch_size=32; name a case with --case, a recipe "
            "with --recipe"
        )
    if key in sections():
        return f"is a section; set one of its keys: {', '.join(sections()[key].model_fields)}"
    return None if key in dotted_keys() else unknown_key(key)


def _validate(
    data: dict[str, Any], *, source: str, origins: Mapping[str, str], problems: list[Problem]
) -> Recipe:
    recipe = None
    data = _with_text_keys(data)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems = problems + explain(error, origins=origins)
    problems = problems + explain_together(data, origins=origins)
    if recipe is not None and not problems:
        return recipe
    is_command_line = all(problem.where.endswith(f"({COMMAND_LINE})") for problem in problems)
    place = "the command line" if is_command_line else source
    raise RecipeError(
        f"{place} has {count_problems(problems)}",
        where=f"overrides of {source}" if is_command_line else source,
        now="correct them; 'sgn train --recipe ntu60-cs --dry-run' shows every key",
        problems=problems,
    )


def _with_text_keys(data: Mapping[Any, Any]) -> dict[str, Any]:
    # YAML allows `1: x`; it is reported as an unknown key '1' like any other.
    return {
        str(section): {str(key): value for key, value in values.items()}
        if isinstance(values, dict)
        else values
        for section, values in data.items()
    }
