"""`sgn bench`: how fast this machine or cluster is with a recipe, and how long it would take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from sgnray.errors import InputError, count_of

from . import options, render
from .choices import DATA_DIR, choose_dataset, choose_recipe
from .tables import SafeTable, facts, make_table, scaled, spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sgnray.bench import BenchResult
    from sgnray.bench.measure import Rate
    from sgnray.bench.run import Estimate, WorkersSpeed, Workload
    from sgnray.config import Recipe

_UNITS = ("FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s")

# By case: the dataset whose shape the noise has if no dataset is found.
_DATASET = {"csub": "ntu120", "cset": "ntu120", "xset": "ntu120"}


def bench(
    overrides: options.Overrides = None,
    case: options.Case = None,
    recipe: options.RecipeName = None,
    workers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also measure 1 to N Ray workers; 0 for none.")
    ] = 0,
    data: options.Data = None,
    address: options.Address = None,
    cpus_per_worker: options.CpusPerTrainWorker = None,
    wait: options.Wait = None,
    device: options.Device = "auto",
    seconds: Annotated[
        float,
        typer.Option(
            min=1, max=86400, metavar="S", help="Seconds to measure; workers take extra time."
        ),
    ] = 30.0,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Measure how fast this machine or cluster trains a recipe.

    Measures the data path, the training step (compared with a plain matrix product), the epoch and
    1 to N workers, and estimates the whole training. Without a dataset, noise is used.
    """
    request = options.worker_request(wait=wait, cpus=cpus_per_worker)
    chosen, dataset_dir = _choose(case, recipe, overrides or [], data)

    from sgnray.bench import bench_recipe

    with render.progress("measuring, seconds") as on_progress:
        measured = bench_recipe(
            chosen,
            dataset_dir,
            workers=workers,
            device=device,
            address=address,
            request=request,
            seconds=seconds,
            on_progress=on_progress,
        )
    if json:
        return render.as_json(measured.to_dict())
    return render.result(*tables_of(measured))


def _choose(
    case: str | None, recipe: str | None, overrides: list[str], data: str | None
) -> tuple[Recipe, Path | None]:
    """Choose the recipe, and the dataset unless noise has to replace it."""
    from sgnray.config import recipe_for
    from sgnray.data.info import INFO_FILE
    from sgnray.data.protocols import resolve_case

    found = [path.parent for path in (*DATA_DIR.glob(INFO_FILE), *DATA_DIR.glob(f"*/{INFO_FILE}"))]
    if data is None and recipe is None and not found:
        name = _DATASET.get(case or "", "ntu60")
        return recipe_for(name, resolve_case(name, case or "cs"), overrides), None
    chosen = choose_recipe(
        case, recipe, overrides, data=data, default_case="first", may_lack_data=True
    )
    name = chosen.data.dataset
    if data is None and not any(_is_of(folder, name) for folder in found):
        return chosen, None
    return chosen, choose_dataset(data, name=name)


def _is_of(folder: Path, name: str) -> bool:
    """Return whether a dataset has this name; one that cannot be read has none."""
    from sgnray.data.info import read_info

    with suppress(InputError):
        return read_info(folder).dataset == name
    return False


def tables_of(result: BenchResult) -> list[RenderableType]:
    """Return all measurements as tables."""
    parts: list[RenderableType] = [_workload(result.workload), _speeds(result), _epoch(result)]
    if result.workers:
        parts.append(_workers(result.workers))
    return spaced([*parts, _estimates(result.estimates)])


def _workload(workload: Workload) -> RenderableType:
    clips = f"{workload.num_train:,} for training, {workload.num_test:,} for the test"
    noise = "" if workload.has_dataset else "; no dataset, noise is used"
    epochs = count_of(workload.num_epochs, "epoch")
    threads = count_of(workload.num_threads, "thread")
    return facts(
        {
            "recipe": f"{workload.dataset} {workload.case}, {epochs} in batches of "
            f"{workload.batch_size}, {workload.precision}",
            "clips": clips + noise,
            "model": f"{workload.num_parameters:,} parameters",
            "a clip": f"{workload.forward_flops / 1e6:,.0f} MFLOP forward, "
            f"{workload.step_flops / 1e6:,.0f} in a training step: matrix products, a multiply-add "
            "as 2",
            "here": f"{workload.device}, {threads}",
        }
    )


def _speeds(result: BenchResult) -> SafeTable:
    table = make_table("in this process", "precision", "clips/s>", "+-%>", "FLOP/s>", "of product>")
    data = result.data_clips_per_s
    table.add_row("data path", "", *_rate(data), "", "")
    for product in result.products:
        size = f"{product.size:,}"
        flops = scaled(product.flops_per_s, _UNITS)
        table.add_row(f"matrix product {size} x {size}", product.precision, "", "", flops, "")
        for row in result.speeds:
            if row.precision == product.precision:
                flops, share = scaled(row.flops_per_s, _UNITS), f"{row.share_of_product:.0%}"
                table.add_row(row.what, row.precision, *_rate(row.clips_per_s), flops, share)
    epoch = result.epoch
    table.add_row("epoch", result.workload.precision, *_rate(epoch.clips_per_s), "", "")
    return table


def _epoch(result: BenchResult) -> str:
    outside = result.epoch.outside
    if outside.low < 0:  # an epoch cannot be faster than its steps alone
        return (
            "other programs disturbed the measurement of an epoch's time outside of forward,\n"
            "backward and step: measure again on an idle machine, or longer with --seconds"
        )
    return (
        f"{outside.median:.1%} of an epoch's time is outside of forward, backward and step\n"
        f"(half of the {outside.num_rounds} rounds: {outside.low:.1%} to {outside.high:.1%})"
    )


def _workers(workers: Sequence[WorkersSpeed]) -> SafeTable:
    table = make_table("workers>", "threads each>", "precision", "clips/s>", "+-%>", "per thread>")
    for row in workers:
        threads = str(row.threads_per_worker)
        rate = _rate(row.clips_per_s)
        table.add_row(str(row.num_workers), threads, row.precision, *rate, f"{row.per_thread:.0%}")
    return table


def _estimates(estimates: Sequence[Estimate]) -> SafeTable:
    table = make_table("the whole recipe", "training>", "evaluation>", "total>")
    for row in estimates:
        where = count_of(row.num_workers, "worker")
        table.add_row(
            where if row.num_workers else "in this process",
            *(
                _short_duration(seconds)
                for seconds in (row.training_s, row.evaluation_s, row.total_s)
            ),
        )
    return table


def _rate(rate: Rate) -> tuple[str, str]:
    return _count(rate.median), ">99" if rate.spread > 0.99 else f"{100 * rate.spread:.0f}"


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def _short_duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"
