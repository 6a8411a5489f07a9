"""The logits of every view of every test clip: in this process, or on Ray workers.

Legend: N clips, W views, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgnray.data.pose_bank import PoseBank
from sgnray.data.protocols import IntArray
from sgnray.data.sampling import Windows
from sgnray.data.shared import SharedDataset
from sgnray.data.store import open_dataset
from sgnray.distributed.cluster import connected
from sgnray.distributed.device import choose_device, keep_freed_memory
from sgnray.distributed.reserve import reserved
from sgnray.distributed.resources import WorkerRequest, gpus_per_actor
from sgnray.errors import ClusterError
from sgnray.evaluate.score import CHUNK_CLIPS, view_logits
from sgnray.model.sgn import SGN
from sgnray.progress import OnProgress

# Clips of one task: whole chunks, so that no logit depends on the number of workers.
_BLOCK_CLIPS = 16 * CHUNK_CLIPS
_RETRIES = 3  # of a task whose worker was lost

Model = tuple[SGN, Windows]


def logits_locally(
    models: Sequence[Model],
    dataset_dir: Path,
    rows: IntArray,
    *,
    num_views: int,
    device: torch.device,
    on_progress: OnProgress,
) -> list[Tensor]:
    """Return the logits (N, W, K) of each model, computed in this process."""
    keep_freed_memory()
    bank = PoseBank.of(open_dataset(dataset_dir), device)
    total = len(models) * len(rows)
    logits: list[Tensor] = []
    for model, windows in models:

        def on_clips(done: int, _: int) -> None:
            on_progress(len(logits) * len(rows) + done, total)

        own_NWK = view_logits(
            model.to(device), bank, rows, num_views=num_views, windows=windows, on_progress=on_clips
        )
        logits.append(own_NWK)
    return logits


def logits_on_ray(
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
    """Return the same as logits_locally, computed by Ray actors; may wait for the cluster."""
    import ray
    from ray.util import ActorPool

    parts = [rows[at : at + _BLOCK_CLIPS] for at in range(0, len(rows), _BLOCK_CLIPS)]
    tasks = [(number, part) for number in range(len(models)) for part in parts]
    blocks: list[Tensor] = []
    num_done = 0
    with connected(address, num_workers=workers) as resources, ExitStack() as stack:
        num_gpus = gpus_per_actor(device, resources, request)
        room = stack.enter_context(reserved(workers, resources, request=request, num_gpus=num_gpus))
        kind = ray.remote(max_restarts=-1, max_task_retries=_RETRIES, **room)(_Scorer)
        shared = ray.put((SharedDataset.of(dataset_dir), list(models)))
        target = "cuda" if num_gpus else "cpu"
        pool = ActorPool([kind.remote(num_views, target) for _ in range(workers)])
        try:
            for block in pool.map(lambda scorer, task: scorer.logits.remote(shared, *task), tasks):
                blocks.append(torch.from_numpy(block))
                num_done += len(block)
                on_progress(num_done, len(models) * len(rows))
        except ray.exceptions.RayError as error:
            raise ClusterError(
                f"a worker failed: {str(error).strip().splitlines()[-1]}",
                where="the Ray cluster",
                now="run it again, or in this process with --workers 0",
            ) from error
    size = len(parts)
    return [torch.cat(blocks[at : at + size]) for at in range(0, len(blocks), size)]


class _Scorer:
    """An actor that scores blocks of clips."""

    def __init__(self, num_views: int, device: str) -> None:
        self._num_views = num_views
        self._device = choose_device(device)
        self._bank: PoseBank | None = None
        keep_freed_memory()

    def logits(self, shared: tuple[SharedDataset, list[Model]], number: int, rows: IntArray) -> Any:
        """Return the logits (N, W, K) of one model for some rows.

        `shared` comes with each task, so that an actor that was restarted has it, too.
        """
        dataset, models = shared
        if self._bank is None:
            self._bank = PoseBank.of(open_dataset(dataset.local_dir()), self._device)
        model, windows = models[number]
        # A copy, because Ray's shared memory is read-only and torch warns about that.
        logits_NWK = view_logits(
            model.to(self._device),
            self._bank,
            np.array(rows),
            num_views=self._num_views,
            windows=windows,
        )
        return logits_NWK.numpy()
