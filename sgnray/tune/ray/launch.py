"""Run the trials of a search with Ray Tune."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from sgnray.config.schema import Precision
from sgnray.data.fetch import SharedDataset
from sgnray.distributed.cluster import lost_cluster, set_environment
from sgnray.distributed.device import prepare_device
from sgnray.distributed.driver_actors import StateStore
from sgnray.distributed.precision import ask_precision
from sgnray.distributed.resources import Resources
from sgnray.distributed.world import World
from sgnray.errors import ClusterError, count_of, last_line
from sgnray.storage.mirror import display_name
from sgnray.storage.scratch import scratch_folder
from sgnray.train.run_log import quiet_logger
from sgnray.tune.folder import SearchFolder
from sgnray.tune.folds import TrialJob, check_version
from sgnray.tune.plan import REDUCTION_FACTOR, Plan
from sgnray.tune.ray.callbacks import (
    MAX_LOSSES,
    LostHead,
    Proposals,
    Reports,
    StateSaver,
    TimeBudget,
)
from sgnray.tune.running import RunningSearch
from sgnray.tune.trial_resources import TrialResources
from sgnray.tune.trials import EPOCH_KEY, SCORE_KEY, FailureReport, Reported, Started

log = logging.getLogger(__name__)

_ENVIRONMENT = {
    # Ctrl-C must end the search at once, like every other command.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # record.jsonl is the record; Ray's own would be thrown away.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
# Trials that wait for room in Ray at the same time; an autoscaler adds nodes for all of them.
_MAX_WAITING = 4
_RESUME = "rerun the same command to resume: trials that have ended are not repeated"


@lost_cluster(_RESUME)
def run_trials(
    search: RunningSearch,
    dataset_dir: Path,
    cluster: Resources,
    resources: TrialResources,
    *,
    num_folds: int,
    time_budget_s: float | None,
) -> None:
    """Run all trials on the connected cluster; `search` receives their reports."""
    folder, plan, budget = search.folder, search.folder.plan, TimeBudget(time_budget_s)
    log.info(
        "search %s: %s of at most %s and %s, %s at once%s",
        display_name(folder.path),
        count_of(plan.num_trials, "trial"),
        count_of(plan.num_epochs, "epoch"),
        count_of(num_folds * plan.num_seeds, "model"),
        resources.concurrent or "as many as fit",
        f"; {len(search.ended)} ended before" if search.ended else "",
    )
    search.begin()
    try:
        precision = _choose_precision(folder, resources, cluster, budget)
        if precision is None:
            return
        job = TrialJob(
            plan,
            SharedDataset.of(dataset_dir),
            resources,
            _stored_states(search),
            precision,
        )
        # Ray logs a lost worker with a traceback; our log has one line.
        with (
            quiet_logger("ray.tune", logging.CRITICAL),
            set_environment(_environment(plan, resources)),
        ):
            _fit(search, job, budget)
    except LostHead as lost:
        raise ConnectionError(*lost.args) from lost
    except (RayError, TuneError) as error:
        raise ClusterError(
            f"the search stopped on the cluster: {last_line(error)}",
            where=f"Ray; the whole message is in {folder.log_path}",
            now=_RESUME,
        ) from error
    finally:
        search.end()


def _stored_states(search: RunningSearch) -> StateStore:
    states = StateStore()
    for number, state in search.read_states():
        check_version(state, where=str(search.folder.state_path(number)))
        ray.get(states.put(number, state))
    return states


def _choose_precision(
    folder: SearchFolder,
    resources: TrialResources,
    cluster: Resources,
    budget: TimeBudget,
) -> Precision | None:
    """Resolve `auto` for this search: only once, since nodes may differ, and then stored.

    None if the time budget ends before a worker has answered.
    """
    plan = folder.plan
    if plan.recipe.train.precision != "auto" and "train.precision" not in plan.space.keys:
        return plan.recipe.train.precision
    precision = folder.read_precision()
    if precision is None:
        limits = [each for each in (resources.request.wait_s, budget.left_s) if each is not None]
        request = replace(resources.worker_request, wait_s=min(limits, default=None))
        try:
            precision = ask_precision(resources.device, cluster, request)
        except ClusterError:
            if budget.stop_all():
                return None
            raise
        folder.write_precision(precision)
    log.info("train.precision=auto means %s in this search", precision)
    return precision


def _environment(plan: Plan, resources: TrialResources) -> dict[str, str]:
    """Return what Ray Tune reads from the environment.

    By default, as many trials wait as may run at the same time, and one if there is no limit. With
    TPE, it stays one: the values of a waiting trial do not depend on the trials that end meanwhile.
    """
    if plan.search == "tpe" or resources.concurrent is not None:
        return _ENVIRONMENT
    return {**_ENVIRONMENT, "TUNE_MAX_PENDING_TRIALS_PG": str(_MAX_WAITING)}


def _fit(search: RunningSearch, job: TrialJob, budget: TimeBudget) -> None:
    name = search.folder.path.name
    saver = StateSaver(search, job.states)
    # Ray requires files of its own; a worker may still write there when an interrupt comes.
    with (
        _interruptible() as repeat_interrupt,
        scratch_folder("sgn-tune-") as scratch,
        closing(Proposals(search, job.resources)) as proposals,
        closing(saver),
        closing(
            Reports(search, job.resources, proposals, saver, repeat_interrupt, budget)
        ) as reports,
    ):
        tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, job=job), _request(job.resources)),
            tune_config=tune.TuneConfig(
                search_alg=proposals,
                num_samples=search.num_left,
                scheduler=_make_scheduler(search),
                max_concurrent_trials=job.resources.concurrent,
                # An actor that is still ending Ray Train's workers cannot take the next trial: Ray
                # gives it 2 s, and then silently drops the new trial.
                reuse_actors=job.resources.num_workers == 1,
                trial_name_creator=lambda trial: f"{name}-trial-{trial.config['number']}",
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(scratch),
                verbose=0,
                stop=budget,
                failure_config=tune.FailureConfig(max_failures=MAX_LOSSES),
                callbacks=[reports],
            ),
        ).fit()


def run_trial(config: dict[str, Any], *, job: TrialJob) -> None:
    """Train the trial that `config` names in a Ray worker, and report each epoch.

    An exception is reported, not raised: Ray would restart the trial, which only helps after a lost
    worker.
    """
    trial = Started(config["number"], config["values"])  # Ray may add keys of its own
    failure: FailureReport | None = None
    if job.resources.num_workers > 1:
        # Ray Train takes a second to import, and most trials do not need it.
        from sgnray.tune.ray.group import train_group

        failure = train_group(trial, job)
    else:
        try:
            prepare_device(job.resources.device)
            for report in job.train(trial, World()):
                tune.report(asdict(report))
        except Exception as error:
            failure = FailureReport.of(error)
    if failure is not None:
        tune.report(asdict(failure))


def _request(resources: TrialResources) -> tune.PlacementGroupFactory:
    if resources.num_workers > 1:  # Ray Train requests the workers' CPUs; Tune needs any request
        return tune.PlacementGroupFactory([{"memory": 1}])
    request = resources.worker_request
    only = {"bundle_label_selector": [request.labels]} if request.labels else {}
    return tune.PlacementGroupFactory([request.bundle()], **only)


def _make_scheduler(search: RunningSearch) -> Any:
    """Build the scheduler; ASHA first gets the reports of the trials that have ended already."""
    plan = search.folder.plan
    if plan.scheduler == "none":
        return FIFOScheduler()
    asha = _Asha(
        time_attr=EPOCH_KEY,
        metric=SCORE_KEY,
        mode="max",
        max_t=plan.num_epochs,
        grace_period=plan.grace_epochs,
        reduction_factor=REDUCTION_FACTOR,
    )
    trials = {row.number: SimpleNamespace(trial_id=f"trial-{row.number}") for row in search.ended}
    for trial in trials.values():
        asha.on_trial_add(None, trial)
    for event in search.events:
        if isinstance(event, Reported) and event.number in trials:
            asha.on_trial_result(None, trials[event.number], asdict(event.report))
    return asha


class _Asha(ASHAScheduler):  # type: ignore[misc]
    """ASHA that leaves numpy's global generator, which is the caller's, as it is."""

    def on_trial_add(self, *arguments: Any) -> None:
        # Ray draws each trial's bracket, although there is only one.
        state = np.random.get_state()
        super().on_trial_add(*arguments)
        np.random.set_state(state)


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Yield a function that repeats a Ctrl-C: Ray may catch its KeyboardInterrupt, and continue."""
    is_interrupted = False
    before = signal.getsignal(signal.SIGINT)

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        try:
            if not callable(before):
                raise KeyboardInterrupt
            before(number, frame)  # it raises, exits, or continues
        except BaseException:
            is_interrupted = True
            raise

    def repeat() -> None:
        if is_interrupted:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals go to the main one
        yield repeat
        return
    signal.signal(signal.SIGINT, on_signal)
    try:
        yield repeat
    finally:
        signal.signal(signal.SIGINT, before)
