"""Write report.json and report.html: into the run that they are about, or next to the runs."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgnray.checkpoints.claim import Runs
from sgnray.checkpoints.run_folder import RECIPE_FILE, REPORT_FILE, RunFolder, is_trained_on, run_of
from sgnray.config import load_recipe
from sgnray.data.info import read_info
from sgnray.data.store import SkeletonDataset, open_dataset
from sgnray.errors import SgnError, UsageError
from sgnray.evaluate.report import Details, Mistake, Report, describe_selection
from sgnray.storage.atomic import check_writable, make_parent, refuse_uri, written_atomically
from sgnray.storage.location import as_folder
from sgnray.storage.mirror import find_copy, upload
from sgnray.view.page import pack_scene, render_page
from sgnray.view.scene import scene_of_clip

PAGE_FILE = "report.html"
REPORTS_DIR = "reports"
# These keep the page below about 4 MB for any dataset.
_NUM_PLAYED, _FRAMES_PLAYED, _NUM_LISTED = 120, 60, 3000


def place_of(report: Report, runs_dir: Runs) -> Path:
    """Return the folder of a report.

    It is the run's own folder if the report repeats the test at the end of that run; else a folder
    in the run, or in reports/ next to `runs_dir` (in the current folder if that is a URI) for
    several checkpoints or one outside a run. Reports of other checkpoints, cases, views or datasets
    have other folders.
    """
    evaluated = report.evaluated
    paths = [find_copy(member.checkpoint) for member in _details_of(report).members]
    content = "\n".join((evaluated.dataset_checksum, *(str(path.resolve()) for path in paths)))
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    suffix = f"{evaluated.case}-{evaluated.num_views}views-{digest}"
    kept_in = as_folder(runs_dir)
    reports_dir = (kept_in.parent if isinstance(kept_in, Path) else Path()) / REPORTS_DIR
    if len(paths) > 1:
        return reports_dir / f"{len(paths)}-models-{suffix}"
    run = run_of(paths[0])
    if run is None:
        return reports_dir / f"{paths[0].stem}-{suffix}"
    return run.path if _is_own_test(run, report) else run.path / f"eval-{suffix}"


def check_folder(folder: Path) -> None:
    """Raise UsageError or OutputError for a folder that no report can be written to."""
    refuse_uri(folder)
    if folder.is_file():
        raise UsageError("this is a file", where=str(folder), now="choose a folder with --out")
    check_writable(folder)


def write_evaluation(report: Report, folder: Path) -> Path:
    """Write report.json and report.html into a folder, or neither; returns the page.

    If the folder is in the local copy of a run at a URI, they are also uploaded. Raises UsageError,
    OutputError.
    """
    check_folder(folder)
    page = folder / PAGE_FILE
    make_parent(page)
    content = page_of(report, open_dataset(Path(_details_of(report).dataset_dir)))
    report_path = folder / REPORT_FILE
    with written_atomically(report_path) as new_report, written_atomically(page) as new_page:
        new_report.write_text(report.to_json(), encoding="utf-8")
        new_page.write_text(content, encoding="utf-8")
    upload(report_path, page)
    return page


def page_of(report: Report, dataset: SkeletonDataset) -> str:
    """Return the page of a report with details on `dataset`."""
    details, num_poses = _details_of(report), np.diff(dataset.offsets)
    played = choose_played([item for item in details.mistakes if num_poses[item.row]])
    return render_page(
        Path(__file__).with_name("html") / "report.html",
        title=f"SGN on {report.evaluated.dataset}, {report.evaluated.case}",
        report=report,
        describe_selection=describe_selection,
        views_range=_range_with_margin(details.top1_by_views),
        num_listed=_NUM_LISTED,
        num_played=len(played),
        data=_script_data(details, dataset, played),
    )


def choose_played(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Choose the mistakes to play: in turn from each pair of classes, most confident first."""
    pairs: dict[tuple[str, str], list[Mistake]] = {}
    for mistake in mistakes:
        pairs.setdefault((mistake.truth, mistake.predicted), []).append(mistake)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*pairs.values()))
    return list(itertools.islice(filter(None, in_turn), _NUM_PLAYED))


def _details_of(report: Report) -> Details:
    """Return the report's details; only a report written by training has none."""
    assert report.details is not None
    return report.details


def _is_own_test(run: RunFolder, report: Report) -> bool:
    """Return whether a report is on the run's last checkpoint and its own case, views and data."""
    evaluated, dataset_dir = report.evaluated, _details_of(report).dataset_dir
    try:
        recipe = load_recipe(str(run.path / RECIPE_FILE))
        newest, environment = run.newest_checkpoint(), run.environment()
    except SgnError:
        return False
    return (
        newest is not None
        and environment is not None
        and newest[0].resolve() == find_copy(evaluated.checkpoint).resolve()
        and (recipe.data.case, recipe.evaluate.num_views) == (evaluated.case, evaluated.num_views)
        and is_trained_on(environment, read_info(Path(dataset_dir)), evaluated.case)
    )


def _range_with_margin(shares: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a chart's axis, which are never equal."""
    margin = max(0.002, (max(shares) - min(shares)) * 0.2)
    return max(0.0, min(shares) - margin), min(1.0, max(shares) + margin)


def _script_data(
    details: Details, dataset: SkeletonDataset, played: Sequence[Mistake]
) -> dict[str, Any]:
    """Collect the data that report.js shows."""
    scene_of = {mistake.row: number for number, mistake in enumerate(played)}
    listed = [*played, *(item for item in details.mistakes if item.row not in scene_of)]
    listed = sorted(listed[:_NUM_LISTED], key=lambda item: -item.probability)
    return {
        "classes": dataset.info.class_names,
        "confusion": details.confusion_KK,
        "mistakes": [
            {
                "clip": item.clip,
                "truth": item.truth_label,
                "predicted": item.predicted_label,
                "probability": round(item.probability, 4),
                "truth_probability": round(item.truth_probability, 4),
                "scene": scene_of.get(item.row),
            }
            for item in listed
        ],
        "scenes": [
            pack_scene(scene_of_clip(dataset, item.row), max_frames=_FRAMES_PLAYED)
            for item in played
        ],
    }
