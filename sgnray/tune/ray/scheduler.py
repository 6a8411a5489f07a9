"""Ray's schedulers as a search uses them: ASHA, which stops trials early, and PBT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from sgnray.metric_keys import VAL_TOP1
from sgnray.tune.plan import REDUCTION_FACTOR, Plan
from sgnray.tune.space.space import Axis, Choice, Integer, LogUniform, Space, Uniform, rounded
from sgnray.tune.state.events import Event, Reported
from sgnray.tune.trial.folds import EPOCH
from sgnray.tune.trial.job import TRIAL, VALUES


def make_scheduler(plan: Plan, events: Iterable[Event], ended: set[int]) -> Any:
    """Build the scheduler of a search; ASHA hears first of the trials that have ended already."""
    match plan.scheduler:
        case "asha":
            asha = Asha(plan.num_epochs, plan.grace_epochs)
            for event in events:
                if isinstance(event, Reported) and event.number in ended:
                    asha.goes_on(event.number, event.epoch, event.score)
            return asha.scheduler
        case "pbt":
            return PopulationBasedTraining(
                time_attr=EPOCH,
                metric=VAL_TOP1,
                mode="max",
                perturbation_interval=plan.perturbation_epochs,
                hyperparam_mutations={
                    TRIAL: {VALUES: {key: _domain(axis) for key, axis in plan.space.axes.items()}}
                },
                custom_explore_fn=lambda config: _within(config, plan.space),
                # All trials are compared at the same epoch, whichever machine was faster.
                synch=True,
            )
        case "none":
            return FIFOScheduler()


class Asha:
    """Ray's ASHA, asked about trials by their number, with or without a running search."""

    def __init__(self, num_epochs: int, grace_epochs: int) -> None:
        self.scheduler = ASHAScheduler(
            time_attr=EPOCH,
            metric=VAL_TOP1,
            mode="max",
            max_t=num_epochs,
            grace_period=grace_epochs,
            reduction_factor=REDUCTION_FACTOR,
        )
        self._trials: dict[int, Any] = {}

    def goes_on(self, number: int, epoch: int, score: float) -> bool:
        """Tell it how a trial did after an epoch, and whether the trial may go on."""
        if number not in self._trials:
            self._trials[number] = SimpleNamespace(trial_id=f"trial-{number}")
            with _generator_untouched():
                self.scheduler.on_trial_add(None, self._trials[number])
        result = {EPOCH: epoch, VAL_TOP1: score}
        action = self.scheduler.on_trial_result(None, self._trials[number], result)
        return bool(action == TrialScheduler.CONTINUE)


@contextmanager
def _generator_untouched() -> Iterator[None]:
    """Give numpy's global generator back: Ray draws a bracket from it, of which there is one."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


def _within(config: dict[str, Any], space: Space) -> dict[str, Any]:
    """Keep what PBT has multiplied by 0.8 or 1.2 in its range, and as short as a table shows it."""
    values = config[TRIAL][VALUES]
    for key, axis in space.axes.items():
        if isinstance(axis, Uniform | LogUniform):
            values[key] = rounded(values[key], axis.low, axis.high)
        elif isinstance(axis, Integer):
            values[key] = min(axis.high, max(axis.low, int(values[key])))
    return config


def _domain(axis: Axis) -> Any:
    match axis:
        case Choice(values):
            return list(values)
        case Uniform(low, high):
            return tune.uniform(low, high)
        case LogUniform(low, high):
            return tune.loguniform(low, high)
        case Integer(low, high):
            return tune.randint(low, high + 1)
