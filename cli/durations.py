"""Lengths of time as people write them: 90s, 45m, 8h, and back."""

from __future__ import annotations

import re
from datetime import timedelta

from sgnray.errors import UsageError

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TEXT = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd])")


def parse_duration(text: str, option: str) -> float:
    """Return seconds; UsageError for what is no length of time, or none at all."""
    found = _TEXT.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if seconds <= 0:
        raise UsageError(
            f"'{text}' is no length of time",
            where=option,
            now=f"give a number and a unit, like {option} 90s, 45m or 8h",
        )
    return seconds


def duration(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))
