"""The training loop: plain torch, the same alone and under DDP, without any knowledge of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sgnray import metric_keys as keys
from sgnray.data.batches import TrainBatches
from sgnray.evaluate.metrics import Tally
from sgnray.seeding import derive_seed
from sgnray.train.diverged import explain_divergence
from sgnray.train.optim import learning_rate, set_learning_rate
from sgnray.train.state import TrainState
from sgnray.train.step import OnStep, Steps, choose_steps

Validate = Callable[[TrainState], Tally]


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch; `history` has the metrics of all epochs so far, this one last.

    Metrics stand under the keys of evaluate.metrics.
    """

    num_epochs: int
    history: tuple[dict[str, float], ...]

    @property
    def epoch(self) -> int:
        """Number of the epoch, counted from 1."""
        return len(self.history)

    @property
    def metrics(self) -> dict[str, float]:
        """What this epoch gave."""
        return self.history[-1]


def fit(
    state: TrainState,
    batches: TrainBatches,
    *,
    validate: Validate | None,
    on_epoch: Callable[[EpochResult], None],
    on_step: OnStep | None = None,
) -> None:
    """Train until all epochs of the recipe are done. Collective: every rank must call this.

    `validate` scores the model after each epoch, and the best epoch is kept; without it the last
    one is. `on_epoch` is called on every rank when the state is ready to be written, `on_step`
    after each step was launched.
    """
    num_epochs = state.recipe.train.num_epochs
    steps = choose_steps(state, batches)
    while state.epoch < num_epochs:
        start = time.perf_counter()
        metrics = train_epoch(steps, on_step)
        state.average_running_statistics()
        score = None
        if validate is not None:
            tally = validate(state)
            score = tally.top1
            metrics |= {
                keys.VAL_LOSS: tally.loss,
                keys.VAL_TOP1: tally.top1,
                keys.VAL_TOP5: tally.top5_share,
            }
        metrics[keys.EPOCH_S] = time.perf_counter() - start
        state.finish_epoch(metrics, score=score)
        on_epoch(EpochResult(num_epochs, tuple(state.history)))


def train_epoch(steps: Steps, on_step: OnStep | None = None) -> dict[str, float]:
    """Train one epoch and return its metrics. Collective: every rank must call this."""
    start = time.perf_counter()
    state, batches = steps.state, steps.batches
    recipe = state.recipe
    rate = learning_rate(recipe.optim, state.epoch, recipe.train.num_epochs)
    set_learning_rate(state.optimizer, rate)
    # Dropout is all that draws from here on; so an epoch that is done again is the same.
    torch.manual_seed(derive_seed(recipe.train.seed, "dropout", state.epoch, state.world.rank))
    state.parallel.train()
    tallies_S2 = steps.run(state.epoch, on_step)
    # The only time in an epoch that the device is waited for.
    tallies_S2 = state.world.sum(tallies_S2).cpu()
    is_finite_S = tallies_S2[:, 0].isfinite()
    if not is_finite_S.all():
        step = int(is_finite_S.int().argmin())
        raise explain_divergence(
            recipe,
            epoch=state.epoch,
            step=step,
            num_steps=batches.num_batches,
            clip_names=batches.clip_names(state.epoch, step),
        )
    loss_sum, num_correct = tallies_S2.sum(dim=0).tolist()
    num_clips = batches.num_clips
    return {
        keys.TRAIN_LOSS: loss_sum / num_clips,
        keys.TRAIN_TOP1: num_correct / num_clips,
        keys.LEARNING_RATE: rate,
        keys.CLIPS_PER_S: num_clips / (time.perf_counter() - start),
    }
