"""Run folders: which run owns them, who may use them, where training resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from sgnray.checkpoints.claim import claimed_folder
from sgnray.checkpoints.run_folder import RunFolder, claim_run, newest_run, run_name
from sgnray.config import load_recipe, recipe_hash, to_dict
from sgnray.distributed.resources import Workers
from sgnray.errors import CheckpointError, ClusterError, RunError, UsageError
from sgnray.train import train_run
from sgnray.train.environment import check_num_workers
from sgnray.train.seeds import train_seeds


def with_seed(recipe, seed):
    return recipe.replacing({"train.seed": seed})


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
        "curves.png",
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


def test_the_same_command_resumes_an_interrupted_run(tiny_recipe, tiny_folder, tmp_path, caplog):
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
    assert "resumes after epoch 2 of 4" in caplog.text
    same = ("top1", "loss", "num_correct")
    for field in same:
        assert getattr(resumed.report, field) == getattr(straight.report, field)
    lines = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    environment = json.loads((tmp_path / "broken" / "environment.json").read_text())
    assert len(environment["resumed"]) == 1
    assert "the weights may differ" not in caplog.text


def test_another_number_of_threads_is_logged(tiny_recipe, tiny_folder, tmp_path, caplog):
    caplog.set_level("INFO")
    settings = {"runs_dir": tmp_path, "device": "cpu", "name": "run"}

    def interrupt(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(tiny_recipe, tiny_folder, **settings, on_epoch=interrupt)
    path = tmp_path / "run" / "environment.json"
    environment = json.loads(path.read_text())
    path.write_text(json.dumps({**environment, "threads": 64}))
    for _ in range(2):  # the second one has nothing left to train
        train_run(tiny_recipe, tiny_folder, **settings)
    now = "1 thread" if environment["threads"] == 1 else f"{environment['threads']} threads"
    line = f"{now} now, 64 before: the weights may differ in their last bits"
    assert caplog.messages.count(line) == 1


def test_a_run_says_where_it_trains_and_what_it_holds_out(
    tiny_recipe, tiny_folder, tmp_path, caplog
):
    caplog.set_level("INFO")
    recipe = tiny_recipe.replacing({"train.selection": "validation"})
    train_run(recipe, tiny_folder, runs_dir=tmp_path, device="cpu")
    assert "4 epochs in float32 on cpu (" in caplog.text
    assert "training clips are held out to select the epoch" in caplog.text


def test_a_finished_run_keeps_its_number_of_workers(tiny_recipe, tiny_folder, tmp_path, caplog):
    train_run(tiny_recipe, tiny_folder, runs_dir=tmp_path, device="cpu", name="mine")
    run = RunFolder(tmp_path / "mine")
    check_num_workers(run, Workers(1, 1), is_finished=True)  # one worker trains as none does
    check_num_workers(run, Workers(1, 4), is_finished=True)
    assert "was last started with" not in caplog.text
    check_num_workers(run, Workers(2, 2), is_finished=False)
    assert "was last started with --workers 0" in caplog.text
    with pytest.raises(RunError, match="has finished, with --workers 0"):
        check_num_workers(run, Workers(2, 2), is_finished=True)
    settings = {"dataset_dir": tiny_folder, "runs_dir": tmp_path, "device": "cpu", "workers": 2}
    train_run(tiny_recipe, tiny_folder, runs_dir=tmp_path, device="cpu", name="mine-seed0")
    with pytest.raises(RunError, match="has finished, with --workers 0"):
        train_seeds(tiny_recipe, **settings, num_seeds=1, name="mine")


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


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_another_recipe_is_refused_before_a_cluster_is_used(
    tiny_recipe, tiny_folder, tiny_dataset, tmp_path, precision
):
    with claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset):
        pass
    recipe = tiny_recipe.replacing({"train.precision": precision})
    settings = {"runs_dir": tmp_path, "name": "mine", "workers": 2, "address": "127.0.0.1:1"}
    with pytest.raises(RunError, match="another recipe"):
        train_run(with_seed(recipe, 1), tiny_folder, **settings)
    with pytest.raises(ClusterError, match="no Ray cluster answers"):
        train_run(recipe, tiny_folder, **settings)


def test_another_dataset_in_the_same_folder_is_refused(tiny_recipe, tiny_dataset, tmp_path):
    with claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset) as run:
        run.record_environment(
            {"dataset_checksum": tiny_dataset.info.checksum, "dataset_dir": "data/synth"}
        )
    changed = dataclasses.replace(
        tiny_dataset, info=tiny_dataset.info.model_copy(update={"checksum": "sha256:00"})
    )
    with (
        pytest.raises(RunError, match="another dataset"),
        claim_run(tmp_path, "mine", tiny_recipe, changed),
    ):
        pass


def test_a_folder_named_with_an_older_hash_is_found(tiny_recipe, tiny_dataset, tmp_path):
    old = tmp_path / "synth-cv-0123abcd"
    with claim_run(tmp_path, old.name, tiny_recipe, tiny_dataset):
        pass
    # It was written before this key had its present name, and before these keys existed.
    text = (old / "recipe.yaml").read_text().replace("pose_device:", "residence:")
    lines = [line for line in text.splitlines() if not line.startswith(("  crop:", "  log:"))]
    (old / "recipe.yaml").write_text("\n".join(lines))
    (tmp_path / "synth-cv-00000000").mkdir()  # of something else
    with claim_run(tmp_path, None, tiny_recipe, tiny_dataset) as run:
        assert run.path == old
    with claim_run(tmp_path, None, with_seed(tiny_recipe, 1), tiny_dataset) as run:
        assert run.path.name == run_name(with_seed(tiny_recipe, 1))


def test_a_run_named_by_the_previous_version_is_resumed(tiny_recipe, tiny_folder, tmp_path):
    # sha256 over all deciding values, as the previous version computed it.
    old = tmp_path / f"synth-cv-{old_hash(tiny_recipe)}"
    settings = {"runs_dir": tmp_path, "device": "cpu"}
    assert old.name != run_name(tiny_recipe)
    train_run(tiny_recipe, tiny_folder, **settings, name=old.name)
    again = train_run(tiny_recipe, tiny_folder, **settings)
    assert (again.folder, again.resumed_from) == (old, 4)


def old_hash(recipe):
    values = to_dict(recipe)
    del values["data"]["pose_device"], values["train"]["log"]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def test_a_run_folder_in_use_is_refused(tiny_recipe, tiny_dataset, tmp_path):
    with (
        claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset),
        pytest.raises(RunError, match="another command is using"),
        claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset),
    ):
        pass


@pytest.mark.parametrize("name", ["../out", "a/b", "/tmp/x", ".hidden", "", " "])
def test_a_run_name_cannot_leave_the_runs_folder(tiny_recipe, tiny_dataset, tmp_path, name):
    with (
        pytest.raises(UsageError, match="is not a valid folder name"),
        claim_run(tmp_path / "runs", name, tiny_recipe, tiny_dataset),
    ):
        pass
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_something_else_is_left_alone(tiny_recipe, tiny_dataset, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with (
        pytest.raises(RunError, match=r"contains other files: thesis\.tex"),
        claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset),
    ):
        pass


def make_run(folder, *, epoch, time):
    path = folder / "checkpoints" / f"epoch-{epoch:04d}" / "checkpoint.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    os.utime(path, (time, time))
    (folder / "metrics.jsonl").write_text("")


def test_the_newest_run_is_the_one_that_finished_an_epoch_last(tmp_path):
    make_run(tmp_path / "a", epoch=3, time=20)
    make_run(tmp_path / "b", epoch=9, time=10)  # rerun: its metrics are new
    (tmp_path / "just begun").mkdir()
    (tmp_path / "just begun" / "recipe.yaml").write_text("")
    make_run(tmp_path / "checkpoints only", epoch=9, time=15)
    (tmp_path / "checkpoints only" / "metrics.jsonl").unlink()
    assert newest_run(tmp_path).path == tmp_path / "a"
    make_run(tmp_path / "tune" / "final-trial-0001", epoch=3, time=40)
    make_run(tmp_path / "tune" / "deep" / "er", epoch=3, time=50)
    assert newest_run(tmp_path).path == tmp_path / "tune" / "final-trial-0001"


def test_a_kill_in_the_first_file_does_not_lock_the_name(tiny_recipe, tiny_dataset, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.yaml.partial").write_text("half")
    with claim_run(tmp_path, "mine", tiny_recipe, tiny_dataset) as run:
        assert (run.path / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is corrupt"),
        ("{}", "is corrupt"),
        ('{"format_version": 1}', "is corrupt"),
        (
            '{"format_version": 9, "dataset_checksum": "", "dataset_dir": "", "resumed": []}',
            "has format version 9",
        ),
    ],
)
def test_a_record_that_cannot_be_read_is_refused(tmp_path, content, message):
    (tmp_path / "environment.json").write_text(content)
    with pytest.raises(RunError, match=message):
        RunFolder(tmp_path).environment()


@pytest.fixture
def trained(tiny_recipe, tiny_folder, tmp_path):
    """A finished run; returns a function that runs the same command again."""

    def again():
        return train_run(tiny_recipe, tiny_folder, runs_dir=tmp_path, name="run", device="cpu")

    again()
    return again


def test_a_run_with_only_corrupt_checkpoints_is_left_unchanged(trained, tmp_path):
    for path in tmp_path.glob("run/checkpoints/*/checkpoint.pt"):
        path.write_bytes(b"torn")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(CheckpointError, match="no checkpoint of the run is complete"):
        trained()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_a_checkpoint_of_a_newer_version_is_not_passed_over(trained, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "epoch-0004" / "checkpoint.pt"
    torch.save({**torch.load(path), "format_version": 4}, path)
    with pytest.raises(CheckpointError, match="format version 4"):
        trained()


def test_new_checkpoints_after_a_corrupt_one_are_kept(trained, tmp_path, caplog):
    path = tmp_path / "run" / "checkpoints" / "epoch-0004" / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert trained().resumed_from == 3
    assert "corrupt" in caplog.text
    kept = sorted(item.name for item in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["epoch-0003", "epoch-0004"]
    assert len(path.read_bytes()) > 1000


def test_epochs_are_sorted_as_numbers(tmp_path):
    for epoch in (9999, 10000, 10001):
        make_run(tmp_path / "run", epoch=epoch, time=1)
    run = RunFolder(tmp_path / "run")
    run.keep_checkpoint(10001, b"")
    assert {item.name for item in run.checkpoints_dir.iterdir()} == {"epoch-10000", "epoch-10001"}


def test_too_many_workers_are_refused_before_a_folder_is_created(
    tiny_recipe, tiny_folder, tmp_path
):
    with pytest.raises(UsageError, match="a batch of 6 clips cannot be shared by 7 workers"):
        train_run(tiny_recipe, tiny_folder, runs_dir=tmp_path, workers=7)
    assert not list(tmp_path.iterdir())


def test_a_recipe_for_another_dataset_is_refused(tiny_folder, tmp_path):
    with pytest.raises(UsageError, match="the recipe is for ntu60, and the dataset is synth"):
        train_run(load_recipe("ntu60-cv"), tiny_folder, runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_run_is_refused(trained, tiny_recipe, tiny_folder, tmp_path):
    other = train_run(with_seed(tiny_recipe, 1), tiny_folder, runs_dir=tmp_path, device="cpu")
    foreign = other.folder / "checkpoints" / "epoch-0004" / "checkpoint.pt"
    own = tmp_path / "run" / "checkpoints" / "epoch-0004" / "checkpoint.pt"
    own.write_bytes(foreign.read_bytes())
    with pytest.raises(CheckpointError, match="is from another run"):
        trained()


@pytest.mark.parametrize("uri", ["s3://bucket/runs", "gs://bucket", "file:///runs"])
def test_a_uri_given_as_a_path_is_refused(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for use in (lambda path: claimed_folder(path, "a", default="b").__enter__(), newest_run):
        with pytest.raises(UsageError, match="given as a path"):
            use(Path(uri))
    assert not list(tmp_path.iterdir())


def test_a_corrupt_recipe_of_the_run_is_not_a_usage_error(tiny_recipe, tiny_dataset, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("garbage")
    with (
        pytest.raises(RunError, match="the recipe of the run cannot be used") as caught,
        claim_run(tmp_path, "run", tiny_recipe, tiny_dataset),
    ):
        pass
    assert (caught.value.exit_code, caught.value.now) == (
        1,
        "update sgnray if it is newer, else choose another --name or remove the run",
    )
