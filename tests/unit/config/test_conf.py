"""The shipped recipes, and that no key of a recipe is idle."""

import ast
import re
from pathlib import Path

import pytest

import sgnray
from sgnray.config import list_recipes, load_recipe
from sgnray.config.messages import dotted_keys

ROOT = Path(sgnray.__file__).parent.parent
FILES = sorted((ROOT / "conf").glob("*.yaml"), key=lambda path: path.stem)


def test_all_recipes_are_found():
    assert list_recipes() == (
        "custom", "ntu120-cset", "ntu120-csub", "ntu60-cs", "ntu60-cv",
        "nwucla-cv", "nwucla-cv-best", "synth-cs", "synth-cset", "synth-cv",
    )  # fmt: skip
    assert [path.stem for path in FILES] == list(list_recipes())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_what_its_name_says(path):
    recipe = load_recipe(path.stem)
    if path.stem == "custom":  # for every dataset and case that has none of its own
        assert recipe == load_recipe("ntu60-cs", ["data.dataset=custom", "data.case=custom"])
        return
    assert f"{recipe.data.dataset}-{recipe.data.case}" == path.stem.removesuffix("-best")
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_header_says_what_it_is_how_to_run_it_and_what_was_measured(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"sgn train --recipe {path.stem}" in line for line in header)
    assert any(re.match(r"# Measured: \S", line) for line in header)


@pytest.mark.parametrize(
    ("name", "rotation_rad"),
    [
        ("ntu60-cs", 0.3),
        ("ntu60-cv", 0.5),
        ("ntu120-csub", 0.3),
        ("ntu120-cset", 0.3),
        ("nwucla-cv", 0.5),
    ],
)
def test_the_papers_recipes_differ_in_the_rotation_only(name, rotation_rad):
    recipe, paper = load_recipe(name), load_recipe("ntu60-cs")
    assert recipe.data.rotation_rad == rotation_rad
    assert (recipe.model, recipe.optim, recipe.train, recipe.evaluate) == (
        paper.model,
        paper.optim,
        paper.train,
        paper.evaluate,
    )


def test_every_key_is_read_somewhere():
    """A key that no code outside sgnray.config reads would be obeyed by nobody."""
    read = set()
    for path in (ROOT / "sgnray").rglob("*.py"):
        if path.parent.name != "config":
            tree = ast.parse(path.read_text())
            read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert [key for key in dotted_keys() if key.rpartition(".")[2] not in read] == []
