"""`sgn bench`: what this machine or cluster makes of a recipe, and how long it would take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import bench_tables, options, render
from .choices import DATA_DIR, choose_dataset, choose_recipe, first_case

if TYPE_CHECKING:
    from sgnray.config import Recipe

# The dataset whose shape is taken where there is none.
_DATASET = {"csub": "ntu120", "cset": "ntu120", "xset": "ntu120"}


def bench(
    overrides: options.Overrides = None,
    case: options.Case = None,
    recipe: options.RecipeName = None,
    workers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Measure 1 to N Ray workers too; 0 for none.")
    ] = 0,
    data: options.Data = None,
    address: options.Address = None,
    device: options.Device = "auto",
    seconds: Annotated[
        float,
        typer.Option(min=1, max=86400, metavar="S", help="Time to measure for, without workers."),
    ] = 30.0,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Measure this machine or cluster, on the way of one recipe.

    The data path, the training step beside a plain matrix product, the epoch, 1 to N workers, and
    what the whole training would take. Without a dataset, noise stands in for it.
    """
    chosen, dataset_dir = _choose(case, recipe, overrides or [], data)

    from sgnray.bench import bench_recipe

    with render.progress("measuring, seconds") as on_progress:
        measured = bench_recipe(
            chosen,
            dataset_dir,
            workers=workers,
            device=device,
            address=address,
            seconds=seconds,
            on_progress=on_progress,
        )
    if json:
        return render.as_json(measured.to_dict())
    return render.result(*bench_tables.measured(measured))


def _choose(
    case: str | None, recipe: str | None, overrides: list[str], data: str | None
) -> tuple[Recipe, Path | None]:
    """Choose the recipe, and the dataset unless noise has to stand in for it."""
    from sgnray.config import recipe_for
    from sgnray.data.info import INFO_FILE, read_info
    from sgnray.data.protocols import resolve_case

    found = [path.parent for path in (*DATA_DIR.glob(INFO_FILE), *DATA_DIR.glob(f"*/{INFO_FILE}"))]
    if data is None and recipe is None and not found:
        name = _DATASET.get(case or "", "ntu60")
        return recipe_for(name, resolve_case(name, case or "cs"), overrides), None
    chosen = choose_recipe(case, recipe, overrides, data=data, default_case=first_case)
    name = chosen.data.dataset
    if data is None and not any(read_info(folder).dataset == name for folder in found):
        return chosen, None
    return chosen, choose_dataset(data, name=name)
