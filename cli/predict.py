"""`sgn predict`: the likeliest actions of raw recordings, or of clips of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import options, predict_tables, render
from .choices import read_class_list


def predict(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            show_default=False,
            help=".skeleton or .json recordings, folders or .zip files of them, or the folder of "
            "a prepared dataset.",
        ),
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="RUN|CHECKPOINT",
            help="A run folder, a checkpoint, or the reference's .pth. Default: the newest run.",
        ),
    ] = None,
    clip: Annotated[
        list[str] | None,
        typer.Option("--clip", metavar="NAME", help="A clip of the dataset; may be repeated."),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many actions to name for each clip.")
    ] = 5,
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="FRAMES",
            help="Slide a window of so many frames over each recording, and show a timeline.",
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="FRAMES", help="Frames between two windows. Default: half a window."
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Draws per clip. Default: the recipe's, 5."),
    ] = None,
    classes: options.Classes = None,
    runs: options.Runs = Path("runs"),
    precision: Annotated[
        Literal["auto", "float32", "bf16"],
        typer.Option(
            metavar="auto|float32|bf16",
            help="bf16 is several times faster where the hardware has it.",
        ),
    ] = "float32",
    device: options.Device = "auto",
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Name the likeliest actions in recordings.

    Takes raw files as they are and needs neither Ray nor the dataset that the model was trained
    on. Frames in which nobody is tracked do not count.
    """
    from sgnray.predict import Prediction, predict_clips, refuse_skipped
    from sgnray.prepare.clip import Skipped

    with render.progress("recordings") as on_progress:
        found = list(
            predict_clips(
                files,
                checkpoint,
                runs_dir=runs,
                clips=clip or (),
                class_names=None if classes is None else read_class_list(classes),
                num_views=views,
                num_guesses=top,
                window=window,
                stride=stride,
                precision=precision,
                device=device,
                on_progress=on_progress,
            )
        )
    predictions = [item for item in found if isinstance(item, Prediction)]
    skipped = [item for item in found if isinstance(item, Skipped)]
    if json:
        render.as_json(
            {
                "format_version": 1,
                "predictions": [prediction.to_dict() for prediction in predictions],
                "skipped": [{"file": item.name, "reason": item.reason} for item in skipped],
            }
        )
    else:
        render.result(*predict_tables.predictions(predictions))
    refuse_skipped(
        skipped, num_files=len({(item.place, item.clip) for item in predictions}) + len(skipped)
    )
