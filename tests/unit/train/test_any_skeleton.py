"""From a dataset of 17 joints in 2D with a split of its own to a report, in this process."""

from __future__ import annotations

import json

import pytest

from sgnray.checkpoints.run_folder import RunFolder
from sgnray.checkpoints.trained_model import load_trained_model
from sgnray.config import recipe_for
from sgnray.errors import UsageError
from sgnray.evaluate import evaluate_run
from sgnray.train import train_run

from ...conftest import TINY

SMALL = (*TINY, "train.num_epochs=2", "evaluate.num_views=2")


@pytest.mark.parametrize("selection", ["last", "validation"])
def test_a_custom_skeleton_is_trained_and_evaluated(flat_folder, tmp_path, selection):
    recipe = recipe_for("mine", "people", [*SMALL, f"train.selection={selection}"])
    result = train_run(recipe, flat_folder, runs_dir=tmp_path, device="cpu")
    assert result.folder.name.startswith("mine-people-")
    assert result.report.num_clips == 6
    _, checkpoint = RunFolder(result.folder).require_checkpoint()
    assert (checkpoint.skeleton.num_joints, checkpoint.skeleton.num_coordinates) == (17, 2)
    again = evaluate_run(result.folder, device="cpu")
    found = json.loads(json.dumps(again.to_dict()))
    trained = json.loads((result.folder / "report.json").read_text())
    assert {key: found[key] for key in trained} == trained


def test_a_case_that_its_source_does_not_have(flat_folder, tmp_path):
    with pytest.raises(UsageError, match="mine has no case 'cs'; its source defines the split"):
        train_run(recipe_for("mine", "cs", SMALL), flat_folder, runs_dir=tmp_path, device="cpu")


def test_views_of_two_coordinates_do_not_turn(flat_folder, tmp_path):
    recipe = recipe_for("mine", "people", [*SMALL, "evaluate.turn_rad=0.8"])
    result = train_run(recipe, flat_folder, runs_dir=tmp_path, device="cpu")
    assert result.report.evaluated.turn_rad == 0
    assert load_trained_model(result.folder).card.turn_rad == 0
