"""The training loop: plain torch, the same with and without DDP, independent of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sgnray import metric_keys as keys
from sgnray.config import Recipe
from sgnray.data.batches import TrainBatches
from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.errors import Problem, SgnError
from sgnray.evaluate.metrics import Tally
from sgnray.seeding import derive_seed
from sgnray.train.optim import learning_rate, set_learning_rate
from sgnray.train.state import TrainState
from sgnray.train.step import Steps, choose_steps

Validate = Callable[[TrainState], Tally]

# How many clips the error of a diverged run lists: a whole batch of the paper's size.
_MAX_NAMES = 64


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch; `history` has the metrics of all epochs so far, this one last.

    The keys of metrics are those of metric_keys.
    """

    num_epochs: int
    history: tuple[dict[str, float], ...]

    @property
    def epoch(self) -> int:
        """Number of the epoch, counted from 1."""
        return len(self.history)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of this epoch."""
        return self.history[-1]


def fit(
    state: TrainState,
    batches: TrainBatches,
    *,
    validate: Validate | None,
    on_epoch: Callable[[EpochResult], None],
    on_step: OnProgress = ignore_progress,
) -> None:
    """Train until all epochs of the recipe are done. Collective: every rank must call this.

    `validate` scores the model after each epoch, and the best epoch is kept; without it the last
    one is. `on_epoch` is called on every rank when the state is ready to be written, `on_step`
    after each step was launched.
    """
    num_epochs = state.recipe.train.num_epochs
    steps = choose_steps(state, batches)
    while state.epoch < num_epochs:
        metrics = train_and_validate(steps, validate, on_step)
        state.finish_epoch(metrics, score=metrics.get(keys.VAL_TOP1))
        on_epoch(EpochResult(num_epochs, tuple(state.history)))


def train_and_validate(
    steps: Steps, validate: Validate | None, on_step: OnProgress = ignore_progress
) -> dict[str, float]:
    """Train one epoch, score the model if `validate` is given, and return the metrics.

    Collective: every rank must call this.
    """
    start = time.perf_counter()
    metrics = train_epoch(steps, on_step)
    steps.state.average_running_statistics()
    if validate is not None:
        tally = validate(steps.state)
        metrics |= {
            keys.VAL_LOSS: tally.loss,
            keys.VAL_TOP1: tally.top1,
            keys.VAL_TOP5: tally.top5,
        }
    metrics[keys.EPOCH_S] = time.perf_counter() - start
    return metrics


def train_epoch(steps: Steps, on_step: OnProgress = ignore_progress) -> dict[str, float]:
    """Train one epoch and return its metrics. Collective: every rank must call this."""
    start = time.perf_counter()
    state, batches = steps.state, steps.batches
    recipe = state.recipe
    rate = learning_rate(recipe.optim, state.epoch, recipe.train.num_epochs)
    set_learning_rate(state.optimizer, rate)
    # Only dropout draws random numbers from here on, so a repeated epoch is the same.
    torch.manual_seed(derive_seed(recipe.train.seed, "dropout", state.epoch, state.world.rank))
    state.parallel.train()
    tallies_S2 = steps.run(state.epoch, on_step)
    # The only time in an epoch that the host waits for the device.
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


def explain_divergence(
    recipe: Recipe, *, epoch: int, step: int, num_steps: int, clip_names: Sequence[str]
) -> SgnError:
    """Return the error of a run whose loss is no longer finite.

    `epoch` and `step` are counted from 0: the first step of that epoch whose loss was not finite;
    `clip_names` are the clips of its whole batch, over all workers.
    """
    return SgnError(
        "the loss is no longer a finite number",
        where=f"epoch {epoch + 1}, step {step + 1} of {num_steps}",
        now=_what_to_try(recipe, is_first_step=epoch == 0 and step == 0),
        problems=[Problem(f"its {len(clip_names)} clips", _listed(clip_names))],
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMES
    shown = ", ".join(names[:_MAX_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _what_to_try(recipe: Recipe, *, is_first_step: bool) -> str:
    if is_first_step:
        # The weights are still small, so the input must be large.
        return "look for huge numbers in these clips, for example with pandas, or in the data keys"
    optim = recipe.optim
    advice = [f"a smaller optim.learning_rate than {optim.learning_rate:g}"]
    if recipe.train.precision == "bf16":
        advice.append("train.precision=float32")
    if optim.warmup_epochs == 0:
        advice.append("optim.warmup_epochs=5")
    return f"try {', or '.join(advice)}; or look for huge numbers in these clips"
