"""What a command works on when it was not told everything: the dataset, the case, the recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sgnray.errors import UsageError

if TYPE_CHECKING:
    from sgnray.config import Recipe

DATA_DIR = Path("data")


def choose_recipe(
    case: str | None,
    recipe: str | None,
    overrides: Sequence[str] = (),
    *,
    data: Path | None,
    default_case: Callable[[str], str],
) -> Recipe:
    """Load the recipe that --recipe names, or the shipped one of the dataset and its case.

    `default_case` gives the case of a dataset where neither was asked for.
    """
    from sgnray.config import load_recipe, recipe_for
    from sgnray.data.protocols import resolve_case
    from sgnray.data.store import read_info

    if case is not None and recipe is not None:
        raise UsageError(
            "--case and --recipe exclude each other: a recipe has its case",
            where=f"--case {case} --recipe {recipe}",
            now=f"leave out one of them, or override: --recipe {recipe} data.case={case}",
        )
    if recipe is not None:
        return load_recipe(recipe, overrides)
    dataset = read_info(choose_dataset(data)).dataset
    case = resolve_case(dataset, case) if case is not None else default_case(dataset)
    chosen = recipe_for(dataset, case, overrides)
    if chosen.data.case != case:
        raise UsageError(
            f"--case {case} and data.case={chosen.data.case} contradict each other",
            where="overrides",
            now=f"leave out the override, or ask for --case {chosen.data.case}",
        )
    return chosen


def choose_dataset(data: Path | None, *, name: str | None = None) -> Path:
    """Find the dataset folder: the one that --data is or holds, else the one under data/."""
    from sgnray.data.store import find_dataset

    if data is not None and not data.is_dir():
        raise UsageError(
            "there is no such dataset folder",
            where=f"--data {data}",
            now="prepare one: sgn prepare --raw PATH",
        )
    try:
        return find_dataset(data or DATA_DIR)
    except UsageError:
        if name is None:
            raise
        return find_dataset(data or DATA_DIR, name=name)


def only_case(dataset: str) -> str:
    """Give the case of a dataset that has just one; UsageError lists several."""
    from sgnray.data.protocols import cases_of

    cases = cases_of(dataset)
    if len(cases) == 1:
        return cases[0]
    raise UsageError(
        f"{dataset} has several cases: {', '.join(cases)}",
        where="--case is missing",
        now=f"name one, for example: --case {cases[0]}",
    )


def first_case(dataset: str) -> str:
    """Give the first case of a dataset."""
    from sgnray.data.protocols import cases_of

    return cases_of(dataset)[0]
