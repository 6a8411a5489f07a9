"""Search a space around a recipe, from its dataset to the best recipe."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sgnray.config import Recipe
from sgnray.data.protocols import validation_folds
from sgnray.data.store import SkeletonDataset, find_dataset, open_dataset
from sgnray.errors import InputError, Problem, SgnError
from sgnray.train.environment import run_log
from sgnray.train.run import match_recipe
from sgnray.tune.board import TrialRow, best_of, rank
from sgnray.tune.folder import SearchFolder, claim_search
from sgnray.tune.launch import held_cluster, run_trials
from sgnray.tune.plan import Plan, SearchKind, plan_search
from sgnray.tune.progress import Progress
from sgnray.tune.space import as_overrides
from sgnray.tune.space_file import load_space

log = logging.getLogger(__name__)

OnTrial = Callable[[TrialRow], None]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class TuneResult:
    """A finished search; `best_score` is the best trial's validation top-1, as a share."""

    folder: Path
    trials: tuple[TrialRow, ...]
    best_overrides: tuple[str, ...]
    best_score: float
    best_recipe_path: Path

    @property
    def ranked(self) -> tuple[TrialRow, ...]:
        """All trials, the best first, those that failed last."""
        return tuple(rank(self.trials))


def tune_recipe(
    recipe: Recipe,
    space: str | Path = "default",
    dataset_dir: Path | None = None,
    *,
    num_trials: int = 16,
    search: SearchKind = "random",
    num_epochs: int | None = None,
    concurrent: int | None = None,
    runs_dir: Path = Path("runs"),
    name: str | None = None,
    address: str | None = None,
    on_trial: OnTrial | None = None,
    on_progress: OnProgress | None = None,
) -> TuneResult:
    """Search a space around a recipe; the same command does the same search again.

    Trials have one CPU worker each, `concurrent` at once (default: one per CPU of the cluster),
    and train `num_epochs` at most: 12, or the recipe's where those are fewer. The schedule is cut
    in proportion; best.yaml has the recipe's full length. Test clips are never looked at.

    `on_trial` is called when a trial has ended, `on_progress` with (epochs done, in all).
    """
    dataset = open_dataset(dataset_dir or find_dataset(name=recipe.data.dataset))
    recipe = match_recipe(recipe, dataset)
    _check_folds(recipe, dataset)
    plan = plan_search(
        recipe,
        load_space(str(space), recipe),
        search=search,
        num_trials=num_trials,
        num_epochs=num_epochs,
        dataset_checksum=dataset.info.checksum,
    )
    with claim_search(runs_dir, name, plan) as folder, run_log(folder.log_path):
        progress = Progress(folder, on_trial, on_progress)
        with held_cluster(address, concurrent) as resources:
            at_once = min(concurrent or resources.num_cpus, len(plan.trials))
            _tell_start(folder, plan, at_once)
            num_threads = resources.cpus_per_worker(at_once)
            run_trials(plan, dataset.folder, progress, at_once=at_once, num_threads=num_threads)
        return _result(folder, progress.board.rows)


def _check_folds(recipe: Recipe, dataset: SkeletonDataset) -> None:
    try:
        validation_folds(dataset.info.dataset, recipe.data.case, dataset.clips)
    except InputError as error:
        raise InputError(
            error.what,
            where=error.where,
            now="search another --case, or prepare recordings that hold more of them",
        ) from error


def _tell_start(folder: SearchFolder, plan: Plan, at_once: int) -> None:
    log.info(
        "search %s: %d trials of at most %d epochs, %d at once",
        folder.path,
        len(plan.trials),
        plan.num_epochs,
        at_once,
    )


def _result(folder: SearchFolder, rows: tuple[TrialRow, ...]) -> TuneResult:
    best = best_of(rows)
    if best is None or best.score is None:
        raise _all_failed(folder, rows)
    return TuneResult(
        folder=folder.path,
        trials=rows,
        best_overrides=as_overrides(best.values),
        best_score=best.score,
        best_recipe_path=folder.best_path,
    )


def _all_failed(folder: SearchFolder, rows: tuple[TrialRow, ...]) -> SgnError:
    # Usually all for the same reason, which is then told once.
    first = {row.error or row.status: row for row in reversed(rows)}
    return SgnError(
        f"none of the {len(rows)} trials came to its end",
        where=str(folder.log_path),
        now="cure the reason; sgn train with the values of one trial shows it alone",
        problems=[Problem(f"trial {row.number}", reason) for reason, row in first.items()],
    )
