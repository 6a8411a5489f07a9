"""What happens in a search, and record.jsonl, from which the same command goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sgnray.errors import RunError
from sgnray.storage.atomic import output_errors
from sgnray.tune.space.space import Values


@dataclass(frozen=True)
class Started:
    """A trial begins, or begins again, with these values."""

    number: int
    values: Values


@dataclass(frozen=True)
class Reported:
    """A trial did an epoch, counted from 1; `duration_s` is what all its epochs took so far."""

    number: int
    epoch: int
    score: float
    spread: float | None = None
    duration_s: float = 0.0
    num_parameters: int = 0
    flops: int = 0
    node: str = ""


@dataclass(frozen=True)
class Ended:
    """Nothing more will come from a trial."""

    number: int
    status: Literal["finished", "stopped", "failed"]
    error: str | None = None


Event = Started | Reported | Ended
_KINDS: dict[str, type[Event]] = {"started": Started, "reported": Reported, "ended": Ended}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True)
class Record:
    """The events of a search on disk, one JSON object a line; lines are only ever added."""

    path: Path

    def read(self) -> list[Event]:
        """Return all events; the last line may be torn by a kill. RunError where another is."""
        if not self.path.exists():
            return []
        return list(self._events(self.path.read_bytes()))

    def add(self, event: Event) -> None:
        """Write one event, whole: it survives the death of this process from here on."""
        line = json.dumps({"event": _NAMES[type(event)], **asdict(event)}) + "\n"
        with output_errors(self.path), self.path.open("ab") as file:
            file.write(line.encode())

    def mend(self) -> None:
        """Cut a torn last line off, so that the next event begins a line of its own."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with output_errors(self.path):
                os.truncate(self.path, whole)

    def _events(self, data: bytes) -> Iterator[Event]:
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                yield _parse(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise RunError(
                    f"line {number} of the search's record is none of its events",
                    where=str(self.path),
                    now="remove that line, or search under another --name",
                ) from error


def _parse(content: Any) -> Event:
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    kind = _KINDS[content.pop("event")]
    return kind(**content)
