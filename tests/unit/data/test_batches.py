"""Batches against a plain loop over the dataset, and their independence of everything else."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from sgnray import seeding
from sgnray.config import DataConfig
from sgnray.data.batches import TrainBatches, gather_views, view_draws
from sgnray.data.pose_bank import PADDING, PoseBank, choose_pose_device, sample_poses
from sgnray.distributed.world import World

CPU = torch.device("cpu")


@pytest.fixture
def bank(tiny_dataset) -> PoseBank:
    return PoseBank.of(tiny_dataset, CPU)


def make_batches(bank, rows, **changes) -> TrainBatches:
    own = {"seed": 5, "batch_size": 4, "world": World()}
    settings = {key: changes.pop(key, value) for key, value in own.items()}
    config = DataConfig(**{"num_segments": 8, "rotation_rad": 0.5} | changes)
    return TrainBatches(bank=bank, rows=rows, config=config, **settings)


def test_gather_reads_the_clip_that_was_asked_for(bank, tiny_dataset):
    uniform = view_draws(27, 2, 100)  # 100 segments: longer than some clips
    rows = torch.tensor([20, 3])
    joints = bank.gather(rows, uniform[rows], windows="paper")
    for b, row in enumerate(rows.tolist()):
        start, end = tiny_dataset.offsets[row : row + 2]
        clip = tiny_dataset.poses_PVC[start:end]
        for w in range(2):
            index = sample_poses(torch.tensor([end - start]), uniform[row, w][None])[0].tolist()
            expected = np.stack([clip[i] if i != PADDING else np.zeros((25, 3)) for i in index])
            assert np.array_equal(joints[b, w].numpy(), expected.astype(np.float32))


def test_views_turn_about_the_vertical_axis(bank):
    draws, rows = view_draws(27, 5, 8), torch.tensor([20, 3])
    plain = bank.gather(rows, draws[rows], windows="even")
    turned = gather_views(bank, rows, draws[rows], windows="even", turn_rad=0.8)
    for w, angle in enumerate([0, 0.8, -0.8, 0, 0.8]):
        x, y, z = plain[:, w].unbind(-1)
        cos, sin = math.cos(angle), math.sin(angle)
        expected = torch.stack([x * cos - z * sin, y, x * sin + z * cos], dim=-1)
        torch.testing.assert_close(turned[:, w], expected)
    assert torch.equal(gather_views(bank, rows, draws[rows], windows="even", turn_rad=0), plain)


def test_views_of_two_coordinates_do_not_turn(bank):
    draws, rows = view_draws(27, 3, 8), torch.tensor([20, 3])
    flat = dataclasses.replace(bank, poses_PVC=bank.poses_PVC[..., :2].contiguous())
    turned = gather_views(flat, rows, draws[rows], windows="even", turn_rad=0.8)
    torch.testing.assert_close(turned, flat.gather(rows, draws[rows], windows="even"))


def test_an_epoch_shows_each_clip_once_and_drops_the_partial_batch(bank):
    rows = np.arange(3, 13)
    batches = make_batches(bank, rows)
    assert batches.num_batches == 2
    epoch = list(batches.epoch(0))
    assert [len(batch.labels_B) for batch in epoch] == [4, 4]
    assert all(batch.global_size == 4 for batch in epoch)


def test_fewer_clips_than_a_batch_make_one_batch(bank):
    (batch,) = make_batches(bank, np.arange(3), batch_size=64).epoch(0)
    assert len(batch.labels_B) == batch.global_size == 3


def test_epochs_repeat_exactly_and_differ_from_each_other(bank):
    batches = make_batches(bank, np.arange(12))
    first, again, other = (
        torch.cat([batch.joints_BTVC for batch in batches.epoch(epoch)]) for epoch in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_together_have_the_global_batches(bank, size):
    rows = np.arange(12)
    whole = list(make_batches(bank, rows, batch_size=5).epoch(1))
    parts = [
        list(make_batches(bank, rows, batch_size=5, world=World(rank, size)).epoch(1))
        for rank in range(size)
    ]
    for step, batch in enumerate(whole):
        together = torch.cat([part[step].joints_BTVC for part in parts])
        assert torch.equal(together, batch.joints_BTVC)
        assert {part[step].global_size for part in parts} == {5}


def test_a_clips_draws_do_not_depend_on_the_other_clips(bank):
    def clip_zero(rows):
        batches = make_batches(bank, rows, batch_size=len(rows))
        (batch,) = batches.epoch(2)
        order = rows[seeding.permutation(5, "order", 2, len(rows))]
        return batch.joints_BTVC[int(np.flatnonzero(order == 0)[0])]

    torch.testing.assert_close(clip_zero(np.arange(4)), clip_zero(np.arange(20)), atol=1e-6, rtol=0)


def test_rotation_is_within_its_bound(bank, tiny_dataset):
    still = list(make_batches(bank, np.arange(12), rotation_rad=0.0).epoch(0))
    turned = list(make_batches(bank, np.arange(12), rotation_rad=0.1).epoch(0))
    for a, b in zip(still, turned, strict=True):
        size = a.joints_BTVC.norm(dim=-1)
        torch.testing.assert_close(b.joints_BTVC.norm(dim=-1), size, atol=1e-5, rtol=1e-5)
        moved = (a.joints_BTVC - b.joints_BTVC).norm(dim=-1)
        assert moved.max() > 0
        assert (moved <= 0.18 * size + 1e-6).all()  # three turns of 0.1 rad each


def test_views_do_not_depend_on_their_number():
    assert torch.equal(view_draws(9, 5, 20)[:, :2], view_draws(9, 2, 20))


def test_batches_leave_torchs_global_generator_alone(bank):
    before = torch.get_rng_state()
    list(make_batches(bank, np.arange(12)).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [2, 3])
def test_mixed_clips_meet_the_same_partners_on_any_number_of_ranks(bank, size):
    settings = {"batch_size": 5, "mixing": 0.3, "crop": 0.5}
    whole = list(make_batches(bank, np.arange(12), **settings).epoch(1))
    parts = [
        list(make_batches(bank, np.arange(12), world=World(rank, size), **settings).epoch(1))
        for rank in range(size)
    ]
    for step, batch in enumerate(whole):
        for name in ("joints_BTVC", "labels_B", "other_labels_B", "shares_B"):
            together = torch.cat([getattr(part[step], name) for part in parts])
            torch.testing.assert_close(together, getattr(batch, name), atol=1e-6, rtol=0)


def test_a_mixed_clip_lies_between_two(bank):
    mixed = make_batches(bank, np.arange(12), mixing=0.5, batch_size=6)
    plain = make_batches(bank, np.arange(12), batch_size=6)
    for a, b in zip(mixed.epoch(0), plain.epoch(0), strict=True):
        shares = a.shares_B.view(-1, 1, 1, 1)
        expected = shares * b.joints_BTVC + (1 - shares) * b.joints_BTVC.roll(1, 0)
        torch.testing.assert_close(a.joints_BTVC, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(a.other_labels_B, b.labels_B.roll(1))
        assert torch.equal(a.labels_B, b.labels_B)
        assert torch.equal(b.main_labels, b.labels_B)
        for row, share in enumerate(a.shares_B.tolist()):
            of = a.labels_B if share >= 0.5 else a.other_labels_B
            assert a.main_labels[row] == of[row]


def test_a_crop_sees_one_stretch_of_the_clip(bank, tiny_dataset):
    row, uniform = torch.tensor([4]), torch.tensor([[0.0, 0.5, 0.999]])
    start, end = tiny_dataset.offsets[4:6]
    length = end - start
    spans = torch.tensor([[0.25, 0.5]])
    joints = bank.gather(row, uniform, windows="even", spans_B2=spans)[0]
    first, last = int(0.25 * length), math.ceil(0.75 * length)
    clip = torch.from_numpy(tiny_dataset.poses_PVC[start + first : start + last].copy())
    index = [int((t + u) / 3 * len(clip)) for t, u in enumerate(uniform[0].tolist())]
    assert torch.equal(joints, clip[index])


def test_the_names_of_a_batch_are_its_clips(bank, tiny_dataset):
    batches = make_batches(bank, np.arange(3, 13))
    names = batches.clip_names(2, 1)
    labels = [tiny_dataset.clips.labels[tiny_dataset.clips.names.index(name)] for name in names]
    assert labels == list(batches.epoch(2))[1].labels_B.tolist()
    assert batches.num_clips == 8


def test_poses_stay_on_the_cpu_for_training_on_the_cpu():
    for wanted in ("auto", "host", "device"):
        assert choose_pose_device(10**15, CPU, wanted) == CPU
