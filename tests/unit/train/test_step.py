"""Replayed steps against launched steps, and the mean of the weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from sgnray.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from sgnray.data.pose_bank import PoseBank
from sgnray.distributed.world import World
from sgnray.train.job import choose_parts, train_batches
from sgnray.train.loop import train_epoch
from sgnray.train.state import TrainState
from sgnray.train.step import CapturedSteps, LaunchedSteps, choose_steps

CPU = torch.device("cpu")
EVERYTHING = {
    "data.scaling": 0.1,
    "data.shear": 0.1,
    "data.jitter_m": 0.01,
    "data.joint_dropout": 0.1,
    "data.crop": 0.7,
    "data.mixing": 0.2,
}


@pytest.fixture
def start(tiny_dataset):
    """Return the state and the batches at the start of a recipe."""

    def _start(recipe, device=CPU):
        bank = PoseBank.of(tiny_dataset, device)
        state = TrainState.initial(recipe, tiny_dataset, device=device, world=World())
        rows = choose_parts(recipe, tiny_dataset).train
        return state, train_batches(recipe, bank, rows, world=World())

    return _start


@pytest.fixture
def rich_recipe(tiny_recipe):
    return tiny_recipe.replacing(EVERYTHING | {"train.ema_decay": 0.9})


def train(steps, num_epochs=4):
    metrics = []
    for _ in range(num_epochs):
        metrics.append(train_epoch(steps))
        steps.state.finish_epoch(metrics[-1], score=None)
    return [(epoch["train/loss"], epoch["train/top1"], epoch["lr"]) for epoch in metrics]


def assert_same_weights(a: TrainState, b: TrainState):
    for ours, theirs in ((a.model, b.model), (a.averaged, b.averaged)):
        if ours is not None:
            for key, value in ours.state_dict().items():
                assert torch.equal(value, theirs.state_dict()[key]), key


def test_replaying_one_step_gives_the_same_epochs(start, rich_recipe):
    """Here a replay runs the step itself, which must need only what a graph would read."""
    captured = []

    def capture(step):
        captured.append(step)
        return step

    launched = LaunchedSteps(*start(rich_recipe))
    replayed = CapturedSteps(*start(rich_recipe), capture=capture)
    assert train(replayed) == train(launched)
    assert len(captured) == 1
    assert_same_weights(replayed.state, launched.state)


def test_steps_are_launched_if_a_graph_cannot_be_captured(start, tiny_recipe, caplog):
    def capture(step):
        raise RuntimeError("no graphs here")

    launched = LaunchedSteps(*start(tiny_recipe))
    replayed = CapturedSteps(*start(tiny_recipe), capture=capture)
    assert train(replayed) == train(launched)
    assert_same_weights(replayed.state, launched.state)
    assert caplog.text.count("no graphs here") == 1


@pytest.mark.parametrize("kind", [LaunchedSteps, partial(CapturedSteps, capture=lambda step: step)])
def test_every_step_is_reported_to_the_host(start, tiny_recipe, kind):
    heard = []
    steps = kind(*start(tiny_recipe))
    train_epoch(steps, lambda *step: heard.append(step))
    num_steps = steps.batches.num_batches
    assert heard == [(step, num_steps) for step in range(1, num_steps + 1)]


def test_the_cpu_launches_its_steps(start, tiny_recipe):
    assert isinstance(choose_steps(*start(tiny_recipe)), LaunchedSteps)


def test_the_weight_average_follows_the_weights_and_is_scored(start, rich_recipe):
    steps = LaunchedSteps(*start(rich_recipe))
    state = steps.state
    expected = {k: v.double() for k, v in state.model.state_dict().items()}
    decay = 0.9

    def follow(*_):
        for key, value in state.model.state_dict().items():
            expected[key] = decay * expected[key] + (1 - decay) * value.double()

    train_epoch(steps, follow)
    assert state.scored_model is state.averaged
    for key, value in state.averaged.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[key], atol=1e-5, rtol=1e-5)


def test_the_weight_average_is_saved_and_evaluated(start, rich_recipe, tmp_path):
    straight = LaunchedSteps(*start(rich_recipe))
    train(straight, 2)
    save_checkpoint(tmp_path / "c.pt", straight.state.checkpoint())
    train(straight, 2)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded.evaluated_weights is loaded.averaged
    state, batches = start(rich_recipe)
    state.restore(loaded)
    resumed = LaunchedSteps(state, batches)
    train(resumed, 2)
    assert_same_weights(resumed.state, straight.state)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_captured_step_gives_the_launched_steps_weights(start, rich_recipe, precision, caplog):
    device = torch.device("cuda")
    rich_recipe = rich_recipe.replacing({"train.precision": precision})
    launched = LaunchedSteps(*start(rich_recipe, device))
    captured = choose_steps(*start(rich_recipe, device))
    assert isinstance(captured, CapturedSteps)
    for ours, theirs in zip(train(captured), train(launched), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert "no CUDA graph" not in caplog.text
    for kind in ("model", "averaged"):
        weights = getattr(launched.state, kind).state_dict()
        for key, value in getattr(captured.state, kind).state_dict().items():
            torch.testing.assert_close(value, weights[key], atol=1e-4, rtol=1e-3)
