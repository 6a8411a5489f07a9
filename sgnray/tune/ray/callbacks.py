"""What Ray Tune calls during a search: for the next trial, with each report, and at each end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.search import Searcher

from sgnray.distributed.cluster import is_head_alive, wait_for_head
from sgnray.distributed.driver_actors import StateStore
from sgnray.distributed.gauges import Gauges
from sgnray.distributed.reserve import Room, release_group
from sgnray.tune.running import RunningSearch
from sgnray.tune.trial_resources import TrialResources
from sgnray.tune.trials import EPOCH_KEY, SCORE_KEY, EpochReport, read_result

log = logging.getLogger(__name__)

# Longer than Ray Tune takes to notice that a trial has lost a worker.
_NOTICE_LOSS_S = 10.0
# A trial that loses its worker is restarted twice; the third time it may be the trial's fault.
MAX_LOSSES = 2
_LOST = (
    f"its worker was lost {MAX_LOSSES + 1} times: killed, out of memory, or by an error of torch "
    "or Ray"
)


class Proposals(Searcher):  # type: ignore[misc]
    """Gives Ray the next trial until there are no more.

    Ray Tune starts trials of several workers whether or not they have room, so they are held back
    here: after as many as have run at once so far, one at a time starts, once it has room.

    The search gets the results through `Reports` and keeps its own record, so Ray does not need to
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
        """Return the next trial as a dict; None if Ray should ask again later."""
        with _ending_tune():
            if not self._has_room():
                return None
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
        # The free room may belong to a trial whose lost worker Ray Tune has not noticed yet.
        return time.monotonic() - self._granted_at >= _NOTICE_LOSS_S

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note that the trial has its room, since it reports."""
        self._reported.add(trial_id)
        self._most = max(self._most, len(self._reported))

    def on_lost_worker(self, trial_id: str) -> None:
        """Release the reserved room, so that the restarted trial can take it."""
        self._reported.discard(trial_id)
        self._most = max(1, len(self._reported))  # its node may be gone for good
        self.close()

    def on_trial_complete(self, trial_id: str, *_: Any, **__: Any) -> None:
        """Forget a trial that has ended, however it did."""
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


class Reports(tune.Callback):  # type: ignore[misc]
    """Passes the results of Ray's trials to the search, and Ctrl-C to Ray."""

    def __init__(
        self,
        search: RunningSearch,
        resources: TrialResources,
        proposals: Proposals,
        saver: StateSaver,
        repeat_interrupt: Callable[[], None],
        budget: TimeBudget,
    ) -> None:
        self._search, self._proposals, self._saver = search, proposals, saver
        self._repeat_interrupt, self._budget = repeat_interrupt, budget
        self._room_watch = resources.watch_room()
        self._groups: dict[int, str] = {}
        self._gauges: dict[int, Gauges] = {}

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Repeat a Ctrl-C that Ray caught, and check how long the trials have waited for room."""
        self._repeat_interrupt()
        with _ending_tune():
            self._room_watch.check()

    def on_trial_result(self, *_: Any, trial: Any, result: dict[str, Any], **__: Any) -> None:
        """Pass on an epoch or a failure, and save the state of the trial."""
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
        """Release what a trial held when it lost its worker; Ray restarts it."""
        self._release(trial)
        self._proposals.on_lost_worker(trial.trial_id)
        log.warning("trial %d lost its worker and is restarted", trial.config["number"])

    def on_trial_complete(self, *_: Any, trial: Any, **__: Any) -> None:
        """Pass on that a trial has ended: by itself, by the scheduler or by the time budget."""
        self._release(trial)
        self._search.on_end(trial.config["number"], is_cut=self._budget.is_spent)
        self._saver.drop_ended(trial.config["number"])

    def on_trial_error(self, *_: Any, trial: Any, **__: Any) -> None:
        """Pass on that a trial lost its worker too often."""
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


class StateSaver:
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


class TimeBudget(tune.Stopper):  # type: ignore[misc]
    """Stops all trials when the time is used up; they resume with the next command."""

    def __init__(self, budget_s: float | None) -> None:
        self._end = None if budget_s is None else time.monotonic() + budget_s
        self.is_spent = False

    @property
    def left_s(self) -> float | None:
        """Seconds until the end; None if there is no limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no trial by its result."""
        return False

    def stop_all(self) -> bool:
        """Return whether the time is used up."""
        if not self.is_spent and self._end is not None and time.monotonic() >= self._end:
            log.info("the time budget is used up; rerun the same command to resume")
            self.is_spent = True
        return self.is_spent


class LostHead(BaseException):
    """The head node, or the actor with the states, is lost.

    After an Exception, Ray Tune would release resources, and block.
    """


@contextmanager
def _ending_tune() -> Iterator[None]:
    try:
        yield
    except (ConnectionError, RayError) as error:
        raise LostHead(str(error)) from error
