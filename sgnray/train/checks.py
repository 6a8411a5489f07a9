"""All checks of a training run before Ray starts and before a folder is created."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sgnray.config import Recipe
from sgnray.data.datasets import DATASETS
from sgnray.data.protocols import corrected_labels, resolve_case, split_clips
from sgnray.data.store import SkeletonDataset
from sgnray.distributed.cluster import is_at_hand
from sgnray.distributed.device import check_device_name, choose_device
from sgnray.distributed.resources import (
    WorkerRequest,
    check_training_gpus,
    check_without_ray,
)
from sgnray.errors import RunError, UsageError, count_of
from sgnray.model.inputs import needs_bones
from sgnray.train.job import choose_parts
from sgnray.train.tracking.trackers import check_trackers

log = logging.getLogger(__name__)

# The paper's batch of 64 over 8 workers; synthetic cv at 2 clips each lost 13 points.
_FEW_CLIPS = 8
# The share of the initial weights that the mean of the weights may still contain at the end.
_LARGEST_START = 0.02
_training = threading.RLock()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Raise RunError if another thread of this process trains or searches.

    The two would draw from one generator of torch, so that neither could be repeated, and write
    each other's log.
    """
    if not _training.acquire(blocking=False):
        raise RunError(
            "this process is already training",
            where="another thread",
            now="wait for it, or train in a process of its own, as train_seeds does for each seed",
        )
    try:
        yield
    finally:
        _training.release()


def check_run(
    recipe: Recipe,
    dataset: SkeletonDataset,
    *,
    workers: int,
    device: str = "auto",
    address: str | None = None,
    max_failures: int | None = None,
    request: WorkerRequest | None = None,
) -> Recipe:
    """Check that a recipe can be trained like this; return it, its case named as in the dataset.

    UsageError or MissingExtraError if it cannot; warns of what lowers the accuracy. `workers` 0 is
    this process. `check_synchronized` checks the hardware of a running cluster later, when it is
    connected.
    """
    check_device_name(device)
    if workers == 0:
        check_without_ray(address, request, max_failures=max_failures)
    elif request is not None and request.num_gpus is not None:
        check_training_gpus(
            request.num_gpus,
            workers,
            where=f"--gpus-per-worker {request.num_gpus:g}",
            now="leave it out, and choose with --device; a share of a GPU takes --workers 1, more "
            "GPUs take more workers",
        )
    recipe = match_recipe(recipe, dataset)
    num_clips = len(choose_parts(recipe, dataset).train)
    on_cpus = is_on_cpus(workers, device, address)
    check_recipe(recipe, dataset, workers=workers, on_cpus=on_cpus, num_clips=num_clips)
    warn_of_run(recipe, dataset, workers=workers, num_clips=num_clips)
    return recipe


def is_on_cpus(workers: int, device: str, address: str | None) -> bool:
    """Return whether a run uses CPUs for certain; a running cluster may have GPUs."""
    runs_here = workers == 0 or not is_at_hand(address)
    return runs_here and (device == "cpu" or choose_device("auto").type == "cpu")


def check_recipe(
    recipe: Recipe,
    dataset: SkeletonDataset,
    *,
    workers: int,
    on_cpus: bool,
    num_clips: int,
    workers_option: str = "--workers",
) -> Recipe:
    """Check a recipe for `num_clips` training clips, as `check_run` does for a run."""
    recipe = match_recipe(recipe, dataset)
    check_trackers(recipe)
    batch_size = min(recipe.optim.batch_size, num_clips)
    share = batch_size // max(1, workers)
    if share == 0:  # some worker would get no clip
        raise UsageError(
            f"a batch of {count_of(batch_size, 'clip')} cannot be shared by {workers} workers",
            where=f"{workers_option} {workers}",
            now=f"ask for {workers_option} {batch_size} or fewer"
            + (", or raise optim.batch_size" if num_clips > batch_size else ""),
        )
    if on_cpus:
        check_synchronized(recipe, workers, "cpu")
    is_whole = recipe.train.sync_batch_norm or workers <= 1
    _check_batch_norm(recipe, batch_size if is_whole else share, is_whole=is_whole)
    return recipe


def warn_of_run(recipe: Recipe, dataset: SkeletonDataset, *, workers: int, num_clips: int) -> None:
    """Warn of what makes the accuracy of a checked run lower, or not comparable."""
    _warn_of_missing_clips(recipe, dataset)
    if recipe.data.corrected_labels:
        labels_N = corrected_labels(dataset.info.dataset, dataset.clips)
        num_corrected = int((labels_N != dataset.clips.labels).sum())
        if num_corrected:
            log.info("training with corrected labels for %s", count_of(num_corrected, "clip"))
        else:
            log.warning("no label is corrected: the dataset does not record subjects and cameras")
    share = min(recipe.optim.batch_size, num_clips) // max(1, workers)
    if workers > 1 and not recipe.train.sync_batch_norm and share < _FEW_CLIPS:
        log.warning(
            "each worker's batch norm sees only %d clips of a batch: expect less accuracy; "
            "fewer workers or a larger optim.batch_size help, on GPUs also "
            "train.sync_batch_norm=true",
            share,
        )
    _warn_of_initial_weights(recipe, num_clips)


def match_recipe(recipe: Recipe, dataset: SkeletonDataset) -> Recipe:
    """Check that the recipe is made for this dataset, and give its case the dataset's name."""
    found = dataset.info.dataset
    if recipe.data.dataset != found:
        raise UsageError(
            f"the recipe is for {recipe.data.dataset}, and the dataset is {found}",
            where=str(dataset.folder),
            now=f"name another dataset with --data, or set data.dataset={found}",
        )
    _check_bones(recipe, dataset)
    if recipe.data.corrected_labels:
        corrected_labels(found, dataset.clips)  # UsageError if none are known to be wrong
    changes: dict[str, object] = {}
    if recipe.evaluate.turn_rad and dataset.skeleton.num_coordinates == 2:
        log.info("views of test clips do not turn: the skeleton has two coordinates")
        changes["evaluate.turn_rad"] = 0.0
    case = resolve_case(found, recipe.data.case, dataset.clips.splits)
    return recipe.replacing({**changes, "data.case": case})


def check_synchronized(recipe: Recipe, num_workers: int, device_type: str) -> None:
    """Raise UsageError for synchronized batch norm of several workers without GPUs."""
    if recipe.train.sync_batch_norm and num_workers > 1 and device_type != "cuda":
        raise UsageError(
            "batch norm is synchronized between GPUs only",
            where="train.sync_batch_norm=true",
            now="leave it at false, or train on GPUs",
        )


def _warn_of_missing_clips(recipe: Recipe, dataset: SkeletonDataset) -> None:
    """Warn if clips of a published dataset are missing: accuracies are then not comparable."""
    name, case = recipe.data.dataset, recipe.data.case
    if name not in DATASETS or DATASETS[name].is_synthetic:  # can have any number of clips
        return
    published, split = DATASETS[name].cases.get(case), split_clips(name, case, dataset.clips)
    if published is None:  # the source of the clips has its own split
        return
    if (split.train.size, split.test.size) != (published.num_train, published.num_test):
        log.warning(
            "%s %s is not complete: %d training and %d test clips, published are %d and %d",
            name,
            case,
            split.train.size,
            split.test.size,
            published.num_train,
            published.num_test,
        )


def _check_bones(recipe: Recipe, dataset: SkeletonDataset) -> None:
    if dataset.skeleton.bones:
        return
    if needs_bones(recipe.model.inputs):
        raise UsageError(
            "the model's inputs include bones, but the dataset's skeleton has none",
            where=f"model.inputs, {dataset.folder}",
            now="prepare the dataset again with bones, or add 'model.inputs=[position, velocity]'",
        )
    if recipe.model.affinity == "skeleton":
        raise UsageError(
            "the affinity is the skeleton's, but the dataset's skeleton has no bones",
            where=f"model.affinity, {dataset.folder}",
            now="set model.affinity=learned, or prepare the dataset again with bones",
        )


def _warn_of_initial_weights(recipe: Recipe, num_clips: int) -> None:
    """Warn if the mean of the weights would still contain much of the initial weights."""
    num_steps = max(1, num_clips // recipe.optim.batch_size) * recipe.train.num_epochs
    left = recipe.train.ema_decay**num_steps
    if left > _LARGEST_START:
        log.warning(
            "the mean of the weights will be %.0f %% initial weights after all %d steps: "
            "use a smaller train.ema_decay",
            100 * left,
            num_steps,
        )


def _check_batch_norm(recipe: Recipe, num_clips: int, *, is_whole: bool) -> None:
    """Raise UsageError if batch norm would see only one value of the `num_clips` it gets.

    `is_whole`: it gets the whole batch, not a worker's part.
    """
    if num_clips * recipe.data.num_segments == 1:
        raise UsageError(
            "batch norm needs more than one pose, and a batch has one"
            + ("" if is_whole else " for each worker"),
            where=f"data.num_segments=1, optim.batch_size={recipe.optim.batch_size}",
            now="raise data.num_segments or optim.batch_size"
            + ("" if is_whole else ", or ask for fewer workers"),
        )
