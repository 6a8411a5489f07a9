"""What cannot be trained is refused before Ray starts and before a folder is made."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from sgnray.config import recipe_for
from sgnray.data.protocols import split_clips
from sgnray.data.store import open_dataset
from sgnray.distributed.resources import WorkerRequest
from sgnray.errors import MissingExtraError, RunError, UsageError
from sgnray.train.checks import (
    check_recipe,
    check_run,
    check_synchronized,
    match_recipe,
    warn_of_run,
)
from sgnray.train.run import train_run
from sgnray.train.tracking import trackers
from sgnray.tune import tune_recipe

from ...conftest import TINY


@pytest.mark.parametrize("workers", [0, 2])
def test_one_pose_in_a_batch_leaves_no_folder(tiny_recipe, tiny_folder, tmp_path, caplog, workers):
    size = max(1, workers)
    recipe = tiny_recipe.replacing({"data.num_segments": 1, "optim.batch_size": size})
    with pytest.raises(UsageError, match="batch norm needs more than one pose") as caught:
        train_run(recipe, tiny_folder, workers=workers, runs_dir=tmp_path / "runs", device="cpu")
    assert ("fewer workers" in caught.value.now) is (workers == 2)
    assert not (tmp_path / "runs").exists()
    assert "starting Ray" not in caplog.text


@pytest.mark.parametrize(
    ("num_segments", "batch_size", "num_clips", "num_workers", "is_refused"),
    [
        (1, 1, 9, 1, True),
        (1, 6, 1, 1, True),
        (1, 3, 9, 2, True),
        (1, 4, 9, 2, False),
        (1, 2, 9, 1, False),
        (2, 1, 9, 1, False),
        (2, 2, 9, 2, False),
    ],
)
def test_the_smallest_share_counts(
    tiny_recipe, tiny_dataset, num_segments, batch_size, num_clips, num_workers, is_refused
):
    recipe = tiny_recipe.replacing(
        {"data.num_segments": num_segments, "optim.batch_size": batch_size}
    )
    settings = {"num_clips": num_clips, "workers": num_workers, "on_cpus": True}
    if not is_refused:
        check_recipe(recipe, tiny_dataset, **settings)
        return
    with pytest.raises(UsageError, match="a batch has one"):
        check_recipe(recipe, tiny_dataset, **settings)


def test_synchronizing_on_cpus_is_refused_before_ray_starts(
    tiny_recipe, tiny_folder, tiny_dataset, tmp_path, caplog
):
    recipe = tiny_recipe.replacing({"train.sync_batch_norm": True})
    with pytest.raises(UsageError, match="between GPUs only"):
        train_run(recipe, tiny_folder, workers=2, runs_dir=tmp_path / "runs", device="cpu")
    assert "starting Ray" not in caplog.text
    # A cluster may have what this machine lacks; it is checked once it is joined.
    check_run(recipe, tiny_dataset, workers=2, address="head:6379")
    check_run(recipe, tiny_dataset, workers=1, device="cpu")
    with pytest.raises(UsageError, match="between GPUs only"):
        check_synchronized(recipe, 2, "cpu")
    check_synchronized(recipe, 2, "cuda")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"workers": 1, "device": "tpu"}, "device 'tpu'"),
        ({"workers": 0, "address": "head:6379"}, "without workers"),
        ({"workers": 0, "max_failures": 2}, "without workers"),
        ({"workers": 7}, "cannot be shared by 7 workers"),
        ({"workers": 2, "request": WorkerRequest(num_gpus=2)}, "a worker trains on one GPU"),
        ({"workers": 1, "request": WorkerRequest(num_gpus=0.0)}, "a worker trains on one GPU"),
        ({"workers": 2, "request": WorkerRequest(num_gpus=0.5)}, "nccl cannot share a GPU"),
    ],
)
def test_wrong_settings_are_refused(tiny_recipe, tiny_dataset, settings, what):
    with pytest.raises(UsageError, match=what):
        check_run(tiny_recipe, tiny_dataset, **settings)


def test_the_option_of_the_command_is_named(tiny_recipe, tiny_dataset):
    with pytest.raises(UsageError) as caught:
        check_recipe(
            tiny_recipe,
            tiny_dataset,
            workers=7,
            on_cpus=True,
            num_clips=18,
            workers_option="--workers-per-trial",
        )
    assert caught.value.where == "--workers-per-trial 7"
    assert "--workers-per-trial 6 or fewer" in caught.value.now


def test_missing_trackers_are_refused(tiny_recipe, tiny_dataset, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    recipe = tiny_recipe.replacing({"train.log": ("wandb", "tensorboard")})
    with pytest.raises(MissingExtraError) as caught:
        check_run(recipe, tiny_dataset, workers=0)
    assert caught.value.exit_code == 2
    assert caught.value.what.endswith("not installed: wandb, tensorboard")
    assert caught.value.now == "pip install 'sgnray[wandb,tensorboard]'"


@pytest.mark.parametrize("is_synchronized", [False, True])
def test_small_shares_of_a_batch_are_named(tiny_recipe, tiny_dataset, caplog, is_synchronized):
    recipe = tiny_recipe.replacing(
        {"optim.batch_size": 8, "train.sync_batch_norm": is_synchronized}
    )
    warn_of_run(recipe, tiny_dataset, workers=2, num_clips=64)
    assert ("sees only 4 clips" in caplog.text) is not is_synchronized


def test_a_run_warns(tiny_recipe, tiny_folder, tmp_path, caplog):
    changes = {"train.num_epochs": 1, "optim.milestones": (), "train.ema_decay": 0.999999}
    train_run(tiny_recipe.replacing(changes), tiny_folder, runs_dir=tmp_path, device="cpu")
    assert caplog.text.count("initial weights") == 1


def test_missing_clips_of_a_published_dataset_are_counted(tiny_recipe, tiny_dataset, caplog):
    info = tiny_dataset.info.model_copy(update={"dataset": "ntu60"})
    dataset = dataclasses.replace(tiny_dataset, info=info)
    warn_of_run(tiny_recipe, tiny_dataset, workers=0, num_clips=18)
    assert "not complete" not in caplog.text  # of synthetic clips, any number is
    recipe = tiny_recipe.replacing({"data.dataset": "ntu60"})
    warn_of_run(recipe, dataset, workers=0, num_clips=18)
    clips = "18 training and 9 test clips, published are 37646 and 18932"
    assert f"ntu60 cv is not complete: {clips}" in caplog.text


def test_a_case_defined_by_its_source_is_not_compared_with_published_counts(
    tiny_recipe, tiny_dataset, caplog
):
    """Such as a padded file of NTU that fixes its own split."""
    clips = tiny_dataset.clips
    fixed = dataclasses.replace(clips, splits={"fixed": split_clips("synth", "cv", clips)})
    info = tiny_dataset.info.model_copy(update={"dataset": "ntu60"})
    dataset = dataclasses.replace(tiny_dataset, info=info, clips=fixed)
    recipe = tiny_recipe.replacing({"data.dataset": "ntu60", "data.case": "fixed"})
    warn_of_run(recipe, dataset, workers=0, num_clips=18)
    assert "not complete" not in caplog.text


def test_a_process_trains_one_run_at_a_time(tiny_recipe, tiny_folder, tmp_path):
    settings = {"dataset_dir": tiny_folder, "runs_dir": tmp_path}
    with ThreadPoolExecutor(1) as other:

        def on_epoch(result):
            for function in (train_run, tune_recipe):
                with pytest.raises(RunError, match="this process is already training"):
                    other.submit(function, tiny_recipe, name="other", **settings).result()

        recipe = tiny_recipe.replacing({"train.num_epochs": 1})
        train_run(recipe, name="first", on_epoch=on_epoch, **settings)
        assert [path.name for path in tmp_path.iterdir()] == ["first"]
        assert other.submit(train_run, recipe, name="other", **settings).result().report


def test_bones_are_refused_where_the_skeleton_has_none(flat_folder):
    dataset = open_dataset(flat_folder)
    skeleton = dataclasses.replace(dataset.info.skeleton, bones=())
    boneless = dataclasses.replace(
        dataset, info=dataset.info.model_copy(update={"skeleton": skeleton})
    )
    recipe = recipe_for("mine", "people", [*TINY, "model.inputs=[position, bone_velocity]"])
    with pytest.raises(UsageError, match="the dataset's skeleton has none") as caught:
        match_recipe(recipe, boneless)
    assert caught.value.now.endswith(", or add 'model.inputs=[position, velocity]'")
    match_recipe(recipe_for("mine", "people", TINY), boneless)
