"""Everything that changes during training, and its conversion to a checkpoint and back."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sgnray.checkpoints.checkpoint import Checkpoint, Selected, build_model
from sgnray.config import Recipe, to_dict
from sgnray.data.skeleton import Skeleton
from sgnray.data.store import SkeletonDataset
from sgnray.distributed.world import World
from sgnray.model.sgn import SGN
from sgnray.seeding import derive_seed
from sgnray.train.optim import build_optimizer, sync_learning_rate


@dataclass
class TrainState:
    """One worker's training: `model` holds the weights, `parallel` is `model` or DDP around it.

    `averaged` holds the running mean of the weights, if the recipe asks for one.
    """

    recipe: Recipe
    skeleton: Skeleton
    class_names: list[str]
    model: SGN
    parallel: nn.Module
    averaged: SGN | None
    optimizer: torch.optim.Optimizer
    device: torch.device
    world: World
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    selected: Selected | None = None

    @classmethod
    def initial(
        cls, recipe: Recipe, dataset: SkeletonDataset, *, device: torch.device, world: World
    ) -> TrainState:
        """Start from initial weights that depend only on the seed.

        Collective with more than one rank: DDP compares the models.
        """
        skeleton, class_names = dataset.skeleton, list(dataset.info.class_names)
        torch.manual_seed(derive_seed(recipe.train.seed, "initial weights"))
        model = build_model(recipe, skeleton, len(class_names)).to(device)
        averaged = copy.deepcopy(model).requires_grad_(False) if recipe.train.ema_decay else None
        if recipe.train.sync_batch_norm and world.size > 1:
            # On GPUs only: train_run refuses it elsewhere.
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return cls(
            recipe=recipe,
            skeleton=skeleton,
            class_names=class_names,
            model=model,
            parallel=_wrap(model, world),
            averaged=averaged,
            optimizer=build_optimizer(model, recipe.optim),
            device=device,
            world=world,
        )

    @property
    def scored_model(self) -> SGN:
        """The model that validation and test score: the mean of the weights if there is one."""
        return self.model if self.averaged is None else self.averaged

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint as if training had never stopped."""
        self.model.load_state_dict(checkpoint.weights, strict=True)
        if self.averaged is not None:
            assert checkpoint.averaged is not None  # load_checkpoint refuses it
            self.averaged.load_state_dict(checkpoint.averaged, strict=True)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        sync_learning_rate(self.optimizer)
        self.epoch = checkpoint.epoch
        self.history = list(checkpoint.history)
        self.selected = checkpoint.selected

    def checkpoint(self) -> Checkpoint:
        """Return all that another process needs to resume; the weights are copies on the CPU."""
        return Checkpoint(
            recipe=to_dict(self.recipe),
            skeleton=self.skeleton,
            class_names=self.class_names,
            epoch=self.epoch,
            weights=_weights(self.model),
            averaged=None if self.averaged is None else _weights(self.averaged),
            optimizer=self.optimizer.state_dict(),
            history=self.history,
            selected=self.selected,
        )

    def finish_epoch(self, metrics: dict[str, float], *, score: float | None) -> None:
        """Count the epoch, and keep its weights if its score is the best so far."""
        self.epoch += 1
        self.history = [*self.history, metrics]
        if score is not None and (self.selected is None or score > self.selected.top1):
            weights = _weights(self.scored_model)
            self.selected = Selected(epoch=self.epoch, top1=score, weights=weights)

    def update_average(self) -> None:
        """Update the mean of the weights, after each step."""
        if self.averaged is not None:
            _move_towards(self.averaged, self.model, kept=self.recipe.train.ema_decay)

    @torch.no_grad()
    def average_running_statistics(self) -> None:
        """Average batch-norm statistics over ranks. Collective: every rank must call this."""
        models = [self.model] if self.averaged is None else [self.model, self.averaged]
        for model in models:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    self.world.mean(buffer)


def _move_towards(mean: nn.Module, model: nn.Module, *, kept: float) -> None:
    """Set `mean`, batch-norm statistics too, to kept * mean + (1 - kept) * model."""
    move = get_ema_multi_avg_fn(kept)  # type: ignore[no-untyped-call]
    move(_float_tensors(mean), _float_tensors(model), 0)  # the third one is not used


def _float_tensors(model: nn.Module) -> list[Tensor]:
    return [value for value in model.state_dict().values() if value.is_floating_point()]


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}


def _wrap(model: SGN, world: World) -> nn.Module:
    if world.size == 1:
        return model
    # Batch norm sees each rank's own slice; its statistics are averaged once an epoch instead of
    # being overwritten by rank 0's in every step.
    with warnings.catch_warnings():
        # torch 2.13 renames the argument; 2.11, which we support, only has the old name.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
