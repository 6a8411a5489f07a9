"""Sampling against the rule written out: T windows of length L // T, one pose in each."""

from __future__ import annotations

from fractions import Fraction

import torch

from sgnray.data.pose_bank import PADDING, sample_poses


def plain_sample(num_poses: int, uniform: list[float]) -> list[int]:
    num_segments = len(uniform)
    if num_poses < num_segments:
        return [*range(num_poses), *[PADDING] * (num_segments - num_poses)]
    width = num_poses // num_segments
    return [t * width + int(u * width) for t, u in enumerate(uniform)]


def test_matches_the_rule_for_every_length():
    uniform = torch.rand(120, 20, generator=torch.Generator().manual_seed(0))
    lengths = torch.arange(1, 121)
    expected = [
        plain_sample(n, row) for n, row in zip(lengths.tolist(), uniform.tolist(), strict=True)
    ]
    assert sample_poses(lengths, uniform).tolist() == expected


def test_the_largest_draw_stays_in_its_window():
    almost_one = torch.full((1, 20), 1 - 2**-24)
    for length in (20, 59, 300, 20 * 2**20):
        width = length // 20
        index = sample_poses(torch.tensor([length]), almost_one)[0]
        assert index.tolist() == [t * width + width - 1 for t in range(20)]
    widths = torch.arange(1, 2**20)
    index = sample_poses(widths, almost_one[:, :1].expand(len(widths), 1))
    assert torch.equal(index[:, 0], widths - 1)


def test_views_broadcast():
    uniform = torch.rand(4, 5, 20, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([10, 50, 100, 300])
    together = sample_poses(lengths.unsqueeze(-1), uniform)
    assert together.shape == (4, 5, 20)
    assert torch.equal(together[:, 2], sample_poses(lengths, uniform[:, 2]))


def plain_even(num_poses: int, uniform: list[float]) -> list[int]:
    """One pose from each of T windows of exactly L / T poses, in exact arithmetic."""
    num_segments = len(uniform)
    return [
        int((t + Fraction(u)) * num_poses / num_segments) if num_poses else PADDING
        for t, u in enumerate(uniform)
    ]


def test_even_windows_match_the_rule_for_every_length():
    # Draws of few binary digits, so that rounding to float32 makes no difference.
    draws = torch.randint(0, 64, (121, 16), generator=torch.Generator().manual_seed(0)) / 64
    expected = [plain_even(length, row) for length, row in enumerate(draws.tolist())]
    assert sample_poses(torch.arange(121), draws, "even").tolist() == expected


def test_even_windows_reach_the_tail_that_the_papers_windows_miss():
    almost_one = torch.full((1, 20), 1 - 2**-24)
    for length in (1, 19, 39, 300, 4099):
        lengths = torch.tensor([length])
        assert sample_poses(lengths, almost_one, "even")[0, -1] == length - 1
    assert sample_poses(torch.tensor([39]), almost_one)[0, -1] == 19
