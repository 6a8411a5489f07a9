"""The training of a trial: one model per validation fold and seed; plain torch."""

from __future__ import annotations

import shutil
import socket
import statistics
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sgnray import metric_keys as keys
from sgnray.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sgnray.config import Recipe
from sgnray.config.schema import Precision
from sgnray.data.fetch import SharedDataset
from sgnray.data.protocols import validation_folds
from sgnray.data.store import SkeletonDataset, open_dataset
from sgnray.distributed.device import keep_freed_memory, resolve_precision
from sgnray.distributed.world import World
from sgnray.errors import CheckpointError
from sgnray.model.flops import forward_flops
from sgnray.model.sgn import count_parameters
from sgnray.train.job import open_bank, train_batches, validator
from sgnray.train.loop import train_and_validate
from sgnray.train.state import TrainState
from sgnray.train.step import choose_steps
from sgnray.tune.plan import Plan
from sgnray.tune.trial.messages import EpochReport, TrialConfig
from sgnray.tune.trial.resources import TrialResources


@dataclass(frozen=True)
class TrialJob:
    """The job of a search's workers; unfinished trials keep their state in `states_dir`.

    `precision` replaces `auto` in all trials, so that they can be compared.
    """

    plan: Plan
    dataset: SharedDataset
    resources: TrialResources
    states_dir: Path
    precision: Precision = "auto"

    def train(self, trial: TrialConfig, world: World) -> Iterator[EpochReport]:
        """Train a trial and yield each epoch. Collective: every rank of `world` must call this.

        A resumed trial first yields its earlier epochs again, so that the scheduler sees the same
        reports whether the trial was interrupted or not.
        """
        torch.set_num_threads(self.resources.num_threads)
        recipe = self.plan.trial_recipe(trial["values"])
        if recipe.train.precision == "auto":
            recipe = recipe.replacing({"train.precision": self.precision})
        folds = Folds(
            recipe,
            open_dataset(self.dataset.local_dir()),
            num_seeds=self.plan.num_seeds,
            device=torch.device("cuda" if self.resources.num_gpus else "cpu"),
            world=world,
        )
        # A machine without access to the search's folder trains without saving its state.
        state_dir = self.states_dir / f"{trial['number']:04d}" if self.states_dir.is_dir() else None
        folds.restore(state_dir)
        for epoch in range(1, folds.epoch + 1):
            yield folds.report(epoch)
        for report in folds.train_remaining():
            if state_dir is not None:
                folds.save(state_dir)
            yield replace(report, is_saved=state_dir is not None)


class Folds:
    """All models of a trial: each seed trains one on each fold of the training clips.

    Test clips are never used: both parts of a fold come from the training clips, and the recipe's
    `train.selection` is ignored. Collective: every rank must call every method.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: SkeletonDataset,
        *,
        num_seeds: int = 1,
        device: torch.device | None = None,
        world: World | None = None,
    ) -> None:
        device, world = device or torch.device("cpu"), world or World()
        recipe = resolve_precision(recipe, device.type)
        keep_freed_memory()
        bank = open_bank(recipe, dataset, device)
        splits = validation_folds(dataset.info.dataset, recipe.data.case, dataset.clips)
        self._recipe, self._world = recipe, world
        self._validators = [validator(recipe, bank, split.test) for split in splits]
        first = recipe.train.seed
        seeded = [
            recipe.replacing({"train.seed": seed}) for seed in range(first, first + num_seeds)
        ]
        self._seeds = [
            [
                choose_steps(
                    TrainState.initial(each, dataset, device=device, world=world),
                    train_batches(each, bank, split.train, world=world),
                )
                for split in splits
            ]
            for each in seeded
        ]
        self._flops = forward_flops(recipe.model, self._states[0].model)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self._states[0].epoch

    def train_remaining(self) -> Iterator[EpochReport]:
        """Train to the recipe's end and yield each epoch."""
        while self.epoch < self._recipe.train.num_epochs:
            for folds in self._seeds:
                for steps, validate in zip(folds, self._validators, strict=True):
                    metrics = train_and_validate(steps, validate)
                    # A score would keep the best epoch's weights, which are not needed here.
                    steps.state.finish_epoch(metrics, score=None)
            yield self.report(self.epoch)

    def report(self, epoch: int) -> EpochReport:
        """Return the report of a finished epoch, counted from 1: means over the models."""

        def mean(states: Sequence[TrainState], key: str) -> float:
            return statistics.fmean(state.history[epoch - 1][key] for state in states)

        by_seed = [mean([steps.state for steps in folds], keys.VAL_TOP1) for folds in self._seeds]
        return EpochReport(
            epoch=epoch,
            score=mean(self._states, keys.VAL_TOP1),
            spread=statistics.stdev(by_seed) if len(by_seed) > 1 else None,
            duration_s=sum(
                each[keys.EPOCH_S] for state in self._states for each in state.history[:epoch]
            ),
            num_parameters=count_parameters(self._states[0].model),
            flops=self._flops,
            node=socket.gethostname(),
            train_loss=mean(self._states, keys.TRAIN_LOSS),
            val_loss=mean(self._states, keys.VAL_LOSS),
        )

    def save(self, folder: Path) -> None:
        """Write all that another process needs to continue; replaces what was saved before."""
        if self._world.rank != 0:
            return
        new = folder / f"{self.epoch:04d}"
        # A trial that lost its worker may still run on an unreachable machine for a moment.
        partial = folder / f"{new.name}-{uuid.uuid4().hex[:8]}.partial"
        partial.mkdir(parents=True)
        for index, state in enumerate(self._states):
            save_checkpoint(partial / f"{index}.pt", state.checkpoint())
        shutil.rmtree(new, ignore_errors=True)
        partial.replace(new)
        for old in _saved(folder):
            if old != new:
                shutil.rmtree(old, ignore_errors=True)

    def restore(self, folder: Path | None) -> None:
        """Continue from the newest complete state of `save`, or start over if there is none.

        Rank 0 reads it for all ranks: the others may be on machines without access to the folder,
        and ranks at different epochs would wait for each other.
        """
        found = self._newest(folder) if folder is not None and self._world.rank == 0 else None
        found = self._world.from_first(found)
        if found is not None:
            for state, checkpoint in zip(self._states, found, strict=True):
                state.restore(checkpoint)

    def _newest(self, folder: Path) -> list[Checkpoint] | None:
        """Read the newest complete state of this trial."""
        for saved in reversed(_saved(folder)):
            try:
                checkpoints = [load_checkpoint(path) for path in sorted(saved.glob("*.pt"))]
            except CheckpointError:
                continue
            if len(checkpoints) == len(self._states) and all(
                checkpoint.parse_recipe().trains_like(state.recipe)
                for checkpoint, state in zip(checkpoints, self._states, strict=True)
            ):
                return checkpoints
        return None

    @property
    def _states(self) -> list[TrainState]:
        return [steps.state for folds in self._seeds for steps in folds]


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.name.isdecimal())
