"""The folder of a search: what is in it, and whose it is.

search.json  base.yaml  space.yaml  trials.csv  best.yaml  log.txt
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sgnray.config import dump_recipe
from sgnray.errors import RunError
from sgnray.files import write_text
from sgnray.runs import LOG_FILE, check_not_foreign, claimed_folder
from sgnray.tune.board import TrialRow, as_csv, best_of
from sgnray.tune.plan import Plan, Trial
from sgnray.tune.space import as_overrides, dump_space

SEARCH_FILE = "search.json"
# Not recipe.yaml: that file makes a folder a run.
BASE_FILE = "base.yaml"
SPACE_FILE = "space.yaml"
TRIALS_FILE = "trials.csv"
BEST_FILE = "best.yaml"


@dataclass(frozen=True)
class SearchFolder:
    """One search on disk."""

    path: Path
    plan: Plan

    @property
    def log_path(self) -> Path:
        """Where the search's log goes."""
        return self.path / LOG_FILE

    @property
    def trials_path(self) -> Path:
        """The table of all trials."""
        return self.path / TRIALS_FILE

    @property
    def best_path(self) -> Path:
        """The recipe of the best trial."""
        return self.path / BEST_FILE

    def write_trials(self, rows: tuple[TrialRow, ...]) -> None:
        """Write trials.csv, and best.yaml as soon as a trial has ended well."""
        write_text(self.trials_path, as_csv(rows))
        best = best_of(rows)
        if best is not None:
            trial = next(trial for trial in self.plan.trials if trial.number == best.number)
            num_ended = sum(row.has_ended for row in rows)
            header = _header(self, trial, best, num_ended)
            write_text(self.best_path, header + dump_recipe(trial.recipe))


@contextmanager
def claim_search(runs_dir: Path, name: str | None, plan: Plan) -> Iterator[SearchFolder]:
    """Make the search's folder, or take it again for the same search; nobody else can meanwhile.

    RunError where it holds something else or is in use; UsageError for a name that is no plain
    folder name.
    """
    with claimed_folder(runs_dir, name, default=plan.folder_name()) as path:
        _check_owner(path, plan)
        write_text(path / SEARCH_FILE, json.dumps(plan.describe(), indent=2) + "\n")
        write_text(path / SPACE_FILE, dump_space(plan.space))
        write_text(path / BASE_FILE, dump_recipe(plan.recipe))
        yield SearchFolder(path, plan)


def _check_owner(path: Path, plan: Plan) -> None:
    search_path = path / SEARCH_FILE
    if not search_path.exists():
        check_not_foreign(path)
        return
    try:
        found = json.loads(search_path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if found != json.loads(json.dumps(plan.describe())):
        raise RunError(
            "the folder holds another search: its space, recipe, trials, epochs or dataset differ",
            where=str(search_path),
            now="choose another --name, or remove that folder",
        )


def _header(folder: SearchFolder, trial: Trial, row: TrialRow, num_ended: int) -> str:
    plan, num_full = folder.plan, folder.plan.recipe.train.num_epochs
    count = f"{num_ended} trials"
    if num_ended < len(plan.trials):
        count += f" so far; {len(plan.trials)} are planned"
    scaled = "" if plan.num_epochs == num_full else ", its milestones in proportion"
    return "\n".join(
        [
            f"# Found by sgn tune: trial {trial.number}, the best of {count}.",
            f"#   sgn train --recipe {folder.best_path}",
            f"# Search: space {plan.space.source}, {plan.search}, seed {plan.recipe.train.seed}, "
            f"ASHA, at most {plan.num_epochs} epochs per trial",
            f"#   of the {num_full} below{scaled}.",
            f"# Score: {row.score or 0:.2%} top-1 after epoch {row.num_epochs}, on a validation "
            f"part of the training clips of {plan.recipe.data.dataset} {plan.recipe.data.case},",
            "#   held out the way the case holds out its test clips, which were never looked at.",
            "# Changed by the search:",
            *(f"#   {text}" for text in as_overrides(trial.values)),
            "",
            "",
        ]
    )
