"""skipped.csv: each raw file or clip that was left out of a dataset, and why."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgnray.errors import InputError

_HEADER = ["file", "reason"]
_MAX_CELL = 10_000  # characters


@dataclass(frozen=True)
class Skipped:
    """A raw file or clip that was left out, and why; `place` is its location, if recorded."""

    name: str
    reason: str
    place: str = ""


@dataclass(frozen=True)
class SkippedContent:
    """How many raw files were left out for one reason, and one of them."""

    reason: str
    num_files: int
    example: str


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write skipped.csv, in the order given."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADER)
        writer.writerows((_to_cell(item.name), _to_cell(item.reason)) for item in skipped)


def _to_cell(text: str) -> str:
    """Change a text that csv writes, but cannot read: too long, or with a bare carriage return."""
    shown = text if len(text) <= _MAX_CELL else f"{text[:_MAX_CELL]}..."
    return shown.replace("\r", "\\r")


def read_skipped(path: Path) -> tuple[Skipped, ...]:
    """Read skipped.csv; InputError if it is missing, cut off or invalid."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, strict=True))
    except FileNotFoundError as error:
        raise _corrupt(path, "it is missing") from error
    except (OSError, ValueError, csv.Error) as error:
        raise _corrupt(path, str(error)) from error
    if not rows or rows[0] != _HEADER:
        raise _corrupt(path, "it does not begin with file,reason")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(_HEADER):
            raise _corrupt(path, f"row {number} has {len(row)} of {len(_HEADER)} fields")
    return tuple(Skipped(name, reason) for name, reason in rows[1:])


def count_reasons(skipped: Sequence[Skipped]) -> tuple[SkippedContent, ...]:
    """Count files by reason, the most frequent first."""
    example = {item.reason: item.name for item in reversed(skipped)}
    counts = Counter(item.reason for item in skipped)
    return tuple(SkippedContent(why, count, example[why]) for why, count in counts.most_common())


def _corrupt(path: Path, detail: str) -> InputError:
    return InputError(
        f"the list of skipped files cannot be read: {detail}",
        where=str(path),
        now="prepare the dataset again: sgn prepare --raw PATH --overwrite",
    )
