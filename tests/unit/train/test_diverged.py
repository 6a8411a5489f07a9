"""The error that a user reads when the loss is no longer finite."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from sgnray.train.loop import explain_divergence


def explain(recipe, changes=MappingProxyType({}), *, epoch=2, step=16, num_clips=3):
    recipe = recipe.replacing(changes)
    names = [f"clip{number}" for number in range(num_clips)]
    return explain_divergence(recipe, epoch=epoch, step=step, num_steps=60, clip_names=names)


def test_the_error_names_the_step_and_its_clips(tiny_recipe):
    error = explain(tiny_recipe)
    assert error.what == "the loss is no longer a finite number"
    assert error.where == "epoch 3, step 17 of 60"
    (problem,) = error.problems
    assert (problem.where, problem.what) == ("its 3 clips", "clip0, clip1, clip2")
    assert error.exit_code == 1


def test_a_very_large_batch_is_cut_short(tiny_recipe):
    (problem,) = explain(tiny_recipe, num_clips=1024).problems
    assert problem.where == "its 1024 clips"
    assert problem.what.endswith("clip63 and 960 more")


@pytest.mark.parametrize(
    ("changes", "named", "unnamed"),
    [
        ({"optim.learning_rate": 0.05}, "smaller optim.learning_rate than 0.05", "float32"),
        ({"train.precision": "bf16"}, "train.precision=float32", "huge numbers only"),
        ({"optim.warmup_epochs": 0}, "optim.warmup_epochs=5", "float32"),
        ({"optim.warmup_epochs": 3}, "sgn data verify", "optim.warmup_epochs"),
    ],
)
def test_what_to_try_follows_from_the_recipe(tiny_recipe, changes, named, unnamed):
    now = explain(tiny_recipe, changes).now
    assert named in now
    assert unnamed not in now


def test_the_first_step_points_to_the_dataset(tiny_recipe):
    now = explain(tiny_recipe, epoch=0, step=0).now
    assert "sgn data verify" in now
    assert "learning_rate" not in now
