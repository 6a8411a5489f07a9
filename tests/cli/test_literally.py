"""The README's first commands, each in its own process: shortened, and as written if slow."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sgnray.checkpoints.run_folder import RunFolder
from sgnray.data.pose_bank import PoseBank
from sgnray.data.protocols import split_clips
from sgnray.data.store import open_dataset
from sgnray.evaluate.score import score_clips

pytestmark = pytest.mark.ray


@pytest.fixture
def shell(monkeypatch):
    """Run a line in a shell that finds this environment's `sgn`; gives its stdout or error."""
    bin_dir = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(bin_dir), prepend=":")

    def run(line, code=0):
        done = subprocess.run(
            line, shell=True, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == code, f"{line}\n{done.stderr}"
        return done.stderr if code else done.stdout

    return run


@pytest.mark.parametrize(
    ("train", "tune"),
    [
        (
            "sgn train --case cv --workers 2 train.num_epochs=1 optim.milestones=[]",
            "sgn tune --trials 1 --epochs 1",
        ),
        pytest.param("sgn train --case cv --workers 8", "sgn tune", marks=pytest.mark.slow),
    ],
    ids=["short", "as written"],
)
def test_prepare_train_tune_eval(shell, tiny_raw, tmp_path, train, tune):
    shutil.copytree(tiny_raw, tmp_path / "path")
    assert "written: data/synth" in shell("sgn prepare --raw path")
    assert "9, the test part of synth cv" in shell(train)
    assert "9, the test part of synth cv" in shell("sgn eval")
    assert "best: " in shell(tune)
    (best,) = Path("runs").glob("tune-synth-cs-*/best.yaml")
    assert "selection" in shell(f"sgn train --recipe {best} --dry-run")


def test_a_demo_of_one_epoch(shell):
    """Every step in little time; the slow test below checks the accuracy of full training."""
    report = json.loads(shell("sgn demo --workers 0 train.num_epochs=1 optim.milestones=[] --json"))
    assert (report["case"], report["num_clips"]) == ("cs", 144)
    assert Path("runs/demo/run/report.html").exists()
    again = shell("sgn demo --workers 0 train.num_epochs=2", code=1)
    assert "choose another folder with --out, or delete runs/demo" in again


@pytest.mark.slow
@pytest.mark.parametrize("demo", ["sgn demo --workers 0", "sgn demo"])
def test_demo(shell, demo):
    start = time.monotonic()
    report = json.loads(shell(f"{demo} --json"))
    print(f"{demo}: {time.monotonic() - start:.0f} s, top-1 {report['top1']:.2%}")
    assert report["top1"] >= 0.9
    assert report["top1"] - score_shuffled(Path("runs/demo")) >= 0.2


def score_shuffled(demo):
    """Top-1 of the demo's run on its test clips, the poses of each in a random order."""
    dataset = open_dataset(demo / "data")
    bank = PoseBank.of(dataset, torch.device("cpu"))
    random = np.random.default_rng(0)
    order = [
        start + random.permutation(end - start)
        for start, end in zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True)
    ]
    shuffled = bank.poses_PVC[torch.from_numpy(np.concatenate(order))]
    _, checkpoint = RunFolder(demo / "run").require_checkpoint()
    rows = split_clips("synth", "cs", dataset.clips).test
    bank = dataclasses.replace(bank, poses_PVC=shuffled)
    return score_clips(checkpoint.build_model(), bank, rows, num_views=5, windows="paper").top1
