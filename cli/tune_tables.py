"""A search as tables and lines; render.py prints them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import RenderableType

from .tables import SafeTable, duration

if TYPE_CHECKING:
    from sgnray.train import RunResult
    from sgnray.tune import TrialRow, TuneResult

_MAX_ROWS, _MAX_FAILURES = 20, 5
_MAX_KEYS = 6  # as many fit beside each other into 80 columns


def trial_line(trial: TrialRow) -> str:
    """Say how one trial of a search went, in one line."""
    score = trial.status if trial.score is None else f"val {trial.score:6.1%}"
    line = f"trial {trial.number:>3}  {score}  {trial.num_epochs} epochs  {changes(trial)}"
    return line.rstrip() if trial.error is None else f"{line.rstrip()}\n  {trial.error}"


def changes(trial: TrialRow) -> str:
    """Write what a trial changes, shortly."""
    if not trial.values:
        return "as it is"
    return " ".join(f"{key.rpartition('.')[2]}={_value(v)}" for key, v in trial.values.items())


def search(tuned: TuneResult) -> list[RenderableType]:
    """Give the trials of a search, best first, what mattered, and what the score is."""
    parts: list[RenderableType] = [ranking(tuned.ranked, tuple(tuned.plan.space.axes))]
    if len(tuned.trials) > _MAX_ROWS:
        parts.append(f"and {len(tuned.trials) - _MAX_ROWS} more in trials.csv")
    if any(trial.status == "stopped" for trial in tuned.trials):
        parts.append("cut: stopped early, because others were ahead")
    parts += ["", *_failures(tuned), *_importances(tuned), *_savings(tuned)]
    spread = "" if tuned.best.spread is None else f" ± {tuned.best.spread:.2%} over seeds"
    score = f"best: trial {tuned.best.number}, {tuned.best.score or 0:.2%}{spread}"
    return [*parts, f"{score} on the validation part"]


def ranking(trials: tuple[TrialRow, ...], keys: tuple[str, ...]) -> SafeTable:
    """Give a table of the first trials, in their order, with columns for a few keys."""
    is_wide = not 0 < len(keys) <= _MAX_KEYS
    names = ["changes"] if is_wide else [key.rpartition(".")[2].replace("_", " ") for key in keys]
    table = SafeTable(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False, show_edge=False)
    for name in ("trial", "val top-1", "epochs", "time"):
        table.add_column(name, justify="right", overflow="fold")
    for name in names:
        table.add_column(name, justify="left" if is_wide else "right", overflow="fold")
    for trial in trials[:_MAX_ROWS]:
        score = trial.status if trial.score is None else f"{trial.score:.2%}"
        mark = {"stopped": " cut", "interrupted": " …"}.get(trial.status, "")
        values = [changes(trial)] if is_wide else [_value(trial.values.get(key)) for key in keys]
        figures = [str(trial.number), score, f"{trial.num_epochs}{mark}"]
        table.add_row(*figures, duration(trial.duration_s), *values)
    return table


def search_content(tuned: TuneResult) -> dict[str, Any]:
    """Give what `search` shows, for programs."""
    return {
        "folder": str(tuned.folder),
        "best_trial": tuned.best.number,
        "best_score": tuned.best.score,
        "best_overrides": list(tuned.best_overrides),
        "best_recipe": str(tuned.best_recipe_path),
        "importances": tuned.importances,
        "asha_would_save": None if tuned.savings is None else tuned.savings.share,
        "trials": [asdict(trial) for trial in tuned.trials],
    }


def final(finished: RunResult) -> str:
    """Say what the best recipe gave on the test clips."""
    report = finished.report
    return (
        f"test: {report.top1:.2%} of {report.num_clips:,} clips, after training on all training "
        f"clips; run {finished.folder}"
    )


def _failures(tuned: TuneResult) -> list[RenderableType]:
    failed = [trial for trial in tuned.trials if trial.status == "failed"]
    lines: list[RenderableType] = [
        f"trial {trial.number} failed: {trial.error}" for trial in failed[:_MAX_FAILURES]
    ]
    if len(failed) > _MAX_FAILURES:
        lines.append(f"and {len(failed) - _MAX_FAILURES} more failed; see trials.csv")
    return [*lines, ""] if lines else []


def _importances(tuned: TuneResult) -> list[RenderableType]:
    if not tuned.importances:
        return []
    told = ", ".join(f"{key} {share:.0%}" for key, share in tuned.importances.items())
    return [f"what mattered: {told}"]


def _savings(tuned: TuneResult) -> list[RenderableType]:
    savings = tuned.savings
    if savings is None:
        return []
    lost = savings.best_score - savings.best_score_asha
    kept = "kept the best trial" if lost <= 0 else f"lost {lost:.2%} of score"
    return [f"ASHA would have saved {savings.share:.0%} of the epochs, and {kept}"]


def _value(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if isinstance(value, float) else str(value)
