"""The messages between the driver and a trial; Ray sends them as dicts."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from sgnray import metric_keys as keys
from sgnray.errors import SgnError
from sgnray.tune.space.space import Values

# The fields of a report by which Ray's scheduler compares trials.
EPOCH_KEY, SCORE_KEY = "epoch", "score"
_MAX_REASON = 300


class TrialConfig(TypedDict):
    """The trial that a worker trains; numbers count from 1."""

    number: int
    values: Values


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

    @property
    def metrics(self) -> dict[str, float]:
        """What is known of the epoch, by the keys of metric_keys."""
        known = {
            keys.TRAIN_LOSS: self.train_loss,
            keys.VAL_LOSS: self.val_loss,
            keys.VAL_TOP1: self.score,
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
