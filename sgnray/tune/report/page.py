"""The pictures of a search, and search.html: all of it on one page that loads nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from importlib import resources

from jinja2 import Environment, StrictUndefined

from sgnray.storage.atomic import write_bytes, write_text
from sgnray.tune.plan import Plan
from sgnray.tune.report.importance import explain_missing
from sgnray.tune.report.plots import draw_pictures
from sgnray.tune.space.space import as_overrides
from sgnray.tune.state.folder import SearchFolder
from sgnray.tune.state.trials import TrialRow, rank

PAGE_FILE = "search.html"
_COLUMNS = (
    "trial",
    "status",
    "val top-1",
    "spread",
    "epochs",
    "seconds",
    "parameters",
    "MFLOP",
    "host",
)
_STATUSES = ("finished", "stopped", "failed", "interrupted", "running")


def write_page(
    folder: SearchFolder,
    rows: tuple[TrialRow, ...],
    best: TrialRow,
    importances: Mapping[str, float],
) -> None:
    """Draw the pictures, write each as a PNG and all into the page; raises OutputError."""
    space = folder.plan.space
    pictures = draw_pictures(rows, space, importances)
    for name, png in pictures.items():
        write_bytes(folder.path / f"{name}.png", png)
    template = resources.files("sgnray.tune.report").joinpath("search.html").read_text("utf-8")
    spread = "" if best.spread is None else f" ± {best.spread:.2%}"
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template)
    text = page.render(
        title=folder.path.name,
        best=f"trial {best.number}: {best.score or 0:.2%}{spread} after epoch {best.num_epochs}",
        changes="\n".join(as_overrides(best.values)) or "nothing",
        command=f"sgn train --recipe {folder.best_path}",
        facts=_facts(folder.plan, rows),
        pictures={name: base64.b64encode(png).decode("ascii") for name, png in pictures.items()},
        missing="" if importances else explain_missing(space),
        columns=(*_COLUMNS, *space.keys, "error"),
        rows=[_cells(row, space.keys) for row in rank(rows)],
    )
    write_text(folder.path / PAGE_FILE, text)


def _facts(plan: Plan, rows: tuple[TrialRow, ...]) -> dict[str, str]:
    recipe = plan.recipe
    counts = {status: sum(row.status == status for row in rows) for status in _STATUSES}
    asha = "ASHA stopped the worse ones early"
    return {
        "dataset": f"{recipe.data.dataset}, case {recipe.data.case}",
        "space": f"{plan.space.source}, search {plan.search}",
        "trials": ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        + f" of {plan.num_trials}",
        "epochs": f"at most {plan.num_epochs} of the recipe's {recipe.train.num_epochs}, the "
        f"schedule in proportion; {asha if plan.scheduler == 'asha' else 'all ran to the end'}",
        "seeds": f"{plan.num_seeds} per trial, from {recipe.train.seed}",
        "score": "top-1 after a trial's last epoch, mean over folds of the training clips held "
        "out the way the case holds out its test clips; these were never used",
    }


def _cells(row: TrialRow, keys: tuple[str, ...]) -> list[object]:
    values = [row.values.get(key, "") for key in keys]
    return [
        row.number,
        row.status,
        "" if row.score is None else f"{row.score:.2%}",
        "" if row.spread is None else f"{row.spread:.2%}",
        row.num_epochs,
        f"{row.duration_s:.1f}",
        f"{row.num_parameters:,}",
        f"{row.flops / 1e6:.1f}",
        row.node,
        *(value if isinstance(value, str) else json.dumps(value) for value in values),
        row.error or "",
    ]
