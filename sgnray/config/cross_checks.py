"""Keys of a recipe that must fit each other, each of them being possible alone."""

from __future__ import annotations

from collections.abc import Mapping

from sgnray.config.messages import sections
from sgnray.errors import Problem

_WARMUP, _EPOCHS = "optim.warmup_epochs", "train.num_epochs"


def explain_together(
    data: Mapping[str, object], *, origins: Mapping[str, str], command_line: str
) -> list[Problem]:
    """Tell which keys do not fit each other; those that are wrong alone are left out.

    Blames the key that was changed on the command line, where only one of them was.
    """
    warmup, epochs = _value(data, _WARMUP), _value(data, _EPOCHS)
    if warmup is None or epochs is None or not 0 < epochs <= warmup:
        return []
    if origins.get(_EPOCHS) == command_line != origins.get(_WARMUP):
        key, what = _EPOCHS, f"must be more than {_WARMUP}, which is {warmup}, got {epochs}"
    else:
        key, what = _WARMUP, f"must be less than {_EPOCHS}, which is {epochs}, got {warmup}"
    origin = origins.get(key)
    return [Problem(f"{key} ({origin})" if origin else key, what)]


def _value(data: Mapping[str, object], key: str) -> int | None:
    """Return a whole number of the recipe or its default; None for anything else."""
    section, _, name = key.partition(".")
    values = data.get(section, {})
    default = sections()[section].model_fields[name].default
    value = values.get(name, default) if isinstance(values, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
