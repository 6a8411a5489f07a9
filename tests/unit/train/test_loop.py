"""The loop in this process: it learns, is reproducible, and resumes as if never interrupted."""

from __future__ import annotations

import math

import pytest
import torch

from sgnray.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from sgnray.data.pose_bank import PoseBank
from sgnray.distributed.world import World
from sgnray.errors import SgnError
from sgnray.train.checks import check_run
from sgnray.train.job import choose_parts, train_batches, validator
from sgnray.train.loop import fit
from sgnray.train.state import TrainState

CPU = torch.device("cpu")


class Stopped(Exception):
    pass


@pytest.fixture
def train(tiny_dataset):
    """Train a recipe; return the state. `stop_after` interrupts it, `checkpoint` resumes it."""

    def run(recipe, *, stop_after=None, checkpoint=None):
        bank = PoseBank.of(tiny_dataset, CPU)
        parts = choose_parts(recipe, tiny_dataset)
        state = TrainState.initial(recipe, tiny_dataset, device=CPU, world=World())
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


def test_the_seed_decides(train, tiny_recipe):
    def with_seed(seed):
        changed = tiny_recipe.train.model_copy(update={"seed": seed, "num_epochs": 1})
        return train(tiny_recipe.model_copy(update={"train": changed}))

    assert same_weights(with_seed(1), with_seed(1))
    assert not same_weights(with_seed(1), with_seed(2))


def test_the_schedule_is_followed(train, tiny_recipe):
    rates = [epoch["lr"] for epoch in train(tiny_recipe).history]
    assert rates[2] == rates[0]
    assert rates[3] == pytest.approx(rates[0] * tiny_recipe.optim.decay)


def test_selection_keeps_the_best_epoch(train, tiny_recipe):
    changed = tiny_recipe.train.model_copy(update={"selection": "validation"})
    state = train(tiny_recipe.model_copy(update={"train": changed}))
    scores = [epoch["val/top1"] for epoch in state.history]
    assert state.selected.top1 == max(scores)
    assert state.selected.epoch == 1 + scores.index(max(scores))


def test_a_non_finite_loss_stops_the_run(train, tiny_recipe):
    changed = tiny_recipe.optim.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(SgnError, match="no longer a finite number") as caught:
        train(tiny_recipe.model_copy(update={"optim": changed}))
    assert caught.value.where.startswith("epoch ")


@pytest.mark.parametrize(("num_workers", "warns"), [(1, False), (8, False), (9, True), (16, True)])
def test_too_few_clips_per_worker_for_batch_norm_warn(
    tiny_recipe, tiny_dataset, caplog, num_workers, warns
):
    optim = tiny_recipe.optim.model_copy(update={"batch_size": 64})
    recipe = tiny_recipe.model_copy(update={"optim": optim})
    check_run(recipe, tiny_dataset, workers=num_workers, num_clips=1000)
    assert ("batch norm sees only" in caplog.text) is warns


def test_bf16_stays_close_to_float32(train, tiny_recipe):
    changed = tiny_recipe.train.model_copy(update={"precision": "bf16", "num_epochs": 1})
    low = train(tiny_recipe.model_copy(update={"train": changed})).history[0]["train/loss"]
    high = train(tiny_recipe).history[0]["train/loss"]
    assert low != high
    assert math.isclose(low, high, rel_tol=0.02)


def test_test_clips_are_not_used_for_training_or_validation(tiny_dataset, tiny_recipe):
    for selection in ("last", "validation"):
        changed = tiny_recipe.train.model_copy(update={"selection": selection})
        recipe = tiny_recipe.model_copy(update={"train": changed})
        parts = choose_parts(recipe, tiny_dataset)
        seen = set(parts.train.tolist()) | set(
            [] if parts.validation is None else parts.validation.tolist()
        )
        assert not seen & set(parts.test.tolist())


@pytest.mark.parametrize(("decay", "warns"), [(0.0, False), (0.99, False), (0.999999, True)])
def test_a_weight_average_that_keeps_the_initial_weights_warns(
    tiny_recipe, tiny_dataset, caplog, decay, warns
):
    train = tiny_recipe.train.model_copy(update={"ema_decay": decay, "num_epochs": 100})
    recipe = tiny_recipe.model_copy(update={"train": train})
    check_run(recipe, tiny_dataset, workers=0, num_clips=1000)
    assert ("initial weights" in caplog.text) == warns
