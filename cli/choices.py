"""Defaults for what the user did not name: the dataset, the case, the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sgnray.errors import Problem, UsageError, count_problems, shorten_problems

from . import render

if TYPE_CHECKING:
    from sgnray.config import Recipe

DATA_DIR = Path("data")


def choose_recipe(
    case: str | None,
    recipe: str | None,
    overrides: Sequence[str] = (),
    *,
    data: str | None,
    default_case: Literal["only", "first"],
    may_lack_data: bool = False,
) -> Recipe:
    """Load the recipe that --recipe names, or the shipped one of the dataset and its case.

    `default_case` says which case is used if neither --case nor --recipe is given. A recipe for any
    data, such as custom-best, gets the dataset and the case; with `may_lack_data`, it stays as it
    is if they are not named and cannot be chosen.
    """
    from sgnray.config import load_recipe, recipe_for
    from sgnray.config.recipe import CUSTOM
    from sgnray.data.info import read_info
    from sgnray.data.protocols import cases_of, resolve_case

    if recipe is not None:
        chosen = load_recipe(str(_fetch_recipe(recipe)) if "://" in recipe else recipe, overrides)
        if CUSTOM in (chosen.data.dataset, chosen.data.case):
            try:
                return _fill_custom(chosen, case, data)
            except UsageError:
                if may_lack_data and data is None and case is None:
                    return chosen
                raise
        if case is not None:
            raise UsageError(
                "--case and --recipe cannot be combined: this recipe has a case",
                where=f"--case {case} --recipe {recipe}",
                now=f"leave out one of them, or override: --recipe {recipe} data.case={case}",
            )
        return chosen
    if not all("=" in override for override in overrides):
        load_recipe(CUSTOM, overrides)  # raises an error that a missing dataset would hide
    info = read_info(choose_dataset(data))
    splits = info.splits or ()
    if case is None and default_case == "first":
        case = cases_of(info.dataset, splits)[0]
    case = resolve_case(info.dataset, case, splits)
    chosen = recipe_for(info.dataset, case, overrides)
    _check_case(chosen, case)
    return chosen


def _fill_custom(recipe: Recipe, case: str | None, data: str | None) -> Recipe:
    """Give a recipe for any data the name of the dataset and the case that it has not set.

    A dataset or a case may also be called `custom`, as in the recipe of its run.
    """
    from sgnray.config.recipe import CUSTOM
    from sgnray.data.info import read_info
    from sgnray.data.protocols import resolve_case

    info = read_info(_dataset_of(recipe, data))
    splits = info.splits or ()
    is_any = recipe.data.dataset == CUSTOM and (data is not None or recipe.data.case == CUSTOM)
    values = {"data.dataset": info.dataset} if is_any else {}
    if recipe.data.case == CUSTOM and (case is not None or CUSTOM not in splits):
        values["data.case"] = resolve_case(info.dataset, case, splits)
    elif case is not None:
        _check_case(recipe, resolve_case(info.dataset, case, splits))
    return recipe.replacing(values)


def _dataset_of(recipe: Recipe, data: str | None) -> Path:
    """Find the dataset of a recipe for any data: first one that really is called `custom`."""
    from sgnray.config.recipe import CUSTOM
    from sgnray.data.store import find_dataset

    if recipe.data.dataset != CUSTOM:
        return choose_dataset(data, name=recipe.data.dataset)
    if data is None:
        with suppress(UsageError):
            return find_dataset(DATA_DIR, name=CUSTOM)
    return choose_dataset(data)


def _check_case(recipe: Recipe, case: str) -> None:
    if recipe.data.case != case:
        raise UsageError(
            f"--case {case} and data.case={recipe.data.case} contradict each other",
            where="overrides",
            now=f"leave out the override, or ask for --case {recipe.data.case}",
        )


def choose_dataset(data: str | None, *, name: str | None = None) -> Path:
    """Find the dataset folder: --data itself or a folder in it, else the one under data/.

    A dataset at a URI is fetched first, unless it is cached.
    """
    from sgnray.data.store import find_dataset
    from sgnray.storage.location import Location, as_folder

    folder = as_folder(DATA_DIR if data is None else data)
    if isinstance(folder, Location):
        from sgnray.data.fetch import dataset_at

        with render.progress("MiB fetched") as on_progress:
            return dataset_at(folder, on_progress)
    if data is not None and not folder.is_dir():
        raise UsageError(
            "dataset folder not found",
            where=f"--data {data}",
            now="prepare one: sgn prepare --raw PATH",
        )
    try:
        return find_dataset(folder)
    except UsageError:
        if name is None:
            raise
        return find_dataset(folder, name=name)


def _fetch_recipe(uri: str) -> Path:
    from sgnray.checkpoints.run_folder import read_folder
    from sgnray.storage.location import as_folder

    path = read_folder(as_folder(uri))
    if not path.is_file():
        raise UsageError(
            "recipe not found", where=f"--recipe {uri}", now="name a file such as best.yaml"
        )
    return path


def choose_run(target: str | None, runs: str) -> Path | str:
    """Return the requested run or checkpoint; without one, the newest run, which is reported."""
    if target is not None:
        return target
    from sgnray.checkpoints.run_folder import newest_run
    from sgnray.storage.mirror import display_name

    run = newest_run(runs).path
    render.note(f"using {display_name(run)}")
    return run


def read_class_list(path: Path | None) -> tuple[str, ...] | None:
    """Read class names, one per line; UsageError if the file is not such a list."""
    if path is None:
        return None
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        what = "is not UTF-8 text" if isinstance(error, ValueError) else "cannot be read"
        raise UsageError(f"the list of classes {what}", where=str(path), now=_CLASS_LIST) from error
    while names and not names[-1]:
        names.pop()
    problems = []
    for number, name in enumerate(names, start=1):
        first = names.index(name) + 1
        if not name or first < number:
            what = f"repeats line {first}" if name else "has an empty line"
            problems.append(Problem(f"line {number}", what))
    if len(problems) == 1:
        where, what = f"{path}, {problems[0].where}", problems[0].what
        raise UsageError(f"the list of classes {what}", where=where, now=_CLASS_LIST)
    if problems:
        raise UsageError(
            f"the list of classes has {count_problems(problems)}",
            where=str(path),
            now=_CLASS_LIST,
            problems=shorten_problems(problems),
        )
    return tuple(names)


_CLASS_LIST = "give one name on each line, in the order of the labels"
