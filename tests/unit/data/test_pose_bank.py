"""Where the poses of a dataset are kept."""

import dataclasses

import numpy as np
import pytest
import torch

from sgnray.data import datasets
from sgnray.data.pose_bank import PoseBank, choose_pose_device
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
