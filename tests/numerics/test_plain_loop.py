"""`sgn train` against the plain loop of plain_loop.py: the same steps, and draws as independent.

What both reach in accuracy takes hours to compare; its figures are in the guide on what was
measured.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch

from sgnray import seeding
from sgnray.data.epoch_draws import rotation_matrices
from sgnray.data.pose_bank import PoseBank
from sgnray.data.sampling import PADDING, sample_poses
from sgnray.distributed.world import World
from sgnray.train.job import choose_parts, train_batches
from sgnray.train.loop import fit
from sgnray.train.state import TrainState

from . import plain_loop

CPU = torch.device("cpu")


@pytest.fixture
def numpy_draws():
    """The plain loop draws from numpy's global generator, as the reference does: put it back."""
    before = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(before)


def test_all_epochs_in_lockstep(tiny_dataset, tiny_recipe):
    """The batches of `fit`, given to a loop of four lines: the same losses and the same model."""
    papers = {"optim.learning_rate": 1e-3, "model.dropout": 0.0}
    recipe = tiny_recipe.replacing(papers)
    state = TrainState.initial(recipe, tiny_dataset, device=CPU, world=World())
    rows = choose_parts(recipe, tiny_dataset).train
    batches = train_batches(recipe, PoseBank.of(tiny_dataset, CPU), rows, world=World())

    model = copy.deepcopy(state.model).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3], gamma=0.1)
    losses = []
    for epoch in range(4):
        epoch_losses = []
        for batch in batches.epoch(epoch):
            loss = plain_loop.smoothed_loss(model(batch.joints_BTVC), batch.labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            epoch_losses.append(float(loss.detach()))
        schedule.step()
        losses.append(np.mean(epoch_losses))

    fit(state, batches, validate=None, on_epoch=lambda result: None)
    assert [epoch["train/loss"] for epoch in state.history] == pytest.approx(losses, rel=1e-4)
    joints_BTVC = next(batches.epoch(9)).joints_BTVC
    with torch.no_grad():
        torch.testing.assert_close(
            state.model.eval()(joints_BTVC), model.eval()(joints_BTVC), atol=2e-3, rtol=0
        )


def test_the_same_rotations(numpy_draws):
    """The plain loop's turn is a matrix of ours, for the angles that it drew."""
    joints_TVC = np.random.standard_normal((4, 5, 3)).astype(np.float32)
    np.random.seed(3)
    angles_3 = np.random.uniform(-0.5, 0.5, size=3)
    np.random.seed(3)
    turned = torch.from_numpy(plain_loop.rotate(joints_TVC, 0.5))
    turn = rotation_matrices(torch.from_numpy(angles_3)[None])[0].float()
    torch.testing.assert_close(turned, torch.from_numpy(joints_TVC) @ turn.T, atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", [1, 19, 20, 39, 40, 67])
def test_the_same_poses_can_be_drawn(numpy_draws, length):
    """For each segment, the poses that either draws in 300 clips are the same set."""
    poses_LVC = np.arange(1, length + 1, dtype=np.float32)[:, None, None].repeat(3, axis=2)
    plain = np.stack([plain_loop.sample(poses_LVC)[:, 0, 0] for _ in range(300)])
    uniform_BT = torch.from_numpy(seeding.uniform(0, "poses", 0, (300, 20)))
    index_BT = sample_poses(torch.full((300,), length), uniform_BT)
    ours = torch.where(index_BT == PADDING, 0, index_BT + 1).numpy()
    for segment in range(20):
        assert set(plain[:, segment].astype(int)) == set(ours[:, segment])


def test_draws_of_epochs_seeds_and_purposes_are_independent():
    """Tables that repeat, or follow each other, would show as correlated: 5 sigma is 0.112."""
    num_clips = 2000
    columns = {
        (seed, epoch, purpose): (
            seeding.permutation(seed, purpose, epoch, num_clips)
            if purpose == "order"
            else seeding.uniform(seed, purpose, epoch, (num_clips, 3))[:, 0]
        )
        for seed, epoch, purpose in itertools.product(
            (0, 1), range(8), ("poses", "rotation", "order")
        )
    }
    correlations = np.corrcoef(np.stack(list(columns.values())))
    assert np.abs(correlations - np.eye(len(columns))).max() < 0.112
