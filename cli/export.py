"""`sgn export`: a trained model as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sgnray.checkpoints.model_files import MODEL_FORMATS, FormatName, describe_loadable
from sgnray.errors import count_of

from . import options, render
from .choices import choose_run, read_class_list
from .tables import facts

_FORMATS = ", ".join(f"{known.title} ({known.suffix})" for known in MODEL_FORMATS.values())


def export(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|CHECKPOINT",
            help="A run folder, a checkpoint, an official .pth, or an exported "
            f"{describe_loadable(with_weights=True)}. Default: the newest run.",
        ),
    ] = None,
    to: Annotated[
        FormatName | None,
        typer.Option(
            metavar="|".join(MODEL_FORMATS),
            help=f"File format: {_FORMATS}. Default: by the suffix of --out, else onnx.",
        ),
    ] = None,
    out: Annotated[
        Path | None, options.out_path("FILE", "Default: the run's name, in the current folder.")
    ] = None,
    opset: Annotated[
        int | None, typer.Option(metavar="N", help="ONNX opset version. Default: 18.")
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Weights in 8 bits: a quarter of the size, half of the time (ONNX)."
        ),
    ] = False,
    clips: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Recordings or a dataset to compare on; a path or a URI. Default: the run's own "
            "dataset.",
        ),
    ] = None,
    classes: options.Classes = None,
    runs: options.Runs = "runs",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Write a trained model as ONNX or in another format.

    The file describes its joints and classes, and how clips are prepared and sampled. It is kept
    only if its logits match the model's on up to 200 clips.
    """
    from sgnray.export import export_model

    class_names, run = read_class_list(classes), choose_run(target, runs)
    with render.spinner("exporting"):
        exported = export_model(
            run,
            to=to,
            out=out,
            opset=opset,
            int8=int8,
            clips=clips,
            class_names=class_names,
            runs_dir=runs,
            overwrite=overwrite,
        )
    if json:
        content = {**vars(exported), "path": str(exported.path)}
        content.pop("card")
        return render.as_json(content, version=1)
    rows = {
        "written": str(exported.path),
        "size": f"{exported.size_bytes / 1e6:.2f} MB",
        "compared": f"{count_of(exported.num_clips, 'clip')} of {exported.checked_on}",
        "difference": f"at most {exported.largest_difference:.1e} in a logit"
        + ("" if exported.agreement is None else ", before rounding to 8 bits"),
        "classes": f"{exported.card.num_classes}",
        "input": f"{exported.card.num_frames} poses of {exported.card.skeleton.num_joints} joints",
    }
    if exported.agreement is not None:
        rows["in 8 bits"] = f"the same class for {exported.agreement:.1%} of the clips"
    if exported.opset is not None:
        rows["opset"] = str(exported.opset)
    return render.result(facts(rows))
