"""Options and arguments that several commands share."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sgnray.errors import UsageError

from . import render

if TYPE_CHECKING:
    from sgnray.distributed.resources import WorkerRequest


def path_of(option: str, *, is_output: bool = False) -> Callable[[str], Path]:
    """Return a parser of a local path, which names the option if the path cannot be used."""

    def parse(text: str) -> Path:
        from sgnray.storage.atomic import URI, refuse_uri
        from sgnray.storage.location import resolve

        if is_output:
            refuse_uri(text)
        elif URI.match(text):
            raise UsageError(
                "this is only read from this machine, not from a URI",
                where=f"{option} {text.partition(':')[0]}:/...",  # the rest may hold a password
                now="download it first, and name the path here",
            )
        try:
            resolve(text)
        except UsageError as error:
            raise UsageError(error.what, where=f"{option} {error.where}", now=error.now) from error
        return Path(text).expanduser()  # no shell expands the ~ of --out=~/x

    return parse


def out_path(metavar: str, help_text: str) -> Any:
    """Return the option --out for a local FILE or DIR."""
    return typer.Option(
        "--out", metavar=metavar, parser=path_of("--out", is_output=True), help=help_text
    )


def _set_verbosity(steps: int) -> int:
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
        callback=_set_verbosity,
        metavar="",
        show_default=False,
        help="Show details; -vv also shows tracebacks.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_set_quiet, help="Show only results and errors."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Recipe keys to change, like optim.batch_size=32; 'sgn train --recipe ntu60-cs "
        "--dry-run' shows all.",
    ),
]
Case = Annotated[
    str | None,
    typer.Option(
        metavar="CASE",
        help="What is held out for testing: cs, cv, csub, cset, or a split of your own. Without "
        "--recipe, it selects a shipped recipe.",
    ),
]


def _complete_recipe(typed: str) -> list[str]:
    from sgnray.config import list_recipes

    return [name for name in list_recipes() if name.startswith(typed)]


RecipeName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="A shipped recipe or a .yaml file.",
        autocompletion=_complete_recipe,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="A prepared dataset: a folder, or a URI like s3://bucket/ntu60. "
        "Default: the one under data/.",
    ),
]
Runs = Annotated[
    str,
    typer.Option(
        metavar="DIR", help="Where runs are stored: a folder, or a URI like s3://bucket/runs."
    ),
]
RunName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Folder of this run under --runs. Default: from the recipe."),
]
Views = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100_000,
        metavar="N",
        help="Random samples of each clip, whose scores are averaged. Default: as in the recipe.",
    ),
]
Workers = Annotated[
    int, typer.Option(min=0, metavar="N", help="Ray workers; 0 runs in this process, without Ray.")
]
WorkerRange = Annotated[
    str,
    typer.Option(
        metavar="N|MIN:MAX",
        help="Ray workers; MIN:MAX grows and shrinks with the cluster; 0 runs in this process, "
        "without Ray.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT|auto|local",
        help="Ray cluster to use; local starts a new one. Default: RAY_ADDRESS, else one that "
        "runs on this machine, else local.",
    ),
]
Wait = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long to wait for resources of the cluster: 90s, 45m, 8h. Default: no limit.",
    ),
]
CpusPerWorker = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="CPUs and threads of each worker. Default: 1."),
]
CpusPerTrainWorker = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="CPUs and threads of each worker. Default: a share of the free CPUs; 1 with a GPU.",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="X",
        help="GPUs of each worker, such as 0.25. Default: 1 if the cluster has any.",
    ),
]
GpusPerTrainWorker = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="X",
        help="Share of a GPU for the single worker of each run, such as 0.25. Default: 1.",
    ),
]
AcceleratorType = Annotated[
    str | None, typer.Option(metavar="NAME", help="Kind of GPU by its name in Ray, like A100.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Use only nodes with this Ray label; may be repeated."),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(metavar="auto|cpu|cuda", help="Device to compute on."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
Classes = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=path_of("--classes"),
        help="Class names, one per line, if those in the checkpoint are missing or different.",
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
            f"'{text}' is not a duration",
            where=option,
            now=f"give a number and a unit, like {option} 90s, 45m or 8h",
        )
    return seconds


def worker_request(
    *,
    wait: str | None,
    cpus: int | None = None,
    gpus: float | None = None,
    gpu_type: str | None = None,
    labels: list[str] | None = None,
) -> WorkerRequest:
    """Parse the resources of each worker; UsageError for an invalid label or duration."""
    from sgnray.distributed.resources import WorkerRequest, parse_labels

    return WorkerRequest(
        num_cpus=cpus,
        num_gpus=gpus,
        accelerator_type=gpu_type,
        labels=parse_labels(labels or ()),
        wait_s=None if wait is None else parse_duration(wait, "--wait"),
    )


def command_line() -> str:
    """Return the command as it was typed, but without credentials, to record it in the run."""
    from sgnray.storage.location import without_secrets

    return shlex.join(["sgn", *map(without_secrets, sys.argv[1:])])
