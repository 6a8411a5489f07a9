"""search.html, one self-contained page with all results, and the importance of each searched key.

The importance is PED-ANOVA, from Optuna (extra `tune`).
"""

from __future__ import annotations

import base64
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from sgnray.storage.atomic import write_bytes, write_text
from sgnray.storage.mirror import quoted_name
from sgnray.tune.folder import SearchFolder
from sgnray.tune.plots import draw_pictures
from sgnray.tune.sampler import make_study, optuna_trial
from sgnray.tune.space import Space, as_overrides, as_text
from sgnray.tune.trials import TrialRow, comparable, rank
from sgnray.view.page import render_page

PAGE_FILE = "search.html"
_STATUSES = ("finished", "stopped", "failed", "interrupted", "running")
_FEWEST = 8  # below that, the importance of keys is mostly noise


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


def compute_importances(rows: Sequence[TrialRow], space: Space) -> dict[str, float]:
    """Return the importance of each key as a share, the largest first; the sum is 1.

    Only trials with the most epochs count. A key that some of them lack, because its condition did
    not hold, is left out. Empty with too few trials or without Optuna: see `explain_missing`.
    """
    full = comparable(rows)
    if not space.axes or len(full) < _FEWEST or importlib.util.find_spec("optuna") is None:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    study = make_study()
    for row in full:
        study.add_trial(optuna_trial(space, row.values, row.score))
    common = [key for key in space.axes if all(key in row.values for row in full)]
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=common)
    return {key: float(share) for key, share in found.items()}


def explain_missing(space: Space) -> str:
    """Explain why the importance of keys is unknown."""
    if not space.axes:
        return "the importance of keys cannot be computed for a list of trials"
    if importlib.util.find_spec("optuna") is None:
        return "pip install 'sgnray[tune]' to see the importance of each key"
    return (
        f"fewer than {_FEWEST} trials ran to the end: too few to compute the importance of each key"
    )
