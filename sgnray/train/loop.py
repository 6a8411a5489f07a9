"""The training loop: plain torch, the same alone and under DDP, without any knowledge of Ray.

Legend: B clips, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sgnray.data.batches import Batch, TrainBatches
from sgnray.errors import SgnError
from sgnray.evaluate import metrics as keys
from sgnray.evaluate.metrics import Tally
from sgnray.seeding import derive_seed
from sgnray.train.objective import smoothed_cross_entropy
from sgnray.train.optim import learning_rate
from sgnray.train.state import TrainState

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
) -> None:
    """Train until all epochs of the recipe are done. Collective: every rank must call this.

    `validate` scores the model after each epoch, and the best epoch is kept; without it the last
    one is. `on_epoch` is called on every rank when the state is ready to be written.
    """
    num_epochs = state.recipe.train.num_epochs
    while state.epoch < num_epochs:
        start = time.perf_counter()
        metrics = train_epoch(state, batches)
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


def train_epoch(state: TrainState, batches: TrainBatches) -> dict[str, float]:
    """Train one epoch and return its metrics. Collective: every rank must call this."""
    start = time.perf_counter()
    rate = learning_rate(state.recipe.optim, state.epoch)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    # Dropout is all that draws from here on; so an epoch that is done again is the same.
    seed = state.recipe.train.seed
    torch.manual_seed(derive_seed(seed, "dropout", state.epoch, state.world.rank))
    state.parallel.train()
    # Sums stay on the device: reading them would make it wait in every step.
    sums = torch.zeros(3, dtype=torch.float64, device=state.device)
    for batch in batches.epoch(state.epoch):
        sums += train_step(state, batch)
    loss_sum, num_correct, num_clips = state.world.sum(sums).tolist()
    if not math.isfinite(loss_sum):
        raise _diverged(state.epoch)
    return {
        keys.TRAIN_LOSS: loss_sum / num_clips,
        keys.TRAIN_TOP1: num_correct / num_clips,
        keys.LEARNING_RATE: rate,
        keys.CLIPS_PER_S: num_clips / (time.perf_counter() - start),
    }


def train_step(state: TrainState, batch: Batch) -> Tensor:
    """Take one step on this rank's slice; return (loss sum, correct clips, clips) of the slice."""
    logits_BK, loss = backward(state, batch)
    state.optimizer.step()
    num_clips = len(batch.labels_B)
    correct = (logits_BK.argmax(dim=1) == batch.labels_B).sum()
    return torch.stack((loss.double() * num_clips, correct.double(), correct.new_tensor(num_clips)))


def backward(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Leave the gradient of the global batch's mean loss; return local logits and mean loss."""
    state.optimizer.zero_grad(set_to_none=True)
    use_bf16 = state.recipe.train.precision == "bf16"
    with torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=use_bf16):
        logits_BK = state.parallel(batch.joints_BTVC)
    loss = smoothed_cross_entropy(
        logits_BK, batch.labels_B, smoothing=state.recipe.optim.label_smoothing
    )
    # DDP averages over ranks; slices of unequal size need weights to make it the global mean.
    share = len(batch.labels_B) * state.world.size / batch.global_size
    (loss * share).backward()  # type: ignore[no-untyped-call]
    return logits_BK.detach(), loss.detach()


def _diverged(epoch: int) -> SgnError:
    return SgnError(
        "the loss is no longer a finite number",
        where=f"epoch {epoch + 1}",
        now="try a smaller optim.learning_rate, or train.precision=float32",
    )
