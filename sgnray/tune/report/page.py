"""The pictures of a search, and search.html: one self-contained page with all results."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sgnray.storage.atomic import write_bytes, write_text
from sgnray.storage.mirror import quoted_name
from sgnray.tune.report.importance import explain_missing
from sgnray.tune.report.plots import draw_pictures
from sgnray.tune.space.space import as_overrides, as_text
from sgnray.tune.state.folder import SearchFolder
from sgnray.tune.state.trials import TrialRow, rank
from sgnray.view.page import render_page

PAGE_FILE = "search.html"
_STATUSES = ("finished", "stopped", "failed", "interrupted", "running")


def write_page(
    folder: SearchFolder,
    rows: tuple[TrialRow, ...],
    best: TrialRow,
    importances: Mapping[str, float],
) -> None:
    """Draw the pictures, write each as a PNG and all into the page; raises OutputError."""
    plan = folder.plan
    pictures = draw_pictures(rows, plan.space, importances)
    for name, png in pictures.items():
        write_bytes(folder.path / f"{name}.png", png)
    counts = Counter[str](row.status for row in rows)
    page = render_page(
        Path(__file__).with_name("html") / "search.html",
        title=folder.path.name,
        plan=plan,
        best=best,
        changes="\n".join(as_overrides(best.values)) or "nothing",
        command=f"sgn train --recipe {quoted_name(folder.best_path)}",
        counts=", ".join(f"{counts[status]} {status}" for status in _STATUSES if counts[status]),
        ends=_describe_ends(counts),
        pictures={name: base64.b64encode(png).decode("ascii") for name, png in pictures.items()},
        missing="" if importances else explain_missing(plan.space),
        rows=rank(rows),
        as_text=as_text,
    )
    write_text(folder.path / PAGE_FILE, page)


def _describe_ends(counts: Mapping[str, int]) -> str:
    if counts.keys() == {"finished"}:
        return "all ran to the end"
    if "stopped" in counts:
        return "ASHA stopped the worse ones early"
    return "not all ran to the end"
