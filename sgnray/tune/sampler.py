"""The values of each trial: listed in advance, or proposed from the scores so far."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sgnray.errors import Problem, RecipeError, UsageError, count_of, import_extra
from sgnray.seeding import derive_seed
from sgnray.tune.plan import DEFAULT_TRIALS
from sgnray.tune.space import (
    MAX_GRID_POINTS,
    Axis,
    Choice,
    Range,
    SearchWay,
    Space,
    Values,
    distinct,
)

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

_MAX_DRAWS = 1000
# TPE draws at random first, for a quarter of the trials, within these limits.
_MOST_RANDOM, _FEWEST_RANDOM, _RANDOM_SHARE = 10, 4, 4


def make_sampler(space: Space, search: SearchWay, num_trials: int | None, seed: int) -> Sampler:
    """Build the sampler for a way of search; `num_trials` None is all of a grid, else a default.

    RecipeError for a grid over a range and for draws from rows; UsageError for another number of
    trials than a grid has points; MissingExtraError for TPE if Optuna is not installed.
    """
    if search == "grid":
        _check_grid(space)
        points = distinct(space.grid())
        if num_trials not in (None, len(points)):
            raise UsageError(
                f"the search space {space.source} has {count_of(len(points), 'trial')}, which are "
                "all run",
                where=f"--trials {num_trials}",
                now="leave out --trials"
                + ("" if space.rows else ", or choose some of them with --search random"),
            )
        return Listed(points)
    num_trials = num_trials or DEFAULT_TRIALS
    if space.rows:
        raise RecipeError(
            f"the search space {space.source} is a list of trials, which are all run",
            where=f"--search {search}",
            now="leave --search out, or use --search grid",
        )
    if search == "tpe":
        return Tpe(space, num_trials, seed)
    drawn = distinct(space.draw(seed, index) for index in range(num_trials))
    if len(drawn) < num_trials:
        log.warning(
            "%d of %d trials would repeat others and are skipped: the space is small",
            num_trials - len(drawn),
            num_trials,
        )
    return Listed(drawn)


class Listed:
    """Trials that are all known in advance."""

    def __init__(self, points: Sequence[Values]) -> None:
        self.num_trials = len(points)
        self._points = points

    def propose(self, number: int, tried: Iterable[Values] = ()) -> Values | None:
        """Return the values of a trial; None if there are no more."""
        return self._points[number - 1] if number <= self.num_trials else None

    def learn(self, values: Values, scores: Sequence[float], *, is_complete: bool) -> None:
        """Ignore the trial: all values are known in advance."""


class Tpe:
    """Optuna's tree-structured Parzen estimator.

    A trial that was stopped early counts as pruned, with its curve. Trials of earlier commands
    are also used.
    """

    def __init__(self, space: Space, num_trials: int, seed: int) -> None:
        samplers = import_extra("optuna.samplers", extra="tune")
        num_random = min(_MOST_RANDOM, max(_FEWEST_RANDOM, num_trials // _RANDOM_SHARE))
        # Points that differ only in inactive keys are the same trial.
        self.num_trials = num_trials
        if not space.ranges and space.num_points() <= MAX_GRID_POINTS:
            self.num_trials = min(num_trials, len(distinct(space.grid())))
        self._space, self._seed = space, seed
        self._study = make_study(
            samplers.TPESampler(
                seed=derive_seed(seed, "tune tpe") % 2**32, n_startup_trials=num_random
            )
        )

    def propose(self, number: int, tried: Iterable[Values] = ()) -> Values | None:
        """Return the values of a trial, if possible not those of `tried`; None if no more."""
        if number > self.num_trials:
            return None
        values = self._suggest()
        known = {json.dumps(each) for each in tried}
        if json.dumps(values) in known:  # it would give the same score
            drawn = (self._space.draw(self._seed, index) for index in range(_MAX_DRAWS))
            unknown = (each for each in drawn if json.dumps(each) not in known)
            values = next(unknown, values)
        return values

    def learn(self, values: Values, scores: Sequence[float], *, is_complete: bool) -> None:
        """Add a trial that has ended; without scores it counts as failed."""
        from optuna.trial import TrialState

        state = TrialState.COMPLETE if is_complete else TrialState.PRUNED
        self._study.add_trial(
            optuna_trial(
                self._space,
                values,
                scores[-1] if is_complete and scores else None,
                state=state if scores else TrialState.FAIL,
                intermediate_values=dict(enumerate(scores, start=1)),
            )
        )

    def _suggest(self) -> Values:
        from optuna.trial import TrialState

        axes = self._space.axes
        trial = self._study.ask({key: _distribution(axis) for key, axis in axes.items()})
        # `learn` adds the values that a trial ran with, sometimes in a later command.
        self._study.tell(trial, state=TrialState.FAIL)
        values = {key: _value(axis, trial.params[key]) for key, axis in axes.items()}
        return self._space.keep_active(values)


Sampler = Listed | Tpe


def make_study(sampler: BaseSampler | None = None) -> Study:
    """Return an empty Optuna study, which logs only warnings."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", sampler=sampler)


def optuna_trial(space: Space, values: Values, score: float | None, **others: Any) -> FrozenTrial:
    """Convert an ended trial to Optuna's form, in which a choice is text."""
    from optuna.trial import create_trial

    axes = {key: space.axes[key] for key in values}
    return create_trial(
        value=score,
        params={
            key: json.dumps(values[key]) if isinstance(axis, Choice) else values[key]
            for key, axis in axes.items()
        },
        distributions={key: _distribution(axis) for key, axis in axes.items()},
        **others,
    )


def _distribution(axis: Axis) -> Any:
    from optuna import distributions

    match axis:
        case Choice(values):
            return distributions.CategoricalDistribution([json.dumps(value) for value in values])
        case Range("integer", low, high):
            return distributions.IntDistribution(int(low), int(high))
        case Range(kind, low, high):
            return distributions.FloatDistribution(low, high, log=kind == "log_uniform")


def _value(axis: Axis, param: Any) -> Any:
    match axis:
        case Choice():
            return json.loads(param)
        case Range("integer"):
            return param
        case Range():
            return axis.rounded(param)


def _check_grid(space: Space) -> None:
    if space.ranges:
        what = "is a range, and a grid needs a list of values: {key}: {{choice: [...]}}"
        raise RecipeError(
            f"the search space {space.source} cannot be searched as a grid",
            where=space.source,
            now="use choice for these keys in your own space, or use --search random",
            problems=[Problem(key, what.format(key=key)) for key in space.ranges],
        )
    if space.num_points() > MAX_GRID_POINTS:
        raise RecipeError(
            f"the grid has {space.num_points():,} points, and the limit is {MAX_GRID_POINTS:,}",
            where=space.source,
            now="remove keys or values, or use --search random",
        )
