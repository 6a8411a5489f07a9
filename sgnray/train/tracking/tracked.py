"""All that follows a run, in the driver's process: its curves and the trackers it asks for."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sgnray.checkpoints.run_folder import RunFolder
from sgnray.config import Recipe
from sgnray.errors import SgnError
from sgnray.evaluate.report import Report
from sgnray.train.tracking.curves import Curves
from sgnray.train.tracking.trackers import Metrics, MLflow, TensorBoard, Tracker, WeightsAndBiases

log = logging.getLogger(__name__)

_KINDS: dict[str, type[Tracker]] = {
    "curves": Curves,
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}
# Nothing leaves the machine unasked, and a server that is gone must not hold up the training.
_MANNERS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
}


@contextmanager
def tracked(recipe: Recipe, run: RunFolder, history: Sequence[Metrics]) -> Iterator[Trackers]:
    """Have the run followed, from the epochs in `history` on.

    SgnError where a tracker does not start. A run that ends without `finish` was cut short.
    """
    trackers = Trackers()
    try:
        trackers.start(recipe, run, history)
        yield trackers
    finally:
        trackers.finish(None)


class Trackers:
    """The trackers of a run. One that fails is told of once, and left out from then on."""

    def __init__(self) -> None:
        self._active: dict[str, Tracker] = {}
        self._num_logged: dict[str, int] = {}

    def start(self, recipe: Recipe, run: RunFolder, history: Sequence[Metrics]) -> None:
        """Start what the recipe asks for; SgnError where that fails."""
        for name, value in _MANNERS.items():
            os.environ.setdefault(name, value)
        for name in ("curves", *recipe.train.log):
            tracker = _KINDS[name]()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what libraries find in one another
                    self._num_logged[name] = tracker.start(recipe, run, history)
            except Exception as failure:
                raise SgnError(
                    f"{name} does not start: {_reason(failure)}",
                    where="train.log",
                    now="mend it, or leave it out of train.log: the run stays the same",
                ) from failure
            self._active[name] = tracker
        self.log(history)

    def log(self, history: Sequence[Metrics]) -> None:
        """Log what is new in the metrics of all epochs; an epoch done again counts once."""
        for name, tracker in list(self._active.items()):
            with self._guarded(name):
                while self._num_logged[name] < len(history):
                    epoch = self._num_logged[name] + 1
                    tracker.log(epoch, history[epoch - 1])
                    self._num_logged[name] = epoch

    def finish(self, report: Report | None) -> None:
        """Close all; without a report the run was cut short."""
        for name, tracker in list(self._active.items()):
            with self._guarded(name):
                tracker.finish(report)
        self._active.clear()

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Training is worth more than what shows it."""
        try:
            yield
        except Exception as failure:
            del self._active[name]
            log.warning("%s fails and is left out: %s", name, _reason(failure))
            log.debug("how %s failed", name, exc_info=failure)


def _reason(failure: Exception) -> str:
    """Say in one line why a library failed."""
    lines = str(failure).strip().splitlines()
    return lines[0] if lines else type(failure).__name__
