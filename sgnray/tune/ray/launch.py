"""Run the trials of a search with Ray Tune."""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
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
from ray.tune.search import Searcher

from sgnray.config.schema import Precision
from sgnray.data.fetch import SharedDataset
from sgnray.distributed.cluster import (
    is_head_alive,
    lost_cluster,
    set_environment,
    wait_for_head,
)
from sgnray.distributed.gauges import Gauges
from sgnray.distributed.launcher import ask_precision
from sgnray.distributed.queue import StateStore
from sgnray.distributed.reserve import Room, release_group
from sgnray.distributed.resources import Resources
from sgnray.distributed.world import World
from sgnray.errors import ClusterError, count_of, last_line
from sgnray.storage.mirror import display_name
from sgnray.tune.folder import SearchFolder
from sgnray.tune.folds import TrialJob, check_version
from sgnray.tune.plan import REDUCTION_FACTOR, Plan
from sgnray.tune.running import RunningSearch
from sgnray.tune.trial_resources import TrialResources
from sgnray.tune.trials import (
    EPOCH_KEY,
    SCORE_KEY,
    EpochReport,
    FailureReport,
    Reported,
    Started,
    read_result,
)

log = logging.getLogger(__name__)

_ENVIRONMENT = {
    # Ctrl-C must end the search at once, like every other command.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # record.jsonl is the record; Ray's own would be thrown away.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
# Trials that wait for room in Ray at the same time; an autoscaler adds nodes for all of them.
_MAX_WAITING = 4
# A trial that loses its worker is restarted twice; the third time it may be the trial's fault.
_MAX_LOSSES = 2
# Longer than Ray Tune takes to notice that a trial has lost a worker.
_NOTICE_LOSS_S = 10.0
_RESUME = "rerun the same command to resume: trials that have ended are not repeated"
_LOST = "its worker was lost three times: killed, out of memory, or by an error of torch or Ray"


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
    folder, plan, budget = search.folder, search.folder.plan, _TimeBudget(time_budget_s)
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
        with _quiet_ray(), set_environment(_environment(plan, resources)):
            _fit(search, job, budget)
    except _LostHead as lost:
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
    budget: _TimeBudget,
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
            precision = ask_precision("cuda" if resources.num_gpus else "cpu", cluster, request)
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


def _fit(search: RunningSearch, job: TrialJob, budget: _TimeBudget) -> None:
    name = search.folder.path.name
    saver = _StateSaver(search, job.states)
    # Ray requires files of its own; a worker may still write there when an interrupt comes.
    with (
        _interruptible() as repeat_interrupt,
        tempfile.TemporaryDirectory(prefix="sgn-tune-", ignore_cleanup_errors=True) as scratch,
        closing(_Proposals(search, job.resources)) as proposals,
        closing(saver),
        closing(
            _Reports(search, job.resources, proposals, saver, repeat_interrupt, budget)
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
                storage_path=scratch,
                verbose=0,
                stop=budget,
                failure_config=tune.FailureConfig(max_failures=_MAX_LOSSES),
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
            for report in job.train(trial, World()):
                tune.report(asdict(report))
        except Exception as error:
            failure = FailureReport.of(error)
    if failure is not None:
        tune.report(asdict(failure))


def _request(resources: TrialResources) -> tune.PlacementGroupFactory:
    if resources.num_workers > 1:  # Ray Train requests the workers' CPUs; Tune needs any request
        return tune.PlacementGroupFactory([{"memory": 1}])
    bundle = {"CPU": resources.num_cpus, "GPU": resources.num_gpus or 0}
    if kind := resources.request.accelerator_type:
        bundle[f"accelerator_type:{kind}"] = 0.001
    labels = resources.request.labels
    only = {"bundle_label_selector": [labels]} if labels else {}
    return tune.PlacementGroupFactory([bundle], **only)


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


class _Proposals(Searcher):  # type: ignore[misc]
    """Gives Ray the next trial until there are no more.

    Ray Tune starts trials of several workers whether or not they have room, so they are held back
    here: after as many as have run at once so far, one at a time starts, once it has room.

    The search gets the results through `_Reports` and keeps its own record, so Ray does not need to
    save this object, whose files and locks could not be pickled.
    """

    def __init__(self, search: RunningSearch, resources: TrialResources) -> None:
        super().__init__(metric=SCORE_KEY, mode="max")
        self._search, self._resources = search, resources
        self._room: Room | None = None
        self._granted_at: float | None = None
        self._most = max(1, resources.room or 0)
        self._given: set[str] = set()
        self._reported: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        with _ending_tune():
            if not self._has_room():
                return None  # Ray asks again
        self.close()  # for the trial to take it
        trial = self._search.next_trial()
        if trial is None:
            return Searcher.FINISHED
        self._given.add(trial_id)
        return asdict(trial)

    def _has_room(self) -> bool:
        """Return whether to give Ray a trial.

        Always True while Ray has no trial, because Ray would wait for one forever.
        """
        if self._resources.room is None or len(self._given) < self._most:
            return True
        if self._given - self._reported:  # they may not have taken their room yet
            return False
        self._room = self._room or self._resources.ask_room()
        if self._room.count() < 1:
            self._granted_at = None
            return False
        self._granted_at = self._granted_at or time.monotonic()
        # It may be that of a trial whose loss Ray Tune has not noticed yet.
        return time.monotonic() - self._granted_at >= _NOTICE_LOSS_S

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._reported.add(trial_id)
        self._most = max(self._most, len(self._reported))

    def on_lost_worker(self, trial_id: str) -> None:
        """Release the reserved room, so that the restarted trial can take it."""
        self._reported.discard(trial_id)
        self._most = max(1, len(self._reported))  # its node may be gone for good
        self.close()

    def on_trial_complete(self, trial_id: str, *_: Any, **__: Any) -> None:
        self._given.discard(trial_id)
        self._reported.discard(trial_id)

    def close(self) -> None:
        """Give up the room for the next trial."""
        if self._room is not None:
            self._room.release()
            self._room = self._granted_at = None

    def _ignore(self, *_: Any, **__: Any) -> None:
        pass

    save = restore = _ignore

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _StateSaver:
    """Writes the states of unfinished trials: the newest ones as time allows, and at the end."""

    def __init__(self, search: RunningSearch, states: StateStore) -> None:
        self._search, self._states = search, states
        self._save_at = 0.0

    def save(self, number: int) -> None:
        """Write the newest state of a trial, but spend at most a tenth of the time on states."""
        if time.monotonic() >= self._save_at:
            wait_for_head(seen_within_s=1.0)
            began = time.monotonic()
            self._search.save_state(number, self._states.take(number))
            self._save_at = began + 10 * (time.monotonic() - began)

    def drop_ended(self, number: int) -> None:
        """Forget the state of a trial unless it resumes."""
        if self._search.table.row(number).has_ended:
            self._states.drop(number)

    def close(self) -> None:
        """Write all states."""
        with suppress(RayError):
            for row in self._search.table.rows if is_head_alive() else ():
                if not row.has_ended:
                    self._search.save_state(row.number, self._states.take(row.number))


class _LostHead(BaseException):
    """The head node, or the actor with the states, is lost.

    After an Exception, Ray Tune would release resources, and block.
    """


@contextmanager
def _ending_tune() -> Iterator[None]:
    try:
        yield
    except (ConnectionError, RayError) as error:
        raise _LostHead(str(error)) from error


class _Reports(tune.Callback):  # type: ignore[misc]
    """Passes the results of Ray's trials to the search, and Ctrl-C to Ray."""

    def __init__(
        self,
        search: RunningSearch,
        resources: TrialResources,
        proposals: _Proposals,
        saver: _StateSaver,
        repeat_interrupt: Callable[[], None],
        budget: _TimeBudget,
    ) -> None:
        self._search, self._proposals, self._saver = search, proposals, saver
        self._repeat_interrupt, self._budget = repeat_interrupt, budget
        self._room_watch = resources.watch_room()
        self._groups: dict[int, str] = {}
        self._gauges: dict[int, Gauges] = {}

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._repeat_interrupt()
        with _ending_tune():
            self._room_watch.check()

    def on_trial_result(self, *_: Any, trial: Any, result: dict[str, Any], **__: Any) -> None:
        report, number = read_result(result), trial.config["number"]
        if isinstance(report, EpochReport):
            if report.placement_group:
                self._groups[number] = report.placement_group
            gauges = self._gauges.setdefault(number, Gauges(str(trial)))
            gauges.set({**report.metrics, EPOCH_KEY: report.epoch})
            with _ending_tune():
                self._saver.save(number)
        self._search.on_report(number, report)

    def on_trial_recover(self, *_: Any, trial: Any, **__: Any) -> None:
        self._release(trial)
        self._proposals.on_lost_worker(trial.trial_id)
        log.warning("trial %d lost its worker and is restarted", trial.config["number"])

    def on_trial_complete(self, *_: Any, trial: Any, **__: Any) -> None:
        self._release(trial)
        self._search.on_end(trial.config["number"], is_cut=self._budget.is_spent)
        self._saver.drop_ended(trial.config["number"])

    def on_trial_error(self, *_: Any, trial: Any, **__: Any) -> None:
        self._release(trial)
        self._search.on_lost(trial.config["number"], _LOST)
        self._saver.drop_ended(trial.config["number"])

    def _release(self, trial: Any) -> None:
        """Release the CPUs of a trial's workers: Ray keeps them when it stops the trial."""
        group = self._groups.pop(trial.config["number"], None)
        if group is not None:
            release_group(group)

    def close(self) -> None:
        """Release the CPUs of trials that were cut: Ray Tune reports no end of them."""
        for group in self._groups.values():
            release_group(group)


class _TimeBudget(tune.Stopper):  # type: ignore[misc]
    """Stops all trials when the time is used up; they resume with the next command."""

    def __init__(self, budget_s: float | None) -> None:
        self._end = None if budget_s is None else time.monotonic() + budget_s
        self.is_spent = False

    @property
    def left_s(self) -> float | None:
        """Seconds until the end; None if there is no limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if not self.is_spent and self._end is not None and time.monotonic() >= self._end:
            log.info("the time budget is used up; rerun the same command to resume")
            self.is_spent = True
        return self.is_spent


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


@contextmanager
def _quiet_ray() -> Iterator[None]:
    # Ray logs a lost worker with a traceback; our log has one line.
    ray_log = logging.getLogger("ray.tune")
    level = ray_log.level
    ray_log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray_log.setLevel(level)
