"""Where a report goes: into the run that it is about, or beside the runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sgnray.checkpoints.run_folder import RECIPE_FILE, REPORT_FILE, RunFolder, run_of
from sgnray.config import load_recipe
from sgnray.data.store import open_dataset
from sgnray.errors import SgnError
from sgnray.evaluate.html.page import write_page
from sgnray.evaluate.report import Report
from sgnray.storage.atomic import output_errors

PAGE_FILE = "report.html"
REPORTS_DIR = "reports"


def place_of(report: Report, runs_dir: Path) -> Path:
    """Give the folder of a report.

    That of its run, if it tests what the run itself tests at its end; else a folder in it, or in
    reports/ beside `runs_dir` where the checkpoint is in no run or there are several. Reports of
    other checkpoints, cases, views or datasets have other folders.
    """
    assert report.details is not None
    subject = report.subject
    paths = [Path(member.checkpoint) for member in report.details.members]
    what = "\n".join((subject.dataset_checksum, *(str(path.resolve()) for path in paths)))
    digest = hashlib.sha256(what.encode()).hexdigest()[:8]
    suffix = f"{subject.case}-{subject.num_views}views-{digest}"
    reports_dir = runs_dir.parent / REPORTS_DIR
    if len(paths) > 1:
        return reports_dir / f"{len(paths)}-models-{suffix}"
    run = run_of(paths[0])
    if run is None:
        return reports_dir / f"{paths[0].stem}-{suffix}"
    return run.path if _is_own_test(run, report) else run.path / f"eval-{suffix}"


def _is_own_test(run: RunFolder, report: Report) -> bool:
    """Tell whether the run's last checkpoint was asked what its recipe says, on its own dataset."""
    subject = report.subject
    try:
        recipe = load_recipe(str(run.path / RECIPE_FILE))
        newest, environment = run.newest_checkpoint(), run.environment()
    except SgnError:
        return False
    return (
        newest is not None
        and environment is not None
        and newest[0].resolve() == Path(subject.checkpoint).resolve()
        and (recipe.data.case, recipe.evaluate.num_views) == (subject.case, subject.num_views)
        and environment["dataset_checksum"] == subject.dataset_checksum
    )


def write_evaluation(report: Report, folder: Path) -> Path:
    """Write report.json and report.html into a folder; returns the page. Raises OutputError."""
    assert report.details is not None
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    report.write(folder / REPORT_FILE)
    page = folder / PAGE_FILE
    write_page(page, report, open_dataset(Path(report.details.dataset_dir)))
    return page
