"""The folder of a search: its files, the tables of its trials, and which search it belongs to.

search.json  base.yaml  space.yaml  record.jsonl  states/  trials.parquet  trials.csv  best.yaml
precision.txt  log.txt  *.png  search.html  trackers/
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from sgnray.checkpoints.claim import (
    Runs,
    check_claim,
    check_unused,
    claimed_folder,
    folder_in,
    older_folders,
)
from sgnray.checkpoints.run_folder import LOG_FILE
from sgnray.config import dump_recipe, parse_recipe
from sgnray.config.schema import Precision
from sgnray.errors import RecipeError, RunError, count_of
from sgnray.storage.atomic import output_errors, write_bytes, write_text
from sgnray.storage.mirror import quoted_name
from sgnray.tune.plan import FORMAT_VERSION, Plan, describe_recipe
from sgnray.tune.space import as_overrides, dump_space
from sgnray.tune.trials import Record, TrialRow, best_of

SEARCH_FILE = "search.json"
# Not recipe.yaml: that file makes a folder a run.
BASE_FILE = "base.yaml"
SPACE_FILE = "space.yaml"
RECORD_FILE = "record.jsonl"
BEST_FILE = "best.yaml"
PRECISION_FILE = "precision.txt"
STATES_DIR = "states"
TRACKERS_DIR = "trackers"
# For programs, and for people.
PARQUET_FILE, CSV_FILE = "trials.parquet", "trials.csv"

# Spreadsheets treat a cell that starts with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_COLUMNS: dict[str, tuple[pa.DataType, Callable[[TrialRow], object]]] = {
    "trial": (pa.int64(), lambda row: row.number),
    "status": (pa.string(), lambda row: row.status),
    "epochs": (pa.int64(), lambda row: row.num_epochs),
    "val_top1": (pa.float64(), lambda row: row.score),
    "spread": (pa.float64(), lambda row: row.spread),
    "best_epoch_val_top1": (pa.float64(), lambda row: row.best_score),
    "duration_s": (pa.float64(), lambda row: row.duration_s or None),
    "num_parameters": (pa.int64(), lambda row: row.num_parameters or None),
    "flops": (pa.int64(), lambda row: row.flops or None),
    "node": (pa.string(), lambda row: row.node or None),
}


@dataclass(frozen=True)
class SearchFolder:
    """One search on disk."""

    path: Path
    plan: Plan

    @property
    def log_path(self) -> Path:
        """The search's log."""
        return self.path / LOG_FILE

    @property
    def best_path(self) -> Path:
        """The recipe of the best trial."""
        return self.path / BEST_FILE

    @property
    def record(self) -> Record:
        """The events so far."""
        return Record(self.path / RECORD_FILE)

    @property
    def states_dir(self) -> Path:
        """The state of unfinished trials, a file each."""
        return self.path / STATES_DIR

    def state_path(self, number: int) -> Path:
        """Return the file of a trial's state."""
        return self.states_dir / f"{number:04d}.zip"

    def read_precision(self) -> Precision | None:
        """Return what `auto` means in all trials; None if not chosen yet, RunError if corrupt."""
        path = self.path / PRECISION_FILE
        if not path.exists():
            return None
        kept = path.read_text(encoding="utf-8").strip()
        if kept not in ("float32", "bf16"):
            raise RunError(
                "this is not the precision of a search",
                where=str(path),
                now="write float32 or bf16 into it, whichever its trials were trained in",
            )
        return cast(Precision, kept)

    def write_precision(self, precision: Precision) -> None:
        """Write what `auto` means in all trials."""
        write_text(self.path / PRECISION_FILE, f"{precision}\n")

    def trial_dir(self, number: int) -> Path:
        """Return where trackers keep their files of a trial."""
        return self.path / TRACKERS_DIR / f"trial-{number:04d}"

    def write(self, rows: tuple[TrialRow, ...]) -> None:
        """Write the table of trials, and best.yaml once a trial has ended without an error."""
        write_tables(self.path, rows, self.plan.space.keys)
        best = best_of(rows)
        if best is not None:
            recipe = self.plan.recipe_of(best.values)
            write_text(self.best_path, _header(self, best, rows) + dump_recipe(recipe))


def is_begun(runs_dir: Runs, name: str | None, plan: Plan) -> bool:
    """Return whether the search's folder exists; raises what `check_claim` raises."""
    name = _default_name(runs_dir, plan) if name is None else name
    check_claim(runs_dir, name)
    path = folder_in(runs_dir, name)
    return path.exists() if isinstance(path, Path) else path.entry() is not None


@contextmanager
def claim_search(runs_dir: Runs, name: str | None, plan: Plan) -> Iterator[SearchFolder]:
    """Create the search's folder, or reopen it for the same search, and lock it meanwhile.

    RunError if it has other content or is in use; UsageError for an invalid name.
    """
    with claimed_folder(runs_dir, name, default=_default_name(runs_dir, plan)) as path:
        _check_owner(path, plan)
        write_text(path / SEARCH_FILE, json.dumps(plan.describe(), indent=2) + "\n")
        write_text(path / SPACE_FILE, dump_space(plan.space))
        write_text(path / BASE_FILE, dump_recipe(plan.recipe))
        folder = SearchFolder(path, plan)
        with output_errors(folder.states_dir):
            folder.states_dir.mkdir(exist_ok=True)
        yield folder


def _default_name(runs_dir: Runs, plan: Plan) -> str:
    """Name a search's folder: an older version's, whatever its hash, if there is one."""
    name = plan.folder_name()
    older = older_folders(runs_dir, name)
    same = [path.name for path in older if plan.is_described_by(_read_plan(path / SEARCH_FILE))]
    return same[0] if same else name


def _read_plan(search_path: Path) -> dict[str, Any]:
    """Read search.json; empty if it is not readable.

    The recipe gets the current names of its keys, or is removed if it is not valid.
    """
    try:
        found = dict(json.loads(search_path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
    try:
        return {**found, "recipe": describe_recipe(parse_recipe(found.pop("recipe")))}
    except (ValueError, KeyError, TypeError, RecipeError):
        return found


def _check_owner(path: Path, plan: Plan) -> None:
    search_path = path / SEARCH_FILE
    if not search_path.exists():
        check_unused(path)
        return
    found = _read_plan(search_path)
    version = found.get("format_version")
    if isinstance(version, int) and version != FORMAT_VERSION:
        kind, now = (
            ("a newer", "update sgnray, or choose another --name")
            if version > FORMAT_VERSION
            else ("an earlier", "choose another --name to search again; its trials are not resumed")
        )
        raise RunError(
            f"the folder contains a search of {kind} version of sgnray",
            where=str(search_path),
            now=now,
        )
    if not plan.is_described_by(found):
        raise RunError(
            "the folder contains another search: its space, recipe, data, trials or epochs differ",
            where=str(search_path),
            now="choose another --name, or remove that folder",
        )


def _header(folder: SearchFolder, best: TrialRow, rows: tuple[TrialRow, ...]) -> str:
    plan, num_full = folder.plan, folder.plan.recipe.train.num_epochs
    num_ended = sum(row.has_ended for row in rows)
    count, epochs = count_of(num_ended, "trial"), count_of(plan.num_epochs, "epoch")
    if num_ended < plan.num_trials:
        count += f" so far; {plan.num_trials} are planned"
    scheduler = ", ASHA" if plan.scheduler == "asha" else ""
    scaled = "" if plan.num_epochs == num_full else ", its schedule in proportion"
    seeds = f", mean of {plan.num_seeds} seeds" if plan.num_seeds > 1 else ""
    return "\n".join(
        [
            f"# Found by sgn tune: trial {best.number}, the best of {count}.",
            f"#   sgn train --recipe {quoted_name(folder.best_path)}",
            f"# Search: space {plan.space.source}, {plan.search}{scheduler}, "
            f"seed {plan.recipe.train.seed}, at most {epochs} per trial",
            f"#   of the {num_full} below{scaled}.",
            f"# Score: {best.score or 0:.2%} top-1 after epoch {best.num_epochs}{seeds}, on a "
            "validation",
            f"#   part of the training clips of {plan.recipe.data.dataset} "
            f"{plan.recipe.data.case}, held out the way the case",
            "#   holds out its test clips, which were never used.",
            "# Changed by the search:",
            *(f"#   {text}" for text in as_overrides(best.values) or ("nothing",)),
            "",
            "",
        ]
    )


def trial_table(rows: Sequence[TrialRow], keys: Sequence[str]) -> pa.Table:
    """Return the trials as a table: a row each, a column for each searched key, null if unknown.

    `val_top1` is the score, a share; `spread` its standard deviation over seeds; `flops` are those
    of one clip's forward pass. Each key has one type: lists and mixed types are written as JSON.
    """
    columns = {
        name: pa.array([of(row) for row in rows], type=kind)
        for name, (kind, of) in _COLUMNS.items()
    }
    columns |= {key: _column([row.values.get(key) for row in rows]) for key in keys}
    columns["curve"] = pa.array([list(row.scores) for row in rows], type=pa.list_(pa.float64()))
    columns["error"] = pa.array([row.error for row in rows], type=pa.string())
    return pa.table(columns)


def write_tables(folder: Path, rows: Sequence[TrialRow], keys: Sequence[str]) -> None:
    """Write both files, each atomically; raises OutputError."""
    table = trial_table(rows, keys)
    parquet = io.BytesIO()
    pq.write_table(table, parquet)
    write_bytes(folder / PARQUET_FILE, parquet.getvalue())
    write_text(folder / CSV_FILE, _as_csv(table.drop_columns(["curve"])))


def _as_csv(table: pa.Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows([_cell(value) for value in row.values()] for row in table.to_pylist())
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    if isinstance(value, bool):
        return json.dumps(value)
    return "" if value is None else value


def _column(values: list[Any]) -> pa.Array:
    """Store a key's values as one type; mixed types and lists become JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds in ({int}, {float}, {int, float}, {bool}, {str}):
        return pa.array(values)
    texts = [None if value is None else json.dumps(value) for value in values]
    return pa.array(texts, type=pa.string())
