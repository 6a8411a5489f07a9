"""The table of trials on disk: one type a column, no formulas, and the same in all readers."""

import csv

import optuna
import pyarrow.parquet as pq
import pytest

from sgnray.tune.folder import trial_table, write_tables
from sgnray.tune.page import compute_importances, explain_missing
from sgnray.tune.space import Choice, Range, Space
from sgnray.tune.trials import TrialRow

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


SPACE = Space(
    "mine", {"model.dropout": Range("uniform", 0.0, 1.0), "optim.decay": Choice((0.1, 0.2))}
)


def make_trials(count):
    """The score depends on the dropout only."""
    return [
        TrialRow(
            number,
            "finished",
            {"model.dropout": number / count, "optim.decay": (0.1, 0.2)[number // 2 % 2]},
            (0.2, number / count),
        )
        for number in range(1, count + 1)
    ]


def test_the_key_that_determines_the_score_is_most_important():
    optuna.logging.set_verbosity(optuna.logging.INFO)  # as it is after the import
    found = compute_importances(
        [*make_trials(40), TrialRow(41, "stopped", {"model.dropout": 0.0}, (0.1,))], SPACE
    )
    assert list(found) == ["model.dropout", "optim.decay"]
    assert found["model.dropout"] > 0.8
    assert sum(found.values()) == pytest.approx(1.0)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING  # else it logs each study


def test_few_trials_have_no_importances():
    assert compute_importances(make_trials(5), SPACE) == {}
    assert explain_missing(SPACE).startswith("fewer than 8 trials")
    rows = Space("mine", rows=({}, {"model.dropout": 0.1}))
    assert compute_importances(make_trials(9), rows) == {}
