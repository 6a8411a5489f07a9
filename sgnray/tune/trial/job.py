"""All trials of a search, as plain data for their workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sgnray.config import Recipe
from sgnray.data.fetch import SharedDataset
from sgnray.data.store import open_dataset
from sgnray.distributed.world import World
from sgnray.tune.plan import shorten
from sgnray.tune.space.space import Values, with_values
from sgnray.tune.trial.folds import Folds
from sgnray.tune.trial.messages import EpochReport, TrialConfig
from sgnray.tune.trial.resources import TrialResources


@dataclass(frozen=True)
class TrialJob:
    """What every trial of a search trains; unfinished trials keep their state in `states_dir`."""

    recipe: Recipe
    num_epochs: int
    num_seeds: int
    dataset: SharedDataset
    resources: TrialResources
    states_dir: Path

    def train(self, trial: TrialConfig, world: World) -> Iterator[EpochReport]:
        """Train a trial and yield each epoch. Collective: every rank of `world` must call this.

        A resumed trial first yields the epochs that it did before, so that the scheduler sees the
        same whether it was interrupted or not.
        """
        torch.set_num_threads(self.resources.num_threads)
        folds = Folds(
            self.recipe_of(trial["values"]),
            open_dataset(self.dataset.local_dir()),
            num_seeds=self.num_seeds,
            device=torch.device("cuda" if self.resources.num_gpus else "cpu"),
            world=world,
        )
        # A machine that does not see the search's folder trains without keeping its state.
        state_dir = self.states_dir / f"{trial['number']:04d}" if self.states_dir.is_dir() else None
        if state_dir is not None:
            folds.restore(state_dir)
        for epoch in range(1, folds.epoch + 1):
            yield folds.report(epoch)
        for report in folds.train_remaining():
            if state_dir is not None:
                folds.save(state_dir)
            yield report

    def recipe_of(self, values: Values) -> Recipe:
        """Return the recipe that a trial trains."""
        return shorten(with_values(self.recipe, values), self.num_epochs)
