"""Calibration, groups and mistakes, against a count by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sgnray.evaluate.analysis import calibrate, find_mistakes, score_groups, top1_by_views


def test_calibration_by_hand():
    # Three clips at 0.9, two of them right; one at 0.6, wrong.
    sure = [math.log(0.9), math.log(0.1)]
    unsure = [math.log(0.4), math.log(0.6)]
    found = calibrate(torch.tensor([sure, sure, sure, unsure]), torch.tensor([0, 0, 1, 0]))
    assert found.ece == pytest.approx(3 / 4 * abs(0.9 - 2 / 3) + 1 / 4 * 0.6, abs=1e-6)
    filled = {round(bin_.low, 2): bin_ for bin_ in found.bins if bin_.num_clips}
    assert {low: bin_.num_clips for low, bin_ in filled.items()} == {0.87: 3, 0.6: 1}
    assert filled[0.87].top1 == pytest.approx(2 / 3)
    assert found.bins[0].top1 is None


def test_a_model_that_is_sure_and_right_is_calibrated():
    found = calibrate(torch.tensor([[100.0, 0.0], [0.0, 100.0]]), torch.tensor([0, 1]))
    assert found.ece == pytest.approx(0.0, abs=1e-9)
    assert found.bins[-1].num_clips == 2


def test_views_are_averaged_from_the_first_on():
    logits = torch.tensor([[[0.0, 1.0], [3.0, 0.0]], [[1.0, 0.0], [0.0, 0.5]]])
    assert top1_by_views(logits, torch.tensor([0, 0])) == (0.5, 1.0)


def test_groups(write_dataset, tmp_path):
    clips = [
        {"name": f"clip-{index}", "label": 0, "camera": 1 + index % 2, "poses": np.ones((n, 17, 2))}
        for index, n in enumerate((3, 3, 10, 20, 30))
    ]
    from sgnray.data.store import open_dataset

    dataset = open_dataset(write_dataset(tmp_path / "mine", clips))
    right = torch.tensor([True, False, True, True, False])
    groups = score_groups(right, dataset, np.arange(5))
    assert set(groups) == {"people", "length", "camera"}  # no setup is known
    shown = {score.name: (score.num_correct, score.num_clips) for score in groups["camera"]}
    assert shown == {"camera 1": (2, 3), "camera 2": (1, 2)}
    assert [score.name for score in groups["people"]] == ["1 person"]
    assert sum(score.num_clips for score in groups["length"]) == 5
    assert groups["length"][0].name == "3 frames"


def test_two_people_are_counted(tiny_dataset):
    rows = np.arange(len(tiny_dataset.clips.names))
    groups = score_groups(torch.ones(len(rows), dtype=torch.bool), tiny_dataset, rows)
    for score in groups["people"]:
        assert score.top1 == 1.0
    twin = sum(np.max(bodies) > 0 for bodies in _bodies_of(tiny_dataset))
    shown = {score.name: score.num_clips for score in groups["people"]}
    assert shown.get("2 people", 0) == twin
    assert shown["1 person"] == len(rows) - twin
    from_one = replace(tiny_dataset, bodies_P=tiny_dataset.bodies_P + np.int8(1))
    assert score_groups(torch.ones(len(rows), dtype=torch.bool), from_one, rows) == groups


def _bodies_of(dataset):
    import pyarrow as pa

    table = pa.ipc.open_file(str(dataset.folder / "clips.arrow")).read_all()
    return [np.array(row) for row in table.column("body").to_pylist()]


def test_mistakes_are_sorted_by_confidence(tiny_dataset):
    logits = torch.tensor([[0.0, 1.0, 0.0], [0.0, 5.0, 0.0], [9.0, 0.0, 0.0]])
    found = find_mistakes(logits, torch.tensor([0, 0, 0]), tiny_dataset, np.array([4, 2, 7]))
    assert [mistake.row for mistake in found] == [2, 4]
    assert found[0].clip == tiny_dataset.clips.names[2]
    assert found[0].predicted == tiny_dataset.info.class_names[1]
    assert found[0].probability + found[0].truth_probability < 1
