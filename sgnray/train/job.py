"""The work of each worker of a run, however it is launched: plain torch, no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from sgnray.checkpoints.checkpoint import unpack_checkpoint
from sgnray.config import Recipe
from sgnray.data.batches import TrainBatches
from sgnray.data.pose_bank import PoseBank
from sgnray.data.protocols import IntArray, Split, split_clips, validation_folds
from sgnray.data.store import SkeletonDataset, open_dataset
from sgnray.distributed.device import explained_gpu_memory, keep_freed_memory
from sgnray.distributed.world import World
from sgnray.evaluate.metrics import Tally
from sgnray.evaluate.score import score_clips
from sgnray.train.loop import EpochResult, Validate, fit
from sgnray.train.state import TrainState

# One view is enough to compare epochs, and costs a fifth of the test's five.
VALIDATION_VIEWS = 1
_PROGRESS_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Parts:
    """Clip rows for training, for selecting the epoch (if one is selected) and for the test."""

    train: IntArray
    validation: IntArray | None
    test: IntArray


@dataclass(frozen=True)
class TrainProgress:
    """`done` of `total`: steps of the current epoch, counted from 1, or clips of the test."""

    stage: Literal["train", "test"]
    epoch: int
    num_epochs: int
    done: int
    total: int
    num_workers: int


OnTrainProgress = Callable[[TrainProgress], object]


@explained_gpu_memory()
def run_job(
    recipe: Recipe,
    dataset_dir: Path,
    *,
    device: torch.device,
    world: World,
    on_epoch: Callable[[TrainState, EpochResult], None],
    resume_from: bytes | None = None,
    on_progress: OnTrainProgress | None = None,
) -> Tally:
    """Train to the end, from the content of a checkpoint if there is one, and tally the test clips.

    Collective: every rank must call this.
    """
    keep_freed_memory()
    dataset = open_dataset(dataset_dir)
    bank = open_bank(recipe, dataset, device)
    parts = choose_parts(recipe, dataset)
    state = TrainState.initial(recipe, dataset, device=device, world=world)
    if resume_from is not None:
        state.restore(unpack_checkpoint(resume_from, where="the checkpoint to resume from"))
    reporter = ProgressReporter(state, on_progress)
    fit(
        state,
        train_batches(recipe, bank, parts.train, world=world),
        validate=validator(recipe, bank, parts.validation),
        on_epoch=lambda result: on_epoch(state, result),
        on_step=partial(reporter.report, "train"),
    )
    if state.selected is not None:
        state.scored_model.load_state_dict(state.selected.weights, strict=True)
    return score_clips(
        state.scored_model,
        bank,
        parts.test,
        num_views=recipe.evaluate.num_views,
        windows=recipe.data.windows,
        turn_rad=recipe.evaluate.turn_rad,
        world=world,
        on_progress=partial(reporter.report, "test"),
    )


def choose_parts(recipe: Recipe, dataset: SkeletonDataset) -> Parts:
    """Divide the clips by the recipe's case and its way of selecting an epoch.

    Only `selection: test` uses test clips before the end, because the user asked for it.
    """
    name, case, clips = dataset.info.dataset, recipe.data.case, dataset.clips
    split = split_clips(name, case, clips)
    match recipe.train.selection:
        case "last":
            return Parts(split.train, None, split.test)
        case "test":
            return Parts(split.train, split.test, split.test)
        case "validation":
            fold: Split = validation_folds(name, case, clips)[0]
            return Parts(fold.train, fold.test, split.test)


def open_bank(recipe: Recipe, dataset: SkeletonDataset, device: torch.device) -> PoseBank:
    """Open the poses of a dataset and the labels that a recipe trains with."""
    return PoseBank.of(
        dataset,
        device,
        wanted=recipe.data.pose_device,
        use_corrected_labels=recipe.data.corrected_labels,
    )


def train_batches(recipe: Recipe, bank: PoseBank, rows: IntArray, *, world: World) -> TrainBatches:
    """Build the training batches of a recipe."""
    return TrainBatches(
        bank=bank,
        rows=rows,
        config=recipe.data,
        seed=recipe.train.seed,
        batch_size=recipe.optim.batch_size,
        world=world,
    )


def validator(recipe: Recipe, bank: PoseBank, rows: IntArray | None) -> Validate | None:
    """Return a function that scores the model after each epoch; None if no epoch is selected."""
    if rows is None:
        return None

    def validate(state: TrainState) -> Tally:
        return score_clips(
            state.scored_model,
            bank,
            rows,
            num_views=VALIDATION_VIEWS,
            windows=recipe.data.windows,
            world=state.world,
        )

    return validate


@dataclass
class ProgressReporter:
    """Reports a worker's progress, at most once a second however often it is called.

    It counts the steps that the host has launched, slightly ahead of a GPU, without waiting for it.
    """

    state: TrainState
    on_progress: OnTrainProgress | None
    clock: Callable[[], float] = time.monotonic
    _reported_at: float = field(default=float("-inf"), init=False)

    def report(self, stage: Literal["train", "test"], done: int, total: int) -> None:
        """Report steps of the current epoch, or tested clips."""
        now = self.clock()
        if self.on_progress is None or now - self._reported_at < _PROGRESS_INTERVAL_S:
            return
        self._reported_at = now
        num_epochs = self.state.recipe.train.num_epochs
        epoch = min(self.state.epoch + 1, num_epochs)
        num_workers = self.state.world.size
        self.on_progress(TrainProgress(stage, epoch, num_epochs, done, total, num_workers))
