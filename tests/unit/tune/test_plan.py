"""The list of trials, and the recipe that a trial trains."""

import logging
from dataclasses import replace

import pytest

from sgnray.config import recipe_for
from sgnray.errors import RecipeError
from sgnray.tune.plan import plan_search, shorten
from sgnray.tune.space import Choice, Space, Uniform

SPACE = Space("mine", {"data.num_segments": Choice((4, 8)), "model.dropout": Uniform(0.0, 0.5)})
GRID = Space("mine", {"data.num_segments": Choice((4, 8)), "model.dropout": Choice((0.0, 0.5))})


@pytest.fixture
def make_plan(tiny_recipe):
    def _make_plan(space=SPACE, recipe=tiny_recipe, **changes):
        settings = {
            "search": "random",
            "num_trials": 5,
            "num_epochs": None,
            "dataset_checksum": "sha256:00",
        }
        return plan_search(recipe, space, **{**settings, **changes})

    return _make_plan


def test_the_first_trials_are_the_same_however_many_follow(make_plan):
    assert make_plan(num_trials=5).trials == make_plan(num_trials=9).trials[:5]


def test_a_trial_stands_for_the_recipe_with_its_values(make_plan, tiny_recipe):
    plan = make_plan()
    assert [trial.number for trial in plan.trials] == [1, 2, 3, 4, 5]
    trial = plan.trials[2]
    assert trial.values == SPACE.draw(tiny_recipe.train.seed, 2)
    assert trial.recipe.model.dropout == trial.values["model.dropout"]
    assert trial.recipe.data.num_segments == trial.values["data.num_segments"]
    assert trial.recipe.train == tiny_recipe.train
    assert trial.recipe.optim == tiny_recipe.optim


def test_draws_that_repeat_are_left_out_and_told(make_plan, caplog):
    caplog.set_level(logging.WARNING, logger="sgnray.tune.plan")
    plan = make_plan(Space("mine", {"data.num_segments": Choice((4, 8))}), num_trials=8)
    assert sorted(trial.recipe.data.num_segments for trial in plan.trials) == [4, 8]
    assert "6 of 8 trials would repeat others" in caplog.text


def test_a_grid_has_all_its_points(make_plan):
    plan = make_plan(GRID, search="grid", num_trials=1)
    assert [trial.values for trial in plan.trials] == list(GRID.grid())
    assert [trial.number for trial in plan.trials] == [1, 2, 3, 4]


def test_a_grid_of_ranges_is_refused(make_plan):
    with pytest.raises(RecipeError) as caught:
        make_plan(SPACE, search="grid")
    assert caught.value.what == "the search space mine cannot be searched as a grid"
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        (
            "model.dropout",
            "is a range, and a grid needs its values: model.dropout: {choice: [...]}",
        )
    ]
    assert "use choice" in caught.value.now


def test_a_grid_beyond_measure_is_refused_before_it_is_built(make_plan):
    axes = {f"key.{number}": Choice(tuple(range(100))) for number in range(20)}
    with pytest.raises(RecipeError, match="points"):
        make_plan(Space("mine", axes), search="grid")


def test_epochs_are_twelve_or_what_was_asked_for_or_the_recipes_few(make_plan):
    assert make_plan().num_epochs == 4
    assert make_plan(num_epochs=7).num_epochs == 7
    long = make_plan(recipe=recipe_for("ntu60", "cs"))
    assert (long.num_epochs, long.grace_epochs) == (12, 3)
    assert make_plan(num_epochs=1).grace_epochs == 1


@pytest.mark.parametrize(
    ("num_epochs", "milestones"),
    [(12, (6, 9, 11)), (120, (60, 90, 110)), (240, (120, 180, 220)), (2, (1, 2)), (1, (1,))],
)
def test_a_shorter_trial_decays_in_proportion(num_epochs, milestones):
    recipe = recipe_for("ntu60", "cs")
    short = shorten(recipe, num_epochs)
    assert short.train.num_epochs == num_epochs
    assert short.optim.milestones == milestones
    assert short.model_dump(exclude={"train": {"num_epochs"}, "optim": {"milestones"}}) == (
        recipe.model_dump(exclude={"train": {"num_epochs"}, "optim": {"milestones"}})
    )


def test_another_search_has_another_folder(make_plan, tiny_recipe):
    plan = make_plan()
    name = plan.folder_name()
    assert name.startswith("tune-synth-cv-")
    assert make_plan().folder_name() == name
    others = [
        make_plan(GRID),
        make_plan(num_trials=6),
        make_plan(num_epochs=3),
        make_plan(dataset_checksum="sha256:01"),
        make_plan(recipe=recipe_for("synth", "cv")),
        replace(plan, search="grid"),
    ]
    assert len({name, *(other.folder_name() for other in others)}) == 7
