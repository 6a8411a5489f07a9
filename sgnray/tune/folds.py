"""The training of a trial: one model per validation fold and seed; plain torch."""

from __future__ import annotations

import io
import json
import logging
import socket
import statistics
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from sgnray import metric_keys as keys
from sgnray.checkpoints.checkpoint import Checkpoint, pack_checkpoint, unpack_checkpoint
from sgnray.config import Recipe
from sgnray.config.schema import Precision
from sgnray.data.fetch import SharedDataset
from sgnray.data.protocols import validation_folds
from sgnray.data.store import SkeletonDataset, open_dataset
from sgnray.distributed.device import explained_gpu_memory, keep_freed_memory
from sgnray.distributed.driver_actors import StateStore
from sgnray.distributed.precision import without_auto
from sgnray.distributed.world import World
from sgnray.errors import RunError
from sgnray.model.flops import forward_flops
from sgnray.model.sgn import count_parameters
from sgnray.train.job import open_bank, train_batches, validator
from sgnray.train.loop import train_and_validate
from sgnray.train.state import TrainState
from sgnray.train.step import choose_steps
from sgnray.tune.plan import Plan
from sgnray.tune.trial_resources import TrialResources
from sgnray.tune.trials import EpochReport, Started

STATE_VERSION = 1
_HEADER_FILE = "state.json"

log = logging.getLogger(__name__)


def check_version(packed: bytes, where: str) -> None:
    """Raise RunError if a newer sgnray packed the state of a trial."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            version = json.loads(archive.read(_HEADER_FILE))["format_version"]
    except Exception:  # what a corrupt .zip raises is not documented
        return
    if version > STATE_VERSION:
        raise RunError(
            f"the state of a trial has format version {version}, this sgnray reads {STATE_VERSION}",
            where=where,
            now="update sgnray",
        )


@dataclass(frozen=True)
class TrialJob:
    """The job of a search's workers; they send the state of unfinished trials to `states`.

    `precision` replaces `auto` in all trials, so that they can be compared.
    """

    plan: Plan
    dataset: SharedDataset
    resources: TrialResources
    states: StateStore
    precision: Precision

    def train(self, trial: Started, world: World) -> Iterator[EpochReport]:
        """Train a trial and yield each epoch. Collective: every rank of `world` must call this.

        A resumed trial first yields its earlier epochs again, so that the scheduler sees the same
        reports whether the trial was interrupted or not.
        """
        torch.set_num_threads(self.resources.num_threads)
        recipe = without_auto(self.plan.trial_recipe(trial.values), lambda: self.precision)
        folds = Folds(
            recipe,
            open_dataset(self.dataset.local_dir()),
            num_seeds=self.plan.num_seeds,
            device=torch.device(self.resources.device),
            world=world,
        )
        # Rank 0 asks for all ranks: those at different epochs would wait for each other.
        state = self.states.newest(trial.number) if world.rank == 0 else None
        folds.restore(world.from_first(state))
        for epoch in range(1, folds.epoch + 1):
            yield folds.report(epoch)
        for report in folds.train_remaining():
            if world.rank == 0:
                self.states.send(trial.number, folds.pack())
            yield report


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
        assert recipe.train.precision != "auto"  # each node might choose another
        device, world = device or torch.device("cpu"), world or World()
        keep_freed_memory()
        bank = open_bank(recipe, dataset, device)
        splits = validation_folds(dataset.info.dataset, recipe.data.case, dataset.clips)
        self._recipe, self._dataset_identity = recipe, dataset.info.identity
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
            self._train_epoch()
            yield self.report(self.epoch)

    @explained_gpu_memory()
    def _train_epoch(self) -> None:
        for folds in self._seeds:
            for steps, validate in zip(folds, self._validators, strict=True):
                metrics = train_and_validate(steps, validate)
                # A score would keep the best epoch's weights, which are not needed here.
                steps.state.finish_epoch(metrics, score=None)

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
            clips_per_s=mean(self._states, keys.CLIPS_PER_S),
        )

    def pack(self) -> bytes:
        """Return all that another process needs to continue: a .zip file of checkpoints."""
        header = {"format_version": STATE_VERSION, "dataset": self._dataset_identity}
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(_HEADER_FILE, json.dumps(header))
            for index, state in enumerate(self._states):
                archive.writestr(f"{index}.pt", pack_checkpoint(state.checkpoint()))
        return file.getvalue()

    def restore(self, packed: bytes | None) -> None:
        """Continue from what `pack` returned, or start over if it does not fit or is corrupt."""
        if packed is None:
            return
        found = self._unpack(packed)
        if found is None:
            log.warning("the state of a trial does not fit, or is corrupt: it starts over")
            return
        for state, checkpoint in zip(self._states, found, strict=True):
            state.restore(checkpoint)

    def _unpack(self, packed: bytes) -> list[Checkpoint] | None:
        """Read a state; None unless it is one of this recipe on this dataset."""
        try:
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                header = json.loads(archive.read(_HEADER_FILE))
                checkpoints = [
                    unpack_checkpoint(archive.read(f"{index}.pt"), where=f"{index}.pt")
                    for index in range(len(archive.namelist()) - 1)
                ]
        except Exception:  # what a corrupt .zip raises is not documented
            return None
        is_ours = (
            header == {"format_version": STATE_VERSION, "dataset": self._dataset_identity}
            and len(checkpoints) == len(self._states)
            and all(
                checkpoint.parse_recipe().makes_same_run(state.recipe)
                for checkpoint, state in zip(checkpoints, self._states, strict=True)
            )
        )
        return checkpoints if is_ours else None

    @property
    def _states(self) -> list[TrainState]:
        return [steps.state for folds in self._seeds for steps in folds]
