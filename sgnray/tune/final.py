"""After a search: train the best recipe on all training clips, and test it once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from sgnray.checkpoints.run_folder import REPORT_FILE
from sgnray.distributed.resources import WorkerRequest
from sgnray.storage.atomic import write_text
from sgnray.storage.mirror import origin, upload
from sgnray.train.job import OnTrainProgress
from sgnray.train.loop import EpochResult
from sgnray.train.run import RunResult, train_run
from sgnray.tune.folder import SearchFolder
from sgnray.tune.search import TuneResult

log = logging.getLogger(__name__)

FINAL_FILE = "final.json"
_PREFIX = "final-trial-"


def train_final(
    tuned: TuneResult,
    dataset_dir: Path | str,
    *,
    workers: int = 0,
    address: str | None = None,
    device: str = "auto",
    request: WorkerRequest | None = None,
    command: str = "",
    on_epoch: Callable[[EpochResult], None] | None = None,
    on_progress: OnTrainProgress | None = None,
) -> RunResult:
    """Train the best recipe of a search in full, and test its last epoch.

    The run is in the search's folder, in the precision of its trials; a second call resumes it, or
    tests it again. final.json records the result. Warns if the test set was used for another
    trial of the search.
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
    precision = SearchFolder(tuned.folder, tuned.plan).read_precision()
    if recipe.train.precision == "auto" and precision is not None:
        recipe = recipe.replacing({"train.precision": precision})
    result = train_run(
        recipe,
        dataset_dir,
        workers=workers,
        runs_dir=origin(tuned.folder),
        name=name,
        address=address,
        device=device,
        request=request,
        command=command,
        on_epoch=on_epoch,
        on_progress=on_progress,
    )
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
    upload(tuned.folder)
    return result
