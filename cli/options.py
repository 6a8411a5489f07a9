"""Options and arguments that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from sgnray.errors import UsageError

from . import render


def _set_verbose(steps: int) -> int:
    if steps:
        render.set_verbosity(steps)
    return steps


def _set_quiet(is_quiet: bool) -> bool:
    if is_quiet:
        render.set_verbosity(-1)
    return is_quiet


Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        callback=_set_verbose,
        metavar="",
        show_default=False,
        help="Show details; -vv shows tracebacks too.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_set_quiet, help="Show results and errors only."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        show_default=False,
        help="Recipe keys to change, like optim.batch_size=32; --dry-run shows every key.",
    ),
]
Case = Annotated[
    str | None,
    typer.Option(
        metavar="CASE",
        help="What is held out for testing: cs, cv, csub, cset; takes that shipped recipe.",
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME|FILE", help="A shipped recipe or a .yaml file."),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="A prepared dataset, here or at a URI like s3://bucket/ntu60. "
        "Default: the one under data/.",
    ),
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where runs are kept.")]
RunName = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Folder of this run under --runs. Default: made from the recipe.",
    ),
]
Workers = Annotated[
    int, typer.Option(min=0, metavar="N", help="Ray workers; 0 runs in this process, without Ray.")
]
WorkerRange = Annotated[
    str,
    typer.Option(
        "--workers",
        metavar="N|MIN:MAX",
        help="Ray workers; MIN:MAX grows and shrinks with the cluster; 0 runs in this process, "
        "without Ray.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Ray cluster to use. Default: RAY_ADDRESS, else a local one is started.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(metavar="auto|cpu|cuda", help="Where tensors live."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there, instead of keeping it.")
]
Classes = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Names of the classes, one on each line, where the checkpoint has none or others.",
    ),
]

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd])")


def parse_duration(text: str, option: str) -> float:
    """Return the seconds of 90s, 45m, 8h or 2d; UsageError for anything else."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if seconds <= 0:
        raise UsageError(
            f"'{text}' is not a length of time",
            where=option,
            now=f"give a number and a unit, like {option} 90s, 45m or 8h",
        )
    return seconds
