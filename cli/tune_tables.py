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
    """Describe one trial of a search in a line."""
    score = trial.status if trial.score is None else f"val {trial.score:6.1%}"
    line = f"trial {trial.number:>3}  {score}  {trial.num_epochs} epochs  {changes(trial)}"
    return line.rstrip() if trial.error is None else f"{line.rstrip()}\n  {trial.error}"


def changes(trial: TrialRow) -> str:
    """Write what a trial changes in short."""
    if not trial.values:
        return "as it is"
    return " ".join(f"{key.rpartition('.')[2]}={_value(v)}" for key, v in trial.values.items())


def search(tuned: TuneResult) -> list[RenderableType]:
    """Return the trials of a search, best first, the importances, and the best score."""
    parts: list[RenderableType] = [ranking(tuned.ranked, tuple(tuned.plan.space.axes))]
    if len(tuned.trials) > _MAX_ROWS:
        parts.append(f"and {len(tuned.trials) - _MAX_ROWS} more in trials.csv")
    if any(trial.status == "stopped" for trial in tuned.trials):
        parts.append("cut: stopped early, because others were ahead")
    parts += ["", *_failures(tuned), *_importances(tuned)]
    spread = "" if tuned.best.spread is None else f" ± {tuned.best.spread:.2%} over seeds"
    score = f"best: trial {tuned.best.number}, {tuned.best.score or 0:.2%}{spread}"
    return [*parts, f"{score} on the validation part"]


def ranking(trials: tuple[TrialRow, ...], keys: tuple[str, ...]) -> SafeTable:
    """Return a table of the first trials, in their order, with columns for a few keys."""
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
    """Return what `search` shows, for programs."""
    from sgnray.storage.mirror import shown

    return {
        "folder": shown(tuned.folder),
        "best_trial": tuned.best.number,
        "best_score": tuned.best.score,
        "best_overrides": list(tuned.best_overrides),
        "best_recipe": str(tuned.best_recipe_path),
        "importances": tuned.importances,
        "trials": [asdict(trial) for trial in tuned.trials],
    }


def final(finished: RunResult) -> str:
    """Describe the test result of the best recipe."""
    from sgnray.storage.mirror import shown

    report = finished.report
    return (
        f"test: {report.top1:.2%} of {report.num_clips:,} clips, after training on all training "
        f"clips; run {shown(finished.folder)}"
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
    shares = ", ".join(f"{key} {share:.0%}" for key, share in tuned.importances.items())
    return [f"what mattered: {shares}"]


def _value(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if isinstance(value, float) else str(value)
