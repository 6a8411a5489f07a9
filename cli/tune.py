"""`sgn tune`: search hyperparameters on the validation part of the training clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import options, render, tables
from .choices import choose_dataset, choose_recipe, first_case


def tune(
    overrides: options.Overrides = None,
    case: options.Case = None,
    recipe: options.RecipeName = None,
    space: Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="Search space: a shipped one, or a .yaml file."),
    ] = "default",
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="Trials to run.")] = 16,
    search: Annotated[
        Literal["random", "grid"],
        typer.Option(metavar="random|grid", help="How the space is walked."),
    ] = "random",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Epochs per trial, at most. Default: 12."),
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials at once. Default: one per core."),
    ] = None,
    data: options.Data = None,
    name: options.RunName = None,
    runs: options.Runs = Path("runs"),
    address: options.Address = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Search hyperparameters with Ray Tune.

    Trials are compared on a validation part of the training clips, never on the test set; the
    best one is written as best.yaml, which sgn train --recipe takes.
    """
    chosen = choose_recipe(case, recipe, overrides or (), data=data, default_case=first_case)
    if case is None and recipe is None:
        render.note(f"searching for the case {chosen.data.case}; --case chooses another")
    dataset_dir = choose_dataset(data, name=chosen.data.dataset)

    from sgnray.tune import tune_recipe

    with render.progress("epochs of all trials") as on_progress:
        tuned = tune_recipe(
            chosen,
            space,
            dataset_dir,
            num_trials=trials,
            search=search,
            num_epochs=epochs,
            concurrent=concurrent,
            runs_dir=runs,
            name=name,
            address=address,
            on_trial=lambda trial: render.note(tables.trial_line(trial)),
            on_progress=on_progress,
        )
    if json:
        return render.as_json(tables.search_content(tuned))
    render.result(*tables.search(tuned))
    return render.note(f"train the best: sgn train --recipe {tuned.best_recipe_path}")
