"""Checkpoints damaged by a kill, a disk or a flipped bit, at any position."""

from __future__ import annotations

import random
import shutil

import pytest
import torch

from sgnray.checkpoints.checkpoint import load_checkpoint
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.errors import CheckpointError, CorruptError
from sgnray.train import train_run


@pytest.fixture(scope="module")
def trained(tiny_recipe, tiny_folder, tmp_path_factory):
    recipe = tiny_recipe.replacing({"train.num_epochs": 2})
    return train_run(
        recipe, tiny_folder, runs_dir=tmp_path_factory.mktemp("runs"), device="cpu"
    ).folder


@pytest.fixture
def run(trained, tmp_path):
    return RunFolder(shutil.copytree(trained, tmp_path / "run"))


def cut(data, place):
    return data[:place]


def zero_the_rest(data, place):
    return data[:place] + bytes(len(data) - place)


def zero_a_block(data, place):
    return data[:place] + bytes(len(data[place : place + 512])) + data[place + 512 :]


@pytest.mark.parametrize("damage", [cut, zero_the_rest, zero_a_block])
def test_a_corrupt_checkpoint_falls_back_to_the_previous_one(damage, run, caplog):
    """At random places, the same in every test run."""
    newest = run.checkpoint_path(2)
    whole = newest.read_bytes()
    for place in random.Random(damage.__name__).sample(range(len(whole)), 8):
        caplog.clear()
        newest.write_bytes(damage(whole, place))
        found = run.newest_checkpoint()
        assert found is not None
        path, checkpoint = found
        assert checkpoint.epoch == path_epoch(path)
        if path == newest:  # the zeroed bytes were zero before
            assert_same(checkpoint, whole, newest)
        else:
            assert str(newest) in caplog.text


def test_no_flipped_bit_changes_what_is_read(run):
    """torch itself reads a third of them without an error."""
    newest = run.checkpoint_path(2)
    whole = newest.read_bytes()
    rng = random.Random(2)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        newest.write_bytes(damaged)
        try:
            checkpoint = load_checkpoint(newest)
        except CorruptError:
            refused += 1
        else:
            assert_same(checkpoint, whole, newest)
    assert refused > 30


def test_a_flipped_bit_in_the_weights_is_detected(run):
    newest = run.checkpoint_path(2)
    data = bytearray(newest.read_bytes())
    weight = load_checkpoint(newest).weights["classifier.weight"]
    data[data.index(weight.numpy().tobytes()) + 1] ^= 1
    newest.write_bytes(data)
    assert torch.load(newest, weights_only=True)["epoch"] == 2
    with pytest.raises(CheckpointError, match="corrupt"):
        load_checkpoint(newest)


def path_epoch(path):
    return int(path.parent.name.removeprefix("epoch-"))


def assert_same(checkpoint, whole, path):
    path.write_bytes(whole)
    expected = load_checkpoint(path)
    assert checkpoint.history == expected.history
    for name, weight in expected.weights.items():
        assert torch.equal(checkpoint.weights[name], weight)
