"""The trackers of a run or a trial in the driver's process: curves, TensorBoard, MLflow, W&B.

Each library is imported by the first run that asks for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

from sgnray import metric_keys as keys
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.config import Recipe, dotted_values, dump_recipe, to_dict
from sgnray.distributed.cluster import set_environment
from sgnray.errors import MissingExtraError, RunError, SgnError, first_line
from sgnray.evaluate.report import Report
from sgnray.metric_keys import Metrics
from sgnray.storage.atomic import write_text
from sgnray.train.tracking.curves import Curves

log = logging.getLogger(__name__)

TENSORBOARD_DIR = "tensorboard"
MLFLOW_DIR = "mlflow"
MEMORY_FILE = "trackers.json"
MEMORY_VERSION = 1

_MODULES = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),  # a run's own store is a SQLite file
    "wandb": ("wandb",),
}
_PROJECT = "sgnray"
# Set during each call, unless the user has set it: nothing leaves the machine by default, and a
# server that is gone must not delay training.
_ENVIRONMENT = {
    "mlflow": {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    },
    "wandb": {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"},
}


def check_trackers(recipe: Recipe) -> None:
    """Raise MissingExtraError if packages of the recipe's trackers are not installed."""
    missing = {
        name: [module for module in _MODULES[name] if find_spec(module) is None]
        for name in recipe.train.log
    }
    extras = [name for name, modules in missing.items() if modules]
    if extras:
        packages = ", ".join(module for name in extras for module in missing[name])
        raise MissingExtraError(
            f"the trackers need packages that are not installed: {packages}",
            where=f"train.log={list(recipe.train.log)}",
            now=f"pip install 'sgnray[{','.join(extras)}]'",
        )


@contextmanager
def tracked(recipe: Recipe, run: RunFolder, history: Sequence[Metrics]) -> Iterator[Trackers]:
    """Track the run, from the epochs in `history` on.

    SgnError if a tracker does not start. A run that ends without `finish` was interrupted.
    """
    trackers = Trackers()
    try:
        trackers.start(recipe, run, history)
        yield trackers
    finally:
        trackers.finish(None)


class Trackers:
    """The trackers of a run, or of a trial of the search `group`.

    A failing tracker is reported once, then disabled: it is added to `failed`. One that does not
    start is an error, unless it is in `started`: it started for an earlier trial. The trials of a
    search share both sets.
    """

    def __init__(
        self,
        group: str | None = None,
        failed: set[str] | None = None,
        started: set[str] | None = None,
    ) -> None:
        self._group = group
        self._failed = set() if failed is None else failed
        self._started = set() if started is None else started
        self._active: dict[str, Tracker] = {}
        self._num_logged: dict[str, int] = {}

    def start(self, recipe: Recipe, run: RunFolder, history: Sequence[Metrics]) -> None:
        """Start the trackers that the recipe asks for; SgnError if one does not start."""
        names = recipe.train.log if self._group else ("curves", *recipe.train.log)
        for name in names:
            if name in self._failed:
                continue
            tracker = _KINDS[name](self._group)
            try:
                with warnings.catch_warnings(), set_environment(_ENVIRONMENT.get(name, {})):
                    warnings.simplefilter("ignore")  # libraries warn about each other
                    self._num_logged[name] = tracker.start(recipe, run, history)
            except Exception as failure:
                if name in self._started:
                    self._disable(name, failure)
                    continue
                self.finish(None)  # those that have started
                raise SgnError(
                    f"{name} did not start: {first_line(failure)}",
                    where="train.log",
                    now="fix it, or remove it from train.log: the run stays the same",
                ) from failure
            self._active[name] = tracker
            self._started.add(name)
        self.log(history)

    def log(self, history: Sequence[Metrics]) -> None:
        """Log the epochs of `history` that are new; a repeated epoch counts once."""
        for name, tracker in list(self._active.items()):
            with self._guarded(name):
                while self._num_logged[name] < len(history):
                    epoch = self._num_logged[name] + 1
                    tracker.log(epoch, history[epoch - 1])
                    self._num_logged[name] = epoch

    def finish(self, report: Report | None, *, is_complete: bool = False) -> None:
        """Close all; a run without a report was interrupted, unless it `is_complete` as a trial."""
        for name, tracker in list(self._active.items()):
            with self._guarded(name):
                tracker.finish(report, is_complete=is_complete or report is not None)
        self._active.clear()

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Disable a tracker that fails instead of ending the training."""
        try:
            with set_environment(_ENVIRONMENT.get(name, {})):
                yield
        except Exception as failure:
            del self._active[name]
            self._disable(name, failure)

    def _disable(self, name: str, failure: Exception) -> None:
        if name not in self._failed:
            log.warning("%s failed and is disabled: %s", name, first_line(failure))
        self._failed.add(name)
        log.debug("how %s failed", name, exc_info=failure)


class Tracker(Protocol):
    """Shows the metrics of a run somewhere."""

    def start(self, recipe: Recipe, run: RunFolder, history: Sequence[Metrics]) -> int:
        """Open the record of the run, or resume it; `history` has the epochs done before.

        Returns how many epochs, from the first on, it already has; the others are logged next.
        """

    def log(self, epoch: int, metrics: Metrics) -> None:
        """Add an epoch, counted from 1; each one is logged once, in order."""

    def finish(self, report: Report | None, *, is_complete: bool) -> None:
        """Add the result of the test, if there is one, and close."""


class TensorBoard:
    """Event files in the run's folder, rewritten by each launch."""

    def start(self, recipe: Recipe, run: RunFolder, history: Sequence[Metrics]) -> int:
        """Replace the files of earlier launches, so that no epoch is missing or duplicated."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / TENSORBOARD_DIR
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        # purge_step makes a running TensorBoard drop the old epochs.
        self._writer: Any = SummaryWriter(str(folder), purge_step=1)
        self._writer.add_text("recipe", f"```\n{dump_recipe(recipe)}```", 0)
        self._num_epochs = 0
        # The time axis is the time spent in training, over all launches.
        self._time_s = time.time() - sum(metrics[keys.EPOCH_S] for metrics in history)
        return 0

    def log(self, epoch: int, metrics: Metrics) -> None:
        """Write the epoch and flush it to disk."""
        self._num_epochs = epoch
        self._time_s += metrics[keys.EPOCH_S]
        self._write(metrics)

    def finish(self, report: Report | None, *, is_complete: bool) -> None:
        """Write the result at the last epoch."""
        self._write(_result(report))
        self._writer.close()

    def _write(self, metrics: Metrics) -> None:
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, self._num_epochs, walltime=self._time_s)
        self._writer.flush()


class MLflow:
    """A run in the store at MLFLOW_TRACKING_URI, else in a SQLite file in the run's folder.

    The trials of a search share one file and one experiment.
    """

    def __init__(self, group: str | None) -> None:
        self._group = group

    def start(self, recipe: Recipe, run: RunFolder, history: Sequence[Metrics]) -> int:
        """Resume the MLflow run recorded in this folder; its store says which epochs it has."""
        from mlflow import MlflowClient

        folder = ((run.path.parent if self._group else run.path) / MLFLOW_DIR).resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            folder.mkdir(exist_ok=True)
        self._client: Any = MlflowClient(tracking_uri=uri or f"sqlite:///{folder}/mlflow.db")
        known = recall(run).get("mlflow")
        if known and known["store"] == _digest(uri) and self._has(known["run_id"]):
            self._run_id = known["run_id"]
            self._client.update_run(self._run_id, status="RUNNING")
            points = self._client.get_metric_history(self._run_id, keys.TRAIN_LOSS)
            return max((point.step for point in points), default=0)
        self._run_id = self._create(recipe, run, None if uri else str(folder / "artifacts"))
        remember(run, "mlflow", {"store": _digest(uri), "run_id": self._run_id})
        return 0

    def log(self, epoch: int, metrics: Metrics) -> None:
        """Send the epoch in one message."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        points = [Metric(key, value, now_ms, epoch) for key, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=points)

    def finish(self, report: Report | None, *, is_complete: bool) -> None:
        """Send the result, and whether the run is complete."""
        for key, value in _result(report).items():
            self._client.log_metric(self._run_id, key, value)
        self._client.set_terminated(self._run_id, "FINISHED" if is_complete else "KILLED")

    def _has(self, run_id: str) -> bool:
        from mlflow import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        is_active: bool = run.info.lifecycle_stage == "active"
        return is_active

    def _create(self, recipe: Recipe, run: RunFolder, artifacts: str | None) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", self._group or _PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = (
            known.experiment_id
            if known
            else self._client.create_experiment(name, artifact_location=artifacts)
        )
        tags = {"search": self._group} if self._group else {}
        created = self._client.create_run(experiment, run_name=run.path.name, tags=tags)
        run_id: str = created.info.run_id
        settings = [Param(key, str(value)) for key, value in dotted_values(recipe).items()]
        self._client.log_batch(run_id, params=settings)
        return run_id


class WeightsAndBiases:
    """A W&B run, offline in the run's folder unless WANDB_MODE says otherwise."""

    def __init__(self, group: str | None) -> None:
        self._group = group

    def start(self, recipe: Recipe, run: RunFolder, history: Sequence[Metrics]) -> int:
        """Open this launch's part of the W&B run; `wandb sync` joins the parts by their id."""
        import wandb

        known = recall(run).get("wandb") or {"run_id": uuid.uuid4().hex[:12], "num_epochs": 0}
        self._folder, self._run_id = run, known["run_id"]
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            group=self._group,
            name=run.path.name,
            id=self._run_id,
            resume="allow",
            dir=str(run.path.resolve()),
            config=to_dict(recipe),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        num_epochs: int = known["num_epochs"]
        return num_epochs

    def log(self, epoch: int, metrics: Metrics) -> None:
        """Log the epoch and record its number, because an offline run cannot be queried."""
        self._run.log(dict(metrics), step=epoch, commit=True)
        remember(self._folder, "wandb", {"run_id": self._run_id, "num_epochs": epoch})

    def finish(self, report: Report | None, *, is_complete: bool) -> None:
        """Put the result into the summary."""
        self._run.summary.update(_result(report))
        self._run.finish(exit_code=0 if is_complete else 1)


_KINDS: dict[str, Callable[[str | None], Tracker]] = {
    "curves": lambda _: Curves(),
    "tensorboard": lambda _: TensorBoard(),
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def remember(run: RunFolder, name: str, content: Mapping[str, object]) -> None:
    """Record in the run's folder what a tracker needs to resume the same curves."""
    memory = {**recall(run), "format_version": MEMORY_VERSION, name: content}
    write_text(run.path / MEMORY_FILE, json.dumps(memory, indent=2) + "\n")


def recall(run: RunFolder) -> dict[str, Any]:
    """Read what the trackers recorded for the run, by their names."""
    path = run.path / MEMORY_FILE
    if not path.exists():
        return {}
    memory: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if memory["format_version"] != MEMORY_VERSION:
        raise RunError(
            f"it has format version {memory['format_version']}",
            where=str(path),
            now="update sgnray, or remove the file to start new curves",
        )
    return memory


def _digest(uri: str | None) -> str | None:
    """Identify a store without recording its URI, which may contain a password."""
    return hashlib.sha256(uri.encode()).hexdigest()[:12] if uri else None


def _result(report: Report | None) -> Metrics:
    if report is None:
        return {}
    return {keys.TEST_TOP1: report.top1, keys.TEST_TOP5: report.top5, keys.TEST_LOSS: report.loss}
