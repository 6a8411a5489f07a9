"""report.html: all of a report on one page, with the clips that went wrong to be played."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from sgnray.data.store import SkeletonDataset
from sgnray.evaluate.details import Mistake
from sgnray.evaluate.html import charts, sections
from sgnray.evaluate.report import Report
from sgnray.storage.atomic import write_text
from sgnray.view.pack import pack_scene
from sgnray.view.page import as_script, fill_page, read_asset
from sgnray.view.scene import scene_of_clip

# What keeps the page below some 4 MB, for any dataset.
_NUM_PLAYED, _FRAMES_PLAYED, _NUM_LISTED = 120, 60, 3000


def write_page(path: Path, report: Report, dataset: SkeletonDataset) -> None:
    """Write the page of a report with details; `dataset` is the one it is about."""
    details = report.details
    assert details is not None
    subject = report.subject
    title = f"SGN on {subject.dataset}, {subject.case}"
    num_poses = np.diff(dataset.offsets)
    played = choose_played([item for item in details.mistakes if num_poses[item.row]])
    body = Template(read_asset("sgnray.evaluate.html", "report.html")).substitute(
        title=escape(title),
        top1=f"{report.top1:.2%}",
        headline=sections.headline(report),
        warnings=sections.warnings(report),
        facts=sections.facts(report),
        members=sections.members(details),
        views=charts.views_chart(details.top1_by_views),
        views_table=sections.views(details),
        calibration=charts.reliability_chart(details.calibration),
        calibration_table=sections.calibration(details),
        num_bins=len(details.calibration.bins),
        ece=f"{details.calibration.ece:.1%}",
        groups=sections.groups(details),
        classes=sections.classes(report),
        mistakes=sections.mistakes_intro(len(details.mistakes), len(played), _NUM_LISTED),
        data=as_script(_data(report, dataset, played)),
    )
    page = fill_page(
        title,
        body,
        style=read_asset("sgnray.evaluate.html", "report.css"),
        script=read_asset("sgnray.evaluate.html", "report.js"),
    )
    write_text(path, page)


def choose_played(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Choose the mistakes whose clips can be played: of each kind the surest ones, in turn."""
    kinds: dict[tuple[str, str], list[Mistake]] = {}
    for mistake in mistakes:
        kinds.setdefault((mistake.truth, mistake.predicted), []).append(mistake)
    return list(itertools.islice(_in_turn(list(kinds.values())), _NUM_PLAYED))


def _in_turn(kinds: Sequence[Sequence[Mistake]]) -> Iterator[Mistake]:
    for layer in itertools.zip_longest(*kinds):
        yield from (mistake for mistake in layer if mistake is not None)


def _data(report: Report, dataset: SkeletonDataset, played: Sequence[Mistake]) -> dict[str, Any]:
    """Collect what the page's script shows."""
    details = report.details
    assert details is not None
    scene_of = {mistake.row: number for number, mistake in enumerate(played)}
    listed = [*played, *(item for item in details.mistakes if item.row not in scene_of)]
    listed = sorted(listed[:_NUM_LISTED], key=lambda item: -item.probability)
    return {
        "classes": list(dataset.info.class_names),
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
