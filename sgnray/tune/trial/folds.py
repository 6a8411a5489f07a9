"""The training inside a trial: one model per validation fold and seed; plain torch."""

from __future__ import annotations

import shutil
import socket
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sgnray import metric_keys as keys
from sgnray.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from sgnray.config import Recipe
from sgnray.data.pose_bank import PoseBank
from sgnray.data.protocols import Split, validation_folds
from sgnray.data.store import SkeletonDataset
from sgnray.distributed.device import keep_freed_memory, resolve_precision
from sgnray.distributed.world import World
from sgnray.errors import CheckpointError
from sgnray.model.flops import forward_flops
from sgnray.model.sgn import count_parameters
from sgnray.train.job import train_batches, validator
from sgnray.train.loop import Validate, train_epoch
from sgnray.train.state import TrainState
from sgnray.train.step import Steps, choose_steps
from sgnray.tune.space.space import with_values
from sgnray.tune.trial.messages import EpochReport


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
        device, self._world = device or torch.device("cpu"), world or World()
        recipe = resolve_precision(recipe, device.type)
        keep_freed_memory()
        bank = PoseBank.of(dataset, device, wanted=recipe.data.pose_device)
        splits = validation_folds(dataset.info.dataset, recipe.data.case, dataset.clips)
        first = recipe.train.seed
        self._seeds = [
            [
                _Fold.start(
                    with_values(recipe, {"train.seed": seed}), dataset, bank, split, self._world
                )
                for split in splits
            ]
            for seed in range(first, first + num_seeds)
        ]
        self._recipe = recipe
        self._flops = forward_flops(
            recipe.model,
            num_frames=recipe.data.num_segments,
            num_joints=dataset.skeleton.num_joints,
            num_coordinates=self._all[0].state.model.num_coordinates,
            num_classes=len(dataset.info.class_names),
        )

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self._all[0].state.epoch

    def train_remaining(self) -> Iterator[EpochReport]:
        """Train to the recipe's end and yield each epoch."""
        while self.epoch < self._recipe.train.num_epochs:
            for fold in self._all:
                fold.train_epoch()
            yield self.report(self.epoch)

    def report(self, epoch: int) -> EpochReport:
        """Return an epoch that is done, counted from 1: means over the models."""

        def mean(folds: Sequence[_Fold], key: str) -> float:
            return statistics.fmean(fold.state.history[epoch - 1][key] for fold in folds)

        by_seed = [mean(folds, keys.VAL_TOP1) for folds in self._seeds]
        return EpochReport(
            epoch=epoch,
            score=mean(self._all, keys.VAL_TOP1),
            spread=statistics.stdev(by_seed) if len(by_seed) > 1 else None,
            duration_s=sum(
                each[keys.EPOCH_S] for fold in self._all for each in fold.state.history[:epoch]
            ),
            num_parameters=count_parameters(self._all[0].state.model),
            flops=self._flops,
            node=socket.gethostname(),
            train_loss=mean(self._all, keys.TRAIN_LOSS),
            val_loss=mean(self._all, keys.VAL_LOSS),
        )

    def save(self, folder: Path) -> None:
        """Write all that another process needs to continue; replaces what was saved before."""
        if self._world.rank != 0:
            return
        new = folder / f"{self.epoch:04d}"
        # A trial that lost its worker may still run on an unreachable machine for a moment.
        partial = folder / f"{new.name}-{uuid.uuid4().hex[:8]}.partial"
        partial.mkdir(parents=True)
        for index, fold in enumerate(self._all):
            save_checkpoint(partial / f"{index}.pt", fold.state.checkpoint())
        shutil.rmtree(new, ignore_errors=True)
        partial.replace(new)
        for old in _saved(folder):
            if old != new:
                shutil.rmtree(old, ignore_errors=True)

    def restore(self, folder: Path) -> None:
        """Continue from what `save` wrote, or start anew where nothing there is complete."""
        for saved in reversed(_saved(folder)):
            try:
                checkpoints = [load_checkpoint(path) for path in sorted(saved.glob("*.pt"))]
            except CheckpointError:
                continue
            if len(checkpoints) == len(self._all):
                for fold, checkpoint in zip(self._all, checkpoints, strict=True):
                    fold.state.restore(checkpoint)
                return

    @property
    def _all(self) -> list[_Fold]:
        return [fold for folds in self._seeds for fold in folds]


@dataclass(frozen=True)
class _Fold:
    steps: Steps
    validate: Validate

    @classmethod
    def start(
        cls, recipe: Recipe, dataset: SkeletonDataset, bank: PoseBank, split: Split, world: World
    ) -> _Fold:
        validate = validator(recipe, bank, split.test)
        assert validate is not None
        state = TrainState.initial(recipe, dataset, device=bank.device, world=world)
        batches = train_batches(recipe, bank, split.train, world=world)
        return cls(choose_steps(state, batches), validate)

    @property
    def state(self) -> TrainState:
        return self.steps.state

    def train_epoch(self) -> None:
        start = time.perf_counter()
        trained = train_epoch(self.steps)
        self.state.average_running_statistics()
        tally = self.validate(self.state)
        metrics = {
            keys.TRAIN_LOSS: trained[keys.TRAIN_LOSS],
            keys.VAL_LOSS: tally.loss,
            keys.VAL_TOP1: tally.top1,
            keys.EPOCH_S: time.perf_counter() - start,
        }
        self.state.finish_epoch(metrics, score=None)


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.name.isdecimal())
