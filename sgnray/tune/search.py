"""Search a space around a recipe, from its dataset to the best recipe."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from sgnray.config import Recipe
from sgnray.data.protocols import Split, validation_folds
from sgnray.data.store import SkeletonDataset, find_dataset, open_dataset
from sgnray.errors import InputError, Problem, SgnError
from sgnray.train.checks import check_run, check_synchronized, match_recipe
from sgnray.train.run import run_log
from sgnray.tune.plan import DEFAULT_EPOCHS, DEFAULT_TRIALS, Plan, SchedulerKind, SearchKind
from sgnray.tune.ray.launch import run_trials
from sgnray.tune.report.importance import importances
from sgnray.tune.report.page import PAGE_FILE, write_page
from sgnray.tune.report.savings import Savings, replay_asha
from sgnray.tune.space.population import check_population
from sgnray.tune.space.sampler import Sampler, make_sampler
from sgnray.tune.space.space import as_overrides
from sgnray.tune.space.space_file import load_space
from sgnray.tune.state.board import TrialRow, best_of, rank
from sgnray.tune.state.folder import SearchFolder, claim_search
from sgnray.tune.state.progress import Listener, Progress
from sgnray.tune.trial.resources import Layout, Wish, held_cluster, lay_out

log = logging.getLogger(__name__)

# For the replay of ASHA: how many trials take turns.
_USUAL_AT_ONCE = 4


@dataclass(frozen=True)
class TuneResult:
    """A search as it stands; `savings` tells what ASHA would have spared where all ran in full."""

    folder: Path
    plan: Plan
    trials: tuple[TrialRow, ...]
    best: TrialRow
    best_recipe_path: Path
    importances: dict[str, float]
    savings: Savings | None

    @property
    def page_path(self) -> Path:
        """The page that shows all of it."""
        return self.folder / PAGE_FILE

    @property
    def ranked(self) -> tuple[TrialRow, ...]:
        """All trials, the best first, those that failed last."""
        return tuple(rank(self.trials))

    @property
    def best_overrides(self) -> tuple[str, ...]:
        """What the search changed, as `section.key=value`."""
        return as_overrides(self.best.values)


def tune_recipe(
    recipe: Recipe,
    space: str | Path = "default",
    dataset_dir: Path | None = None,
    *,
    num_trials: int | None = None,
    search: SearchKind | None = None,
    scheduler: SchedulerKind | None = None,
    num_epochs: int | None = None,
    num_seeds: int = 1,
    time_budget_s: float | None = None,
    wish: Wish | None = None,
    runs_dir: Path = Path("runs"),
    name: str | None = None,
    address: str | None = None,
    listener: Listener | None = None,
) -> TuneResult:
    """Search a space around a recipe; the same command goes on with a search that was cut off.

    Trials train `num_epochs` at most: 12, or the recipe's where those are fewer. The schedule is
    cut in proportion; best.yaml has the recipe's full length. Each trial trains `num_seeds` models
    on each validation fold, and its score is their mean. Test clips are never looked at.

    `search` None walks the space as its file says, `scheduler` None is ASHA, and none for a grid.
    After `time_budget_s` the trials that run are cut, and go on with the next such command.
    """
    wish = wish or Wish()
    dataset = open_dataset(dataset_dir or find_dataset(name=recipe.data.dataset))
    recipe = match_recipe(recipe, dataset)
    folds = _check_folds(recipe, dataset)
    check_run(
        recipe,
        dataset,
        workers=wish.workers_per_trial,
        address=address,
        num_clips=min(len(fold.train) for fold in folds),
        is_tracked=False,
        workers_option="--workers-per-trial",
    )
    checked = load_space(str(space), recipe)
    search = search or checked.search
    sampler = make_sampler(checked, search, num_trials or DEFAULT_TRIALS, recipe.train.seed)
    plan = Plan(
        recipe=recipe,
        space=checked,
        search=search,
        scheduler=scheduler or ("none" if search == "grid" else "asha"),
        num_trials=sampler.num_trials,
        num_epochs=num_epochs or min(recipe.train.num_epochs, DEFAULT_EPOCHS),
        num_seeds=num_seeds,
        num_workers=wish.workers_per_trial,
        dataset_checksum=dataset.info.checksum,
    )
    check_population(plan, dataset)
    with claim_search(runs_dir, name, plan) as folder, run_log(folder.log_path):
        return _search_in(
            folder,
            sampler,
            dataset,
            wish,
            address=address,
            budget_s=time_budget_s,
            listener=listener,
        )


def _search_in(
    folder: SearchFolder,
    sampler: Sampler,
    dataset: SkeletonDataset,
    wish: Wish,
    *,
    address: str | None,
    budget_s: float | None,
    listener: Listener | None,
) -> TuneResult:
    progress = Progress(folder, sampler, listener)
    num_left = progress.board.num_trials - len(progress.ended)
    if num_left > 0:
        with held_cluster(address, wish) as resources:
            layout = lay_out(wish, resources, num_left)
            device_type = "cuda" if layout.share.num_gpus else "cpu"
            check_synchronized(progress.folder.plan.recipe, wish.workers_per_trial, device_type)
            _tell_start(progress, layout)
            run_trials(progress, dataset.folder, layout, time_budget_s=budget_s)
    else:
        log.info("search %s has ended before; nothing is left to do", folder.path)
        progress.end()
    return _result(folder, progress.board.rows)


def _check_folds(recipe: Recipe, dataset: SkeletonDataset) -> tuple[Split, ...]:
    try:
        return validation_folds(dataset.info.dataset, recipe.data.case, dataset.clips)
    except InputError as error:
        raise InputError(
            error.what,
            where=error.where,
            now="search another --case, or prepare recordings that hold more of them",
        ) from error


def _tell_start(progress: Progress, layout: Layout) -> None:
    plan, num_ended = progress.folder.plan, len(progress.ended)
    log.info(
        "search %s: %d trials of at most %d epochs, %d at once%s",
        progress.folder.path,
        plan.num_trials,
        plan.num_epochs,
        layout.at_once,
        f"; {num_ended} have ended before" if num_ended else "",
    )


def _result(folder: SearchFolder, rows: tuple[TrialRow, ...]) -> TuneResult:
    best = best_of(rows)
    if best is None:
        raise _none_ended(folder, rows)
    plan = folder.plan
    mattered = importances(rows, plan.space)
    write_page(folder, rows, best, mattered)
    return TuneResult(
        folder=folder.path,
        plan=plan,
        trials=rows,
        best=best,
        best_recipe_path=folder.best_path,
        importances=mattered,
        savings=replay_asha(rows, plan.num_epochs, plan.grace_epochs, at_once=_USUAL_AT_ONCE),
    )


def _none_ended(folder: SearchFolder, rows: tuple[TrialRow, ...]) -> SgnError:
    if any(row.status == "interrupted" for row in rows):
        return SgnError(
            "no trial has come to its end yet",
            where=str(folder.path),
            now="give the same command more time: it goes on where it was",
        )
    # Usually all for the same reason, which is then told once.
    first = {row.error or row.status: row for row in reversed(rows)}
    return SgnError(
        f"none of the {len(rows)} trials came to its end",
        where=str(folder.log_path),
        now="cure the reason and search under another --name; sgn train with the values of one "
        "trial shows it alone",
        problems=[Problem(f"trial {row.number}", reason) for reason, row in first.items()],
    )
