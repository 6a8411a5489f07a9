"""Error messages for a recipe: one row per key, with suggestions for unknown keys."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Literal, get_args, get_origin

from pydantic import ValidationError

from sgnray.config.schema import Expected, dotted_keys, field_of, sections
from sgnray.errors import Problem

COMMAND_LINE = "command line"  # the origin of an override
_WARMUP, _EPOCHS = "optim.warmup_epochs", "train.num_epochs"


def explain(error: ValidationError, *, origins: Mapping[str, str]) -> list[Problem]:
    """Report every problem of a recipe once; `origins` says where a dotted key was written."""
    rows: dict[str, Problem] = {}
    for detail in error.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in detail["loc"][:2])
        unknown = detail["type"] == "extra_forbidden"
        what = (
            unknown_key(key) if unknown else _wrong_value(key, detail["input"], len(detail["loc"]))
        )
        origin = origins.get(key)
        rows.setdefault(key, Problem(f"{key} ({origin})" if origin else key, what))
    return list(rows.values())


def explain_together(data: Mapping[str, object], *, origins: Mapping[str, str]) -> list[Problem]:
    """Report keys that contradict each other, unless one of them is invalid by itself.

    So far the only such pair is the epochs of the warmup and of the run.
    If only one of them was set on the command line, the problem is reported for that key.
    """
    warmup, epochs = _value(data, _WARMUP), _value(data, _EPOCHS)
    if warmup is None or epochs is None or not 0 < epochs <= warmup:
        return []
    if origins.get(_EPOCHS) == COMMAND_LINE != origins.get(_WARMUP):
        key, what = _EPOCHS, f"must be more than {_WARMUP}, which is {warmup}, got {epochs}"
    else:
        key, what = _WARMUP, f"must be less than {_EPOCHS}, which is {epochs}, got {warmup}"
    origin = origins.get(key)
    return [Problem(f"{key} ({origin})" if origin else key, what)]


def unknown_key(key: str) -> str:
    """Report an unknown key, and suggest the one that may be meant."""
    kind = "unknown key" if "." in key else "unknown section"
    section, _, leaf = key.rpartition(".")
    # The most common mistake is a valid name in the wrong section, or without its section.
    by_leaf = {name.rpartition(".")[2]: name for name in dotted_keys()}
    if leaf not in by_leaf and section in sections():
        own = difflib.get_close_matches(leaf, sections()[section].model_fields, n=1, cutoff=0.5)
        if own:
            return f"{kind}; did you mean {section}.{own[0]}?"
    if not section:
        by_leaf |= {name: name for name in sections()}
    if close := difflib.get_close_matches(leaf, by_leaf, n=1, cutoff=0.7):
        return f"{kind}; did you mean {by_leaf[close[0]]}?"
    section = key.partition(".")[0]
    if section in sections():
        return f"{kind}; {section} has {', '.join(sections()[section].model_fields)}"
    return f"{kind}; a recipe has {', '.join(sections())}"


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return '; did you mean X?', or nothing if no choice is close."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _value(data: Mapping[str, object], key: str) -> int | None:
    """Return an integer of the recipe, or its default; None for anything else."""
    section, _, name = key.partition(".")
    values = data.get(section, {})
    value = values.get(name, field_of(key).default) if isinstance(values, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _wrong_value(key: str, given: object, depth: int) -> str:
    if "." not in key:
        return f"must be a section with keys, got {_show(given)}"
    field = field_of(key)
    got = "" if depth > 2 else f", got {_show(given)}"
    if get_origin(field.annotation) is Literal:
        choices = get_args(field.annotation)
        meant = did_you_mean(given, choices) if isinstance(given, str) else ""
        return f"must be one of {', '.join(choices)}{got}{meant}"
    (words,) = (item.words for item in field.metadata if isinstance(item, Expected))
    return f"must be {words}{got}"


def _show(value: object) -> str:
    if value is None:
        return "nothing"
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
