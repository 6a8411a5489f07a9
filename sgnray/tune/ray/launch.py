"""Run the trials of a search with Ray Tune; Ray is imported by the first search."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgnray.data.shared import SharedDataset
from sgnray.errors import ClusterError
from sgnray.tune.ray.control import Budget, Interrupt, interruptible
from sgnray.tune.state.progress import Progress
from sgnray.tune.trial.job import (
    GROUP,
    NAME_PREFIX,
    NUMBER,
    TRIAL,
    VALUES,
    TrialJob,
    number_of,
    run_trial,
)
from sgnray.tune.trial.resources import Layout

log = logging.getLogger(__name__)

_ENVIRONMENT = {
    # Ctrl-C must end the search at once, like every other command.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # record.jsonl is the record; Ray's own would be thrown away.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
# PBT may copy from a trial that is an epoch or two ahead by then.
_CHECKPOINTS_KEPT = 4
# A trial that loses its worker is begun again so often; a third time it may be the trial's fault.
_MAX_LOSSES = 2
_LOST = "its worker was lost three times: it was killed, or the machine had no memory left"


def run_trials(
    progress: Progress, dataset_dir: Path, layout: Layout, *, time_budget_s: float | None
) -> None:
    """Run all trials on the cluster that is held; `progress` is told what they do meanwhile."""
    from ray.exceptions import RayError
    from ray.tune.error import TuneError

    plan, folder = progress.folder.plan, progress.folder
    job = TrialJob(
        recipe=plan.recipe,
        num_epochs=plan.num_epochs,
        num_seeds=plan.num_seeds,
        dataset=SharedDataset.of(dataset_dir),
        share=layout.share,
        states_dir=folder.states_dir.resolve(),
        swaps_states=plan.scheduler == "pbt",
    )
    progress.begin()
    try:
        with _quiet_ray():
            _fit(progress, job, layout.at_once, Budget(time_budget_s))
    except (RayError, TuneError) as error:
        raise ClusterError(
            f"the search stopped on the cluster: {_last_line(error)}",
            where=f"Ray; the whole story is in {folder.log_path}",
            now="the same command goes on: trials that have ended are not repeated",
        ) from error
    finally:
        progress.end()


def _fit(progress: Progress, job: TrialJob, at_once: int, budget: Budget) -> None:
    from ray import tune

    from sgnray.tune.ray.scheduler import make_scheduler
    from sgnray.tune.ray.searcher import Proposals

    ended = {row.number for row in progress.ended}
    num_left = progress.board.num_trials - len(ended)
    if num_left <= 0:
        return
    param_space: dict[str, Any] = {}
    search: dict[str, Any] = {
        "search_alg": Proposals(lambda: _config(progress)),
        "num_samples": num_left,
    }
    if job.swaps_states:  # PBT takes no searcher, and needs all trials at once anyway
        trials = iter(progress.next_trial, None)
        param_space, search = {TRIAL: tune.grid_search(list(trials))}, {}
    # Ray insists on files of its own; a worker may still write there when an interrupt comes.
    with (
        interruptible() as interrupt,
        tempfile.TemporaryDirectory(prefix="sgn-tune-", ignore_cleanup_errors=True) as scratch,
    ):
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(run_trial, job=job), _resources(job.share.num_workers, job)
            ),
            param_space=param_space,
            tune_config=tune.TuneConfig(
                scheduler=make_scheduler(progress.folder.plan, progress.events, ended),
                max_concurrent_trials=at_once,
                reuse_actors=True,
                trial_name_creator=lambda trial: f"{NAME_PREFIX}{trial.config[TRIAL][NUMBER]}",
                **search,
            ),
            run_config=tune.RunConfig(
                name="search",
                # PBT hands weights on through Ray's storage, which all machines must see.
                storage_path=str(job.states_dir) if job.swaps_states else scratch,
                verbose=0,
                stop=_stopper(budget),
                failure_config=tune.FailureConfig(max_failures=_MAX_LOSSES),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=_CHECKPOINTS_KEPT),
                callbacks=[_callback(progress, interrupt, budget)],
            ),
        ).fit()


def _config(progress: Progress) -> dict[str, Any] | None:
    trial = progress.next_trial()
    return None if trial is None else {TRIAL: trial}


def _resources(num_workers: int, job: TrialJob) -> dict[str, float]:
    if num_workers > 1:  # the workers take theirs themselves, and Ray wants something here
        return {"memory": 1}
    gpus = {"gpu": job.share.num_gpus} if job.share.num_gpus else {}
    return {"cpu": job.share.num_cpus, **gpus}


def _stopper(budget: Budget) -> Any:
    from ray import tune

    class OutOfTime(tune.Stopper):  # type: ignore[misc]
        """Asked by Ray whether a trial, or all of them, should stop."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return budget.is_over()

    return OutOfTime()


def _callback(progress: Progress, interrupt: Interrupt, budget: Budget) -> Any:
    from ray import tune

    class Tell(tune.Callback):  # type: ignore[misc]
        """Hands on what Ray tells of its trials, and Ctrl-C to Ray."""

        def __init__(self) -> None:
            self._groups: dict[str, str] = {}

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            interrupt.check()

        def on_trial_result(self, *_: Any, trial: Any, result: dict[str, Any], **__: Any) -> None:
            if GROUP in result:
                self._groups[str(trial)] = result[GROUP]
            values = trial.config[TRIAL][VALUES]
            progress.on_epoch(number_of(str(trial)), values, result)

        def on_trial_recover(self, *_: Any, trial: Any, **__: Any) -> None:
            self._release(trial)
            log.warning("%s lost its worker and is begun again", trial)

        def on_trial_complete(self, *_: Any, trial: Any, **__: Any) -> None:
            self._release(trial)
            progress.on_end(number_of(str(trial)), is_cut=budget.is_spent)

        def on_trial_error(self, *_: Any, trial: Any, **__: Any) -> None:
            self._release(trial)
            progress.on_lost(number_of(str(trial)), _LOST)

        def _release(self, trial: Any) -> None:
            group = self._groups.pop(str(trial), None)
            if group is not None:
                from sgnray.tune.trial.group import release

                release(group)

    return Tell()


@contextmanager
def _quiet_ray() -> Iterator[None]:
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    # Ray tells of a lost worker with a traceback; the log has it in a line.
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
