"""The parts of report.html that are text and tables; every name in them is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from sgnray.evaluate.details import Details
from sgnray.evaluate.report import SELECTION, Report

_GROUPS = {
    "people": "by number of people",
    "length": "by length",
    "camera": "by camera",
    "setup": "by setup",
}


def headline(report: Report) -> str:
    """Say what the accuracy is one of, and how the models did alone."""
    details = report.details
    assert details is not None
    text = f"top-1: {report.num_correct:,} of {report.num_clips:,} test clips"
    if details.std_top1 is not None:
        text = (
            f"{text}, the mean of {len(details.members)} models' logits. Alone they reach "
            f"{details.mean_top1:.2%} ± {details.std_top1:.2%} (mean and standard deviation)."
        )
    return escape(text)


def warnings(report: Report) -> str:
    """Say in a box what makes the accuracy no honest estimate."""
    details, subject = report.details, report.subject
    assert details is not None
    told = []
    if subject.selection == "test":
        told.append("The epoch was selected on these very test clips: the accuracy is too high.")
    if details.num_seen:
        told.append(f"{details.num_seen:,} of these clips were in the training part.")
    if details.num_seen is None and subject.selection != "test":
        told.append("What the model was trained on is not known.")
    return "".join(f'<p class="warning">{escape(text)}</p>' for text in told)


def facts(report: Report) -> str:
    """List the other figures."""
    details, subject = report.details, report.subject
    assert details is not None
    cost = details.cost
    rows = {
        "top-5": f"{report.top5:.2%}",
        "loss": f"{report.loss:.4f} nats",
        "test part": f"{report.num_clips:,} clips of {subject.dataset}, case {subject.case}",
        "views": f"{subject.num_views} draws of each clip, logits averaged",
        "selected": SELECTION.get(subject.selection, subject.selection),
        "parameters": f"{subject.num_parameters:,}",
        "one clip": f"{cost.flops / 1e6:,.0f} MFLOP; {cost.latency_s * 1e3:.1f} ms on "
        f"{cost.device}, {cost.num_threads} {'thread' if cost.num_threads == 1 else 'threads'}",
        "dataset": f"{details.dataset_dir}, {subject.dataset_checksum}",
    }
    return "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in rows.items())


def members(details: Details) -> str:
    """List the checkpoints."""
    rows = [
        (
            member.checkpoint,
            f"{member.top1:.2%}",
            "?" if member.seed is None else str(member.seed),
            "?" if member.epoch is None else str(member.epoch),
            SELECTION.get(member.selection, member.selection),
        )
        for member in details.members
    ]
    return _table(("checkpoint", "top-1", "seed", "epoch", "selected"), rows, num_names=1)


def views(details: Details) -> str:
    """List the accuracy by the number of views."""
    rows = [
        (str(number), f"{top1:.2%}") for number, top1 in enumerate(details.top1_by_views, start=1)
    ]
    return _table(("views", "top-1"), rows, num_names=0)


def calibration(details: Details) -> str:
    """List how often clips of a probability are right, where there are any."""
    rows = [
        (
            f"{item.low:.0%} to {item.high:.0%}",
            f"{item.num_clips:,}",
            f"{item.confidence:.1%}",
            f"{item.top1:.1%}",
        )
        for item in details.calibration.bins
        if item.confidence is not None and item.top1 is not None
    ]
    return _table(("probability", "clips", "mean", "right"), rows, num_names=1)


def groups(details: Details) -> str:
    """Show the accuracy of each group of clips."""
    parts = []
    for name, scores in details.groups.items():
        rows = [(score.name, f"{score.num_clips:,}", f"{score.top1:.1%}") for score in scores]
        shares = [score.top1 for score in scores]
        table = _table(("clips", "number", "top-1"), rows, num_names=1, shares=shares)
        parts.append(f"<section><h3>{escape(_GROUPS.get(name, name))}</h3>{table}</section>")
    return "".join(parts)


def classes(report: Report) -> str:
    """Show the accuracy of each class, to be sorted."""
    rows = [
        (score.name, f"{score.num_clips:,}", "" if score.top1 is None else f"{score.top1:.1%}")
        for score in report.per_class
    ]
    shares = [score.top1 or 0.0 for score in report.per_class]
    heads = ("class", "clips", "top-1")
    return _table(heads, rows, num_names=1, shares=shares, is_sortable=True)


def mistakes_intro(num_mistakes: int, num_played: int, num_listed: int) -> str:
    """Say how many clips went wrong, and how many of them can be seen."""
    if not num_mistakes:
        return "None: every clip was recognized."
    listed = "" if num_mistakes <= num_listed else f" {num_listed:,} of them are listed here."
    which = "all" if num_played == num_mistakes else f"{num_played:,}"
    played = f" The skeletons of {which} of them (▶) can be played here."
    clips = "clip was" if num_mistakes == 1 else "clips were"
    return escape(f"{num_mistakes:,} {clips} taken for something else.{listed}{played}")


def _table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    num_names: int,
    shares: Sequence[float] | None = None,
    is_sortable: bool = False,
) -> str:
    """Build a table: the first columns are names, the others figures, the last may be a bar."""
    labels = [
        f'<button type="button">{escape(head)}</button>' if is_sortable else escape(head)
        for head in heads
    ]
    top = "".join(_cell("th", label, index >= num_names) for index, label in enumerate(labels))
    body = []
    for number, row in enumerate(rows):
        cells = [_cell("td", escape(text), index >= num_names) for index, text in enumerate(row)]
        if shares is not None:
            cells.append(f'<td class="bar"><i style="width:{shares[number]:.1%}"></i></td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    kind = ' class="sortable"' if is_sortable else ""
    bar = "" if shares is None else "<th></th>"
    head = f"<thead><tr>{top}{bar}</tr></thead>"
    return f'<div class="scroll"><table{kind}>{head}<tbody>{"".join(body)}</tbody></table></div>'


def _cell(tag: str, content: str, is_figure: bool) -> str:
    return f"<{tag}{' class=figure' if is_figure else ''}>{content}</{tag}>"
