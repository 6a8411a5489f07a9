"""The overhead of a search over its trials; SGNRAY_BENCH_DATA names a dataset, such as nwucla.

    SGNRAY_BENCH_DATA=data/nwucla pytest -m bench -s tests/bench/test_tune.py

16 trials of one epoch against the same 16 epochs one after the other in this process.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from sgnray.config import recipe_for
from sgnray.data.store import open_dataset
from sgnray.distributed.cluster import connected
from sgnray.distributed.precision import choose_precision, without_auto
from sgnray.tune import TrialResources, tune_recipe
from sgnray.tune.folds import Folds
from sgnray.tune.plan import shorten

pytestmark = [pytest.mark.bench, pytest.mark.ray, pytest.mark.timeout(3600)]

RATES = [round(1e-3 + 1e-4 * index, 4) for index in range(16)]
SMALL = {"data.num_segments": 5, "model.embedding_width": 32, "model.graph_widths": [64, 128, 128]}


@pytest.mark.parametrize("concurrent", [1, 2])
def test_sixteen_short_trials(tmp_path, concurrent):
    if "SGNRAY_BENCH_DATA" not in os.environ:
        pytest.skip("SGNRAY_BENCH_DATA names no dataset")
    folder = Path(os.environ["SGNRAY_BENCH_DATA"])
    dataset = open_dataset(folder)
    recipe = recipe_for(dataset.info.dataset, "cv")
    # As the search does.
    recipe = without_auto(recipe.replacing(SMALL), lambda: choose_precision("cpu"))
    space = tmp_path / "space.yaml"
    space.write_text(f"optim.learning_rate: {{choice: {RATES}}}\n")
    torch.set_num_threads(1)

    begun = time.perf_counter()
    alone = []
    for learning_rate in RATES:
        trial = shorten(recipe.replacing({"optim.learning_rate": learning_rate}), 1)
        alone += [report.score for report in Folds(trial, dataset).train_remaining()]
    alone_s = time.perf_counter() - begun

    with connected(num_workers=2):
        begun = time.perf_counter()
        tuned = tune_recipe(
            recipe,
            space,
            folder,
            search="grid",
            num_epochs=1,
            resources=TrialResources(num_cpus=1, concurrent=concurrent),
            runs_dir=tmp_path / "runs",
        )
        search_s = time.perf_counter() - begun
    assert [row.score for row in tuned.trials] == alone
    print(
        f"\n16 epochs of {alone_s / 16:.2f} s: {alone_s:.1f} s alone; as a search, {concurrent} at "
        f"once: {search_s:.1f} s, {search_s / alone_s:.2f} times"
    )
    assert search_s < 1.5 * alone_s
