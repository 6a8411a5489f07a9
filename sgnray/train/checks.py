"""Where batch norm cannot do its work in training, told before Ray starts and a folder is made."""

from __future__ import annotations

from sgnray.config import Recipe
from sgnray.distributed.cluster import is_at_hand
from sgnray.distributed.device import choose_device
from sgnray.errors import UsageError


def check_batch_norm(
    recipe: Recipe, num_clips: int, num_workers: int, *, device: str, address: str | None
) -> None:
    """UsageError where batch norm would see one value only, or could not be synchronized here.

    What a cluster has that runs already is known once it is joined: `check_synchronized`.
    """
    if not is_at_hand(address) and (device == "cpu" or choose_device("auto").type == "cpu"):
        check_synchronized(recipe, num_workers, "cpu")
    is_whole = recipe.train.sync_batch_norm or num_workers <= 1
    smallest = min(recipe.optim.batch_size, num_clips)
    share = smallest if is_whole else smallest // num_workers
    if share * recipe.data.num_segments == 1:
        raise UsageError(
            "batch norm needs more than one pose, and a batch has one"
            + ("" if is_whole else " for each worker"),
            where=f"data.num_segments=1, optim.batch_size={recipe.optim.batch_size}",
            now="raise data.num_segments or optim.batch_size"
            + ("" if is_whole else ", or ask for fewer workers"),
        )


def check_synchronized(recipe: Recipe, num_workers: int, device_type: str) -> None:
    """UsageError where workers without GPUs are to share their batch norm: torch cannot."""
    if recipe.train.sync_batch_norm and num_workers > 1 and device_type != "cuda":
        raise UsageError(
            "batch norm is synchronized between GPUs only",
            where="train.sync_batch_norm=true",
            now="leave it at false, or train on GPUs",
        )
