"""The loss against its definition, replayed against launched steps, the mean of the weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from sgnray.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from sgnray.data.batches import Batch
from sgnray.data.pose_bank import PoseBank
from sgnray.distributed.world import World
from sgnray.evaluate.score import score_clips
from sgnray.seeding import uniform
from sgnray.train import step
from sgnray.train.job import choose_parts, train_batches
from sgnray.train.loop import train_epoch
from sgnray.train.state import TrainState
from sgnray.train.step import (
    CapturedSteps,
    LaunchedSteps,
    batch_loss,
    choose_steps,
    smoothed_cross_entropy,
    train_step,
)

from ...augmentations import AUGMENTATIONS

CPU, GPU = torch.device("cpu"), torch.device("cuda")
EITHER = pytest.mark.parametrize("device", [CPU, pytest.param(GPU, marks=pytest.mark.gpu)], ids=str)
EVERYTHING = {f"data.{key}": value for key, value in AUGMENTATIONS.items()}


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


@EITHER
def test_training_and_a_resume_give_the_weights_of_training_straight(
    start, rich_recipe, tmp_path, device
):
    straight = choose_steps(*start(rich_recipe, device))
    train(straight, 2)
    save_checkpoint(tmp_path / "c.pt", straight.state.checkpoint())
    train(straight, 2)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded.evaluated_weights is loaded.averaged
    state, batches = start(rich_recipe, device)
    state.restore(loaded)
    resumed = choose_steps(state, batches)
    train(resumed, 2)
    assert_same_weights(resumed.state, straight.state)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_captured_step_gives_the_launched_steps_weights(start, rich_recipe, precision, caplog):
    """Bit by bit: the same kernels run. A difference in one bit would grow within these steps."""
    rich_recipe = rich_recipe.replacing({"train.precision": precision})
    launched = LaunchedSteps(*start(rich_recipe, GPU))
    captured = choose_steps(*start(rich_recipe, GPU))
    assert isinstance(captured, CapturedSteps)
    assert train(captured) == train(launched)
    assert "no CUDA graph" not in caplog.text
    assert_same_weights(captured.state, launched.state)


@pytest.mark.gpu
def test_steps_are_launched_if_one_cannot_be_captured_on_a_gpu(
    start, tiny_recipe, caplog, monkeypatch
):
    def train_and_wait(*arguments):
        tally_2 = train_step(*arguments)
        tally_2.sum().item()  # no graph can wait for the GPU
        return tally_2

    launched = LaunchedSteps(*start(tiny_recipe, GPU))
    expected = train(launched)
    monkeypatch.setattr(step, "train_step", train_and_wait)
    failing = choose_steps(*start(tiny_recipe, GPU))
    assert train(failing) == expected
    assert caplog.text.count("no CUDA graph") == 1
    assert_same_weights(failing.state, launched.state)


@EITHER
def test_scoring_between_epochs_changes_nothing(start, tiny_recipe, device):
    straight, scored = (choose_steps(*start(tiny_recipe, device)) for _ in range(2))
    expected = train(straight)
    metrics = []
    for _ in range(4):
        metrics += train(scored, 1)
        bank = scored.batches.bank
        score_clips(scored.state.model, bank, scored.batches.rows, num_views=1, windows="even")
    assert metrics == expected
    assert_same_weights(scored.state, straight.state)


@pytest.mark.gpu
def test_a_gpus_checkpoint_is_scored_alike_on_the_cpu(start, tiny_recipe, tmp_path):
    steps = choose_steps(*start(tiny_recipe, GPU))
    train(steps)
    save_checkpoint(tmp_path / "c.pt", steps.state.checkpoint())
    state, batches = start(tiny_recipe)
    state.restore(load_checkpoint(tmp_path / "c.pt"))
    ours, theirs = (
        score_clips(one.model, of.bank, of.rows, num_views=2, windows="even", turn_rad=0.5)
        for one, of in ((state, batches), (steps.state, steps.batches))
    )
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
    train(LaunchedSteps(state, batches), 1)  # the optimizer's state is on the CPU as well


@pytest.mark.gpu
@pytest.mark.parametrize("windows", ["paper", "even"])
def test_a_gpu_samples_the_poses_that_the_host_samples(start, tiny_recipe, windows):
    recipe = tiny_recipe.replacing({"data.windows": windows, "data.num_segments": 20})
    (_, here), (_, there) = start(recipe), start(recipe, GPU)
    rows_B = torch.arange(len(here.bank.names))
    for seed in range(500):
        uniform_BT = torch.from_numpy(uniform(seed, "test", 0, (len(rows_B), 20)))
        ours = here.bank.gather(rows_B, uniform_BT, windows=windows)
        theirs = there.bank.gather(rows_B.to(GPU), uniform_BT.to(GPU), windows=windows)
        assert torch.equal(ours, theirs.cpu())


def plain_loss(logits, labels, smoothing):
    """The reference's loss in words: 1 - s on the true class, s spread over the K-1 others."""
    num_classes = logits.shape[1]
    total = 0.0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        log_p = row - row.exp().sum().log()
        for k in range(num_classes):
            weight = 1 - smoothing if k == label else smoothing / (num_classes - 1)
            total -= weight * log_p[k]
    return total / len(labels)


def test_smoothing_spreads_over_the_other_classes():
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 9, 9, 1, 5])
    for smoothing in (0.0, 0.1, 0.4):
        loss = smoothed_cross_entropy(logits, labels, smoothing=smoothing).mean()
        torch.testing.assert_close(
            loss.double(), plain_loss(logits, labels, smoothing), atol=1e-6, rtol=0
        )


def test_a_mixed_clip_counts_for_both_labels():
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    labels, others = torch.tensor([0, 3, 9, 9, 1, 5]), torch.tensor([1, 3, 0, 2, 2, 2])
    shares = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0, 0.3])
    batch = Batch(torch.empty(0), labels, 6, other_labels_B=others, shares_B=shares)
    expected = 0.0
    for row in range(6):
        one = slice(row, row + 1)
        own, other = (plain_loss(logits[one], side[one], 0.1) for side in (labels, others))
        expected += (shares[row] * own + (1 - shares[row]) * other) / 6
    loss = batch_loss(logits, batch, smoothing=0.1)
    torch.testing.assert_close(loss.double(), expected.double(), atol=1e-6, rtol=0)
