"""Recipes: resolved values, bases, overrides, and what is written back."""

from contextlib import suppress
from typing import get_args

import pytest
from pydantic import ValidationError

from sgnray.config import (
    DataConfig,
    Recipe,
    dotted_values,
    dump_recipe,
    list_recipes,
    load_recipe,
    parse_recipe,
    recipe_for,
    recipe_hash,
    to_dict,
)
from sgnray.config.schema import dotted_keys, sections
from sgnray.errors import RecipeError


@pytest.fixture
def write(tmp_path):
    def _write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return _write


# The paper's run, by every key that describes it.
PAPER = {
    "data.dataset": "ntu60",
    "data.case": "cs",
    "data.num_segments": 20,
    "data.windows": "paper",
    "data.rotation_rad": 0.3,
    "model.inputs": ["position", "velocity"],
    "model.embedding_width": 64,
    "model.affinity_width": 256,
    "model.graph_widths": [128, 256, 256],
    "model.joint_type": True,
    "model.frame_index": True,
    "model.affinity": "learned",
    "model.frame_width": 512,
    "model.dropout": 0.2,
    "optim.optimizer": "adam",
    "optim.learning_rate": 0.001,
    "optim.weight_decay": 0.0001,
    "optim.schedule": "steps",
    "optim.milestones": [60, 90, 110],
    "optim.decay": 0.1,
    "optim.batch_size": 64,
    "optim.label_smoothing": 0.1,
    "train.num_epochs": 120,
    "train.seed": 0,
    "train.precision": "float32",
    "train.selection": "last",
    "evaluate.num_views": 5,
}
# The defaults that leave out what the paper does not have, where they are not 0, false or empty.
OFF = {"data.crop": 1.0, "data.pose_device": "auto", "optim.lr_scaling": "none"}


def test_the_defaults_are_the_papers_cross_subject_run():
    recipe = load_recipe("ntu60-cs")
    assert recipe == Recipe()
    assert list(to_dict(recipe)) == ["data", "model", "optim", "train", "evaluate"]
    assert dotted_values(recipe).items() >= PAPER.items()


@pytest.mark.parametrize("key", [key for key in dotted_keys() if key not in PAPER])
def test_a_key_beyond_the_paper_is_off_by_default(key):
    value = dotted_values(Recipe())[key]
    if key in OFF:
        assert value == OFF[key]
    else:
        assert not value


def test_a_base_gives_what_the_recipe_leaves_out(write):
    path = write("base: ntu60-cs\noptim:\n  batch_size: 8\ndata:\n")
    recipe = load_recipe(path)
    assert recipe.optim.batch_size == 8
    assert recipe == load_recipe("ntu60-cs", ["optim.batch_size=8"])


def test_a_base_may_be_a_file_beside_the_recipe(write):
    write("train:\n  num_epochs: 7\n  seed: 1\n", "ground.yaml")
    train = load_recipe(write("base: ./ground.yaml\ntrain:\n  seed: 2\n")).train
    assert (train.num_epochs, train.seed) == (7, 2)


def test_overrides_win_and_the_last_one_counts(write):
    path = write("base: ntu60-cs\noptim:\n  batch_size: 8\n")
    recipe = load_recipe(path, ["optim.batch_size=16", "optim.batch_size=32", "train.seed=3"])
    assert (recipe.optim.batch_size, recipe.train.seed) == (32, 3)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("5E-4", 5e-4), (".5", 0.5), ("1.", 1.0), ("2", 2.0)]
)
def test_numbers_are_read_as_people_write_them(write, text, value):
    from_file = load_recipe(write(f"optim:\n  learning_rate: {text}\n"))
    from_line = load_recipe("ntu60-cs", [f"optim.learning_rate={text}"])
    assert from_file.optim.learning_rate == from_line.optim.learning_rate == value
    assert isinstance(from_line.optim.learning_rate, float)


def test_a_list_may_be_overridden():
    recipe = load_recipe("ntu60-cs", ["optim.milestones=[3, 5]", "model.graph_widths=[8, 9, 10]"])
    assert (recipe.optim.milestones, recipe.model.graph_widths) == ((3, 5), (8, 9, 10))
    assert load_recipe("ntu60-cs", ["optim.milestones=[]"]).optim.milestones == ()


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().train.seed = 1


@pytest.mark.parametrize("name", list_recipes())
def test_what_is_dumped_is_read_back(write, name):
    recipe = load_recipe(name, ["optim.learning_rate=1e-5", "train.seed=12345678901234567890"])
    assert load_recipe(write(dump_recipe(recipe))) == recipe
    assert parse_recipe(to_dict(recipe)) == recipe


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.milestones", list(range(1, 300))),
        ("data.dataset", "1e3"),
        ("data.case", "1e3"),
        ("data.case", "yes"),
        ("data.case", "null"),
        ("data.case", "010"),
    ],
)
def test_long_lists_and_names_like_numbers_are_read_back(write, key, value):
    recipe = Recipe().replacing({"train.num_epochs": 300, key: value})
    assert load_recipe(write(dump_recipe(recipe))) == recipe


def test_a_dump_carries_its_version_and_the_help_of_every_key():
    text = dump_recipe(Recipe())
    assert text.startswith("format_version: 1\n\ndata:\n  # Dataset of the recipe:")
    assert text.count("  # ") == sum(len(section) for section in to_dict(Recipe()).values())
    assert "None" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_hash_changes_with_every_key():
    base = recipe_hash(Recipe())
    assert len(base) == 8
    assert recipe_hash(Recipe()) == base
    keys = [key for key in dotted_keys() if key not in ("data.pose_device", "train.log")]
    hashes = {recipe_hash(with_another(key)) for key in keys}
    assert len(hashes | {base}) == len(keys) + 1


def with_another(dotted_key):
    """Return the default recipe with another value of one key, of whatever type it is."""
    section, key = dotted_key.split(".")
    kind = sections()[section].model_fields[key].annotation
    options = [get_args(option) or (option,) for option in get_args(kind)]
    words = [word for option in options for word in option if isinstance(word, str)]
    values = (*words, *((word,) for word in words), "other", True, False, 0.25, 2, (1, 2, 3))
    for value in values:
        with suppress(RecipeError):
            changed = Recipe().replacing({dotted_key: value})
            if changed != Recipe():
                return changed
    raise AssertionError(f"no other value of {dotted_key} is known")


def test_a_new_key_changes_no_hash(monkeypatch):
    class WithNewKey(DataConfig):
        brand_new: bool = True
        """A key of a later version."""

    class LaterRecipe(Recipe):
        data: WithNewKey = WithNewKey()

    values = {"train.seed": 3, "data.case": "cv"}
    recipe = Recipe().replacing(values)
    later = LaterRecipe(data=WithNewKey(case="cv"), train=recipe.train)
    assert "brand_new" in to_dict(later)["data"]
    monkeypatch.setattr("sgnray.config.recipe.Recipe", LaterRecipe)
    monkeypatch.setattr("sgnray.config.schema.sections", lambda: sections() | {"data": WithNewKey})
    assert recipe_hash(later) == recipe_hash(recipe) == "78ad30f2"


def test_replacing_gives_a_checked_recipe_and_leaves_the_old_one():
    recipe = Recipe()
    changed = recipe.replacing({"train.precision": "bf16", "optim.milestones": (1, 2)})
    assert changed == load_recipe("ntu60-cs", ["train.precision=bf16", "optim.milestones=[1, 2]"])
    assert recipe == Recipe()
    with pytest.raises(RecipeError, match="the space has 3 problems") as caught:
        recipe.replacing(
            {"train.precision": "int8", "optim.x": 1, "other.y": 2}, source="the space"
        )
    wrong = {problem.where for problem in caught.value.problems}
    assert wrong == {"train.precision", "optim.x", "other"}


def test_makes_same_run_ignores_keys_that_do_not_affect_the_result():
    recipe = Recipe()
    assert recipe.makes_same_run(recipe.replacing({"train.log": ("wandb",)}))
    for changed in ({"train.seed": 1}, {"evaluate.num_views": 3}):
        assert not recipe.makes_same_run(recipe.replacing(changed))


def test_old_names_of_keys_are_read(write):
    wanted = Recipe().replacing({"data.pose_device": "host"})
    assert load_recipe(write("data:\n  residence: host\n")) == wanted
    assert load_recipe("ntu60-cs", ["data.residence=host"]) == wanted
    assert parse_recipe({"data": {"residence": "host"}}) == wanted
    base = write("data:\n  residence: device\n", "ground.yaml")
    assert load_recipe(write(f"base: {base}\ndata:\n  pose_device: host\n")) == wanted
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("data:\n  residence: gpu\n"))
    assert [problem.where for problem in caught.value.problems] == ["data.pose_device (line 2)"]
    with pytest.raises(RecipeError, match="unknown key"):
        load_recipe(write("data:\n  residence: host\n  pose_device: auto\n"))


@pytest.mark.parametrize("aside", ["data.pose_device=host", "train.log=[tensorboard]"])
def test_the_hash_ignores_keys_that_do_not_affect_the_model(aside):
    assert recipe_hash(load_recipe("ntu60-cs", [aside])) == recipe_hash(Recipe())


def test_the_hash_does_not_depend_on_how_a_value_was_written():
    assert recipe_hash(load_recipe("ntu60-cs", ["optim.learning_rate=0.001"])) == recipe_hash(
        load_recipe("ntu60-cs", ["optim.learning_rate=1e-3"])
    )


def test_a_recipe_is_found_by_dataset_and_case():
    assert recipe_for("ntu120", "cset") == load_recipe("ntu120-cset")


@pytest.mark.parametrize(("dataset", "case"), [("mine", "hand"), ("ntu60", "fixed"), ("1", "null")])
def test_other_datasets_and_cases_take_the_recipe_for_all_others(dataset, case):
    recipe = recipe_for(dataset, case, ["optim.batch_size=8"])
    assert (recipe.data.dataset, recipe.data.case) == (dataset, case)
    paper = load_recipe("ntu60-cs", ["optim.batch_size=8"])
    assert recipe.replacing({"data.dataset": "ntu60", "data.case": "cs"}) == paper
    assert recipe_for(dataset, case, ["data.case=other"]).data.case == "other"
