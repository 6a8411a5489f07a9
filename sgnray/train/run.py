"""Train a recipe from its dataset to its report, wherever it is launched."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sgnray.checkpoints.checkpoint import Checkpoint
from sgnray.checkpoints.run_folder import LOG_FILE, REPORT_FILE, RunFolder, claim_run
from sgnray.config import Recipe, recipe_hash
from sgnray.data.store import SkeletonDataset, open_dataset
from sgnray.distributed.device import resolve_precision
from sgnray.distributed.workers import Workers
from sgnray.errors import CheckpointError
from sgnray.evaluate.report import EvaluatedModel, Report, make_report
from sgnray.model.sgn import count_parameters
from sgnray.train.checks import check_run, check_synchronized
from sgnray.train.environment import describe_environment, run_log
from sgnray.train.job import Job
from sgnray.train.launch import Executor, executor
from sgnray.train.loop import EpochResult
from sgnray.train.progress import OnProgress, Progress
from sgnray.train.tracking.tracked import Trackers, tracked

log = logging.getLogger(__name__)

OnEpoch = Callable[[EpochResult], None]


@dataclass(frozen=True)
class RunResult:
    """A finished run; `resumed_from` is the epoch it was taken up at, 0 for a fresh one."""

    folder: Path
    resumed_from: int
    report: Report


def train_run(
    recipe: Recipe,
    dataset_dir: Path,
    *,
    workers: int | tuple[int, int] = 0,
    runs_dir: Path = Path("runs"),
    name: str | None = None,
    address: str | None = None,
    device: str = "auto",
    max_failures: int | None = None,
    command: str = "",
    on_epoch: OnEpoch | None = None,
    on_progress: OnProgress | None = None,
) -> RunResult:
    """Train to the end of the recipe, or from where an interrupted run stopped, and test.

    `workers` 0 trains in this process, N on a Ray cluster, (fewest, most) on as many as the cluster
    has room for at the time. `max_failures` lost workers are survived: by default none, 10 in a
    run whose number of workers may change. `command` is written into the records.
    `on_epoch` is called here, after the epoch's checkpoint lies in the run folder, `on_progress`
    every second or so inside an epoch and inside the test.
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
    )
    with executor(
        workers=wanted, device=device, address=address, max_failures=max_failures
    ) as execute:
        recipe = resolve_precision(recipe, execute.hardware.device_type)
        check_synchronized(recipe, wanted.most, execute.hardware.device_type)
        with claim_run(runs_dir, name, recipe, dataset) as run, run_log(run.path / LOG_FILE):
            return _train_in(
                run,
                recipe,
                dataset,
                execute,
                command=command,
                on_epoch=on_epoch,
                on_progress=on_progress,
            )


def _train_in(
    run: RunFolder,
    recipe: Recipe,
    dataset: SkeletonDataset,
    execute: Executor,
    *,
    command: str,
    on_epoch: OnEpoch | None,
    on_progress: OnProgress | None,
) -> RunResult:
    newest = run.newest_checkpoint()
    _check_own(newest, recipe, dataset)
    resumed_from = newest[1].epoch if newest else 0
    _tell_start(run, recipe, resumed_from)
    history = newest[1].history if newest else []
    run.write_metrics(history)
    run.record_environment(
        describe_environment(
            dataset,
            hardware=execute.hardware,
            precision=recipe.train.precision,
            command=command,
        )
    )

    job = Job(recipe=recipe, dataset_dir=dataset.folder.resolve(), resume_from=None)
    if newest is not None:
        job = replace(job, resume_from=newest[0].resolve())
    with tracked(recipe, run, history) as trackers:
        record = _recorder(run, trackers, on_epoch, on_progress)
        tally = execute(job, run, record)
        report = make_report(_subject(run, recipe, dataset), tally, dataset.info.class_names)
        report.write(run.path / REPORT_FILE)
        trackers.finish(report)
    log.debug("test top-1 %.4f over %d clips", report.top1, report.num_clips)
    return RunResult(run.path, resumed_from, report)


def _recorder(
    run: RunFolder, trackers: Trackers, on_epoch: OnEpoch | None, on_progress: OnProgress | None
) -> Callable[[EpochResult | Progress], None]:
    def record(news: EpochResult | Progress) -> None:
        if isinstance(news, Progress):
            if on_progress is not None:
                on_progress(news)
            return
        # The whole history: an epoch done again after a lost worker counts once, none is missed.
        run.write_metrics(news.history)
        log.debug("epoch %d of %d: %s", news.epoch, news.num_epochs, news.metrics)
        if on_epoch is not None:
            on_epoch(news)
        trackers.log(news.history)

    return record


def _tell_start(run: RunFolder, recipe: Recipe, resumed_from: int) -> None:
    num_epochs = recipe.train.num_epochs
    if resumed_from == 0:
        log.info("run %s, %d epochs", run.path, num_epochs)
    elif resumed_from < num_epochs:
        log.info("run %s goes on after epoch %d of %d", run.path, resumed_from, num_epochs)
    else:
        log.info("run %s has all its %d epochs; it is only tested again", run.path, num_epochs)
    if recipe.train.selection == "test":
        log.warning("the epoch is selected on the test clips: its accuracy is no honest estimate")


def _check_own(
    newest: tuple[Path, Checkpoint] | None, recipe: Recipe, dataset: SkeletonDataset
) -> None:
    """CheckpointError where the newest checkpoint was brought here from another run."""
    if newest is None:
        return
    path, checkpoint = newest
    same_recipe = recipe_hash(checkpoint.parse_recipe()) == recipe_hash(recipe)
    same_classes = tuple(checkpoint.class_names) == dataset.info.class_names
    if not same_recipe or not same_classes or checkpoint.skeleton != dataset.skeleton:
        raise CheckpointError(
            "the checkpoint comes from another run",
            where=str(path),
            now="remove it, or choose another --name",
        )


def _subject(run: RunFolder, recipe: Recipe, dataset: SkeletonDataset) -> EvaluatedModel:
    path, checkpoint = run.require_checkpoint()
    return EvaluatedModel(
        checkpoint=str(path),
        dataset=dataset.info.dataset,
        dataset_checksum=dataset.info.checksum,
        case=recipe.data.case,
        selection=recipe.train.selection,
        epoch=checkpoint.evaluated_epoch,
        num_views=recipe.evaluate.num_views,
        num_parameters=count_parameters(checkpoint.build_model()),
    )
