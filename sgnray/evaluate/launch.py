"""The logits of every view of every test clip: in this process, or on Ray workers.

Legend: N clips, W views, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgnray.checkpoints.model_card import ModelCard
from sgnray.data.fetch import SharedDataset
from sgnray.data.pose_bank import PoseBank
from sgnray.data.progress import OnProgress, Progress
from sgnray.data.protocols import IntArray
from sgnray.data.store import open_dataset
from sgnray.distributed.cluster import connected
from sgnray.distributed.device import choose_device, explained_gpu_memory, keep_freed_memory
from sgnray.distributed.pool import run_on_actors
from sgnray.distributed.resources import WorkerRequest
from sgnray.evaluate.score import CHUNK_CLIPS, view_logits
from sgnray.model.sgn import SGN

# Clips of one task of a worker: whole chunks, so that no logit depends on the number of workers.
_BLOCK_CLIPS = 16 * CHUNK_CLIPS

Model = tuple[SGN, ModelCard]


def compute_logits(
    models: Sequence[Model],
    dataset_dir: Path,
    rows: IntArray,
    *,
    num_views: int,
    workers: int,
    address: str | None,
    device: str,
    request: WorkerRequest,
    on_progress: OnProgress,
) -> list[Tensor]:
    """Return the logits (N, W, K) of each model: the same in this process and on Ray `workers`.

    With workers, it may wait for the cluster.
    """
    size = _BLOCK_CLIPS if workers else CHUNK_CLIPS  # in this process, the smallest, for the bar
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    tasks = [(number, part) for number in range(len(models)) for part in parts]
    blocks: list[Tensor] = []
    progress = Progress(on_progress, len(models) * len(rows))
    with ExitStack() as stack:
        if workers:
            stack.enter_context(connected(address, num_workers=workers))
            found = run_on_actors(
                _Scorer(SharedDataset.of(dataset_dir).local_dir, models, num_views).logits,
                tasks,
                workers=workers,
                address=address,
                now="run it again, or in this process with --workers 0",
                device=device,
                request=request,
            )
            # After an error, the workers are released before Ray is disconnected.
            stack.enter_context(closing(found))
        else:
            scorer, here = _Scorer(lambda: dataset_dir, models, num_views), choose_device(device)
            found = (scorer.logits(task, str(here)) for task in tasks)
        for block in found:
            blocks.append(torch.from_numpy(block))
            progress.add(len(block))
    count = len(parts)
    return [torch.cat(blocks[at : at + count]) for at in range(0, len(blocks), count)]


@dataclass(eq=False)
class _Scorer:
    """Scores blocks of clips; an actor has its own copy, which keeps the dataset open."""

    find_dataset: Callable[[], Path]
    models: Sequence[Model]
    num_views: int
    bank: PoseBank | None = None

    @explained_gpu_memory()
    def logits(self, task: tuple[int, IntArray], device: str) -> Any:
        """Return the logits (N, W, K) of one model for some rows."""
        target = torch.device(device)
        if self.bank is None:
            keep_freed_memory()
            self.bank = PoseBank.of(open_dataset(self.find_dataset()), target)
        number, rows = task
        model, card = self.models[number]
        # A copy, because Ray's shared memory is read-only and torch warns about that.
        logits_NWK = view_logits(
            model.to(target), card, self.bank, np.array(rows), num_views=self.num_views
        )
        return logits_NWK.numpy()
