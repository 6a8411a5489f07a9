"""`--json`: one object on stdout with its format version; bench and tune have their own tests."""

import json

import pytest

from ..conftest import TINY

TRAIN = ("train", "--case", "cv", "--data", "{data}", *TINY, "train.num_epochs=1")
COMMANDS = {
    "synth": ("synth", "new", "--classes=2", "--subjects=1", "--setups=1", "--replications=1"),
    "prepare": ("prepare", "--raw", "{raw}"),
    "data": ("data", "--data", "{data}"),
    "data verify": ("data", "verify", "--data", "{data}"),
    "data export": ("data", "export", "--data", "{data}", "--to", "npz", "--case", "cv"),
    "train": TRAIN,
    "train --seeds": (*TRAIN, "--seeds", "1", "--name", "mine"),
    "eval": ("eval", "{run}", "--data", "{data}", "--out", "report"),
    "predict": ("predict", "{recording}", "--checkpoint", "{run}"),
    "predict --out": ("predict", "{recording}", "--checkpoint", "{run}", "--out", "p.jsonl"),
    "export": ("export", "{run}", "--to", "safetensors"),
    "view": ("view", "{recording}", "--to", "png"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_output_is_one_object_with_a_format_version(
    sgn, tiny_raw, tiny_folder, tiny_run, command
):
    recording = min(tiny_raw.glob("*.skeleton"))
    paths = {"raw": tiny_raw, "data": tiny_folder, "run": tiny_run, "recording": recording}

    def run(*words):
        done = sgn(*(word.format_map(paths) for word in words), "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    if command == "train --seeds":
        run(*TRAIN, "--name", "mine-seed0")  # it is not trained again, in a process of its own
    assert run(*COMMANDS[command])["format_version"] >= 1
