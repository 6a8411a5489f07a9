"""One trial: every validation fold trained side by side, scored after each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from sgnray.config import Recipe
from sgnray.data.bank import PoseBank
from sgnray.data.protocols import Split, validation_folds
from sgnray.data.store import SkeletonDataset, open_dataset
from sgnray.device import keep_freed_memory, resolve_precision
from sgnray.evaluate import metrics as keys
from sgnray.train.dataset import SharedDataset
from sgnray.train.job import train_batches, validator
from sgnray.train.loop import Validate, train_epoch
from sgnray.train.state import TrainState
from sgnray.train.step import Steps, choose_steps
from sgnray.world import World


@dataclass(frozen=True)
class TrialJob:
    """A trial as its worker is told of it; plain data that travels."""

    recipe: Recipe
    dataset: SharedDataset
    num_threads: int


def run_trial(config: dict[str, int], *, jobs: tuple[TrialJob, ...]) -> None:
    """Train the trial that `config` points to, in a Ray worker, and report every epoch."""
    from ray import tune

    job = jobs[config["index"]]
    torch.set_num_threads(job.num_threads)
    for metrics in train_folds(job.recipe, open_dataset(job.dataset.here())):
        tune.report(metrics)


def train_folds(recipe: Recipe, dataset: SkeletonDataset) -> Iterator[dict[str, Any]]:
    """Train one model per validation fold and yield, after each epoch, the mean over the folds.

    Only training clips are seen: a fold's two parts are cut from them, and the recipe's own way
    of selecting an epoch plays no part.
    """
    keep_freed_memory()
    device = torch.device("cpu")
    recipe = resolve_precision(recipe, device.type)
    bank = PoseBank.of(dataset, device, residence=recipe.data.residence)
    splits = validation_folds(dataset.info.dataset, recipe.data.case, dataset.clips)
    folds = [_Fold.start(recipe, dataset, bank, split) for split in splits]
    for epoch in range(1, recipe.train.num_epochs + 1):
        scored = [fold.train_epoch() for fold in folds]
        means = {key: sum(each[key] for each in scored) / len(scored) for key in scored[0]}
        yield {**means, "epoch": epoch}


@dataclass(frozen=True)
class _Fold:
    steps: Steps
    validate: Validate

    @classmethod
    def start(cls, recipe: Recipe, dataset: SkeletonDataset, bank: PoseBank, split: Split) -> _Fold:
        world = World()
        validate = validator(recipe, bank, split.test)
        assert validate is not None
        state = TrainState.fresh(recipe, dataset, device=bank.device, world=world)
        batches = train_batches(recipe, bank, split.train, world=world)
        return cls(choose_steps(state, batches), validate)

    def train_epoch(self) -> dict[str, float]:
        state = self.steps.state
        trained = train_epoch(self.steps)
        tally = self.validate(state)
        metrics = {
            keys.TRAIN_LOSS: trained[keys.TRAIN_LOSS],
            keys.VAL_LOSS: tally.loss,
            keys.VAL_TOP1: tally.top1,
        }
        state.finish_epoch(metrics, score=None)
        return metrics
