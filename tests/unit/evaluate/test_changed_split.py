"""A dataset that is prepared again with other training and test clips: the clips stay the same."""

import json
import shutil

import pytest

from sgnray.checkpoints.run_folder import REPORT_FILE
from sgnray.data.fetch import cached_dataset
from sgnray.data.info import read_info
from sgnray.data.store import open_dataset
from sgnray.errors import RunError
from sgnray.evaluate import evaluate_run
from sgnray.train import train_run


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """The tiny dataset with a case of its own; `set_split` chooses the test clips."""
    folder = tmp_path / "data" / "synth"
    shutil.copytree(tiny_folder, folder)
    set_split(folder, [0, 9, 18])
    return folder


def set_split(folder, test_rows, case="given"):
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    names = open_dataset(folder).clips.names
    test = [names[row] for row in test_rows]
    parts = {"train": [name for name in names if name not in test], "test": test}
    path.write_text(json.dumps(content | {"splits": (content["splits"] or {}) | {case: parts}}))


@pytest.fixture
def run(folder, tiny_recipe, tmp_path):
    recipe = tiny_recipe.replacing({"data.case": "given", "train.num_epochs": 1})

    def run():
        return train_run(recipe, folder, runs_dir=tmp_path / "runs", name="run")

    run()
    return run


def test_a_run_is_not_resumed_on_other_parts(folder, run):
    set_split(folder, [1, 10, 19], case="another")
    run()  # its own case is the same
    set_split(folder, [1, 10, 19])
    with pytest.raises(RunError, match="on this one before it changed"):
        run()


def test_which_test_clips_were_seen_is_unknown_then(folder, run, tmp_path, caplog):
    report = evaluate_run(tmp_path / "runs" / "run", dataset_dir=folder)
    assert report.details.num_seen == 0
    before = (tmp_path / "runs" / "run" / REPORT_FILE).read_bytes()
    set_split(folder, [1, 10, 19])
    report = evaluate_run(tmp_path / "runs" / "run", dataset_dir=folder)
    assert report.details.num_seen is None
    assert "which clips were used in training is unknown" in caplog.text
    assert (tmp_path / "runs" / "run" / REPORT_FILE).read_bytes() == before


def test_a_copy_has_the_parts_of_the_original(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "cache"))

    def fetch():
        copied = cached_dataset(
            read_info(folder).identity,
            lambda into: shutil.copytree(folder, into, dirs_exist_ok=True),
        )
        return read_info(copied).splits

    first = fetch()
    set_split(folder, [1, 10, 19])
    assert fetch() == read_info(folder).splits != first
