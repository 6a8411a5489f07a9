"""How the trials of a search stand, and which one is the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sgnray.tune.space.space import Values
from sgnray.tune.state.events import Ended, Event, Reported, Started

Status = Literal["waiting", "running", "finished", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class TrialRow:
    """One trial: `stopped` means that ASHA ended it early, `failed` that it raised `error`.

    `scores` are the validation top-1 after each epoch, as shares: means over folds and seeds.
    `spread` is the standard deviation of the last one over seeds, None with one seed. `flops` are
    those of one clip's forward pass. A key that is absent from `values` has the recipe's own value.
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
        """The score after the last epoch; None before the first one, and where it failed."""
        return self.scores[-1] if self.scores and self.status != "failed" else None

    @property
    def best_score(self) -> float | None:
        """The score of the best epoch, for the curious."""
        return max(self.scores) if self.score is not None else None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come from it."""
        return self.status in ("finished", "stopped", "failed")


class TrialTable:
    """All trials of a search that were begun, as their events tell."""

    def __init__(self, num_trials: int, num_epochs: int, events: Iterable[Event] = ()) -> None:
        self.num_trials = num_trials
        self.num_epochs = num_epochs
        self._rows: dict[int, TrialRow] = {}
        for event in events:
            self.apply(event)
        self.interrupt()

    @property
    def rows(self) -> tuple[TrialRow, ...]:
        """All trials that were begun, by number."""
        return tuple(self._rows[number] for number in sorted(self._rows))

    def row(self, number: int) -> TrialRow:
        """Return one trial."""
        return self._rows[number]

    @property
    def progress(self) -> tuple[int, int]:
        """Epochs done, and epochs in all; those that were spared count no longer."""
        done = sum(row.num_epochs for row in self.rows)
        missing = sum(self.num_epochs - row.num_epochs for row in self.rows if not row.has_ended)
        not_begun = max(0, self.num_trials - len(self._rows))
        return done, done + missing + not_begun * self.num_epochs

    def apply(self, event: Event) -> TrialRow:
        """Take an event in, and return the trial as it stands then."""
        match event:
            case Started(number, values):
                # Begun again, it keeps what it has: its first report tells where it goes on.
                before = self._rows.get(number, TrialRow(number, "running", values))
                row = replace(before, status="running", values=values, error=None)
            case Reported():
                row = self._reported(event)
            case Ended(number, status, error):
                row = replace(self._rows[number], status=status, error=error)
        self._rows[row.number] = row
        return row

    def interrupt(self) -> None:
        """Note that nothing more will come from the trials that are under way."""
        for number, row in self._rows.items():
            if row.status == "running":
                self._rows[number] = replace(row, status="interrupted")

    def _reported(self, event: Reported) -> TrialRow:
        row = self._rows[event.number]
        return replace(
            row,
            status="running",
            # An epoch that is done again, after a lost worker, takes the place of the first.
            scores=(*row.scores[: event.epoch - 1], event.score),
            spread=event.spread,
            duration_s=event.duration_s,
            num_parameters=event.num_parameters,
            flops=event.flops,
            node=event.node,
        )


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
