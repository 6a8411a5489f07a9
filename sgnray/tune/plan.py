"""The plan of a search: everything that affects its outcome, known before the first trial."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from sgnray.config import Recipe, to_dict
from sgnray.tune.space import SearchWay, Space, Values

FORMAT_VERSION = 2
Scheduler = Literal["asha", "none"]

# Enough to separate good settings from bad ones.
DEFAULT_EPOCHS = 12
DEFAULT_TRIALS = 16
# ASHA: after a quarter of the epochs, and at each multiple of three, the best third continues.
_GRACE_SHARE = 4
REDUCTION_FACTOR = 3


@dataclass(frozen=True)
class Plan:
    """A whole search: every trial trains at most `num_epochs`, `num_seeds` times, on one dataset.

    `num_workers` is per trial: it decides over which clips batch norm averages.
    """

    recipe: Recipe
    space: Space
    search: SearchWay
    scheduler: Scheduler
    num_trials: int
    num_epochs: int
    num_seeds: int
    num_workers: int
    dataset_checksum: str
    split_checksum: str | None = None

    @property
    def grace_epochs(self) -> int:
        """Epochs of every trial before ASHA first compares it with the others."""
        return max(1, self.num_epochs // _GRACE_SHARE)

    def recipe_of(self, values: Values) -> Recipe:
        """Return the full-length recipe with the values of a trial."""
        return self.recipe.replacing(values, source="the search space")

    def trial_recipe(self, values: Values) -> Recipe:
        """Return the recipe that a trial trains."""
        return shorten(self.recipe_of(values), self.num_epochs)

    def describe(self) -> dict[str, Any]:
        """Return everything that affects the outcome, as data that JSON reads back unchanged."""
        asha = {"grace_epochs": self.grace_epochs, "reduction_factor": REDUCTION_FACTOR}
        return {
            "format_version": FORMAT_VERSION,
            "search": self.search,
            "scheduler": {"kind": self.scheduler} | (asha if self.scheduler == "asha" else {}),
            "num_trials": self.num_trials,
            "num_epochs": self.num_epochs,
            "num_seeds": self.num_seeds,
            "num_workers": self.num_workers,
            "space": self.space.describe(),
            "recipe": describe_recipe(self.recipe),
            "dataset_checksum": self.dataset_checksum,
            **({"split_checksum": self.split_checksum} if self.split_checksum else {}),
        }

    def is_described_by(self, found: dict[str, Any]) -> bool:
        """Return whether this is `describe` of the same plan; older ones have no split_checksum."""
        if self.split_checksum:
            found = {"split_checksum": self.split_checksum, **found}
        return found == self.describe()

    def folder_name(self) -> str:
        """Name the search's folder: tune-<dataset>-<case>-<short hash>."""
        text = json.dumps(self.describe(), sort_keys=True, separators=(",", ":"))
        digits = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"tune-{self.recipe.data.dataset}-{self.recipe.data.case}-{digits}"


def describe_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain data, without its trackers, which do not affect the outcome."""
    return to_dict(recipe.replacing({"train.log": ()}))


def shorten(recipe: Recipe, num_epochs: int) -> Recipe:
    """Shorten a recipe to `num_epochs` and its schedule in proportion, so that it still decays.

    Milestones 60, 90, 110 of 120 epochs become 6, 9, 11 of 12. With few epochs, two milestones may
    fall on the same epoch; then one decay is lost.
    """
    scale = num_epochs / recipe.train.num_epochs
    milestones = sorted({max(1, round(epoch * scale)) for epoch in recipe.optim.milestones})
    warmup = min(num_epochs - 1, round(recipe.optim.warmup_epochs * scale))
    return recipe.replacing(
        {
            "train.num_epochs": num_epochs,
            "optim.milestones": milestones,
            "optim.warmup_epochs": warmup,
        }
    )
