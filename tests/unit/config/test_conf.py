"""The shipped recipes, and that every key of a recipe is used."""

import re
import sys
from pathlib import Path

import pytest
import yaml

import sgnray
from sgnray.config import dump_recipe, list_recipes, load_recipe, recipe_hash
from sgnray.config.schema import Section, dotted_keys, sections
from sgnray.data.datasets import DATASETS
from sgnray.train import train_run

ROOT = Path(sgnray.__file__).parent.parent
FILES = sorted((ROOT / "conf").glob("*.yaml"), key=lambda path: path.stem)


def test_all_recipes_are_found():
    assert {"custom", "ntu60-cs", "ntu120-cset", "nwucla-cv-best"} < set(list_recipes())
    assert [path.stem for path in FILES] == list(list_recipes())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_what_its_name_says(path):
    recipe = load_recipe(path.stem)
    if path.stem in ("custom", "custom-best"):  # for data without a recipe of its own
        of_ntu = path.stem.replace("custom", "ntu60-cs")
        changes = ["data.dataset=custom", "data.case=custom"]
        changes += ["train.num_epochs=240"] if path.stem == "custom-best" else []
        assert recipe == load_recipe(of_ntu, changes)
        return
    assert f"{recipe.data.dataset}-{recipe.data.case}" == path.stem.removesuffix("-best")
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_header_says_what_it_is_how_to_run_it_and_what_was_measured(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"sgn train --recipe {path.stem}" in line for line in header)
    assert any(re.match(r"# Measured: \S", line) for line in header)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_has_only_keys_that_differ_from_its_base(path):
    content = yaml.safe_load(path.read_text())
    base = content.pop("base", None)
    values = {f"{name}.{key}={v}" for name, keys in content.items() for key, v in keys.items()}
    same = {each for each in values if base and load_recipe(base, [each]) == load_recipe(base)}
    assert same == set()


PUBLISHED = [name for name, known in DATASETS.items() if not known.is_synthetic]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_dataset_has_recipes_and_rows_in_the_guide(name):
    guide = (ROOT / ".github" / "docs" / "data.md").read_text()
    for case, known in DATASETS[name].cases.items():
        assert f"{name}-{case}" in list_recipes()
        assert f"| {known.num_train:,} / {known.num_test:,} |" in guide


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


def test_the_best_recipes_differ_in_what_they_train_on_only():
    best = [path.stem for path in FILES if path.stem.endswith("-best")]
    assert len(best) == 6
    same = ["data.dataset=synth", "data.case=cs", "data.corrected_labels=false"]
    same.append("train.num_epochs=120")  # twice as many for few clips
    assert len({recipe_hash(load_recipe(name, same)) for name in best}) == 1


@pytest.fixture
def read_keys(monkeypatch):
    """The keys that are read from any recipe, except by sgnray.config itself."""
    section_of = {kind: name for name, kind in sections().items()}
    found = set()
    plain = Section.__getattribute__

    def recorded(self, name):
        section = section_of.get(type(self))
        if section is not None and name in type(self).model_fields:
            reader = sys._getframe(1).f_globals.get("__name__", "")
            if not reader.startswith(("sgnray.config", "pydantic")):
                found.add(f"{section}.{name}")
        return plain(self, name)

    monkeypatch.setattr(Section, "__getattribute__", recorded)
    return found


def test_every_key_is_read_somewhere(tiny_recipe, tiny_folder, tmp_path, read_keys):
    """Training reads every key: one that is never read would have no effect."""
    recipe = tiny_recipe.replacing({"train.num_epochs": 1})
    train_run(recipe, tiny_folder, runs_dir=tmp_path, device="cpu")
    assert [key for key in dotted_keys() if key not in read_keys] == []


def test_only_real_reads_are_recorded(tiny_recipe, read_keys):
    changed = tiny_recipe.replacing({"train.seed": 5})
    assert changed != tiny_recipe
    assert recipe_hash(load_recipe("ntu60-cs", ["optim.decay=0.2"])) != recipe_hash(changed)
    assert dump_recipe(changed)
    assert not read_keys
    assert changed.train.seed == 5
    assert read_keys == {"train.seed"}
