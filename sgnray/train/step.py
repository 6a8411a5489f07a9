"""The steps of an epoch: launched one by one, or replayed from one CUDA graph; and their loss.

Legend: B clips, K classes, S steps of an epoch.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sgnray.data.batches import Batch, TrainBatches
from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.train.optim import set_capturable
from sgnray.train.state import TrainState

log = logging.getLogger(__name__)


def choose_steps(state: TrainState, batches: TrainBatches) -> Steps:
    """Return captured steps if all of their data is on one GPU, else launched ones."""
    # A capture under DDP would need special handling of its buckets, which is not implemented.
    if batches.bank.pose_device.type == "cuda" and state.world.size == 1:
        return CapturedSteps(state, batches, capture=_capture)
    return LaunchedSteps(state, batches)


class LaunchedSteps:
    """One step after the other, each operation launched separately."""

    def __init__(self, state: TrainState, batches: TrainBatches) -> None:
        self.state, self.batches = state, batches

    def run(self, epoch: int, on_step: OnProgress = ignore_progress) -> Tensor:
        """Take all steps of an epoch. Collective: every rank must call this.

        Returns (S, 2) on the device, without waiting for it: the sum of the losses and the correct
        clips of each step. `on_step` gets (steps launched, S).
        """
        num_steps = self.batches.num_batches
        tallies_S2 = _empty_tallies(self.state, num_steps)
        for step, batch in enumerate(self.batches.epoch(epoch)):
            tallies_S2[step] = train_step(self.state, batch)
            on_step(step + 1, num_steps)
        return tallies_S2


class CapturedSteps:
    """One step, from the clips' rows to the new weights, captured once and then replayed.

    A replay costs the host one call instead of some hundred launches, which limit the speed of such
    a small model on a GPU. Inputs of each step are copied to the tensors that the graph reads.
    """

    # torch requires a few steps on a side stream first; these are real training steps.
    _NUM_WARM_UP = 3

    def __init__(
        self,
        state: TrainState,
        batches: TrainBatches,
        *,
        capture: Callable[[Callable[[], None]], Callable[[], None]],
    ) -> None:
        self.state, self.batches = state, batches
        self._capture = capture
        self._draws = batches.draws(state.epoch)
        self._rows = next(iter(batches.slices(state.epoch)))
        self._tallies_S2 = _empty_tallies(state, batches.num_batches)
        self._cursor = torch.zeros(1, dtype=torch.int64, device=state.device)
        self._num_taken = 0
        self._replay: Callable[[], None] | None = None

    def run(self, epoch: int, on_step: OnProgress = ignore_progress) -> Tensor:
        """Take all steps of an epoch; see LaunchedSteps."""
        self._draws.copy_(self.batches.draws(epoch))
        self._cursor.zero_()
        for step, rows in enumerate(self.batches.slices(epoch)):
            self._rows.clips_B.copy_(rows.clips_B)
            self._rows.partners_B.copy_(rows.partners_B)
            self._take()
            on_step(step + 1, self.batches.num_batches)
        return self._tallies_S2.clone()

    def _take(self) -> None:
        if self._replay is None:
            if self._num_taken < self._NUM_WARM_UP:
                _on_side_stream(self._step)
                self._num_taken += 1
                return
            self._replay = self._captured()
        self._replay()

    def _captured(self) -> Callable[[], None]:
        set_capturable(self.state.optimizer, True)
        try:
            return self._capture(self._step)
        except RuntimeError as error:
            set_capturable(self.state.optimizer, False)
            log.warning("no CUDA graph could be captured, steps are launched one by one: %s", error)
            return self._step

    def _step(self) -> None:
        tally_2 = train_step(self.state, self.batches.batch(self._draws, self._rows))
        self._tallies_S2.index_copy_(0, self._cursor, tally_2.unsqueeze(0))
        self._cursor += 1


Steps = LaunchedSteps | CapturedSteps


def train_step(state: TrainState, batch: Batch) -> Tensor:
    """Take one step on this rank's slice; return (sum of losses, correct clips) of the slice."""
    logits_BK, loss = backward(state, batch)
    state.optimizer.step()
    state.update_average()
    correct = (logits_BK.argmax(dim=1) == batch.main_labels).sum()
    return torch.stack((loss.double() * len(batch.labels_B), correct.double()))


def backward(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute the gradient of the global batch's mean loss; return local logits and mean loss."""
    state.optimizer.zero_grad(set_to_none=True)
    use_bf16 = state.recipe.train.precision == "bf16"
    with torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=use_bf16):
        logits_BK = state.parallel(batch.joints_BTVC)
    loss = batch_loss(logits_BK, batch, smoothing=state.recipe.optim.label_smoothing)
    # DDP averages over ranks; slices of unequal size need weights to make it the global mean.
    share = len(batch.labels_B) * state.world.size / batch.global_size
    (loss * share).backward()  # type: ignore[no-untyped-call]
    return logits_BK.detach(), loss.detach()


def batch_loss(logits_BK: Tensor, batch: Batch, *, smoothing: float) -> Tensor:
    """Mean loss of a batch; a mixed clip counts for both labels, by their shares."""
    losses_B = smoothed_cross_entropy(logits_BK, batch.labels_B, smoothing=smoothing)
    if batch.other_labels_B is not None and batch.shares_B is not None:
        others_B = smoothed_cross_entropy(logits_BK, batch.other_labels_B, smoothing=smoothing)
        losses_B = others_B.lerp(losses_B, batch.shares_B)
    return losses_B.mean()


def smoothed_cross_entropy(logits_BK: Tensor, labels_B: Tensor, *, smoothing: float) -> Tensor:
    """Cross-entropy (B,) against labels that give `smoothing` to the K-1 other classes.

    torch spreads its rate over all K classes, so its rate is rescaled, which gives
    exactly the loss of the reference's LabelSmoothingLoss. `smoothing` is at most
    one half, so that the rate is at most 1 for two classes. Computed in float32 or better.
    """
    num_classes = logits_BK.shape[1]
    rate = smoothing * num_classes / max(1, num_classes - 1)
    precise_BK = logits_BK.float() if logits_BK.itemsize < 4 else logits_BK
    return F.cross_entropy(precise_BK, labels_B, label_smoothing=rate, reduction="none")


def _empty_tallies(state: TrainState, num_steps: int) -> Tensor:
    return torch.zeros(num_steps, 2, dtype=torch.float64, device=state.device)


def _on_side_stream(step: Callable[[], None]) -> None:
    """Take a step on a separate CUDA stream, if CUDA is available."""
    if not torch.cuda.is_available():
        return step()
    stream = _side_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    return None


@functools.cache  # each stream keeps workspaces of its own, some ten MB
def _side_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _capture(step: Callable[[], None]) -> Callable[[], None]:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError:
        torch.cuda.set_stream(stream)  # a capture that fails at its end leaves its own stream
        raise
    replay: Callable[[], None] = graph.replay
    return replay
