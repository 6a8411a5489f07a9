"""The folder of a search: which search owns it, its best recipe, and its tables of trials."""

import csv
import dataclasses
import json

import pyarrow.parquet as pq
import pytest

from sgnray.checkpoints.run_folder import newest_run
from sgnray.config import load_recipe
from sgnray.errors import RunError, UsageError
from sgnray.tune.folder import claim_search, trial_table, write_tables
from sgnray.tune.space_file import load_space
from sgnray.tune.trials import Ended, EpochReport, Reported, Started, TrialRow, TrialTable


def claim(runs_dir, plan, name=None):
    with claim_search(runs_dir, name, plan) as folder:
        return folder


def test_a_search_folder_describes_the_search(tmp_path, plan, tiny_recipe):
    folder = claim(tmp_path, plan)
    assert folder.path == tmp_path / plan.folder_name()
    assert load_recipe(str(folder.path / "base.yaml")) == tiny_recipe
    assert load_space(str(folder.path / "space.yaml"), tiny_recipe).axes == plan.space.axes
    described = json.loads((folder.path / "search.json").read_text())
    assert described["format_version"] == 2
    assert described["scheduler"] == {"kind": "asha", "grace_epochs": 1, "reduction_factor": 3}


def test_a_search_is_not_mistaken_for_a_run(tmp_path, plan):
    claim(tmp_path, plan)
    with pytest.raises(UsageError, match="no run"):
        newest_run(tmp_path)


def test_the_same_search_takes_its_folder_again_and_another_is_refused(tmp_path, plan):
    claim(tmp_path, plan, "mine")
    claim(tmp_path, plan, "mine")
    with pytest.raises(RunError) as caught:
        claim(tmp_path, dataclasses.replace(plan, num_epochs=3), "mine")
    assert caught.value.what.startswith("the folder contains another search")
    assert caught.value.where == str(tmp_path / "mine" / "search.json")


def test_a_search_on_another_split_of_ones_own_is_refused_but_not_an_older_one(tmp_path, make_plan):
    """Older versions did not record the split."""
    older, now, changed = (
        make_plan(split_checksum=each) for each in (None, "sha256:1", "sha256:2")
    )
    with claim_search(tmp_path, None, older) as folder:
        path = folder.path
    with claim_search(tmp_path, None, now) as folder:
        assert folder.path == path
    with (
        pytest.raises(RunError, match="another search"),
        claim_search(tmp_path, path.name, changed),
    ):
        pass


def test_a_corrupt_search_is_refused(tmp_path, plan):
    claim(tmp_path, plan, "mine")
    (tmp_path / "mine" / "search.json").write_text("{")
    with pytest.raises(RunError):
        claim(tmp_path, plan, "mine")


@pytest.mark.parametrize(
    ("version", "what", "now"),
    [
        (1, "an earlier version", "choose another --name to search again"),
        (3, "a newer version", "update sgnray, or choose another --name"),
    ],
)
def test_a_search_of_another_version_is_named_as_such(tmp_path, plan, version, what, now):
    claim(tmp_path, plan, "mine")
    path = tmp_path / "mine" / "search.json"
    content = json.loads(path.read_text()) | {"format_version": version, "recipe": {"new": 1}}
    path.write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        claim(tmp_path, plan, "mine")
    assert caught.value.what == f"the folder contains a search of {what} of sgnray"
    assert caught.value.now.startswith(now)
    assert json.loads(path.read_text()) == content


def test_a_run_is_not_taken_for_a_search(tmp_path, plan):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.yaml").touch()
    with pytest.raises(RunError) as caught:
        claim(tmp_path, plan, "mine")
    assert caught.value.what == "the folder exists and contains other files: recipe.yaml"
    assert [path.name for path in (tmp_path / "mine").iterdir() if path.name != ".lock"] == [
        "recipe.yaml"
    ]


def test_a_search_keeps_its_precision(tmp_path, plan):
    folder = claim(tmp_path, plan)
    assert folder.read_precision() is None
    folder.write_precision("bf16")
    assert folder.read_precision() == "bf16"
    path = folder.path / "precision.txt"
    path.write_text("float16\n")
    with pytest.raises(RunError, match="not the precision of a search") as caught:
        folder.read_precision()
    assert caught.value.where == str(path)


def test_best_yaml_is_the_best_trials_recipe_in_full_length(tmp_path, plan, sampler):
    folder, table = claim(tmp_path, plan, "mine"), TrialTable()
    folder.write(table.rows)
    assert (folder.path / "trials.csv").exists()
    assert not folder.best_path.exists()
    for number, scores in ((1, (0.5, 0.25)), (2, (0.25, 0.5))):
        table.apply(Started(number, sampler.propose(number)))
        for epoch, score in enumerate(scores, start=1):
            table.apply(Reported(number, EpochReport(epoch, score)))
        table.apply(Ended(number, "finished"))
        folder.write(table.rows)
    values = sampler.propose(2)
    recipe = load_recipe(str(folder.best_path))
    assert recipe == plan.recipe.replacing(values)
    assert recipe.train.num_epochs == 4
    assert folder.best_path.read_text().splitlines()[:10] == [
        "# Found by sgn tune: trial 2, the best of 2 trials so far; 3 are planned.",
        f"#   sgn train --recipe {folder.best_path}",
        "# Search: space mine, random, ASHA, seed 0, at most 2 epochs per trial",
        "#   of the 4 below, its schedule in proportion.",
        "# Score: 50.00% top-1 after epoch 2, on a validation",
        "#   part of the training clips of synth cv, held out the way the case",
        "#   holds out its test clips, which were never used.",
        "# Changed by the search:",
        f"#   optim.learning_rate={values['optim.learning_rate']}",
        f"#   data.num_segments={values['data.num_segments']}",
    ]


ROWS = (
    TrialRow(
        1,
        "finished",
        {"optim.learning_rate": 0.001, "model.graph_widths": [8, 8], "data.windows": "even"},
        (0.75, 0.5),
        spread=0.01,
        duration_s=2.5,
        num_parameters=7,
        flops=9,
        node="here",
    ),
    TrialRow(2, "failed", {"optim.learning_rate": 1}, error='=HYPERLINK("x")'),
)
KEYS = ("optim.learning_rate", "model.graph_widths", "data.windows")


def test_a_parquet_file_has_a_row_a_trial_and_a_type_a_column(tmp_path):
    write_tables(tmp_path, ROWS, KEYS)
    table = pq.read_table(tmp_path / "trials.parquet")
    assert table.equals(trial_table(ROWS, KEYS))
    first, second = table.to_pylist()
    assert first == {
        "trial": 1, "status": "finished", "epochs": 2, "val_top1": 0.5, "spread": 0.01,
        "best_epoch_val_top1": 0.75, "duration_s": 2.5, "num_parameters": 7, "flops": 9,
        "node": "here", "optim.learning_rate": 0.001, "model.graph_widths": "[8, 8]",
        "data.windows": "even", "curve": [0.75, 0.5], "error": None,
    }  # fmt: skip
    assert second["optim.learning_rate"] == 1.0
    assert (second["val_top1"], second["model.graph_widths"]) == (None, None)
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_a_spreadsheet_takes_no_cell_for_a_formula(tmp_path):
    write_tables(tmp_path, ROWS, KEYS)
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["error"] == '\'=HYPERLINK("x")'
    assert (rows[0]["val_top1"], rows[1]["val_top1"], rows[0]["error"]) == ("0.5", "", "")


def test_no_trial_at_all_is_a_table_too(tmp_path):
    write_tables(tmp_path, (), KEYS)
    assert pq.read_table(tmp_path / "trials.parquet").num_rows == 0
