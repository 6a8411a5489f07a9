"""The trials of a search, all known before the first one starts."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import Any, Literal

from sgnray.config import Recipe, to_dict
from sgnray.errors import Problem, RecipeError
from sgnray.tune.space import Choice, Space, Values, with_values

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
SearchKind = Literal["random", "grid"]

# A trial is a look, not a training: a dozen epochs tell good settings from bad ones.
DEFAULT_EPOCHS = 12
_MAX_GRID = 10_000
# ASHA: after a quarter of the epochs, and at each threefold, the best third goes on.
_GRACE_SHARE = 4
REDUCTION_FACTOR = 3


@dataclass(frozen=True)
class Trial:
    """One configuration, counted from 1; `recipe` is the full-length one that it stands for."""

    number: int
    values: Values
    recipe: Recipe


@dataclass(frozen=True)
class Plan:
    """A whole search: every trial trains `num_epochs` at most, on one dataset."""

    recipe: Recipe
    space: Space
    search: SearchKind
    num_epochs: int
    dataset_checksum: str
    trials: tuple[Trial, ...]

    @property
    def grace_epochs(self) -> int:
        """Epochs that every trial gets before it is compared with the others."""
        return max(1, self.num_epochs // _GRACE_SHARE)

    def describe(self) -> dict[str, Any]:
        """Give all that decides the outcome, as plain data: two searches are the same or not."""
        axes = {key: axis.describe() for key, axis in self.space.axes.items()}
        return {
            "format_version": FORMAT_VERSION,
            "search": self.search,
            "num_trials": len(self.trials),
            "num_epochs": self.num_epochs,
            "asha": {"grace_epochs": self.grace_epochs, "reduction_factor": REDUCTION_FACTOR},
            "space": axes,
            "recipe": to_dict(self.recipe),
            "dataset_checksum": self.dataset_checksum,
        }

    def folder_name(self) -> str:
        """Name the folder of the search: tune-<dataset>-<case>-<short hash>."""
        text = json.dumps(self.describe(), sort_keys=True, separators=(",", ":"))
        digits = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"tune-{self.recipe.data.dataset}-{self.recipe.data.case}-{digits}"


def plan_search(
    recipe: Recipe,
    space: Space,
    *,
    search: SearchKind,
    num_trials: int,
    num_epochs: int | None,
    dataset_checksum: str,
) -> Plan:
    """Lay all trials down; a grid has one for each combination, whatever `num_trials` says.

    Without `num_epochs` a trial trains 12 epochs, or the recipe's where those are fewer. A draw
    that repeats an earlier one is left out. RecipeError where a grid would need a range.
    """
    if search == "grid":
        _check_grid(space)
        configurations = list(enumerate(space.grid(), start=1))
    else:
        configurations = _distinct_draws(space, recipe.train.seed, num_trials)
    return Plan(
        recipe=recipe,
        space=space,
        search=search,
        num_epochs=num_epochs or min(recipe.train.num_epochs, DEFAULT_EPOCHS),
        dataset_checksum=dataset_checksum,
        trials=tuple(
            Trial(number, values, with_values(recipe, values)) for number, values in configurations
        ),
    )


def shorten(recipe: Recipe, num_epochs: int) -> Recipe:
    """Cut a recipe to `num_epochs`, its milestones in proportion, so that it still decays.

    Milestones 60, 90, 110 of 120 epochs become 6, 9, 11 of 12. Where few epochs are left, two
    milestones may fall on one epoch; then one decay is lost.
    """
    scale = num_epochs / recipe.train.num_epochs
    milestones = sorted({max(1, round(epoch * scale)) for epoch in recipe.optim.milestones})
    values: Values = {"train.num_epochs": num_epochs, "optim.milestones": milestones}
    return with_values(recipe, values)


def _check_grid(space: Space) -> None:
    problems = [
        Problem(key, f"is a range, and a grid needs its values: {key}: {{choice: [...]}}")
        for key, axis in space.axes.items()
        if not isinstance(axis, Choice)
    ]
    if problems:
        raise RecipeError(
            f"the search space {space.source} cannot be searched as a grid",
            where=space.source,
            now="use choice for these keys in a space of your own, or search it with random",
            problems=problems,
        )
    if space.num_points() > _MAX_GRID:
        raise RecipeError(
            f"the grid has {space.num_points():,} points, and {_MAX_GRID:,} are the most",
            where=space.source,
            now="leave out keys or values, or search it with random",
        )


def _distinct_draws(space: Space, seed: int, num_trials: int) -> list[tuple[int, Values]]:
    distinct: dict[str, tuple[int, Values]] = {}
    for index in range(num_trials):
        values = space.draw(seed, index)
        distinct.setdefault(json.dumps(values), (index + 1, values))
    if len(distinct) < num_trials:
        log.warning(
            "%d of %d trials would repeat others and are left out: the space is small",
            num_trials - len(distinct),
            num_trials,
        )
    return list(distinct.values())
