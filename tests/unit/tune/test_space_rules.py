"""Conditions, rows, and values that are impossible together: all reported before any trial."""

import pytest

from sgnray.config import load_recipe
from sgnray.errors import RecipeError
from sgnray.tune.space import dump_space
from sgnray.tune.space_file import load_space

HEAD = "optim.schedule: {choice: [steps, cosine]}\n"


@pytest.fixture
def load(tmp_path):
    def _load(text, recipe="ntu60-cs"):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return load_space(str(path), load_recipe(recipe))

    return _load


def problems_of(load, text):
    with pytest.raises(RecipeError) as caught:
        load(text)
    return [(problem.where, problem.what) for problem in caught.value.problems]


def test_a_key_is_searched_only_where_its_condition_holds(load):
    space = load(HEAD + "optim.warmup_epochs: {integer: [1, 5], when: {optim.schedule: cosine}}\n")
    drawn = [space.draw(0, index) for index in range(40)]
    assert {values["optim.schedule"] for values in drawn} == {"steps", "cosine"}
    for values in drawn:
        assert ("optim.warmup_epochs" in values) == (values["optim.schedule"] == "cosine")


def test_conditions_follow_each_other(load):
    space = load(
        HEAD + "optim.warmup_epochs: {choice: [0, 5], when: {optim.schedule: cosine}}\n"
        "optim.weight_decay: {choice: [0, 1e-4], when: {optim.warmup_epochs: [5]}}\n"
        "search: grid\n"
    )
    assert space.search == "grid"
    assert {tuple(values.values()) for values in space.grid()} == {
        ("steps",),
        ("cosine", 0),
        ("cosine", 5, 0),
        ("cosine", 5, 1e-4),
    }


@pytest.mark.parametrize("key", ["train.log", "data.pose_device"])
def test_keys_that_do_not_change_the_score_are_refused(load, key):
    values = {"train.log": "[[], [wandb]]", "data.pose_device": "[host, auto]"}[key]
    ((where, what),) = problems_of(load, f"{key}: {{choice: {values}}}\n")
    assert where == f"{key} (line 1)"
    assert what.startswith("does not change the score")


def test_a_condition_on_what_the_recipe_fixes_holds_always_or_is_refused(load):
    space = load("optim.warmup_epochs: {choice: [0, 5], when: {optim.schedule: steps}}\n")
    assert not space.conditions
    assert problems_of(
        load, "optim.warmup_epochs: {choice: [0, 5], when: {optim.schedule: cosine}}\n"
    ) == [
        (
            "optim.warmup_epochs (line 1)",
            "depends on optim.schedule, which is steps in the recipe and not searched above it",
        )
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            HEAD + "optim.warmup_epochs: {choice: [1], when: {optim.schedule: linear}}\n",
            "needs optim.schedule to be linear, which is not among its choices",
        ),
        (
            HEAD + "optim.warmup_epochs: {choice: [1], when: cosine}\n",
            "when must name a key and its values, like when: {optim.schedule: cosine}",
        ),
        (
            "model.dropout: {uniform: [0, 0.5]}\n"
            "optim.warmup_epochs: {choice: [1], when: {model.dropout: 0.1}}\n",
            "depends on model.dropout, which is a range; a condition needs a choice",
        ),
        (
            HEAD + "optim.warmup_epochs: {choice: [1], when: {optim.shedule: cosine}}\n",
            "depends on optim.shedule: unknown key; did you mean optim.schedule?",
        ),
        (HEAD + "search: all\n", "must be one of random, grid, tpe"),
    ],
)
def test_an_impossible_condition_is_refused(load, text, what):
    assert [found for _, found in problems_of(load, text)] == [what]


def test_rows_are_trials_of_their_own(load):
    space = load("rows:\n  - {}\n  - {model.dropout: 0.1, data.num_segments: 10}\n")
    assert (space.search, space.num_points()) == ("grid", 2)
    assert space.keys == ("model.dropout", "data.num_segments")
    assert list(space.grid()) == [{}, {"model.dropout": 0.1, "data.num_segments": 10}]


def test_all_problems_of_rows_are_reported_at_once(load):
    found = problems_of(
        load,
        "rows:\n  - {model.dropout: 2}\n  - {model.dropuot: 0.1}\n  - {data.case: cv}\n"
        "model.dropout: {choice: [0.1]}\n",
    )
    assert [where for where, _ in found] == ["model.dropout", "row 1", "row 2", "row 3"]
    assert "is given with rows" in found[0][1]
    assert problems_of(load, "rows: [{}, {}]\n") == [("rows", "contains a trial twice")]
    assert problems_of(load, "rows: 3\n")[0][0] == "rows"


def test_rules_and_rows_round_trip(load, tmp_path):
    text = HEAD + "optim.warmup_epochs: {choice: [0, 5], when: {optim.schedule: cosine}}\n"
    for content in (text, "rows: [{}, {model.dropout: 0.1}]\n"):
        space = load(content)
        again = load(dump_space(space))
        assert (again.axes, again.conditions, again.rows, again.search) == (
            space.axes,
            space.conditions,
            space.rows,
            space.search,
        )
