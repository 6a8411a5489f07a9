"""The trials of a search: what they report, record.jsonl from which it resumes, and their ranking.

A worker sends an `EpochReport` or a `FailureReport`, which Ray carries as a dict. The search turns
it into an event. `Record` keeps the events on disk, `TrialTable` applies them to the `TrialRow`s.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from sgnray import metric_keys as keys
from sgnray.errors import RunError, SgnError
from sgnray.storage.atomic import output_errors
from sgnray.tune.space import Values

Status = Literal["running", "finished", "stopped", "failed", "interrupted"]
# The fields of a report by which Ray's scheduler compares trials.
EPOCH_KEY, SCORE_KEY = "epoch", "score"
_MAX_REASON = 300


@dataclass(frozen=True)
class EpochReport:
    """One epoch of a trial, counted from 1: means over its folds and seeds.

    `spread` is the score's standard deviation over seeds, None with one seed; `duration_s` is the
    training time of all epochs so far. `placement_group` holds the CPUs of a trial with several
    workers, for the driver to release.
    """

    epoch: int
    score: float
    spread: float | None = None
    duration_s: float = 0.0
    num_parameters: int = 0
    flops: int = 0
    node: str = ""
    train_loss: float | None = None
    val_loss: float | None = None
    placement_group: str | None = None
    clips_per_s: float | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """What is known of the epoch, by the keys of metric_keys."""
        known = {
            keys.TRAIN_LOSS: self.train_loss,
            keys.VAL_LOSS: self.val_loss,
            keys.VAL_TOP1: self.score,
            keys.CLIPS_PER_S: self.clips_per_s,
        }
        return {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True)
class FailureReport:
    """The exception that ended a trial: in one line, and as a traceback."""

    reason: str
    traceback: str
    # The scheduler reads these fields of every report.
    epoch: int = 0
    score: float = 0.0

    @classmethod
    def of(cls, error: Exception) -> FailureReport:
        """Describe an exception."""
        text = "".join(traceback.format_exception(error))
        if isinstance(error, SgnError):
            return cls(f"{error.what} ({error.where})", text)
        message = " ".join(str(error).split())
        return cls(f"{type(error).__name__}: {message}"[:_MAX_REASON], text)


def read_result(result: Mapping[str, Any]) -> EpochReport | FailureReport:
    """Read the report of a trial; Ray adds keys of its own."""
    kind = FailureReport if "traceback" in result else EpochReport
    return kind(**{each.name: result[each.name] for each in fields(kind)})


@dataclass(frozen=True)
class Started:
    """A trial starts, or restarts, with these values; a worker trains it. Numbers count from 1."""

    number: int
    values: Values


@dataclass(frozen=True)
class Reported:
    """A trial finished an epoch."""

    number: int
    report: EpochReport


@dataclass(frozen=True)
class Ended:
    """A trial reports nothing more."""

    number: int
    status: Literal["finished", "stopped", "failed"]
    error: str | None = None


Event = Started | Reported | Ended


@dataclass(frozen=True)
class Record:
    """The events of a search on disk, one JSON object per line; lines are only appended."""

    path: Path

    def read(self) -> list[Event]:
        """Return all events; RunError if a line is invalid.

        A last line that was cut off is removed, so that the next event starts a new line.
        """
        data = self.path.read_bytes() if self.path.exists() else b""
        complete = data[: data.rfind(b"\n") + 1]
        if len(complete) < len(data):
            with output_errors(self.path):
                os.truncate(self.path, len(complete))
        events: list[Event] = []
        started: set[int] = set()
        for number, line in enumerate(complete.splitlines(), start=1):
            try:
                event = _from_content(json.loads(line))
                if isinstance(event, Started):
                    started.add(event.number)
                elif event.number not in started:
                    raise ValueError(f"trial {event.number} has not started")
                events.append(event)
            except (ValueError, TypeError, KeyError) as error:
                raise RunError(
                    f"line {number} of the search's record is not a valid event",
                    where=str(self.path),
                    now="remove that line, or search under another --name",
                ) from error
        return events

    def add(self, event: Event) -> None:
        """Append one event, which then survives a kill of this process."""
        line = json.dumps(_to_content(event)) + "\n"
        with output_errors(self.path), self.path.open("ab") as file:
            file.write(line.encode())


# The fields of a report that are recorded, for the results and the scheduler.
_RECORDED = ("epoch", "score", "spread", "duration_s", "num_parameters", "flops", "node")


def _to_content(event: Event) -> dict[str, Any]:
    if isinstance(event, Reported):
        recorded = {name: getattr(event.report, name) for name in _RECORDED}
        return {"event": "reported", "number": event.number, **recorded}
    return {"event": "started" if isinstance(event, Started) else "ended", **asdict(event)}


def _from_content(content: Any) -> Event:
    known = dict(content)
    match known.pop("event"):
        case "started":
            return Started(**known)
        case "reported":
            return Reported(known.pop("number"), EpochReport(**known))
        case "ended":
            return Ended(**known)
        case other:
            raise ValueError(f"unknown event {other}")


@dataclass(frozen=True)
class TrialRow:
    """One trial: `stopped` means that ASHA ended it early, `failed` that it raised `error`.

    `scores` are the validation top-1 after each epoch, as shares: means over folds and seeds.
    `spread` is the standard deviation of the last one over seeds, None with one seed. `flops` are
    those of one clip's forward pass. A key missing from `values` has the recipe's value.
    """

    number: int
    status: Status
    values: Values
    scores: tuple[float, ...] = ()
    spread: float | None = None
    duration_s: float = 0.0
    num_parameters: int = 0
    flops: int = 0
    node: str = ""
    error: str | None = None

    @property
    def num_epochs(self) -> int:
        """Epochs done."""
        return len(self.scores)

    @property
    def score(self) -> float | None:
        """The score after the last epoch; None before the first one, and if the trial failed."""
        return self.scores[-1] if self.scores and self.status != "failed" else None

    @property
    def best_score(self) -> float | None:
        """The score of the best epoch."""
        return max(self.scores) if self.score is not None else None

    @property
    def has_ended(self) -> bool:
        """Whether it reports nothing more."""
        return self.status in ("finished", "stopped", "failed")


class TrialTable:
    """All trials of a search that were started, kept up to date by their events."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._rows: dict[int, TrialRow] = {}
        for event in events:
            self.apply(event)
        self.interrupt()

    @property
    def rows(self) -> tuple[TrialRow, ...]:
        """All trials that were started, by number."""
        return tuple(self._rows[number] for number in sorted(self._rows))

    def row(self, number: int) -> TrialRow:
        """Return one trial."""
        return self._rows[number]

    def apply(self, event: Event) -> TrialRow:
        """Apply an event, and return the updated trial."""
        match event:
            case Started(number, values):
                # A restarted trial keeps its epochs; its first report says where it resumes.
                before = self._rows.get(number, TrialRow(number, "running", values))
                row = replace(before, status="running", values=values, error=None)
            case Reported(number, report):
                before = self._rows[number]
                row = replace(
                    before,
                    status="running",
                    # An epoch that is repeated after a lost worker replaces the first.
                    scores=(*before.scores[: report.epoch - 1], report.score),
                    spread=report.spread,
                    duration_s=report.duration_s,
                    num_parameters=report.num_parameters,
                    flops=report.flops,
                    node=report.node,
                )
            case Ended(number, status, error):
                row = replace(self._rows[number], status=status, error=error)
        self._rows[row.number] = row
        return row

    def interrupt(self) -> None:
        """Mark the running trials as interrupted."""
        for number, row in self._rows.items():
            if row.status == "running":
                self._rows[number] = replace(row, status="interrupted")


def rank(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Order trials, the best first.

    Trials with more epochs come first, because scores are only comparable after the same number of
    epochs. Then the score after the last epoch decides, since training keeps the last epoch.
    """
    return sorted(
        rows,
        key=lambda row: (row.score is None, -row.num_epochs, -(row.score or 0.0), row.number),
    )


def best_first(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Order the trials that ended without an error."""
    return rank([row for row in rows if row.has_ended and row.score is not None])


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the best of the trials that ended without an error, or None."""
    return next(iter(best_first(rows)), None)


def comparable(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the trials with the most epochs: only their scores are comparable."""
    most = max((row.num_epochs for row in rows), default=0)
    return [row for row in rows if row.num_epochs == most and row.score is not None]
