"""What identifies a search, and the recipe that a trial trains."""

import pytest

from sgnray.config import recipe_for
from sgnray.tune.plan import shorten
from sgnray.tune.space import Choice, Space


def test_asha_compares_after_a_quarter(make_plan):
    long = make_plan(num_epochs=12)
    assert long.grace_epochs == 3
    short = make_plan(num_epochs=1)
    assert short.grace_epochs == 1


@pytest.mark.parametrize(
    ("num_epochs", "milestones"),
    [(12, (6, 9, 11)), (120, (60, 90, 110)), (240, (120, 180, 220)), (2, (1, 2)), (1, (1,))],
)
def test_a_shorter_trial_decays_in_proportion(num_epochs, milestones):
    recipe = recipe_for("ntu60", "cs")
    short = shorten(recipe, num_epochs)
    assert short.train.num_epochs == num_epochs
    assert short.optim.milestones == milestones
    shortened = {"train": {"num_epochs"}, "optim": {"milestones"}}
    assert short.model_dump(exclude=shortened) == recipe.model_dump(exclude=shortened)


def test_warm_up_is_shortened_too_and_leaves_an_epoch():
    recipe = recipe_for("ntu60", "cs").replacing({"optim.warmup_epochs": 10})
    assert shorten(recipe, 12).optim.warmup_epochs == 1
    assert shorten(recipe, 1).optim.warmup_epochs == 0


def test_another_search_has_another_folder(make_plan):
    name = make_plan().folder_name()
    assert name.startswith("tune-synth-cv-")
    assert make_plan().folder_name() == name
    space = make_plan().space
    others = [
        make_plan(space=Space("mine", {"data.num_segments": Choice((4, 8))})),
        make_plan(
            space=Space("mine", space.axes, {"data.num_segments": {"optim.learning_rate": (1,)}})
        ),
        make_plan(num_trials=6),
        make_plan(num_epochs=3),
        make_plan(num_seeds=2),
        make_plan(num_workers=2),
        make_plan(scheduler="none"),
        make_plan(search="tpe"),
        make_plan(dataset_checksum="sha256:01"),
        make_plan(recipe=recipe_for("synth", "cv")),
    ]
    assert len({name, *(other.folder_name() for other in others)}) == len(others) + 1


def test_where_a_space_lies_does_not_matter(make_plan):
    moved = Space("elsewhere/mine.yaml", make_plan().space.axes)
    assert make_plan(space=moved).folder_name() == make_plan().folder_name()
