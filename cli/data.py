"""`sgn data`: what is in a dataset, whether it is whole, and copies of it in other formats."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sgnray.errors import UsageError

from . import data_tables, options, render
from .choices import choose_dataset

if TYPE_CHECKING:
    from sgnray.data.info import DatasetInfo


def show(
    context: typer.Context,
    data: options.Data = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Show what is in a dataset, check it, or export it.

    Without a command, shows clips per class and case, who was recorded, and clip lengths; -v lists
    every class.
    """
    if context.invoked_subcommand is not None:
        return _refuse_misplaced(context.invoked_subcommand, data=data, json=json)

    from sgnray.data.describe import describe_dataset
    from sgnray.data.skipped import read_skipped
    from sgnray.data.store import SKIPPED_FILE, open_dataset

    dataset = open_dataset(choose_dataset(data))
    content = describe_dataset(dataset, read_skipped(dataset.folder / SKIPPED_FILE))
    if json:
        return render.as_json(data_tables.as_data(content))
    return render.result(*data_tables.content(content, is_whole=render.is_verbose()))


def verify(
    data: options.Data = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Check every file of a dataset.

    Checks the checksum, the counts and every number, and lists all problems at once.
    """
    folder = choose_dataset(data)

    from sgnray.data.verify import verify_dataset

    with render.progress("MiB checked") as on_progress:
        info = verify_dataset(folder, on_progress)
    if json:
        counts = {"num_clips": info.num_clips, "num_poses": info.num_poses}
        content = {"folder": str(folder), **counts, "checksum": info.checksum}
        return render.as_json(content, version=1)
    return render.result(
        f"valid: {info.num_clips:,} clips, {info.num_poses:,} poses, checksum {info.checksum}"
    )


def export(
    to: Annotated[
        Literal["npz", "h5", "pyskl"],
        typer.Option(metavar="npz|h5|pyskl", help="Format to write."),
    ],
    data: options.Data = None,
    case: Annotated[
        str | None,
        typer.Option(metavar="CASE", help="Split to write. Default: the only one; for pyskl, all."),
    ] = None,
    out: Annotated[
        Path | None,
        options.out_path(
            "FILE", "File to write. Default: after dataset and case, like ntu60-cs.npz."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Write a dataset in a format that other code reads.

    npz is for CTR-GCN, h5 for the official SGN code, pyskl for PYSKL.
    """
    from sgnray.data.formats.export import export_dataset
    from sgnray.data.store import open_dataset

    dataset = open_dataset(choose_dataset(data))
    target = out or _default_file(dataset.info, to, case)
    with render.progress("clips") as on_progress:
        result = export_dataset(
            dataset, target, to=to, case=case, overwrite=overwrite, on_progress=on_progress
        )
    if json:
        return render.as_json(asdict(result), version=1)
    for loss in result.losses:
        render.warning(loss)
    size = data_tables.size(result.num_bytes)
    return render.result(f"written: {result.path}, {result.num_clips:,} clips, {size}")


def _refuse_misplaced(command: str, *, data: object, json: bool) -> None:
    """Raise UsageError for options before the command, which would be ignored there."""
    misplaced = [f"--data {shlex.quote(str(data))}"] * (data is not None) + ["--json"] * json
    if misplaced:
        raise UsageError(
            f"{misplaced[0]} must come after {command}",
            where=f"sgn data {misplaced[0]} {command}",
            now=f"write it last: sgn data {command} {' '.join(misplaced)}",
        )


def _default_file(info: DatasetInfo, to: str, case: str | None) -> Path:
    """Name the file in the current folder after the dataset, and after the case if it holds one."""
    from sgnray.data.protocols import resolve_case

    holds_all = to == "pyskl" and case is None
    ending = "" if holds_all else f"-{resolve_case(info.dataset, case, info.splits or ())}"
    return Path(f"{info.dataset}{ending}.{'pkl' if to == 'pyskl' else to}")
