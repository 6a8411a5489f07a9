"""`sgn tune`: search hyperparameters on the validation part of the training clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import options, render
from . import search as searching
from .choices import choose_dataset, choose_recipe, first_case
from .live import shown_epochs

if TYPE_CHECKING:
    from sgnray.distributed.resources import WorkerRequest
    from sgnray.train import RunResult
    from sgnray.tune import TuneResult


def tune(
    overrides: options.Overrides = None,
    case: options.Case = None,
    recipe: options.RecipeName = None,
    space: Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="Search space: a shipped one, or a .yaml file."),
    ] = "default",
    trials: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials to run. Default: 16; all points of a grid."),
    ] = None,
    search: Annotated[
        Literal["random", "grid", "tpe"] | None,
        typer.Option(
            metavar="random|grid|tpe",
            help="How values are chosen. Default: as in the search space.",
        ),
    ] = None,
    scheduler: Annotated[
        Literal["asha", "none"] | None,
        typer.Option(
            metavar="asha|none",
            help="asha stops bad trials early. Default: asha; none for a grid.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Epochs per trial, at most. Default: 12."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Seeds per trial; the score is their mean.")
    ] = 1,
    time_budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Stop after this time: 90s, 45m, 8h."),
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials at the same time. Default: as many as fit."),
    ] = None,
    cpus_per_trial: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="CPUs for each trial. Default: a share; on a cluster with GPUs, 1 per worker.",
        ),
    ] = None,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="X", help="GPUs for each trial, such as 0.25. Default: 1 if any."
        ),
    ] = None,
    workers_per_trial: Annotated[
        int, typer.Option(min=1, metavar="N", help="DDP workers of each trial.")
    ] = 1,
    accelerator_type: options.AcceleratorType = None,
    label: options.Labels = None,
    wait: options.Wait = None,
    final: Annotated[
        bool,
        typer.Option(
            "--final", help="Then train the best trial on all training clips, and test it."
        ),
    ] = False,
    data: options.Data = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Folder of this search under --runs. Default: from the recipe."
        ),
    ] = None,
    runs: options.Runs = "runs",
    address: options.Address = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Search hyperparameters with Ray Tune.

    Trials are compared on a validation part of the training clips, never on the test set; the
    best one is written as best.yaml, for sgn train --recipe. Rerun an interrupted command to
    resume it.
    """
    budget_s = None if time_budget is None else options.parse_duration(time_budget, "--time-budget")
    request = options.worker_request(gpu_type=accelerator_type, labels=label, wait=wait)
    chosen = choose_recipe(case, recipe, overrides or (), data=data, default_case=first_case)
    if case is None and recipe is None:
        render.note(f"searching with the case {chosen.data.case}; --case selects another")
    dataset_dir = choose_dataset(data, name=chosen.data.dataset)

    from sgnray.storage.mirror import pasted, shown
    from sgnray.tune import TrialResources, tune_recipe

    with searching.shown_search() as listener:
        tuned = tune_recipe(
            chosen,
            space,
            dataset_dir,
            num_trials=trials,
            search=search,
            scheduler=scheduler,
            num_epochs=epochs,
            num_seeds=seeds,
            time_budget_s=budget_s,
            resources=TrialResources(
                num_workers=workers_per_trial,
                num_cpus=cpus_per_trial,
                num_gpus=gpus_per_trial,
                concurrent=concurrent,
                request=request,
            ),
            runs_dir=runs,
            name=name,
            address=address,
            listener=listener,
        )
    finished = None
    if final:
        finished = _train_final(tuned, dataset_dir, workers_per_trial, address, request)
    if json:
        content = searching.as_data(tuned)
        if finished is not None:
            run, report = shown(finished.folder), finished.report.to_dict()
            content["final"] = {"run": run, "report": report}
        return render.as_json(content)
    render.result(*searching.tables(tuned))
    if finished is not None:
        return render.result(searching.final_line(finished))
    render.note(
        f"see {shown(tuned.page_path)}; train the best: "
        f"sgn train --recipe {pasted(tuned.best_recipe_path)}"
    )
    return None


def _train_final(
    tuned: TuneResult,
    dataset_dir: Path,
    num_workers: int,
    address: str | None,
    request: WorkerRequest,
) -> RunResult:
    from sgnray.distributed.cluster import is_at_hand
    from sgnray.tune import train_final

    is_alone = num_workers == 1 and not is_at_hand(address)
    with shown_epochs("" if is_alone else str(num_workers)) as screen:
        return train_final(
            tuned,
            dataset_dir,
            workers=0 if is_alone else num_workers,
            address=None if is_alone else address,
            request=None if is_alone else request,
            command=options.command_line(),
            on_epoch=screen,
            on_progress=screen.on_progress,
        )
