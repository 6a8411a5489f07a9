"""`sgn eval`: score runs or checkpoints on every test clip exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sgnray.checkpoints.model_files import describe_loadable

from . import options, render, tables
from .choices import DATA_DIR, choose_dataset, choose_run


def evaluate(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|CHECKPOINT",
            help="Run folders, checkpoints, official .pth or exported "
            f"{describe_loadable(with_weights=True)} files; several are also scored as an "
            "ensemble, by the mean of their logits. Default: the newest run.",
        ),
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(metavar="CASE", help="Case to test on. Default: the one it was trained for."),
    ] = None,
    views: options.Views = None,
    data: options.Data = None,
    runs: options.Runs = "runs",
    out: Annotated[
        Path | None,
        options.out_path(
            "DIR",
            "Folder for report.json and report.html. Default: the run's folder, or a folder "
            "in it or in reports/ if the evaluation differs from the run's own.",
        ),
    ] = None,
    workers: options.Workers = 0,
    address: options.Address = None,
    device: options.Device = "auto",
    cpus_per_worker: options.CpusPerWorker = None,
    gpus_per_worker: options.GpusPerWorker = None,
    accelerator_type: options.AcceleratorType = None,
    label: options.Labels = None,
    wait: options.Wait = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Score runs or checkpoints on every test clip, and write a report.

    Shows top-1 and top-5 accuracy, the weakest classes and the most confused pairs; report.html
    has all results, and plays the misclassified clips.
    """
    dataset_dir = None if data is None else choose_dataset(data)

    from sgnray.evaluate import check_folder, evaluate_run, place_of, write_evaluation
    from sgnray.storage.mirror import display_name

    if out is not None:
        check_folder(out)
    request = options.worker_request(
        cpus=cpus_per_worker,
        gpus=gpus_per_worker,
        gpu_type=accelerator_type,
        labels=label,
        wait=wait,
    )
    chosen = targets or choose_run(None, runs)
    with render.progress("test clips") as on_progress:
        report = evaluate_run(
            chosen,
            runs_dir=runs,
            data_dir=DATA_DIR,
            dataset_dir=dataset_dir,
            case=case,
            num_views=views,
            workers=workers,
            address=address,
            device=device,
            request=request,
            on_progress=on_progress,
        )
    try:
        page = write_evaluation(report, out or place_of(report, runs))
    finally:  # show the report even if it cannot be written
        if json:
            render.as_json(report.to_dict())
        else:
            render.result(*tables.report(report))
    render.note(f"written: {display_name(page)}")
