"""The table helper of all commands, and reports as tables."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from rich import box
from rich.console import JustifyMethod, RenderableType
from rich.table import Table

if TYPE_CHECKING:
    from sgnray.evaluate import Report
    from sgnray.evaluate.report import Details
    from sgnray.train import SeedsReport

_NUM_WORST = 5
_NUM_CONFUSED = 5
_NUM_VIEWS_SHOWN = 10
# Unicode categories of control characters, text direction marks and lone surrogates.
_UNSAFE = ("Cc", "Cf", "Cs")


def make_table(*columns: str, gap: int = 1) -> SafeTable:
    """Start a table; a column whose name ends with > holds figures and is aligned to the right."""
    table = SafeTable(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        justify: JustifyMethod = "right" if column.endswith(">") else "left"
        table.add_column(column.removesuffix(">"), justify=justify, overflow="fold")
    return table


def facts(rows: Mapping[str, str]) -> Table:
    """Return names and their values, one pair on each line."""
    table = SafeTable.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path is never cut
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def spaced(parts: Iterable[RenderableType]) -> list[RenderableType]:
    """Put an empty line between parts of a result."""
    return [line for part in parts for line in ("", part)][1:]


class SafeTable(Table):
    """A table whose cells may hold unsafe text."""

    def add_row(self, *cells: RenderableType | None, **options: object) -> None:
        """Add a row of cleaned cells."""
        safe = [
            clean(cell.replace("\n", "\\n")) if isinstance(cell, str) else cell for cell in cells
        ]
        super().add_row(*safe, **options)  # type: ignore[arg-type]


def clean(text: str) -> str:
    """Escape characters that could move the cursor or reverse the line; keep line ends."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in _UNSAFE
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def scaled(amount: float, units: Sequence[str]) -> str:
    """Write an amount in one of `units`, each of which is a thousand times the one before."""
    power = 0
    while amount >= 999.5 and power < len(units) - 1:
        amount, power = amount / 1000, power + 1
    digits = 0 if power == 0 or amount >= 99.5 else 1
    return f"{amount:,.{digits}f} {units[power]}"


def duration(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def scores(report: Report) -> list[RenderableType]:
    """Return the figures of a report: accuracy, clips, model, and how its epoch was chosen."""
    from sgnray.evaluate.report import describe_selection

    evaluated, details = report.evaluated, report.details
    table = facts(
        {
            "top-1": f"{report.top1:.2%}",
            "top-5": f"{report.top5:.2%}",
            "mean": f"{report.class_mean_top1:.2%} over the classes",
            "loss": f"{report.loss:.4f}",
            "clips": f"{report.num_clips:,}, the test part of {evaluated.dataset} {evaluated.case}",
            "views": evaluated.describe_views(),
            "model": f"{evaluated.num_parameters:,} parameters",
        }
    )
    if details is None or len(details.members) == 1:
        table.add_row("from", evaluated.checkpoint)
        epoch = "" if evaluated.epoch is None else f"{evaluated.epoch}, "
        table.add_row("epoch", f"{epoch}{describe_selection(evaluated)}")
        return [table]
    table.add_row("from", f"{len(details.members)} models, their logits averaged")
    return [table, "", _members(details)]


def report(report: Report) -> list[RenderableType]:
    """Return a whole report: the figures, the weakest classes, the most confused pairs."""
    parts: list[RenderableType] = []
    if report.details is not None:
        parts.append(_details(report.details))
    tested = [(score.top1, score) for score in report.per_class if score.top1 is not None]
    table = make_table("weakest classes", "top-1>", "clips>")
    for top1, score in sorted(tested, key=lambda pair: (pair[0], pair[1].name))[:_NUM_WORST]:
        table.add_row(score.name, f"{top1:.1%}", f"{score.num_clips:,}")
    parts.append(table)
    if report.confused:
        table = make_table("most confused", "predicted as", "clips>", "share>")
        for pair in report.confused[:_NUM_CONFUSED]:
            table.add_row(pair.truth, pair.predicted, f"{pair.count:,}", f"{pair.share:.1%}")
        parts.append(table)
    return [*scores(report), "", *spaced(parts)]


def seeds(report: SeedsReport) -> SafeTable:
    """Return the accuracy of each seed, their mean and their standard deviation."""
    table = make_table("seed", "epoch", "correct", "top-1>")
    for score in report.scores:
        correct = f"{score.num_correct:,} of {score.num_clips:,}"
        table.add_row(str(score.seed), str(score.epoch), correct, f"{score.top1:.2%}")
    for seed in report.missing:
        table.add_row(str(seed), "", "", "missing")
    table.add_row("mean", "", "", f"{report.mean_top1:.2%}")
    if report.std_top1 is not None:
        table.add_row("standard deviation", "", "", f"{report.std_top1:.2%}")
    return table


def _members(details: Details) -> SafeTable:
    from sgnray.checkpoints.model_card import describe_unfinished

    table = make_table("each alone", "seed", "epoch", "top-1>", "")
    for member in details.members:
        seed = "" if member.seed is None else str(member.seed)
        epoch = "" if member.epoch is None else str(member.epoch)
        unfinished = describe_unfinished(member.num_trained, member.num_epochs) or ""
        run = member.checkpoint.partition("/checkpoints/epoch-")[0]  # the epoch is shown with it
        table.add_row(run, seed, epoch, f"{member.top1:.2%}", unfinished)
    table.add_row("mean", "", "", f"{details.mean_top1:.2%}", "")
    table.add_row("standard deviation", "", "", f"{details.std_top1:.2%}", "")
    return table


def _details(details: Details) -> Table:
    views = details.top1_by_views[:_NUM_VIEWS_SHOWN]
    rows = {
        "by views": ", ".join(f"{top1:.1%}" for top1 in views),
        "calibration": f"probabilities are off by {details.calibration.ece:.1%} (ECE)",
        "one clip": str(details.cost),
    }
    for name, groups in details.groups.items():
        if len(groups) > 1:
            rows[f"by {name}"] = ", ".join(f"{score.name} {score.top1:.1%}" for score in groups)
    return facts(rows)
