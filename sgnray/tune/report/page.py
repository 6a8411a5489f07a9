"""The pictures of a search, and search.html: all of it on one page that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib import resources
from string import Template

from sgnray.storage.atomic import output_errors, write_text
from sgnray.tune.plan import Plan
from sgnray.tune.report.importance import explain_missing
from sgnray.tune.report.plots import draw_pictures
from sgnray.tune.space.space import as_overrides
from sgnray.tune.state.board import TrialRow, rank
from sgnray.tune.state.folder import SearchFolder

PAGE_FILE = "search.html"
_TEMPLATE = "search.html"
_HOW = {
    "asha": "ASHA stopped the worse ones early",
    "pbt": "the worse ones went on from copies of better ones (PBT)",
    "none": "all ran to the end",
}


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
        path = folder.path / f"{name}.png"
        with output_errors(path):
            path.write_bytes(png)
    template = resources.files("sgnray.tune.report").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    missing = "" if importances else explain_missing(rows, space)
    page = Template(template).substitute(
        title=escape(folder.path.name),
        facts="".join(_facts(folder.plan, rows)),
        best=escape(_best(best)),
        changes="\n".join(map(escape, as_overrides(best.values))) or "nothing",
        command=escape(f"sgn train --recipe {folder.best_path}"),
        pictures="".join(_picture(name, png) for name, png in pictures.items()),
        missing=f"<p>{escape(missing)}</p>" if missing else "",
        heads="".join(f"<th>{escape(head)}</th>" for head in (*_HEADS, *space.keys, "error")),
        rows="".join(_row(row, space.keys) for row in rank(rows)),
    )
    write_text(folder.path / PAGE_FILE, page)


_HEADS = (
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


def _facts(plan: Plan, rows: tuple[TrialRow, ...]) -> Iterator[str]:
    recipe = plan.recipe
    counts = {status: sum(row.status == status for row in rows) for status in _STATUSES}
    facts = {
        "dataset": f"{recipe.data.dataset}, case {recipe.data.case}",
        "space": f"{plan.space.source}, walked {plan.search}",
        "trials": ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        + f" of {plan.num_trials}",
        "epochs": f"at most {plan.num_epochs} of the recipe's {recipe.train.num_epochs}, the "
        f"schedule in proportion; {_HOW[plan.scheduler]}",
        "seeds": f"{plan.num_seeds} per trial, from {recipe.train.seed}",
        "score": "top-1 after a trial's last epoch, mean over folds of the training clips held "
        "out the way the case holds out its test clips; these were never looked at",
    }
    for name, text in facts.items():
        yield f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"


_STATUSES = ("finished", "stopped", "failed", "interrupted", "running")


def _best(best: TrialRow) -> str:
    spread = "" if best.spread is None else f" ± {best.spread:.2%}"
    return f"trial {best.number}: {best.score or 0:.2%}{spread} after epoch {best.num_epochs}"


def _picture(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _row(row: TrialRow, keys: tuple[str, ...]) -> str:
    cells = [
        row.number,
        row.status,
        None if row.score is None else f"{row.score:.2%}",
        None if row.spread is None else f"{row.spread:.2%}",
        row.num_epochs,
        f"{row.duration_s:.1f}",
        f"{row.num_parameters:,}",
        f"{row.flops / 1e6:.1f}",
        row.node,
        *(None if key not in row.values else _text(row.values[key]) for key in keys),
        row.error,
    ]
    return "<tr>" + "".join(f"<td>{escape(_shown(cell))}</td>" for cell in cells) + "</tr>\n"


def _shown(cell: object) -> str:
    return "" if cell is None else str(cell)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
