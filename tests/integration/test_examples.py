"""The examples that need Ray, run as they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import sgnray
from sgnray.predict import predict_clips

EXAMPLES = Path(sgnray.__file__).parents[1] / ".github" / "examples"
# Not a Ray that happens to run on this machine.
ENVIRONMENT = {**os.environ, "RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.mark.ray
def test_ray_data_recognizes_a_folder(tiny_raw, tiny_run, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tiny_raw, raw)
    text = min(raw.glob("*.skeleton")).read_text().split("\n")
    text[4] = "nan " + text[4].partition(" ")[2]
    (raw / "broken.skeleton").write_text("\n".join(text))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "ray_data.py"), "raw", str(tiny_run), "predictions"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row.pop("path"): row for row in pq.read_table(tmp_path / "predictions").to_pylist()}
    assert rows.pop(str(raw / "broken.skeleton")) == {
        "action": None,
        "probability": None,
        "reason": "line 5: the coordinate 'nan' is no number",
    }
    expected = {item.place: item.guesses[0] for item in predict_clips(tiny_raw, tiny_run)}
    assert {path: row["action"] for path, row in rows.items()} == {
        str(raw / Path(place).name): guess.name for place, guess in expected.items()
    }
    assert [rows[path]["probability"] for path in sorted(rows)] == pytest.approx(
        [expected[place].probability for place in sorted(expected)], abs=1e-6
    )
