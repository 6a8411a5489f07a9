"""The table of trials on disk: trials.parquet for programs, trials.csv for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sgnray.storage.atomic import write_bytes, write_text
from sgnray.tune.state.trials import TrialRow

PARQUET_FILE, CSV_FILE = "trials.parquet", "trials.csv"
# Spreadsheets treat a cell that starts with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_COLUMNS: dict[str, tuple[pa.DataType, Callable[[TrialRow], object]]] = {
    "trial": (pa.int64(), lambda row: row.number),
    "status": (pa.string(), lambda row: row.status),
    "epochs": (pa.int64(), lambda row: row.num_epochs),
    "val_top1": (pa.float64(), lambda row: row.score),
    "spread": (pa.float64(), lambda row: row.spread),
    "best_epoch_val_top1": (pa.float64(), lambda row: row.best_score),
    "duration_s": (pa.float64(), lambda row: row.duration_s or None),
    "num_parameters": (pa.int64(), lambda row: row.num_parameters or None),
    "flops": (pa.int64(), lambda row: row.flops or None),
    "node": (pa.string(), lambda row: row.node or None),
}


def trial_table(rows: Sequence[TrialRow], keys: Sequence[str]) -> pa.Table:
    """Return the trials as a table: a row each, a column for each searched key, null if unknown.

    `val_top1` is the score, a share; `spread` its standard deviation over seeds; `flops` are those
    of one clip's forward pass. Each key has one type: lists and mixed types are written as JSON.
    """
    columns = {
        name: pa.array([of(row) for row in rows], type=kind)
        for name, (kind, of) in _COLUMNS.items()
    }
    columns |= {key: _column([row.values.get(key) for row in rows]) for key in keys}
    columns["curve"] = pa.array([list(row.scores) for row in rows], type=pa.list_(pa.float64()))
    columns["error"] = pa.array([row.error for row in rows], type=pa.string())
    return pa.table(columns)


def write_tables(folder: Path, rows: Sequence[TrialRow], keys: Sequence[str]) -> None:
    """Write both files, each atomically; raises OutputError."""
    table = trial_table(rows, keys)
    parquet = io.BytesIO()
    pq.write_table(table, parquet)
    write_bytes(folder / PARQUET_FILE, parquet.getvalue())
    write_text(folder / CSV_FILE, _as_csv(table.drop_columns(["curve"])))


def _as_csv(table: pa.Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows([_cell(value) for value in row.values()] for row in table.to_pylist())
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    if isinstance(value, bool):
        return json.dumps(value)
    return "" if value is None else value


def _column(values: list[Any]) -> pa.Array:
    """Store a key's values as one type; mixed types and lists become JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds in ({int}, {float}, {int, float}, {bool}, {str}):
        return pa.array(values)
    texts = [None if value is None else json.dumps(value) for value in values]
    return pa.array(texts, type=pa.string())
