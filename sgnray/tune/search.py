"""Search a space around a recipe, from its dataset to the best recipe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sgnray.checkpoints.claim import Runs
from sgnray.config import Recipe
from sgnray.data.protocols import Split, validation_folds
from sgnray.data.store import SkeletonDataset, find_dataset, open_dataset
from sgnray.distributed.resources import Resources
from sgnray.errors import InputError, Problem, SgnError, check_count, count_of
from sgnray.storage.mirror import display_name
from sgnray.train.checks import (
    check_recipe,
    check_synchronized,
    is_on_cpus,
    match_recipe,
    one_at_a_time,
    warn_of_run,
)
from sgnray.train.run_log import run_log
from sgnray.tune.folder import SearchFolder, claim_search, is_begun
from sgnray.tune.page import PAGE_FILE, compute_importances, write_page
from sgnray.tune.plan import DEFAULT_EPOCHS, Plan, Scheduler, shorten
from sgnray.tune.running import Listener, RunningSearch
from sgnray.tune.sampler import make_sampler
from sgnray.tune.space import SearchWay, Space, as_overrides
from sgnray.tune.space_file import load_space
from sgnray.tune.trial_resources import TrialResources
from sgnray.tune.trials import TrialRow, best_of, rank

log = logging.getLogger(__name__)

# A connected cluster, and what each trial gets of it.
_Cluster = tuple[Resources, TrialResources]


@dataclass(frozen=True)
class TuneResult:
    """The result of a search."""

    folder: Path
    plan: Plan
    trials: tuple[TrialRow, ...]
    best: TrialRow
    best_recipe_path: Path
    importances: dict[str, float]

    @property
    def page_path(self) -> Path:
        """The page that shows all results."""
        return self.folder / PAGE_FILE

    @property
    def ranked(self) -> tuple[TrialRow, ...]:
        """All trials, the best first, those that failed last."""
        return tuple(rank(self.trials))

    @property
    def best_overrides(self) -> tuple[str, ...]:
        """What the search changed, as `section.key=value`."""
        return as_overrides(self.best.values)


@one_at_a_time()
def tune_recipe(
    recipe: Recipe,
    space: str | Path = "default",
    dataset_dir: Path | str | None = None,
    *,
    num_trials: int | None = None,
    search: SearchWay | None = None,
    scheduler: Scheduler | None = None,
    num_epochs: int | None = None,
    num_seeds: int = 1,
    time_budget_s: float | None = None,
    resources: TrialResources | None = None,
    runs_dir: Runs = Path("runs"),
    name: str | None = None,
    address: str | None = None,
    listener: Listener | None = None,
) -> TuneResult:
    """Search a space around a recipe; the same call resumes a search that was interrupted.

    Trials train for at most `num_epochs`: 12, or the recipe's if that is fewer. The schedule is
    shortened in proportion, or lengthened; best.yaml has the recipe's full length. Each trial
    trains `num_seeds` models on each validation fold, and its score is their mean. Test clips are
    never used.

    `search` None means that of the space's file; `scheduler` None means ASHA, or none for a grid.
    After `time_budget_s`, running trials are interrupted; the next such call resumes them.
    """
    check_count(num_trials, "trial", option="--trials")
    check_count(num_epochs, "epoch", option="--epochs")
    check_count(num_seeds, "seed", option="--seeds")
    resources = resources or TrialResources()
    dataset = open_dataset(dataset_dir or find_dataset(name=recipe.data.dataset))
    recipe = match_recipe(recipe, dataset)
    folds = _validation_folds(recipe, dataset)
    num_epochs = num_epochs or min(recipe.train.num_epochs, DEFAULT_EPOCHS)
    checked = _checked_space(space, recipe, num_epochs, dataset, folds, resources, address)
    search = search or checked.search
    sampler = make_sampler(checked, search, num_trials, recipe.train.seed)
    plan = Plan(
        recipe=recipe,
        space=checked,
        search=search,
        scheduler=scheduler or ("none" if search == "grid" else "asha"),
        num_trials=sampler.num_trials,
        num_epochs=num_epochs,
        num_seeds=num_seeds,
        num_workers=resources.num_workers,
        dataset_checksum=dataset.info.checksum,
        split_checksum=dataset.info.split_checksum(recipe.data.case),
    )
    if plan.num_epochs > recipe.train.num_epochs:
        log.warning(
            "trials train for %s, more than the %d of the recipe: the schedule is lengthened",
            *(count_of(plan.num_epochs, "epoch"), recipe.train.num_epochs),
        )
    with _claimed_folder(runs_dir, name, plan, resources, address) as (folder, connect):
        running = RunningSearch(folder, sampler, listener)
        if running.num_left > 0:
            cluster, allocated = connect(running.num_left)
            from sgnray.tune.ray.launch import run_trials  # imports Ray

            run_trials(
                running,
                dataset.folder,
                cluster,
                allocated,
                num_folds=len(folds),
                time_budget_s=time_budget_s,
            )
        else:
            log.info("search %s is complete; nothing is left to do", display_name(folder.path))
            running.end()
        return _result(folder, running.table.rows)


def _validation_folds(recipe: Recipe, dataset: SkeletonDataset) -> tuple[Split, ...]:
    try:
        return validation_folds(dataset.info.dataset, recipe.data.case, dataset.clips)
    except InputError as error:
        raise InputError(
            error.what,
            where=error.where,
            now="search another --case, or prepare recordings with more of them",
        ) from error


def _checked_space(
    space: str | Path,
    recipe: Recipe,
    num_epochs: int,
    dataset: SkeletonDataset,
    folds: Sequence[Split],
    resources: TrialResources,
    address: str | None,
) -> Space:
    """Load the space, and check the recipe as it is and with the values of the space."""
    workers, num_clips = resources.num_workers, min(len(fold.train) for fold in folds)
    check = partial(
        check_recipe,
        dataset=dataset,
        workers=workers,
        on_cpus=is_on_cpus(workers, resources.device, address),
        num_clips=num_clips,
        workers_option="--workers-per-trial",
    )
    check(recipe)
    trained = shorten(recipe, num_epochs)
    warn_of_run(trained, dataset, workers=workers, num_clips=num_clips)
    return load_space(str(space), recipe, check)


@contextmanager
def _claimed_folder(
    runs_dir: Runs, name: str | None, plan: Plan, resources: TrialResources, address: str | None
) -> Iterator[tuple[SearchFolder, Callable[[int], _Cluster]]]:
    """Claim the search's folder; yield it, and what connects to a cluster for a number of trials.

    A new search is connected before its folder is created, so that a refusal leaves no folder. One
    that resumes is connected when it asks, since it may have no trial left. Either connection is
    closed before the folder is released, so that no worker writes to it afterwards.
    """
    with ExitStack() as early:
        cluster: _Cluster | None = None
        if not is_begun(runs_dir, name, plan):
            cluster = early.enter_context(_connected(resources, plan, plan.num_trials, address))
        with (
            claim_search(runs_dir, name, plan) as folder,
            run_log(folder.log_path),
            early.pop_all() as connection,
        ):

            def connect(num_trials: int) -> _Cluster:
                return cluster or connection.enter_context(
                    _connected(resources, plan, num_trials, address)
                )

            yield folder, connect


@contextmanager
def _connected(
    resources: TrialResources, plan: Plan, num_trials: int, address: str | None
) -> Iterator[_Cluster]:
    """Connect to a cluster on which the trials can run, and allocate their resources there."""
    with resources.connected(address) as cluster:
        allocated = resources.allocate(cluster, num_trials)
        check_synchronized(plan.recipe, allocated.num_workers, allocated.device)
        yield cluster, allocated


def _result(folder: SearchFolder, rows: tuple[TrialRow, ...]) -> TuneResult:
    best = best_of(rows)
    if best is None:
        raise _none_ended(folder, rows)
    found = compute_importances(rows, folder.plan.space)
    write_page(folder, rows, best, found)
    return TuneResult(folder.path, folder.plan, rows, best, folder.best_path, found)


def _none_ended(folder: SearchFolder, rows: tuple[TrialRow, ...]) -> SgnError:
    if not rows or any(row.status == "interrupted" for row in rows):
        return SgnError(
            "no trial is complete yet",
            where=display_name(folder.path),
            now="rerun the same command with more time: it resumes",
        )
    # Usually all have the same reason, which is then reported once.
    first = {row.error or row.status: row for row in reversed(rows)}
    return SgnError(
        "the only trial failed" if len(rows) == 1 else f"all {len(rows)} trials failed",
        where=display_name(folder.log_path),
        now="fix the cause and search under another --name; sgn train with the values of one trial "
        "reproduces it",
        problems=[Problem(f"trial {row.number}", reason) for reason, row in first.items()],
    )
