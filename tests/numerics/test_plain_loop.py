"""`sgn train` against the loop of plain_loop.py: the same steps, and independent draws.

Comparing their accuracy takes hours; the results are in the guide measured.md.
"""

from __future__ import annotations

import itertools
import json
from collections import deque

import numpy as np
import pytest
import torch

from sgnray import seeding
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.data.batches import view_draws
from sgnray.data.epoch_draws import rotation_matrices
from sgnray.data.pose_bank import PADDING, sample_poses
from sgnray.distributed.world import World
from sgnray.train import train_run
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


@pytest.fixture
def draw(monkeypatch):
    """Let the plain loop take its draws from these queues instead of numpy."""
    queues = {"permutation": deque(), "randint": deque(), "uniform": deque()}
    monkeypatch.setattr(np.random, "permutation", lambda length: queues["permutation"].popleft())
    monkeypatch.setattr(
        np.random,
        "randint",
        lambda width, size: np.floor(queues["randint"].popleft() * width).astype(int),
    )
    monkeypatch.setattr(
        np.random,
        "uniform",
        lambda low, high, size: low + (high - low) * queues["uniform"].popleft(),
    )
    yield queues
    assert not any(queues.values())


def test_a_run_equals_the_plain_loop_with_the_same_draws(
    tiny_dataset, tiny_folder, tiny_recipe, draw, tmp_path
):
    """From the same initial weights: each epoch's loss, the last weights and the test's logits.

    So clips, order, poses, turns, dropout, labels, steps, schedule and test are those of the plain
    loop.
    """
    papers = {"optim.learning_rate": 1e-3, "model.dropout": 0.2, "data.rotation_rad": 0.5}
    recipe = tiny_recipe.replacing({**papers, "evaluate.turn_rad": 0.0, "train.seed": 3})
    result = train_run(recipe, tiny_folder, runs_dir=tmp_path, device="cpu")
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    _, checkpoint = RunFolder(result.folder).require_checkpoint()

    clips, _ = plain_loop.load_clips(tiny_folder)
    rows = [row for row, (_, _, camera) in enumerate(clips) if camera != 1]
    test_rows = [row for row, (_, _, camera) in enumerate(clips) if camera == 1]
    model = TrainState.initial(recipe, tiny_dataset, device=CPU, world=World()).model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3], gamma=0.1)
    losses = []
    for epoch in range(4):
        order = seeding.permutation(3, "order", epoch, len(rows))
        draw["permutation"].append(order)
        for purpose, queue, size in (("poses", "randint", 8), ("rotation", "uniform", 3)):
            table = seeding.uniform(3, purpose, epoch, (len(clips), size))
            draw[queue].extend(table[rows[index]] for index in order)
        torch.manual_seed(seeding.derive_seed(3, "dropout", epoch, 0))
        losses.append(
            plain_loop.train_epoch(model, optimizer, [clips[row] for row in rows], 0.5, 6)
        )
        schedule.step()
    assert [json.loads(line)["train/loss"] for line in lines] == pytest.approx(losses, rel=1e-5)
    # A few gradients are rounding errors alone, which Adam makes large: hence the mean.
    changes = [
        (checkpoint.weights[name] - weight).abs().float().flatten()
        for name, weight in model.state_dict().items()
    ]
    assert float(torch.cat(changes).mean()) < 1e-6

    views_NWT = view_draws(len(clips), 2, 8).numpy()
    draw["randint"].extend(views_NWT[test_rows].reshape(-1, 8))
    test_clips = [clips[row] for row in test_rows]
    logits_NK = plain_loop.recognize(model, test_clips, num_views=2)
    labels_N = torch.tensor([label for _, label, _ in test_clips])
    loss = torch.nn.functional.cross_entropy(logits_NK / 2, labels_N)
    assert result.report.num_correct == plain_loop.count_correct(logits_NK, test_clips)
    assert result.report.loss == pytest.approx(float(loss), rel=1e-4)


def test_the_same_rotations(numpy_draws):
    """The plain loop rotates by our matrix, for the angles that it drew."""
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
