"""`sgn prepare`: raw recordings to one Arrow dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import data_tables, options, render
from .choices import DATA_DIR


def prepare(
    raw: Annotated[
        list[str],
        typer.Option(
            metavar="PATH",
            help="Raw data, a path or a URI like s3://bucket/folder; several make one dataset. "
            "Folders or .zip files of a published dataset such as NTU RGB+D, of sgn synth or of a "
            "pose estimator; NTU_CS.h5, NTU60_CS.npz, ntu60_3danno.pkl; a folder of "
            "train_data_joint.npy and train_label.pkl; or the .yaml of your own clips.",
        ),
    ],
    name_pattern: Annotated[
        str | None,
        typer.Option(
            "--name-pattern",
            metavar="PATTERN",
            help="Pattern of your file names, for example a{label}_s{subject}_v{camera}. "
            "Default: labels.csv next to the files, else the folder of a file is its class.",
        ),
    ] = None,
    out: Annotated[
        Path | None, options.out_path("DIR", "Folder to write. Default: data/<dataset>.")
    ] = None,
    workers: options.Workers = 0,
    address: options.Address = None,
    wait: options.Wait = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Turn raw skeletons into one Arrow dataset.

    Cleans recordings as the paper describes. Rerun an interrupted command to resume it.
    """
    from sgnray.prepare import prepare_dataset

    request = options.worker_request(wait=wait)
    with render.progress("clips") as on_progress:
        prepared = prepare_dataset(
            raw,
            out=out,
            data_dir=DATA_DIR,
            workers=workers,
            address=address,
            request=request,
            overwrite=overwrite,
            name_pattern=name_pattern,
            on_progress=on_progress,
        )
    if json:
        return render.as_json(data_tables.prepared_data(prepared), version=1)
    return render.result(*data_tables.prepared(prepared))
