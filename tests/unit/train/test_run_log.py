"""The log of a run: a failure with its traceback, an interruption in one line, a warning."""

from importlib import metadata

import pytest

from sgnray.distributed.precision import choose_precision
from sgnray.train.environment import _version
from sgnray.train.run import train_run
from sgnray.train.run_log import run_log


@pytest.mark.parametrize(
    ("error", "line", "has_traceback"),
    [(ValueError("x"), "the run failed", True), (KeyboardInterrupt(), "interrupted", False)],
)
def test_how_a_run_ended_is_in_its_log(tmp_path, error, line, has_traceback):
    path = tmp_path / "log.txt"
    with pytest.raises(type(error)), run_log(path):
        raise error
    text = path.read_text()
    assert line in text
    assert ("Traceback" in text) == has_traceback


def test_a_package_that_is_not_installed_has_no_version():
    assert _version("torch") == metadata.version("torch")
    assert _version("no-such-package") is None


def test_a_run_in_another_precision_than_auto_means_here_is_named(
    tiny_recipe, tiny_folder, tmp_path, caplog
):
    """It was trained on other hardware; without a word, the same command would start anew."""
    here = choose_precision("cpu")
    other = "float32" if here == "bf16" else "bf16"
    settings = {"runs_dir": tmp_path, "device": "cpu"}
    recipe = tiny_recipe.replacing({"train.num_epochs": 1, "optim.milestones": []})
    first = train_run(recipe.replacing({"train.precision": other}), tiny_folder, **settings)
    caplog.clear()
    second = train_run(recipe.replacing({"train.precision": "auto"}), tiny_folder, **settings)
    assert second.folder != first.folder
    assert f"which is in {other}, add train.precision={other}" in caplog.text
    caplog.clear()
    train_run(recipe.replacing({"train.precision": "auto"}), tiny_folder, **settings)
    assert "to resume" not in caplog.text
