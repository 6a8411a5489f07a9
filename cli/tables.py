"""Results of the library as tables and lines; render.py prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import RenderableType

from . import live
from .safe import SafeTable

if TYPE_CHECKING:
    from sgnray.evaluate import Report, Subject
    from sgnray.train import EpochResult

_NUM_WORST = 5
_NUM_CONFUSED = 5
_FIGURES = ("top-1", "clips", "share")
_SELECTION = {
    "last": "the last epoch",
    "validation": "the epoch that was best on the validation part",
    "test": "the epoch that was best ON THE TEST SET, so this score is too high",
}


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
    table = SafeTable.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path is never cut
    table.add_row("top-1", f"{report.top1:.2%}")
    table.add_row("top-5", f"{report.top5:.2%}")
    table.add_row("loss", f"{report.loss:.4f}")
    subject = report.subject
    tested = f"{report.num_clips:,}, the test part of {subject.dataset} {subject.case}"
    table.add_row("clips", tested)
    table.add_row("views", f"{subject.num_views} per clip, logits averaged")
    table.add_row("model", f"{subject.num_parameters:,} parameters")
    table.add_row("from", subject.checkpoint)
    table.add_row("epoch", _chosen(subject))
    return [table]


def report(report: Report) -> list[RenderableType]:
    """Give the whole of a report: the figures, the weakest classes, the most confused pairs."""
    parts = scores(report)
    tested = [(score.top1, score) for score in report.per_class if score.top1 is not None]
    table = _table("weakest classes", "top-1", "clips")
    for top1, score in sorted(tested, key=lambda pair: (pair[0], pair[1].name))[:_NUM_WORST]:
        table.add_row(score.name, f"{top1:.1%}", f"{score.num_clips:,}")
    parts += ["", table]
    if report.confused:
        table = _table("most confused: this", "taken for", "clips", "share")
        for pair in report.confused[:_NUM_CONFUSED]:
            table.add_row(pair.truth, pair.predicted, f"{pair.count:,}", f"{pair.share:.1%}")
        parts += ["", table]
    return parts


def _chosen(subject: Subject) -> str:
    how = _SELECTION.get(subject.selection, subject.selection)
    return how if subject.epoch is None else f"{subject.epoch}, {how}"


def _table(*columns: str, is_tight: bool = False) -> SafeTable:
    padding = (0, 0 if is_tight else 1, 0, 0)
    table = SafeTable(box=box.SIMPLE_HEAD, padding=padding, pad_edge=False, show_edge=False)
    for column in columns:
        is_figure = is_tight or column in _FIGURES
        table.add_column(column, justify="right" if is_figure else "left", overflow="fold")
    return table
