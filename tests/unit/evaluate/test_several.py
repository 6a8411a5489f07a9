"""Several checkpoints scored together and alone, and what a report says of them."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from sgnray.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from sgnray.checkpoints.model_card import ModelCard
from sgnray.checkpoints.trained_model import load_trained_model
from sgnray.data.pose_bank import PoseBank
from sgnray.data.protocols import split_clips
from sgnray.data.skeleton import NTU25
from sgnray.data.store import open_dataset
from sgnray.errors import InputError, UsageError
from sgnray.evaluate import evaluate_run, place_of, write_evaluation
from sgnray.evaluate.score import view_logits
from sgnray.export import export_model
from sgnray.view import view_clip


@pytest.fixture(scope="module")
def others(tiny_run, tmp_path_factory) -> list[Path]:
    """The tiny run, and two more models, with a last layer that tells clips apart at random."""
    folder = tmp_path_factory.mktemp("others")
    path = tiny_run / "checkpoints" / "epoch-0004" / "checkpoint.pt"
    checkpoint = load_checkpoint(path)
    paths = [tiny_run]
    for seed in (7, 8):
        generator = torch.Generator().manual_seed(seed)
        weight = 20 * torch.randn(
            checkpoint.weights["classifier.weight"].shape, generator=generator
        )
        weights = {**checkpoint.weights, "classifier.weight": weight - weight.mean(dim=1)[:, None]}
        recipe = {**checkpoint.recipe, "train": {**checkpoint.recipe["train"], "seed": seed}}
        changed = checkpoint.model_copy(update={"weights": weights, "recipe": recipe})
        save_checkpoint(folder / f"{seed}.pt", changed)
        paths.append(folder / f"{seed}.pt")
    return paths


@pytest.fixture(scope="module")
def report(others, tiny_folder):
    return evaluate_run(others, dataset_dir=tiny_folder)


def twin(paths, folder):
    """Compute all logits again, one clip at a time."""
    dataset = open_dataset(folder)
    bank = PoseBank.of(dataset, torch.device("cpu"))
    rows = split_clips("synth", "cv", dataset.clips).test
    logits = []
    for path in paths:
        trained_model = load_trained_model(path)
        card = trained_model.card.replacing(windows="paper", turn_rad=0.5)
        own = [
            view_logits(trained_model.model, card, bank, rows[index : index + 1], num_views=2)
            for index in range(len(rows))
        ]
        logits.append(torch.cat(own).double())
    return torch.stack(logits), torch.from_numpy(dataset.clips.labels[rows])


def test_an_ensemble_is_the_mean_of_the_logits(report, others, tiny_folder):
    logits_MNWK, labels = twin(others, tiny_folder)
    predicted = logits_MNWK.mean(dim=(0, 2)).argmax(dim=1)
    assert report.num_correct == int((predicted == labels).sum())
    alone = (logits_MNWK.mean(dim=2).argmax(dim=2) == labels).double().mean(dim=1).tolist()
    members = report.details.members
    assert [member.top1 for member in members] == pytest.approx(alone)
    assert len(set(alone)) > 1  # otherwise the models do not differ, and the test proves nothing
    assert report.details.mean_top1 == pytest.approx(statistics.fmean(alone))
    assert report.details.std_top1 == pytest.approx(statistics.stdev(alone))
    assert [member.seed for member in members] == [0, 7, 8]
    by_views = [
        float((logits_MNWK[:, :, :n].mean(dim=(0, 2)).argmax(dim=1) == labels).double().mean())
        for n in (1, 2)
    ]
    assert report.details.top1_by_views == pytest.approx(by_views)


def test_an_ensemble_is_trained_as_far_as_the_least_trained_of_its_models(tiny_run, tiny_folder):
    earlier = tiny_run / "checkpoints" / "epoch-0003" / "checkpoint.pt"
    evaluated = evaluate_run([tiny_run, earlier], dataset_dir=tiny_folder).evaluated
    assert (evaluated.num_trained, evaluated.num_epochs) == (3, 4)


@pytest.mark.parametrize("order", [1, -1])
def test_how_far_an_ensemble_was_trained_is_unknown_if_one_model_does_not_say(
    tiny_run, tiny_folder, tmp_path, monkeypatch, order
):
    path = export_model(tiny_run, to="safetensors", out=tmp_path / "sgn.safetensors").path
    unknown = load_trained_model(path).card.replacing(num_trained=None, num_epochs=None)
    monkeypatch.setattr(ModelCard, "from_json", lambda _: unknown)
    evaluated = evaluate_run([tiny_run, path][::order], dataset_dir=tiny_folder).evaluated
    assert (evaluated.num_trained, evaluated.num_epochs) == (None, None)


def test_all_figures_of_a_report_agree(report):
    details = report.details
    confusion = torch.tensor(details.confusion_KK)
    assert int(confusion.sum()) == report.num_clips == 9
    assert int(confusion.diagonal().sum()) == report.num_correct
    assert len(details.mistakes) == report.num_clips - report.num_correct
    assert sum(bin_.num_clips for bin_ in details.calibration.bins) == report.num_clips
    for scores in details.groups.values():
        assert sum(score.num_clips for score in scores) == report.num_clips
        assert sum(score.num_correct for score in scores) == report.num_correct
    assert set(details.groups) == {"people", "length", "camera", "setup"}
    assert details.num_seen == 0
    assert details.cost.latency_s > 0
    probabilities = [mistake.probability for mistake in details.mistakes]
    assert probabilities == sorted(probabilities, reverse=True)


def test_a_report_is_written_whole(report, tmp_path):
    page = write_evaluation(report, tmp_path / "out")
    assert page.name == "report.html"
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json"]


def test_where_a_report_goes(report, others, tiny_run, tiny_folder, tmp_path):
    runs = tiny_run.parent
    place = place_of(report, runs)
    assert place.parent == runs.parent / "reports"  # not among the runs: runs/* are all runs
    assert place.name.startswith("3-models-cv-2views-")
    assert place_of(evaluate_run(tiny_run), runs) == tiny_run
    older = tiny_run / "checkpoints" / "epoch-0003"
    found = [
        place_of(evaluate_run(tiny_run, num_views=3), runs),
        place_of(evaluate_run(tiny_run, case="cs"), runs),
        place_of(evaluate_run(older), runs),
        place_of(evaluate_run(older, num_views=3), runs),
    ]
    assert all(folder.parent == tiny_run for folder in found)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(others[1], tmp_path / name / "alone.pt")
        alone = evaluate_run(tmp_path / name / "alone.pt", dataset_dir=tiny_folder)
        found.append(place_of(alone, runs))
        assert found[-1].name.startswith("alone-cv-2views-")
    assert len(set(found)) == len(found)


def test_a_run_is_found_from_inside_its_folder(tiny_run, monkeypatch):
    folder = tiny_run / "checkpoints" / "epoch-0004"
    monkeypatch.chdir(folder)
    report = evaluate_run(Path("checkpoint.pt"))
    assert place_of(report, Path("runs")) == tiny_run


def test_the_same_checkpoint_twice_is_refused(tiny_run):
    with pytest.raises(UsageError, match="a checkpoint is named twice"):
        evaluate_run([tiny_run, tiny_run / "checkpoints" / "epoch-0004"])


def test_checkpoints_of_different_cases_need_a_case(others, tiny_folder, tmp_path):
    checkpoint = load_checkpoint(others[1])
    recipe = {**checkpoint.recipe, "data": {**checkpoint.recipe["data"], "case": "cs"}}
    save_checkpoint(tmp_path / "cs.pt", checkpoint.model_copy(update={"recipe": recipe}))
    with pytest.raises(UsageError, match="trained for different cases"):
        evaluate_run([others[0], tmp_path / "cs.pt"], dataset_dir=tiny_folder)
    report = evaluate_run([others[0], tmp_path / "cs.pt"], dataset_dir=tiny_folder, case="cv")
    assert report.details.num_seen > 0  # the one for cs has trained on some of camera 1


def test_a_clip_without_poses_is_scored_and_not_played(write_dataset, tiny_run, tmp_path):
    """It counts in every score, but there is nothing to show."""
    names = load_trained_model(tiny_run).card.class_names
    random = np.random.default_rng(0)
    clips = [
        {
            "name": f"clip-{index}",
            "label": index % 3,
            "camera": 1,
            "setup": 1,
            "subject": 1,
            "poses": random.normal(size=(0 if index < 3 else 20, 25, 3)),
        }
        for index in range(6)
    ]
    parts = {"cv": {"train": ["clip-5"], "test": [f"clip-{index}" for index in range(5)]}}
    folder = write_dataset(
        tmp_path / "synth", clips, dataset="synth", skeleton=NTU25, splits=parts, num_classes=3
    )
    info = json.loads((folder / "dataset.json").read_text()) | {"class_names": list(names)}
    (folder / "dataset.json").write_text(json.dumps(info))
    report = evaluate_run(tiny_run, dataset_dir=folder)
    assert report.num_clips == 5
    empty = [item for item in report.details.mistakes if item.row < 3]
    assert empty
    page = write_evaluation(report, tmp_path / "out").read_text()
    assert '"scene":null' in page
    with pytest.raises(InputError, match="the clip has no pose"):
        view_clip(folder, "clip-0", out=tmp_path / "a.gif")
