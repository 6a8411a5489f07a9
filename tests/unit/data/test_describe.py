"""What is in a dataset, against one whose content was written by hand."""

from itertools import pairwise

import numpy as np
import pytest

from sgnray.data.describe import LengthBin, Numbers, describe_dataset
from sgnray.data.describe import describe_lengths as lengths_of
from sgnray.data.skipped import SkippedContent, read_skipped
from sgnray.data.store import open_dataset


@pytest.fixture
def content(folder):
    return describe_dataset(open_dataset(folder), read_skipped(folder / "skipped.csv"))


def test_clips_per_class_and_case(content):
    assert [(row.label, row.name, row.num_clips) for row in content.classes] == [
        (0, "wave", 3),
        (1, "clap", 1),
        (2, "sit", 1),
        (3, "never", 0),
    ]
    assert content.splits == {"hand": (3, 1), "all": (4, 1)}


def test_who_was_recorded_and_what_is_unknown(content):
    assert content.subjects == Numbers((1, 2, 3, 7), 0)
    assert content.cameras == Numbers((1, 2), 1)
    assert content.setups == Numbers((), 5)


def test_two_bodies_are_counted_by_clip(hand_made, tmp_path):
    def count():
        folder = hand_made.write(tmp_path / "sticks")
        return describe_dataset(open_dataset(folder), ()).num_two_bodies

    assert count() == 1
    hand_made.columns["body"] = [1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1]
    assert count() == 3  # the first clip has one body only, whatever its number


def test_size_and_skipped(content, folder):
    assert content.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert content.skipped == (SkippedContent("empty", 2, "a.txt"), SkippedContent("torn", 1, "c"))


def test_lengths(content):
    lengths = content.lengths
    assert (lengths.min, lengths.median, lengths.mean, lengths.max) == (2, 2, 3.8, 9)
    assert [(row.first, row.last) for row in lengths.bins] == [(n, n) for n in range(2, 9)] + [
        (9, 9)
    ]
    assert [row.num_clips for row in lengths.bins] == [3, 0, 1, 0, 0, 0, 0, 1]


def test_lengths_like_ntus():
    frames = np.clip(np.random.default_rng(0).normal(85, 40, 10_000).astype(np.int64), 30, 300)
    bins = lengths_of(frames).bins
    assert [(row.first, row.last) for row in bins[:3]] == [(20, 39), (40, 59), (60, 79)]
    for row in bins:
        assert row.num_clips == np.count_nonzero((frames >= row.first) & (frames <= row.last))
    assert sum(row.num_clips for row in bins) == 10_000


@pytest.mark.parametrize(
    ("frames", "bins"),
    [
        ([300] * 4, [(300, 300, 4)]),
        ([0], [(0, 0, 1)]),
        ([10] * 500 + [5000], [(10, 10, 500), (11, 5000, 1)]),
        ([1, 1_000_000], [(0, 199_999, 1), (200_000, 399_999, 0), (400_000, 599_999, 0),
                          (600_000, 799_999, 0), (800_000, 999_999, 0),
                          (1_000_000, 1_199_999, 1)]),
    ],
)  # fmt: skip
def test_bins_of_odd_lengths(frames, bins):
    assert lengths_of(np.array(frames)).bins == tuple(LengthBin(*row) for row in bins)


def test_any_lengths_fall_into_few_bins_without_gaps():
    rng = np.random.default_rng(1)
    for _ in range(300):
        frames = (rng.lognormal(rng.uniform(0, 8), rng.uniform(0, 3), 50)).astype(np.int64)
        bins = lengths_of(frames).bins
        assert 1 <= len(bins) <= 9
        assert bins[0].first <= frames.min()
        assert bins[-1].last >= frames.max()
        assert all(row.last + 1 == later.first for row, later in pairwise(bins))
        assert sum(row.num_clips for row in bins) == 50
