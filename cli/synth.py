"""`sgn synth`: raw recordings of synthetic people in NTU's text format."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from . import options, render


def synth(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", parser=options.path_of("OUT", is_output=True), help="Folder to write."
        ),
    ],
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="The same seed gives the same files.")
    ] = 0,
    classes: Annotated[int, typer.Option(min=2, metavar="N", help="Different actions.")] = 8,
    subjects: Annotated[int, typer.Option(min=1, metavar="N", help="Different people.")] = 16,
    setups: Annotated[int, typer.Option(min=1, metavar="N", help="Camera arrangements.")] = 4,
    replications: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Times that each subject repeats an action; three cameras record each.",
        ),
    ] = 2,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Write raw recordings of synthetic people."""
    from sgnray.synth.generate import synthesize

    with render.progress("recordings") as on_progress:
        made = synthesize(
            out,
            seed=seed,
            num_classes=classes,
            num_subjects=subjects,
            num_setups=setups,
            num_replications=replications,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    if json:
        return render.as_json(vars(made), version=1)
    render.result(
        f"{made.num_files:,} recordings of {len(made.class_names)} actions, "
        f"{made.num_bytes / 1e6:,.0f} MB, in {made.folder}"
    )
    return render.note("next: " + shlex.join(["sgn", "prepare", "--raw", str(made.folder)]))
