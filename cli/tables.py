"""Results of the library as tables and lines; render.py prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.console import RenderableType
from rich.table import Table

from . import live
from .safe import SafeTable

if TYPE_CHECKING:
    from sgnray.evaluate import Report
    from sgnray.evaluate.report import Details
    from sgnray.train import EpochResult

_NUM_WORST = 5
_NUM_CONFUSED = 5
_NUM_VIEWS_SHOWN = 10
_FIGURES = ("top-1", "clips", "share", "probability")


def epoch_line(epoch: EpochResult) -> str:
    """Say how one epoch went, in one line below 80 columns."""
    digits = len(str(epoch.num_epochs))
    values = epoch.metrics
    parts = [
        f"epoch {epoch.epoch:>{digits}}/{epoch.num_epochs}",
        f"loss {values['train/loss']:.3f}",
    ]
    parts.append(f"train {values['train/top1']:6.1%}")
    if "val/top1" in values:
        parts.append(f"val {values['val/top1']:6.1%}")
    if "lr" in values:
        parts.append(f"lr {live.rate(values['lr'])}")
    if "speed/clips_per_s" in values:
        parts.append(f"{values['speed/clips_per_s']:,.0f} clips/s")
    return "  ".join(parts)


def scores(report: Report) -> list[RenderableType]:
    """Give the figures of a report: what, on what, chosen how."""
    evaluated, details = report.evaluated, report.details
    table = facts(
        {
            "top-1": f"{report.top1:.2%}",
            "top-5": f"{report.top5:.2%}",
            "loss": f"{report.loss:.4f}",
            "clips": f"{report.num_clips:,}, the test part of {evaluated.dataset} {evaluated.case}",
            "views": f"{evaluated.num_views} per clip, logits averaged",
            "model": f"{evaluated.num_parameters:,} parameters",
        }
    )
    if details is None or len(details.members) == 1:
        table.add_row("from", evaluated.checkpoint)
        table.add_row("epoch", _chosen(evaluated.selection, evaluated.epoch))
        return [table]
    table.add_row("from", f"{len(details.members)} models, their logits averaged")
    return [table, "", _members(details)]


def report(report: Report) -> list[RenderableType]:
    """Give the whole of a report: the figures, the weakest classes, the most confused pairs."""
    parts = scores(report)
    if report.details is not None:
        parts += ["", _details(report.details)]
    tested = [(score.top1, score) for score in report.per_class if score.top1 is not None]
    table = make_table("weakest classes", "top-1", "clips")
    for top1, score in sorted(tested, key=lambda pair: (pair[0], pair[1].name))[:_NUM_WORST]:
        table.add_row(score.name, f"{top1:.1%}", f"{score.num_clips:,}")
    parts += ["", table]
    if report.confused:
        table = make_table("most confused: this", "taken for", "clips", "share")
        for pair in report.confused[:_NUM_CONFUSED]:
            table.add_row(pair.truth, pair.predicted, f"{pair.count:,}", f"{pair.share:.1%}")
        parts += ["", table]
    return parts


def _members(details: Details) -> SafeTable:
    table = make_table("each alone", "seed", "epoch", "top-1")
    for member in details.members:
        seed = "" if member.seed is None else str(member.seed)
        epoch = "" if member.epoch is None else str(member.epoch)
        table.add_row(_short(member.checkpoint), seed, epoch, f"{member.top1:.2%}")
    table.add_row("mean", "", "", f"{details.mean_top1:.2%}")
    table.add_row("standard deviation", "", "", f"{details.std_top1:.2%}")
    return table


def _short(checkpoint: str) -> str:
    """Name a checkpoint by its run, where its epoch stands beside it."""
    return checkpoint.partition("/checkpoints/epoch-")[0]


def _details(details: Details) -> Table:
    views = details.top1_by_views[:_NUM_VIEWS_SHOWN]
    told = {
        "by views": ", ".join(f"{top1:.1%}" for top1 in views),
        "calibration": f"probabilities are off by {details.calibration.ece:.1%} (ECE)",
        "one clip": str(details.cost),
    }
    for name, groups in details.groups.items():
        if len(groups) > 1:
            told[f"by {name}"] = ", ".join(f"{score.name} {score.top1:.1%}" for score in groups)
    return facts(told)


def _chosen(selection: str, epoch: int | None) -> str:
    from sgnray.evaluate.report import SELECTION

    how = SELECTION.get(selection, selection)
    return how if epoch is None else f"{epoch}, {how}"


def facts(told: Mapping[str, str]) -> Table:
    """Give names and what belongs to them, one pair on each line."""
    table = SafeTable.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path is never cut
    for name, text in told.items():
        table.add_row(name, text)
    return table


def make_table(*columns: str, is_tight: bool = False) -> SafeTable:
    """Start a table; columns of figures are flush right."""
    padding = (0, 0 if is_tight else 1, 0, 0)
    table = SafeTable(box=box.SIMPLE_HEAD, padding=padding, pad_edge=False, show_edge=False)
    for column in columns:
        is_figure = is_tight or column in _FIGURES
        table.add_column(column, justify="right" if is_figure else "left", overflow="fold")
    return table
