"""Train a recipe from its dataset to its report, wherever it is launched."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sgnray.checkpoints.checkpoint import Checkpoint
from sgnray.checkpoints.claim import Runs, check_claim, folder_in
from sgnray.checkpoints.run_folder import (
    LOG_FILE,
    REPORT_FILE,
    RunFolder,
    check_owner,
    claim_run,
    default_run_name,
)
from sgnray.config import Recipe
from sgnray.data.store import SkeletonDataset, open_dataset
from sgnray.distributed.launcher import Hardware
from sgnray.distributed.resources import WorkerRequest, Workers
from sgnray.errors import CheckpointError, count_of
from sgnray.evaluate.report import EvaluatedModel, Report, make_report
from sgnray.model.sgn import count_parameters
from sgnray.storage.location import Location
from sgnray.storage.mirror import check_uploading, display_name
from sgnray.train.checks import check_run, check_synchronized, one_at_a_time
from sgnray.train.environment import check_num_workers, describe_environment, last_start
from sgnray.train.job import OnTrainProgress, choose_parts
from sgnray.train.launch import open_executor
from sgnray.train.loop import EpochResult
from sgnray.train.run_log import run_log
from sgnray.train.tracking.trackers import Trackers, tracked

log = logging.getLogger(__name__)

OnEpoch = Callable[[EpochResult], None]


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    `folder` is local: for a URI, its copy. `resumed_from` is the epoch it resumed after, or 0.
    """

    folder: Path
    resumed_from: int
    report: Report


@one_at_a_time()
def train_run(
    recipe: Recipe,
    dataset_dir: Path | str,
    *,
    workers: int | tuple[int, int] = 0,
    runs_dir: Runs = Path("runs"),
    name: str | None = None,
    address: str | None = None,
    device: str = "auto",
    max_failures: int | None = None,
    request: WorkerRequest | None = None,
    command: str = "",
    on_epoch: OnEpoch | None = None,
    on_progress: OnTrainProgress | None = None,
) -> RunResult:
    """Train a recipe to its end, resuming an interrupted run, and test the model.

    `runs_dir` is a folder or a URI such as s3://bucket/runs, whose runs are written in a copy on
    this machine and uploaded. `workers` 0 trains in this process, N on a Ray cluster, (fewest,
    most) on as many as the cluster has room for at the time. `max_failures` is how many lost
    workers to tolerate: by default none, or 10 if the number of workers may change. `request` is
    what each worker requests from the cluster, and how long to wait for it. `command` is recorded.
    A process trains one run at a time: RunError if another thread trains.

    `on_epoch` is called in this process after the epoch's checkpoint is in the run folder,
    `on_progress` about every second within an epoch and within the test.
    """
    wanted = Workers.of(workers)
    dataset = open_dataset(dataset_dir)
    recipe = check_run(
        recipe,
        dataset,
        workers=wanted.most,
        device=device,
        address=address,
        max_failures=max_failures,
        request=request,
    )
    is_auto = recipe.train.precision == "auto"  # then the default name is not known yet
    default = None if is_auto else default_run_name(runs_dir, recipe)
    check_claim(runs_dir, default if name is None else name)
    if name is not None:  # before Ray starts; checked again when the folder is locked
        folder = folder_in(runs_dir, name)
        if isinstance(folder, Path) and folder.is_dir():
            check_owner(folder, recipe, dataset)
    with open_executor(
        workers=wanted,
        device=device,
        address=address,
        max_failures=max_failures,
        request=request,
    ) as executor:
        recipe = executor.without_auto(recipe)
        if is_auto and name is None:
            _warn_of_other_precision(runs_dir, recipe)
        check_synchronized(recipe, wanted.most, executor.hardware.device_type)
        with claim_run(runs_dir, name, recipe, dataset) as run, run_log(run.path / LOG_FILE):
            newest = run.newest_checkpoint()
            resumed_from, history = (newest[1].epoch, newest[1].history) if newest else (0, [])
            if newest is not None:
                _check_same_run(*newest, recipe, dataset)
                check_num_workers(run, wanted, is_finished=resumed_from == recipe.train.num_epochs)
            _log_start(run, recipe, dataset, executor.hardware, resumed_from)
            run.write_metrics(history)
            if resumed_from < recipe.train.num_epochs or run.environment() is None:
                environment = describe_environment(dataset, executor.hardware, recipe, command)
                run.record_environment(environment)
            with tracked(recipe, run, history) as trackers:
                record = _recorder(run, trackers, on_epoch)
                tally = executor.run(recipe, dataset.folder.resolve(), run, record, on_progress)
                evaluated = _describe_model(run, recipe, dataset)
                report = make_report(evaluated, tally, dataset.info.class_names)
                report.write(run.path / REPORT_FILE)
                trackers.finish(report)
            log.debug("test top-1 %.4f over %d clips", report.top1, report.num_clips)
            return RunResult(run.path, resumed_from, report)


def _warn_of_other_precision(runs_dir: Runs, recipe: Recipe) -> None:
    """Warn of a run on hardware for which `auto` meant another precision: it is not resumed."""
    precision = recipe.train.precision
    other = "float32" if precision == "bf16" else "bf16"
    recipes = (recipe, recipe.replacing({"train.precision": other}))
    paths = [folder_in(runs_dir, default_run_name(runs_dir, each)) for each in recipes]
    own, left = map(_exists, paths)
    if left and not own:
        log.warning(
            "starting a new run in %s; to resume %s, which is in %s, add train.precision=%s",
            precision,
            paths[1],
            other,
            other,
        )


def _exists(path: Path | Location) -> bool:
    return path.is_dir() if isinstance(path, Path) else path.entry() is not None


def _log_start(
    run: RunFolder,
    recipe: Recipe,
    dataset: SkeletonDataset,
    hardware: Hardware,
    resumed_from: int,
) -> None:
    num_epochs = recipe.train.num_epochs
    where = f"{recipe.train.precision} on {hardware.description}"
    if resumed_from == 0:
        log.info("run %s, %s in %s", display_name(run.path), count_of(num_epochs, "epoch"), where)
    elif resumed_from < num_epochs:
        log.info(
            "run %s resumes after epoch %d of %d, in %s",
            display_name(run.path),
            resumed_from,
            num_epochs,
            where,
        )
        _log_other_threads(run, hardware)
    else:
        log.info(
            "run %s has finished %s; only the test is repeated",
            display_name(run.path),
            "its epoch" if num_epochs == 1 else f"all {num_epochs} epochs",
        )
    if recipe.train.selection == "test":
        log.warning("the epoch is selected on the test clips: its accuracy is a biased estimate")
    if recipe.train.selection == "validation":
        parts = choose_parts(recipe, dataset)
        assert parts.validation is not None
        num_held_out = len(parts.validation)
        log.info(
            "%d of %d training clips are held out to select the epoch",
            num_held_out,
            num_held_out + len(parts.train),
        )


def _log_other_threads(run: RunFolder, hardware: Hardware) -> None:
    """Log another number of threads than before: sums are then rounded in another order."""
    before = (last_start(run) or {}).get("threads")
    now = hardware.threads_per_worker
    if hardware.device_type == "cpu" and before not in (None, now):
        log.info(
            "%s%s now, %s before: the weights may differ in their last bits",
            count_of(now, "thread"),
            " per worker" if hardware.workers.most else "",
            before,
        )


def _check_same_run(
    path: Path, checkpoint: Checkpoint, recipe: Recipe, dataset: SkeletonDataset
) -> None:
    """Raise CheckpointError if a checkpoint is from another run."""
    same_recipe = checkpoint.parse_recipe().makes_same_run(recipe)
    same_classes = tuple(checkpoint.class_names) == dataset.info.class_names
    if not same_recipe or not same_classes or checkpoint.skeleton != dataset.skeleton:
        raise CheckpointError(
            "the checkpoint is from another run",
            where=display_name(path),
            now="remove it, or choose another --name",
        )


def _recorder(run: RunFolder, trackers: Trackers, on_epoch: OnEpoch | None) -> OnEpoch:
    def record(epoch: EpochResult) -> None:
        check_uploading(run.path)
        # The whole history: an epoch repeated after a lost worker counts once, and none is missing.
        run.write_metrics(epoch.history)
        log.debug("epoch %d of %d: %s", epoch.epoch, epoch.num_epochs, epoch.metrics)
        if on_epoch is not None:
            on_epoch(epoch)
        trackers.log(epoch.history)

    return record


def _describe_model(run: RunFolder, recipe: Recipe, dataset: SkeletonDataset) -> EvaluatedModel:
    path, checkpoint = run.require_checkpoint()
    return EvaluatedModel(
        checkpoint=display_name(path),
        dataset=dataset.info.dataset,
        dataset_checksum=dataset.info.checksum,
        case=recipe.data.case,
        selection=recipe.train.selection,
        epoch=checkpoint.evaluated_epoch,
        num_views=recipe.evaluate.num_views,
        turn_rad=recipe.evaluate.turn_rad,
        num_parameters=count_parameters(checkpoint.build_model()),
        num_trained=checkpoint.epoch,
        num_epochs=checkpoint.parse_recipe().train.num_epochs,
    )
