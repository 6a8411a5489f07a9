"""`sgn train`: train SGN from a recipe, then score it on the test clips."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgnray.distributed.resources import parse_workers
from sgnray.errors import Problem, SgnError

from . import options, render, tables
from .choices import choose_dataset, choose_recipe
from .training_table import shown_epochs

if TYPE_CHECKING:
    from sgnray.config import Recipe


def train(
    overrides: options.Overrides = None,
    case: options.Case = None,
    recipe: options.RecipeName = None,
    workers: options.WorkerRange = "0",
    data: options.Data = None,
    name: options.RunName = None,
    runs: options.Runs = "runs",
    address: options.Address = None,
    device: options.Device = "auto",
    cpus_per_worker: options.CpusPerTrainWorker = None,
    gpus_per_worker: options.GpusPerTrainWorker = None,
    accelerator_type: options.AcceleratorType = None,
    label: options.Labels = None,
    wait: options.Wait = None,
    max_failures: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Lost workers to tolerate, resuming each time. Default: 0; 10 with MIN:MAX.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            metavar="N",
            help="Train N seeds from train.seed on, one run each; report the mean and standard "
            "deviation.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe without training.")
    ] = False,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Train SGN from a recipe, then score it.

    Rerun an interrupted command to resume it.
    """
    wanted = parse_workers(workers)
    chosen = choose_recipe(
        case, recipe, overrides or (), data=data, default_case="only", may_lack_data=dry_run
    )
    if dry_run:
        from sgnray.checkpoints.claim import check_name
        from sgnray.config import dump_recipe, to_dict

        if name is not None:
            check_name(name, runs)

        return render.as_json(to_dict(chosen)) if json else render.text(dump_recipe(chosen))
    dataset_dir = choose_dataset(data, name=chosen.data.dataset)

    arguments: dict[str, Any] = {
        "workers": wanted,
        "runs_dir": runs,
        "name": name,
        "address": address,
        "device": device,
        "max_failures": max_failures,
        "request": options.worker_request(
            cpus=cpus_per_worker,
            gpus=gpus_per_worker,
            gpu_type=accelerator_type,
            labels=label,
            wait=wait,
        ),
        "command": options.command_line(),
    }
    if seeds is not None:
        return _train_seeds(chosen, dataset_dir, json=json, num_seeds=seeds, **arguments)

    from sgnray.storage.mirror import display_name, quoted_name
    from sgnray.train import train_run

    with shown_epochs(workers if workers != "0" else "") as screen:
        finished = train_run(
            chosen, dataset_dir, **arguments, on_epoch=screen, on_progress=screen.on_progress
        )
    run = display_name(finished.folder)
    if json:
        content = {"run": run, "resumed_from": finished.resumed_from}
        return render.as_json(content | {"report": finished.report.to_dict()}, version=1)
    render.result(*tables.scores(finished.report))
    render.note(f"run {run}; full report: sgn eval {quoted_name(finished.folder)}")
    return None


def _train_seeds(recipe: Recipe, dataset_dir: Path, *, json: bool, **arguments: Any) -> None:
    from sgnray.evaluate.report import SELECTION
    from sgnray.train import SeedScore, train_seeds

    def on_seed(score: SeedScore) -> None:
        render.note(f"seed {score.seed}: {score.top1:.2%} ({score.run})")

    with render.progress("epochs of all seeds") as on_epoch:
        report = train_seeds(recipe, dataset_dir, on_epoch=on_epoch, on_seed=on_seed, **arguments)
    if json:
        render.as_json({"report": report.path, **report.to_dict()})
    else:
        render.result(tables.seeds(report))
        runs = shlex.join(score.run for score in report.scores)
        if report.recipe.train.selection != "last":
            render.warning(f"epochs were selected: {SELECTION[report.recipe.train.selection]}")
        render.note(f"report {report.path}; as an ensemble: sgn eval {runs}")
    if report.missing:
        raise SgnError(
            f"{len(report.missing)} of {len(report.missing) + len(report.scores)} seeds failed",
            where=report.path,
            now="fix the cause given for each seed; the same command trains only these",
            problems=[Problem(f"seed {seed}", reason) for seed, reason in report.missing.items()],
        )
