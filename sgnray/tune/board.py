"""How the trials of a search stand, and which one is the best."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sgnray.tune.plan import Plan

Status = Literal["waiting", "running", "finished", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class TrialRow:
    """One trial: `stopped` means that ASHA ended it early, `failed` that it raised `error`.

    `score` is the validation top-1 after its last epoch, as a share, and None where the trial has
    no epoch or failed; `best_score` is that of its best epoch, for the curious.
    """

    number: int
    status: Status
    num_epochs: int
    score: float | None
    best_score: float | None
    values: dict[str, Any]
    error: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come from it."""
        return self.status in ("finished", "stopped", "failed")


class Board:
    """All trials of a search as they stand now."""

    def __init__(self, plan: Plan) -> None:
        self._num_epochs = plan.num_epochs
        self._rows = {
            trial.number: TrialRow(trial.number, "waiting", 0, None, None, trial.values)
            for trial in plan.trials
        }

    @property
    def rows(self) -> tuple[TrialRow, ...]:
        """All trials, by number."""
        return tuple(self._rows.values())

    @property
    def progress(self) -> tuple[int, int]:
        """Epochs done, and epochs in all; those that were spared count no longer."""
        done = sum(row.num_epochs for row in self.rows)
        waiting = (self._num_epochs - row.num_epochs for row in self.rows if not row.has_ended)
        return done, done + sum(waiting)

    def reported(self, number: int, score: float) -> TrialRow:
        """Note that a trial did one more epoch."""
        row = self._rows[number]
        return self._set(
            replace(
                row,
                status="running",
                num_epochs=row.num_epochs + 1,
                score=score,
                best_score=max(score, row.best_score or 0.0),
            )
        )

    def ended(self, number: int) -> TrialRow:
        """Note that a trial came to its end, or was stopped before it."""
        row = self._rows[number]
        status: Status = "finished" if row.num_epochs >= self._num_epochs else "stopped"
        return self._set(replace(row, status=status))

    def failed(self, number: int, error: str) -> TrialRow:
        """Note that a trial raised an error."""
        row = self._rows[number]
        return self._set(replace(row, status="failed", score=None, error=error))

    def interrupt(self) -> None:
        """Note that nothing more will come from the trials that are under way."""
        for row in self.rows:
            if row.status == "running":
                self._set(replace(row, status="interrupted"))

    def _set(self, row: TrialRow) -> TrialRow:
        self._rows[row.number] = row
        return row


def rank(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Order trials, the best first.

    Those that went furthest lead, for scores compare after the same number of epochs only; among
    them the score after the last epoch decides, since it is the last epoch that training keeps.
    """
    return sorted(
        rows,
        key=lambda row: (row.score is None, -row.num_epochs, -(row.score or 0.0), row.number),
    )


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the best of the trials that ended well, or None where none did."""
    ended = [row for row in rows if row.has_ended and row.score is not None]
    return rank(ended)[0] if ended else None


def as_csv(rows: Sequence[TrialRow]) -> str:
    """Write the trials as CSV: one column for each searched key."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(rows[0].values)
    writer.writerow(["trial", "status", "epochs", "best_val_top1", "last_val_top1", *keys, "error"])
    for row in rows:
        values = [_cell(row.values[key]) for key in keys]
        scores = [_cell(row.best_score), _cell(row.score)]
        writer.writerow([row.number, row.status, row.num_epochs, *scores, *values, row.error or ""])
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
