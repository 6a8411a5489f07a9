"""After a search: train the best recipe on all training clips, and test it once."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from sgnray.checkpoints.run_folder import REPORT_FILE
from sgnray.distributed.cluster import is_at_hand
from sgnray.distributed.precision import without_auto
from sgnray.storage.atomic import write_text
from sgnray.storage.mirror import origin, upload
from sgnray.train.run import RunResult, train_run
from sgnray.tune.folder import SearchFolder
from sgnray.tune.search import TuneResult
from sgnray.tune.trial_resources import TrialResources

log = logging.getLogger(__name__)

FINAL_FILE = "final.json"
_PREFIX = "final-trial-"


def final_settings(resources: TrialResources, address: str | None) -> dict[str, Any]:
    """Return the settings of `train_run` that give the final run the resources of a trial.

    A single worker needs no Ray: without a running cluster, this process trains.
    """
    device, num_workers = resources.device, resources.num_workers
    if num_workers == 1 and not is_at_hand(address):
        return {"workers": 0, "device": device}
    num_cpus = resources.num_cpus and resources.num_cpus // num_workers
    request = replace(resources.request, num_cpus=num_cpus)
    return {"workers": num_workers, "device": device, "address": address, "request": request}


def train_final(tuned: TuneResult, dataset_dir: Path | str, **settings: Any) -> RunResult:
    """Train the best recipe of a search in full, and test its last epoch.

    The run is in the search's folder, in the precision of its trials; a second call resumes it, or
    tests it again. final.json records the result. Warns if the test set was used for another
    trial of the search. `settings` are those of `train_run`, see `final_settings`.
    """
    name = f"{_PREFIX}{tuned.best.number:04d}"
    others = sorted(
        path.parent.name
        for path in tuned.folder.glob(f"{_PREFIX}*/{REPORT_FILE}")
        if path.parent.name != name
    )
    if others:
        log.warning(
            "the test set was used before for %s: the best of several test results is biased",
            ", ".join(others),
        )
    recipe = tuned.plan.recipe_of(tuned.best.values).replacing({"train.selection": "last"})
    kept = SearchFolder(tuned.folder, tuned.plan).read_precision()
    recipe = without_auto(recipe, lambda: kept or "auto")
    result = train_run(recipe, dataset_dir, runs_dir=origin(tuned.folder), name=name, **settings)
    content = {
        "trial": tuned.best.number,
        "values": tuned.best.values,
        "validation_top1": tuned.best.score,
        "validation_epochs": tuned.best.num_epochs,
        "run": name,
        "trained_on": "all training clips, last epoch",
        "num_epochs": recipe.train.num_epochs,
        "test_top1": result.report.top1,
        "num_test_clips": result.report.num_clips,
        "tested_before": others,
    }
    write_text(tuned.folder / FINAL_FILE, json.dumps(content, indent=2) + "\n")
    upload(tuned.folder / FINAL_FILE)
    return result
