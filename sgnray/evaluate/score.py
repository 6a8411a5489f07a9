"""Score every clip exactly once, on any number of workers.

Legend: B clips, W views, T frames, V joints, C coordinates, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sgnray.data.bank import PoseBank
from sgnray.data.batches import view_draws
from sgnray.data.protocols import IntArray
from sgnray.data.sampling import Windows
from sgnray.errors import SgnError
from sgnray.evaluate.metrics import Tally
from sgnray.model.sgn import SGN
from sgnray.world import World

# The reference scores 32 clips at a time. A fixed size makes each clip's logits independent of the
# number of workers: whole chunks are dealt to the ranks.
_CHUNK_CLIPS = 32


@torch.no_grad()
def score_clips(
    model: SGN,
    bank: PoseBank,
    rows: IntArray,
    *,
    num_views: int,
    windows: Windows,
    world: World | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Tally:
    """Tally the clips `rows`, logits averaged over `num_views` draws each, in float32.

    Collective: every rank must call this; all get the tally of all ranks. The model is left in
    the mode, training or evaluation, that it came in. SgnError where it gives no numbers.
    """
    world = world or World()
    was_training = model.training
    model.eval()
    # Moved once: a copy for each chunk would make a GPU wait.
    draws_NWT = view_draws(int(rows.max()) + 1, num_views, model.num_frames).to(bank.home)
    all_rows = torch.from_numpy(rows).to(bank.home)
    tally = Tally.empty(model.num_classes, bank.device)
    step = _CHUNK_CLIPS * world.size
    for start in range(_CHUNK_CLIPS * world.rank, len(rows), step):
        rows_B = all_rows[start : start + _CHUNK_CLIPS]
        joints_BWTVC = bank.deliver(bank.gather(rows_B, draws_NWT[rows_B], windows=windows))
        logits_BWK = model(joints_BWTVC.flatten(0, 1)).view(len(rows_B), num_views, -1)
        tally += Tally.of(logits_BWK.mean(dim=1), bank.deliver(bank.labels_N[rows_B]))
        if on_progress is not None:
            on_progress(min(start + step, len(rows)), len(rows))
    model.train(was_training)
    tally = tally.gathered(world)
    if not math.isfinite(tally.loss):
        raise SgnError(
            "the model no longer gives finite numbers",
            where=f"the scores of {len(rows)} clips",
            now="train again with a smaller optim.learning_rate, or with train.precision=float32",
        )
    return tally
