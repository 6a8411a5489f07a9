"""What `sgn bench` measured, as small tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import RenderableType

from .safe import SafeTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sgnray.bench import BenchResult
    from sgnray.bench.measure import Rate
    from sgnray.bench.run import Estimate, Subject, WorkersSpeed

_UNITS = ("FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s")


def measured(result: BenchResult) -> list[RenderableType]:
    """Give all that was measured, and what is made of it."""
    parts: list[RenderableType] = [
        _subject(result.subject),
        "",
        _speeds(result),
        "",
        _epoch(result),
    ]
    if result.workers:
        parts += ["", _workers(result.workers)]
    return [*parts, "", _estimates(result.estimates)]


def _subject(subject: Subject) -> RenderableType:
    table = SafeTable.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        "recipe",
        f"{subject.dataset} {subject.case}, {subject.num_epochs} epochs in batches of "
        f"{subject.batch_size}, {subject.precision}",
    )
    clips = f"{subject.num_train:,} for training, {subject.num_test:,} for the test"
    noise = "" if subject.has_dataset else "; not at hand, noise stands in for them"
    table.add_row("clips", clips + noise)
    table.add_row("model", f"{subject.num_parameters:,} parameters")
    table.add_row(
        "a clip",
        f"{subject.forward_flops / 1e6:,.0f} MFLOP forward, {subject.step_flops / 1e6:,.0f} in a "
        "training step: matrix products, a multiply-add as 2",
    )
    threads = "1 thread" if subject.num_threads == 1 else f"{subject.num_threads} threads"
    table.add_row("here", f"{subject.device}, {threads}")
    return table


def _speeds(result: BenchResult) -> SafeTable:
    table = _table("in this process", "precision", "clips/s>", "+-%>", "FLOP/s>", "of product>")
    data = result.data_clips_per_s
    table.add_row("data path", "", *_rate(data), "", "")
    for product in result.products:
        size = f"{product.size:,}"
        flops = _flops(product.flops_per_s)
        table.add_row(f"matrix product {size} x {size}", product.precision, "", "", flops, "")
        for row in result.speeds:
            if row.precision == product.precision:
                flops, share = _flops(row.flops_per_s), f"{row.share_of_product:.0%}"
                table.add_row(row.what, row.precision, *_rate(row.clips_per_s), flops, share)
    epoch = result.epoch
    table.add_row("epoch", result.subject.precision, *_rate(epoch.clips_per_s), "", "")
    return table


def _epoch(result: BenchResult) -> str:
    outside = result.epoch.outside
    return (
        f"of an epoch's time {outside.median:.1%} is outside of forward, backward and step\n"
        f"(half of {outside.num_rounds} rounds: {outside.low:.1%} to {outside.high:.1%})"
    )


def _workers(workers: Sequence[WorkersSpeed]) -> SafeTable:
    table = _table("workers>", "threads each>", "clips/s>", "+-%>", "per thread>")
    for row in workers:
        threads = str(row.threads_per_worker)
        rate = _rate(row.clips_per_s)
        table.add_row(str(row.num_workers), threads, *rate, f"{row.per_thread:.0%}")
    return table


def _estimates(estimates: Sequence[Estimate]) -> SafeTable:
    table = _table("the whole recipe", "training>", "evaluation>", "in all>")
    for row in estimates:
        where = "1 worker" if row.num_workers == 1 else f"{row.num_workers} workers"
        table.add_row(
            where if row.num_workers else "in this process",
            *(_duration(seconds) for seconds in (row.training_s, row.evaluation_s, row.total_s)),
        )
    return table


def _rate(rate: Rate) -> tuple[str, str]:
    return _count(rate.median), f"{100 * rate.spread:.0f}"


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def _flops(amount: float) -> str:
    power = 0
    while amount >= 999.5 and power < len(_UNITS) - 1:
        amount, power = amount / 1000, power + 1
    return f"{amount:.{0 if amount >= 99.5 else 1}f} {_UNITS[power]}"


def _duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


def _table(*columns: str) -> SafeTable:
    """Make a table; a column whose name ends with > holds figures and is aligned to the right."""
    table = SafeTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        justify = "right" if column.endswith(">") else "left"
        table.add_column(column.removesuffix(">"), justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table
