"""Score every clip exactly once, on any number of workers.

Legend: N clips, B of a chunk, W views, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sgnray.checkpoints.model_card import ModelCard
from sgnray.config.schema import Windows
from sgnray.data.batches import gather_views, view_draws
from sgnray.data.pose_bank import PoseBank
from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.data.protocols import IntArray
from sgnray.distributed.world import World
from sgnray.errors import SgnError, count_of
from sgnray.evaluate.metrics import Tally
from sgnray.model.sgn import SGN

# The reference scores 32 clips at a time. A fixed size makes each clip's logits independent of the
# number of workers: ranks get whole chunks.
CHUNK_CLIPS = 32


def score_clips(
    model: SGN,
    bank: PoseBank,
    rows: IntArray,
    *,
    num_views: int,
    windows: Windows,
    turn_rad: float = 0.0,
    world: World | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Tally:
    """Tally the clips `rows`, logits averaged over `num_views` draws each, in float32.

    `turn_rad` turns the views, as `gather_views` does.
    Collective: every rank must call this; all get the tally of all ranks. The model keeps its
    mode, training or evaluation. SgnError if its logits are not finite.
    """
    world = world or World()
    tally = Tally.empty(model.num_classes, bank.device)
    chunks = _chunks(
        model, bank, rows, num_views=num_views, windows=windows, turn_rad=turn_rad, world=world
    )
    for start, rows_B, logits_BWK in chunks:
        tally += Tally.of(logits_BWK.mean(dim=1), bank.deliver(bank.labels_N[rows_B]))
        on_progress(min(start + CHUNK_CLIPS * world.size, len(rows)), len(rows))
    tally = tally.gathered(world)
    check_finite(tally)
    return tally


def view_logits(
    model: SGN,
    card: ModelCard,
    bank: PoseBank,
    rows: IntArray,
    *,
    num_views: int,
) -> Tensor:
    """Return the logits (N, W, K) of each view of the clips `rows`, float32 on the CPU.

    The views are those of the model's card, but `num_views` of them.
    """
    logits_NWK = torch.empty(len(rows), num_views, model.num_classes)
    chunks = _chunks(
        model,
        bank,
        rows,
        num_views=num_views,
        windows=card.windows,
        turn_rad=card.turn_rad,
        world=World(),
    )
    for start, rows_B, logits_BWK in chunks:
        logits_NWK[start : start + len(rows_B)] = logits_BWK.cpu()
    return logits_NWK


def tally_logits(logits_NK: Tensor, labels_N: Tensor, *, where: str = "") -> Tally:
    """Tally logits as score_clips does, chunk by chunk, so that even the loss is the same.

    SgnError, which names `where`, if they are not finite.
    """
    tally = Tally.empty(logits_NK.shape[1], logits_NK.device)
    chunks = zip(
        torch.split(logits_NK, CHUNK_CLIPS), torch.split(labels_N, CHUNK_CLIPS), strict=True
    )
    for logits_BK, labels_B in chunks:
        tally += Tally.of(logits_BK, labels_B)
    check_finite(tally, where)
    return tally


def check_finite(tally: Tally, where: str = "") -> None:
    """Raise SgnError if a model gave NaN or infinite logits."""
    if not math.isfinite(tally.loss):
        scores = f"the scores of {count_of(tally.num_clips, 'clip')}"
        raise SgnError(
            "the model's output is not finite",
            where=f"{where}, {scores}" if where else scores,
            now="train again with a smaller optim.learning_rate, or with train.precision=float32",
        )


@torch.no_grad()
def _chunks(
    model: SGN,
    bank: PoseBank,
    rows: IntArray,
    *,
    num_views: int,
    windows: Windows,
    turn_rad: float,
    world: World,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield this rank's chunks: the start in `rows`, the rows and the logits (B, W, K) of each."""
    was_training = model.training
    model.eval()
    rows_N = torch.from_numpy(rows)
    draws_NWT = view_draws(len(bank.names), num_views, model.num_frames)[rows_N]
    # Moved once: a copy for each chunk would make a GPU wait.
    rows_N, draws_NWT = rows_N.to(bank.pose_device), draws_NWT.to(bank.pose_device)
    for start in range(CHUNK_CLIPS * world.rank, len(rows), CHUNK_CLIPS * world.size):
        rows_B = rows_N[start : start + CHUNK_CLIPS]
        draws_BWT = draws_NWT[start : start + CHUNK_CLIPS]
        joints_BWTVC = gather_views(bank, rows_B, draws_BWT, windows=windows, turn_rad=turn_rad)
        logits = model(bank.deliver(joints_BWTVC).flatten(0, 1))
        yield start, rows_B, logits.view(len(rows_B), num_views, -1)
    model.train(was_training)
