"""The loop in this process: it is reproducible, resumes exactly, and explains a divergence."""

from __future__ import annotations

import dataclasses
import math
from types import MappingProxyType

import numpy as np
import pytest
import torch

from sgnray.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from sgnray.data.pose_bank import PoseBank
from sgnray.distributed.world import World
from sgnray.errors import SgnError
from sgnray.evaluate.score import score_clips
from sgnray.train.checks import warn_of_run
from sgnray.train.job import VALIDATION_VIEWS, choose_parts, train_batches, validator
from sgnray.train.loop import explain_divergence, fit
from sgnray.train.state import TrainState

CPU = torch.device("cpu")
ONE_EPOCH = {"train.num_epochs": 1, "optim.milestones": ()}


class Stopped(Exception):
    pass


@pytest.fixture
def train(tiny_dataset):
    """Train a recipe; return the state. `stop_after` interrupts it, `checkpoint` resumes it."""

    def run(recipe, *, dataset=tiny_dataset, stop_after=None, checkpoint=None):
        bank = PoseBank.of(dataset, CPU)
        parts = choose_parts(recipe, dataset)
        state = TrainState.initial(recipe, dataset, device=CPU, world=World())
        if checkpoint is not None:
            state.restore(checkpoint)

        def on_epoch(result):
            if result.epoch == stop_after:
                raise Stopped

        batches = train_batches(recipe, bank, parts.train, world=World())
        try:
            fit(
                state,
                batches,
                validate=validator(recipe, bank, parts.validation),
                on_epoch=on_epoch,
            )
        except Stopped:
            assert state.epoch == stop_after
        return state

    return run


def same_weights(a, b) -> bool:
    a, b = a.model.state_dict(), b.model.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


def test_four_epochs_equal_two_and_a_resume_of_two(train, tiny_recipe, tmp_path):
    straight = train(tiny_recipe)
    halfway = train(tiny_recipe, stop_after=2)
    assert not same_weights(straight, halfway)
    save_checkpoint(tmp_path / "checkpoint.pt", halfway.checkpoint())
    resumed = train(tiny_recipe, checkpoint=load_checkpoint(tmp_path / "checkpoint.pt"))
    assert same_weights(straight, resumed)
    losses = [epoch["train/loss"] for epoch in straight.history]
    assert [epoch["train/loss"] for epoch in resumed.history] == losses


def test_a_checkpoint_of_a_gpu_resumes_on_the_cpu(train, tiny_recipe):
    """There, a captured step reads the learning rate from a tensor."""
    checkpoint = train(tiny_recipe, stop_after=2).checkpoint()
    (group,) = checkpoint.optimizer["param_groups"]
    group |= {"lr": torch.tensor(group["lr"]), "capturable": True}
    resumed = train(tiny_recipe, checkpoint=checkpoint)
    (group,) = resumed.optimizer.param_groups
    assert isinstance(group["lr"], float)
    assert group["capturable"] is False
    assert same_weights(resumed, train(tiny_recipe))


def test_the_seed_decides(train, tiny_recipe):
    def with_seed(seed):
        return train(tiny_recipe.replacing({"train.seed": seed, **ONE_EPOCH}))

    assert same_weights(with_seed(1), with_seed(1))
    assert not same_weights(with_seed(1), with_seed(2))


def test_the_schedule_is_followed(train, tiny_recipe):
    rates = [epoch["lr"] for epoch in train(tiny_recipe).history]
    assert rates[2] == rates[0]
    assert rates[3] == pytest.approx(rates[0] * tiny_recipe.optim.decay)


def test_selection_keeps_the_best_epoch(train, tiny_recipe):
    state = train(tiny_recipe.replacing({"train.selection": "validation"}))
    scores = [epoch["val/top1"] for epoch in state.history]
    assert state.selected.top1 == max(scores)
    assert state.selected.epoch == 1 + scores.index(max(scores))


def test_validation_chooses_poses_as_the_recipe_says(tiny_recipe, tiny_dataset):
    changes = {"data.windows": "even", "train.selection": "validation"}
    recipe, bank = tiny_recipe.replacing(changes), PoseBank.of(tiny_dataset, CPU)
    rows = choose_parts(recipe, tiny_dataset).validation
    state = TrainState.initial(recipe, tiny_dataset, device=CPU, world=World())
    even, paper = (
        score_clips(state.scored_model, bank, rows, num_views=VALIDATION_VIEWS, windows=windows)
        for windows in ("even", "paper")
    )
    found = validator(recipe, bank, rows)(state)
    assert found.loss_sum == even.loss_sum != paper.loss_sum


def test_a_non_finite_loss_stops_the_run(train, tiny_recipe):
    with pytest.raises(SgnError, match="no longer a finite number") as caught:
        train(tiny_recipe.replacing({"optim.learning_rate": 1e30}))
    assert caught.value.where.startswith("epoch ")


@pytest.mark.parametrize(("num_workers", "warns"), [(1, False), (8, False), (9, True), (16, True)])
def test_too_few_clips_per_worker_for_batch_norm_warn(
    tiny_recipe, tiny_dataset, caplog, num_workers, warns
):
    recipe = tiny_recipe.replacing({"optim.batch_size": 64})
    warn_of_run(recipe, tiny_dataset, workers=num_workers, num_clips=1000)
    assert ("batch norm sees only" in caplog.text) is warns


def test_bf16_stays_close_to_float32(train, tiny_recipe):
    recipe = tiny_recipe.replacing({"train.precision": "bf16", **ONE_EPOCH})
    low = train(recipe).history[0]["train/loss"]
    high = train(tiny_recipe).history[0]["train/loss"]
    assert low != high
    assert math.isclose(low, high, rel_tol=0.02)


@pytest.mark.parametrize("selection", ["last", "validation"])
def test_test_clips_are_not_used_for_training_or_validation(
    train, tiny_dataset, tiny_recipe, selection
):
    """A test clip without a single number would end the run."""
    recipe = tiny_recipe.replacing({"train.selection": selection, **ONE_EPOCH})
    poses_PVC = np.array(tiny_dataset.poses_PVC)
    for clip in choose_parts(recipe, tiny_dataset).test:
        poses_PVC[tiny_dataset.rows_of(clip)] = np.nan
    unreadable = dataclasses.replace(tiny_dataset, poses_PVC=poses_PVC)
    with_nan, without = train(recipe, dataset=unreadable), train(recipe)
    assert same_weights(with_nan, without)
    assert with_nan.history[0].get("val/loss") == without.history[0].get("val/loss")


@pytest.mark.parametrize(("decay", "warns"), [(0.0, False), (0.99, False), (0.999999, True)])
def test_a_weight_average_that_keeps_the_initial_weights_warns(
    tiny_recipe, tiny_dataset, caplog, decay, warns
):
    recipe = tiny_recipe.replacing({"train.ema_decay": decay, "train.num_epochs": 100})
    warn_of_run(recipe, tiny_dataset, workers=0, num_clips=1000)
    assert ("initial weights" in caplog.text) == warns


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
        ({"optim.warmup_epochs": 3}, "huge numbers in these clips", "optim.warmup_epochs"),
    ],
)
def test_what_to_try_follows_from_the_recipe(tiny_recipe, changes, named, unnamed):
    now = explain(tiny_recipe, changes).now
    assert named in now
    assert unnamed not in now


def test_the_first_step_points_to_the_dataset(tiny_recipe):
    now = explain(tiny_recipe, epoch=0, step=0).now
    assert "huge numbers in these clips" in now
    assert "learning_rate" not in now
