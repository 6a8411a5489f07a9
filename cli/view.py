"""`sgn view`: a recording or a clip as an animation, a sheet, or a page that plays it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import options, render


def view(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|DATASET",
            help="A recording, a folder or .zip of them, or a prepared dataset; a path or a URI.",
        ),
    ],
    clip: Annotated[
        str | None, typer.Argument(metavar="CLIP", help="Clip to show, if there are several.")
    ] = None,
    to: Annotated[
        Literal["gif", "png", "html"] | None,
        typer.Option(
            metavar="gif|png|html",
            help="An animation, a sheet of frames, or a page to rotate the clip in. "
            "Default: by the suffix of --out, else gif.",
        ),
    ] = None,
    out: Annotated[
        Path | None, options.out_path("FILE", "Default: the clip's name, in the current folder.")
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="Show the names of the joints.")] = False,
    fps: Annotated[
        float,
        typer.Option(metavar="NUMBER", help="Frames per second of the recording, 30 for Kinect."),
    ] = 30,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Show a recording or a clip as an animation, a sheet or a page.

    A raw recording is shown next to the prepared clip; bodies that denoising removed have another
    color.
    """
    from sgnray.view import view_clip

    with render.spinner("drawing"):
        path = view_clip(source, clip, to=to, out=out, names=names, fps=fps, overwrite=overwrite)
    if json:
        return render.as_json({"path": str(path)}, version=1)
    return render.result(f"written: {path}")
