"""A dataset, a run and a search that an earlier version wrote are read, resumed and evaluated."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from sgnray import evaluate_run, load_recipe, open_dataset, train_run
from sgnray.tune import tune_recipe

WRITTEN = Path(__file__).parents[1] / "golden/november/written.tar.xz"
RUN = Path("runs/synth-cv-b94c2911")
SEARCH = Path("runs/tune-synth-cv-95154f88")
SMALL = [
    "data.num_segments=8",
    "model.embedding_width=8",
    "model.affinity_width=8",
    "model.graph_widths=[8,8,8]",
    "model.frame_width=16",
    "optim.batch_size=6",
    "optim.milestones=[]",
    "train.num_epochs=2",
    "train.precision=float32",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    with tarfile.open(WRITTEN) as archive:
        # Python before 3.11.4 has no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)


def test_the_run_is_evaluated():
    assert open_dataset(Path("data/synth")).info.num_clips == 12
    stored = json.loads((RUN / "report.json").read_text())
    report = evaluate_run(RUN, dataset_dir=Path("data/synth"), device="cpu")
    assert (report.num_correct, report.num_clips) == (stored["num_correct"], stored["num_clips"])
    assert report.loss == pytest.approx(stored["loss"], abs=1e-5)


def test_the_same_command_resumes_the_run():
    """Its folder has an older hash in its name, and its recipe a key that was renamed since."""
    shutil.rmtree(max((RUN / "checkpoints").glob("epoch-*")))  # as if it had been interrupted
    recipe = load_recipe("synth-cv", SMALL)
    result = train_run(recipe, Path("data/synth"), device="cpu")
    assert (result.folder, result.resumed_from) == (RUN, 1)
    assert len((RUN / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_same_command_finds_the_search():
    """It is complete, so nothing is trained, and Ray is not started."""
    Path("space.yaml").write_text("format_version: 1\nmodel.dropout: {choice: [0.1, 0.2]}\n")
    recipe = load_recipe("synth-cv", [line for line in SMALL if "precision" not in line])
    found = tune_recipe(
        recipe, "space.yaml", Path("data/synth"), search="grid", scheduler="none", num_epochs=1
    )
    assert found.folder == SEARCH
    assert [row.num_epochs for row in found.trials] == [1, 1]
