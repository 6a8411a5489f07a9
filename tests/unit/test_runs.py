"""Run folders: whose they are, who may use them, where training goes on."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from sgnray.config import load_recipe, recipe_hash
from sgnray.errors import RunError, UsageError
from sgnray.runs import claim_run, newest_run, run_name
from sgnray.train import train_run


def with_seed(recipe, seed):
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})


def test_a_run_is_named_by_its_recipe(tiny_recipe):
    assert run_name(tiny_recipe) == f"synth-cv-{recipe_hash(tiny_recipe)}"
    assert run_name(tiny_recipe) != run_name(with_seed(tiny_recipe, 1))


def test_a_run_leaves_everything_behind(tiny_recipe, tiny_folder, tiny_dataset, tmp_path):
    epochs = []
    result = train_run(
        tiny_recipe,
        tiny_folder,
        runs_dir=tmp_path,
        device="cpu",
        command="sgn train",
        on_epoch=epochs.append,
    )
    assert result.folder == tmp_path / run_name(tiny_recipe)
    assert {item.name for item in result.folder.iterdir()} == {
        ".lock",
        "checkpoints",
        "environment.json",
        "log.txt",
        "metrics.jsonl",
        "recipe.yaml",
        "report.json",
    }
    assert load_recipe(str(result.folder / "recipe.yaml")) == tiny_recipe
    lines = [
        json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4]
    assert lines[2] == {"epoch": 3, **epochs[2].metrics}
    environment = json.loads((result.folder / "environment.json").read_text())
    assert environment["dataset_checksum"] == tiny_dataset.info.checksum
    assert environment["command"] == "sgn train"
    assert {"versions", "commit", "device", "threads", "precision"} <= set(environment)
    kept = sorted(item.name for item in (result.folder / "checkpoints").iterdir())
    assert kept == ["epoch-0003", "epoch-0004"]
    assert "epoch 4 of 4" in (result.folder / "log.txt").read_text()


def test_the_same_command_goes_on_where_it_was_interrupted(
    tiny_recipe, tiny_folder, tmp_path, caplog
):
    class Interrupted(Exception):
        pass

    def interrupt(result):
        if result.epoch == 2:
            raise Interrupted

    settings = {"runs_dir": tmp_path, "device": "cpu"}
    straight = train_run(tiny_recipe, tiny_folder, **settings, name="straight")
    with pytest.raises(Interrupted):
        train_run(tiny_recipe, tiny_folder, **settings, name="broken", on_epoch=interrupt)
    assert "Interrupted" in (tmp_path / "broken" / "log.txt").read_text()
    resumed = train_run(tiny_recipe, tiny_folder, **settings, name="broken")
    assert resumed.resumed_from == 2
    assert "goes on after epoch 2 of 4" in caplog.text
    same = ("top1", "loss", "num_correct")
    for field in same:
        assert getattr(resumed.report, field) == getattr(straight.report, field)
    lines = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    environment = json.loads((tmp_path / "broken" / "environment.json").read_text())
    assert len(environment["resumed"]) == 1


def test_another_recipe_in_the_same_folder_is_refused(tiny_recipe, tiny_dataset, tmp_path):
    with claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset):
        pass
    before = (tmp_path / "mine" / "recipe.yaml").read_text()
    with (
        pytest.raises(RunError, match="another recipe"),
        claim_run(tmp_path, "mine", with_seed(tiny_recipe, 1), tiny_dataset),
    ):
        pass
    assert (tmp_path / "mine" / "recipe.yaml").read_text() == before


def test_another_dataset_in_the_same_folder_is_refused(tiny_recipe, tiny_dataset, tmp_path):
    with claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset) as run:
        run.record_environment(
            {"dataset_checksum": tiny_dataset.info.checksum, "dataset_dir": "data/synth"}
        )
    changed = dataclasses.replace(
        tiny_dataset, info=dataclasses.replace(tiny_dataset.info, checksum="sha256:00")
    )
    with (
        pytest.raises(RunError, match="another dataset"),
        claim_run(tmp_path, "mine", tiny_recipe, changed),
    ):
        pass


def test_two_at_once_refuse_each_other(tiny_recipe, tiny_dataset, tmp_path):
    with (
        claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset),
        pytest.raises(RunError, match="another command is at work"),
        claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset),
    ):
        pass


@pytest.mark.parametrize("name", ["../out", "a/b", "/tmp/x", ".hidden", "", " "])
def test_a_name_cannot_leave_the_runs(tiny_recipe, tiny_dataset, tmp_path, name):
    with (
        pytest.raises(UsageError, match="cannot name a folder"),
        claim_run(tmp_path / "runs", name, tiny_recipe, tiny_dataset),
    ):
        pass
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_something_else_is_left_alone(tiny_recipe, tiny_dataset, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with (
        pytest.raises(RunError, match=r"holds something else: thesis\.tex"),
        claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset),
    ):
        pass


def test_the_newest_run_is_the_one_written_to_last(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text("")
    (tmp_path / "old" / "metrics.jsonl").write_text("")
    os.utime(tmp_path / "new" / "recipe.yaml", (1, 1))
    assert newest_run(tmp_path).path == tmp_path / "old"


def test_a_recipe_for_another_dataset_is_refused(tiny_folder, tmp_path):
    with pytest.raises(UsageError, match="the recipe is for ntu60, and the dataset is synth"):
        train_run(load_recipe("ntu60-cv"), tiny_folder, runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())
