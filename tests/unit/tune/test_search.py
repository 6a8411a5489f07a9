"""What is refused before Ray starts, and before a folder is made."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from sgnray.config import load_recipe, recipe_for
from sgnray.distributed.precision import choose_precision
from sgnray.distributed.resources import Resources
from sgnray.errors import ClusterError, InputError, RecipeError, SgnError, UsageError
from sgnray.tune import TrialResources, TrialRow, final_settings, train_final, tune_recipe
from sgnray.tune import final as final_module
from sgnray.tune.folder import claim_search
from sgnray.tune.search import _result
from sgnray.tune.trials import Ended, EpochReport, Reported, Started, TrialTable


def refuse(kind, tmp_path, recipe, space, folder, **settings):
    with pytest.raises(kind) as caught:
        tune_recipe(recipe, space, folder, runs_dir=tmp_path / "runs", **settings)
    assert not (tmp_path / "runs").exists()
    return caught.value


def test_a_cluster_that_does_not_answer(tmp_path, tiny_recipe, tiny_folder):
    for settings in ({}, {"name": "mine"}):
        error = refuse(
            ClusterError,
            tmp_path,
            tiny_recipe,
            "default",
            tiny_folder,
            address="127.0.0.1:1",
            **settings,
        )
        assert error.what == "no Ray cluster answers"


@pytest.mark.parametrize("num_epochs", [4, 9])
def test_trials_that_are_longer_than_the_recipe(
    tmp_path, tiny_recipe, tiny_folder, num_epochs, caplog
):
    settings = {"num_epochs": num_epochs, "address": "127.0.0.1:1"}
    refuse(ClusterError, tmp_path, tiny_recipe, "default", tiny_folder, **settings)
    warning = "trials train for 9 epochs, more than the 4 of the recipe: the schedule is lengthened"
    assert (warning in caplog.messages) == (num_epochs == 9)


def test_the_warnings_are_of_the_trials_epochs(tmp_path, tiny_recipe, tiny_folder, caplog):
    """A mean of weights that fits the recipe's epochs can be too slow for those of a trial."""
    recipe = tiny_recipe.replacing({"train.num_epochs": 400, "train.ema_decay": 0.99})
    refuse(ClusterError, tmp_path, recipe, "default", tiny_folder, address="127.0.0.1:1")
    assert "% initial weights after all 12 steps" in caplog.text


@pytest.mark.parametrize(
    ("resources", "what"),
    [
        (TrialResources(num_workers=2, num_gpus=1.0), "2 workers need a GPU each"),
        (TrialResources(num_gpus=1.0), "this machine has no room for 1 trial with 1 CPU and 1 GPU"),
    ],
)
def test_gpus_that_a_trial_cannot_have(
    tmp_path, tiny_recipe, tiny_folder, monkeypatch, resources, what
):
    @contextmanager
    def connect(*_, **__):
        yield Resources(num_cpus=8, num_gpus=0, is_local=True)

    monkeypatch.setattr("sgnray.tune.trial_resources.connected", connect)
    settings = {"resources": resources, "address": "local"}
    error = refuse(UsageError, tmp_path, tiny_recipe, "default", tiny_folder, **settings)
    assert error.what.startswith(what)
    assert error.exit_code == 2


@pytest.mark.parametrize("noun", ["trial", "epoch", "seed"])
@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_one(tmp_path, tiny_recipe, tiny_folder, noun, number):
    settings = {f"num_{noun}s": number}
    error = refuse(UsageError, tmp_path, tiny_recipe, "default", tiny_folder, **settings)
    assert (error.what, error.where) == (f"invalid number of {noun}s: {number}", f"--{noun}s")


def test_a_missing_dataset(tmp_path, tiny_recipe):
    error = refuse(InputError, tmp_path, tiny_recipe, "default", tmp_path / "none")
    assert error.what == "dataset not found"


def test_a_recipe_for_another_dataset(tmp_path, tiny_folder):
    error = refuse(UsageError, tmp_path, recipe_for("ntu60", "cv"), "default", tiny_folder)
    assert error.what == "the recipe is for ntu60, and the dataset is synth"


def test_a_case_that_cannot_be_validated(tmp_path, tiny_recipe, tiny_folder):
    recipe = tiny_recipe.replacing({"data.case": "cset"})
    error = refuse(InputError, tmp_path, recipe, "default", tiny_folder)
    assert error.what.startswith("the case cset cannot be validated")
    assert error.now == "search another --case, or prepare recordings with more of them"


def test_a_wrong_space(tmp_path, tiny_recipe, tiny_folder):
    (tmp_path / "space.yaml").write_text("optim.lerning_rate: {choice: [1]}\n")
    error = refuse(RecipeError, tmp_path, tiny_recipe, tmp_path / "space.yaml", tiny_folder)
    assert error.problems[0].what == "unknown key; did you mean optim.learning_rate?"


def test_ranges_in_a_grid(tmp_path, tiny_recipe, tiny_folder):
    error = refuse(RecipeError, tmp_path, tiny_recipe, "default", tiny_folder, search="grid")
    assert [problem.where for problem in error.problems] == [
        "model.dropout",
        "optim.learning_rate",
        "optim.weight_decay",
    ]


def test_if_all_trials_failed_each_reason_is_reported_once(tmp_path, plan):
    reasons = ["the loss is no longer a finite number", "ValueError: no"]
    events = [Started(number, {}) for number in (1, 2, 3)]
    events += [Ended(number, "failed", reasons[number % 2 == 0]) for number in (1, 2, 3)]
    with (
        claim_search(tmp_path, None, plan) as folder,
        pytest.raises(SgnError, match="all 3 trials failed") as caught,
    ):
        _result(folder, TrialTable(events).rows)
    assert {(row.where, row.what) for row in caught.value.problems} == {
        ("trial 1", reasons[0]),
        ("trial 2", reasons[1]),
    }
    assert caught.value.where.endswith("log.txt")


@pytest.mark.parametrize("kept", ["bf16", "float32", None])
def test_the_final_run_has_the_precision_of_the_trials(
    tmp_path, make_plan, tiny_recipe, tiny_folder, kept
):
    recipe = tiny_recipe.replacing({"train.precision": "auto", "train.num_epochs": 1})
    events = [Started(1, {}), Reported(1, EpochReport(1, 0.5)), Ended(1, "finished")]
    with claim_search(tmp_path, None, make_plan(recipe=recipe, num_epochs=1)) as folder:
        if kept is not None:  # of an earlier version
            folder.write_precision(kept)
        rows = TrialTable(events).rows
        folder.write(rows)
        tuned = _result(folder, rows)
    final = train_final(tuned, tiny_folder)
    expected = kept or choose_precision("cpu")
    assert load_recipe(str(final.folder / "recipe.yaml")).train.precision == expected


def test_a_single_worker_needs_ray_for_the_final_run_only_if_it_runs(monkeypatch):
    resources = TrialResources(num_cpus=3, num_gpus=0.0)
    monkeypatch.setattr(final_module, "is_at_hand", lambda address: False)
    assert final_settings(resources, None) == {"workers": 0, "device": "cpu"}
    monkeypatch.setattr(final_module, "is_at_hand", lambda address: True)
    settings = final_settings(resources, "head:6379")
    assert (settings["workers"], settings["address"]) == (1, "head:6379")
    assert settings["request"].num_cpus == 3


def test_importing_the_search_does_not_load_ray():
    code = "import sys, sgnray.tune, sgnray.tune.folds; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert TrialRow.__module__ == "sgnray.tune.trials"


def test_more_workers_per_trial_than_clips_in_a_batch(tmp_path, tiny_recipe, tiny_folder):
    error = refuse(
        UsageError,
        tmp_path,
        tiny_recipe,
        "default",
        tiny_folder,
        resources=TrialResources(num_workers=8),
    )
    assert error.where == "--workers-per-trial 8"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (
            "optim.batch_size: {integer: [4, 16]}\n",
            "optim.batch_size=4",
            "a batch of 4 clips cannot be shared by 8 workers: ask for --workers-per-trial 4 or "
            "fewer, or raise optim.batch_size",
        ),
        (
            "rows: [{optim.batch_size: 16}, {optim.batch_size: 8, data.num_segments: 1}]\n",
            "optim.batch_size=8, data.num_segments=1",
            "batch norm needs more than one pose, and a batch has one for each worker: raise "
            "data.num_segments or optim.batch_size, or ask for fewer workers",
        ),
    ],
)
def test_searched_values_that_do_not_fit_the_workers(
    tmp_path, tiny_recipe, tiny_folder, caplog, text, where, what
):
    space = tmp_path / "space.yaml"
    space.write_text(text)
    recipe = tiny_recipe.replacing({"optim.batch_size": 16})
    resources = TrialResources(num_workers=8)
    error = refuse(RecipeError, tmp_path, recipe, space, tiny_folder, resources=resources)
    assert [(problem.where, problem.what) for problem in error.problems] == [(where, what)]
    assert caplog.text.count("sees only") == 1  # of the recipe's own batch


def test_synchronized_batch_norm_on_cpus(tmp_path, tiny_recipe, tiny_folder, monkeypatch, caplog):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = tiny_recipe.replacing({"train.sync_batch_norm": True})
    error = refuse(
        UsageError,
        tmp_path,
        recipe,
        "default",
        tiny_folder,
        resources=TrialResources(num_workers=2),
    )
    assert error.where == "train.sync_batch_norm=true"
    assert "starting Ray" not in caplog.text
