"""Run the trials of a search with Ray Tune; Ray is imported by the first search."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgnray.cluster import Resources, connected
from sgnray.errors import ClusterError
from sgnray.evaluate.metrics import VAL_TOP1
from sgnray.train.dataset import SharedDataset
from sgnray.tune.plan import REDUCTION_FACTOR, Plan, shorten
from sgnray.tune.progress import Progress
from sgnray.tune.trial import TrialJob, run_trial

log = logging.getLogger(__name__)

_ENVIRONMENT = {
    # Ctrl-C must end the search at once, like every other command.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # trials.csv is the record; Ray's own would be thrown away.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


@contextmanager
def held_cluster(address: str | None, concurrent: int | None) -> Iterator[Resources]:
    """Hold a cluster on which `concurrent` trials can run at once; ClusterError if it cannot."""
    is_foreign = bool(address or os.environ.get("RAY_ADDRESS"))
    # A cluster of our own gets as many logical CPUs as trials are to run at once.
    with connected(address, num_workers=1 if is_foreign else concurrent or 1) as resources:
        if concurrent is not None and concurrent > resources.num_cpus:
            raise ClusterError(
                f"{concurrent} trials at once need {concurrent} CPUs, and the cluster has "
                f"{resources.num_cpus}",
                where=f"--concurrent {concurrent}",
                now=f"ask for --concurrent {max(1, resources.num_cpus)}, or add nodes: "
                "ray start --address HEAD:PORT",
            )
        yield resources


def run_trials(
    plan: Plan, dataset_dir: Path, progress: Progress, *, at_once: int, num_threads: int
) -> None:
    """Run all trials on the cluster that is held; `progress` is told what they do meanwhile."""
    from ray.exceptions import RayError
    from ray.tune.error import TuneError

    dataset = SharedDataset.of(dataset_dir)
    jobs = tuple(
        TrialJob(shorten(trial.recipe, plan.num_epochs), dataset, num_threads)
        for trial in plan.trials
    )
    progress.begin()
    try:
        with _quiet_ray():
            _fit(plan, jobs, progress, at_once)
    except (RayError, TuneError) as error:
        raise ClusterError(
            f"the search stopped on the cluster: {_last_line(error)}",
            where=f"Ray; the whole story is in {progress.folder.log_path}",
            now="the trials that ended are in trials.csv; the same command searches again",
        ) from error
    finally:
        progress.end()


def _fit(plan: Plan, jobs: tuple[TrialJob, ...], progress: Progress, at_once: int) -> None:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    trainable = tune.with_parameters(run_trial, jobs=jobs)
    scheduler = ASHAScheduler(
        metric=VAL_TOP1,
        mode="max",
        max_t=plan.num_epochs,
        grace_period=plan.grace_epochs,
        reduction_factor=REDUCTION_FACTOR,
    )
    # Ray insists on files of its own; a worker may still write there when an interrupt comes.
    with (
        _interrupt() as interrupt,
        tempfile.TemporaryDirectory(prefix="sgn-tune-", ignore_cleanup_errors=True) as scratch,
    ):
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": jobs[0].num_threads}),
            param_space={"index": tune.grid_search(list(range(len(jobs))))},
            tune_config=tune.TuneConfig(
                scheduler=scheduler, max_concurrent_trials=at_once, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                callbacks=[_callback(plan, progress, interrupt)],
            ),
        ).fit()


def _callback(plan: Plan, progress: Progress, interrupt: _Interrupt) -> Any:
    from ray import tune

    class Tell(tune.Callback):  # type: ignore[misc]
        """Hands on what Ray tells of its trials, and Ctrl-C to Ray."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            interrupt.check()

        def on_trial_result(self, *_: Any, trial: Any, result: dict[str, Any], **__: Any) -> None:
            progress.on_epoch(_number(plan, trial), result[VAL_TOP1], result)

        def on_trial_complete(self, *_: Any, trial: Any, **__: Any) -> None:
            progress.on_end(_number(plan, trial))

        def on_trial_error(self, *_: Any, trial: Any, **__: Any) -> None:
            progress.on_failure(_number(plan, trial), _error_of(trial))

    return Tell()


def _error_of(trial: Any) -> str | None:
    """Read the text of a trial's error where Ray has just left it; its pickle stays unopened."""
    if not trial.error_file:
        return None
    text = Path(trial.error_file).read_text(encoding="utf-8")
    if "ActorDiedError" in text:
        log.debug("Ray says: %s", text)
        return "its worker was lost: it was killed, or the machine had no memory left"
    return text


def _number(plan: Plan, trial: Any) -> int:
    return plan.trials[int(trial.config["index"])].number


class _Interrupt:
    """Remembers Ctrl-C: somewhere in its loop Ray may catch the KeyboardInterrupt, and go on."""

    def __init__(self) -> None:
        self._came = False

    def on_signal(self, *_: object) -> None:
        """Interrupt whatever runs now."""
        self._came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Interrupt again where the first one was lost."""
        if self._came:
            raise KeyboardInterrupt


@contextmanager
def _interrupt() -> Iterator[_Interrupt]:
    interrupt = _Interrupt()
    if threading.current_thread() is not threading.main_thread():  # no signal comes here
        yield interrupt
        return
    before = signal.signal(signal.SIGINT, interrupt.on_signal)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _quiet_ray() -> Iterator[None]:
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    # Ray tells of a failed trial with its traceback; its row and log.txt have it already.
    chatter = logging.getLogger("ray.tune")
    level = chatter.level
    chatter.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        chatter.setLevel(level)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else repr(error)
