"""`sgn eval`: score a run or a checkpoint on every test clip exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options, render, tables
from .choices import DATA_DIR, choose_dataset


def evaluate(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN|CHECKPOINT",
            show_default=False,
            help="A run folder, a checkpoint, or the reference's .pth. Default: the newest run.",
        ),
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(metavar="CASE", help="Case to test on. Default: the one it was trained for."),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Draws per clip. Default: the recipe's, 5."),
    ] = None,
    data: options.Data = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = "auto",
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Score a run or a checkpoint on every test clip.

    Shows top-1 and top-5 accuracy, the weakest classes and the most confused pairs.
    """
    dataset_dir = None if data is None else choose_dataset(data)

    from sgnray.evaluate import evaluate_run

    with render.progress("test clips") as on_progress:
        report = evaluate_run(
            target,
            runs_dir=runs,
            data_dir=DATA_DIR,
            dataset_dir=dataset_dir,
            case=case,
            num_views=views,
            device=device,
            on_progress=on_progress,
        )
    if json:
        return render.as_json(report.to_dict())
    return render.result(*tables.report(report))
