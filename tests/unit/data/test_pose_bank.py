"""Where the poses of a dataset are kept, and which of a clip are sampled."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch

from sgnray.data import datasets
from sgnray.data.pose_bank import PADDING, PoseBank, choose_pose_device, sample_poses
from sgnray.data.store import open_dataset
from sgnray.errors import UsageError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def memory(monkeypatch):
    """A GPU of 10 GB, of which 2 GB are free, 7 GB reserved by torch, and 3 GB of those in use."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 10**9, 10 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 * 10**9)


@pytest.mark.parametrize(
    ("num_bytes", "wanted", "chosen"),
    [
        (2_900_000_000, "auto", GPU),
        (2_900_000_000, "device", GPU),
        (2_900_000_000, "host", CPU),
        (3_100_000_000, "auto", CPU),
    ],
)
def test_half_of_the_free_memory_may_hold_poses(memory, num_bytes, wanted, chosen, caplog):
    assert choose_pose_device(num_bytes, GPU, wanted) == chosen
    assert ("stay on the host" in caplog.text) == (chosen == CPU and wanted == "auto")


def test_poses_that_do_not_fit_and_must(memory):
    with pytest.raises(UsageError, match=r"take 3\.1 GB, and the GPU has 6\.0 GB free"):
        choose_pose_device(3_100_000_000, GPU, "device")


def test_on_a_cpu_they_are_in_its_memory():
    assert choose_pose_device(10**15, CPU, "auto") == CPU


def test_training_uses_corrected_labels(tiny_dataset, monkeypatch):
    clips = tiny_dataset.clips
    subject, camera = int(clips.subjects[0]), int(clips.cameras[0])
    exchanged = datasets.ExchangedLabels(subject=subject, camera=camera, labels=(0, 1))
    known = dataclasses.replace(datasets.DATASETS["synth"], exchanged=(exchanged,))
    monkeypatch.setitem(datasets.DATASETS, "synth", known)
    of_clips_N = (clips.subjects == subject) & (clips.cameras == camera) & (clips.labels < 2)
    expected_N = np.where(of_clips_N, 1 - clips.labels, clips.labels)
    bank = PoseBank.of(tiny_dataset, CPU, use_corrected_labels=True)
    assert of_clips_N.any()
    assert bank.labels_N.tolist() == expected_N.tolist()
    assert PoseBank.of(tiny_dataset, CPU).labels_N.tolist() == clips.labels.tolist()


@pytest.mark.parametrize("clip", range(5))
def test_a_clip_without_poses_is_zero(hand_made, tmp_path, clip):
    """Also the last one, which begins after the last pose."""
    start, stop = hand_made.offsets[clip : clip + 2]
    rows = range(start, stop)
    hand_made.values = np.delete(hand_made.values.reshape(-1, 6), rows, axis=0) + 1
    for name in ("frame", "body"):
        hand_made.columns[name] = np.delete(hand_made.columns[name], rows).tolist()
    moved = np.array(hand_made.offsets)
    moved[clip + 1 :] -= len(rows)
    hand_made.offsets = moved.tolist()
    bank = PoseBank.of(open_dataset(hand_made.write(tmp_path / "sticks")), CPU)
    joints_BTVC = bank.gather(torch.arange(5), torch.zeros(5, 4), windows="paper")
    is_empty = (joints_BTVC == 0).flatten(1).all(dim=1)
    assert is_empty.tolist() == [row == clip for row in range(5)]


def plain_sample(num_poses: int, uniform: list[float]) -> list[int]:
    """One pose from each of T windows of length L // T."""
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
