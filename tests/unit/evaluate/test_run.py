"""`evaluate_run` on runs, checkpoints and things that are neither."""

from __future__ import annotations

import dataclasses
import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sgnray.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from sgnray.checkpoints.trained_model import load_trained_model
from sgnray.data.skeleton import NTU25
from sgnray.data.store import open_dataset
from sgnray.distributed.resources import WorkerRequest
from sgnray.errors import CheckpointError, RunError, SgnError, UsageError
from sgnray.evaluate import evaluate_run
from sgnray.evaluate.launch import compute_logits
from sgnray.evaluate.report import describe_selection
from sgnray.evaluate.score import CHUNK_CLIPS
from sgnray.evaluate.write import page_of
from sgnray.train.run import train_run


@pytest.fixture
def runs_dir(tiny_run) -> Path:
    return tiny_run.parent


def test_evaluation_gives_the_same_report_as_training(runs_dir, tiny_dataset):
    trained = json.loads((runs_dir / "first" / "report.json").read_text())
    report = evaluate_run(runs_dir / "first")
    again = json.loads(json.dumps(report.to_dict()))
    assert {key: again[key] for key in trained} == trained
    assert report.num_clips == sum(score.num_clips for score in report.per_class) == 9
    assert trained["class_mean_top1"] == pytest.approx(report.top1)  # 3 clips of each class
    assert trained["format_version"] == 1
    assert trained["selection"] == "last"
    assert [score["name"] for score in trained["per_class"]] == [*tiny_dataset.info.class_names]


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("last", "trained for 3 of 4 epochs"),
        (
            "validation",
            "the epoch that was best on the validation part; trained for 3 of 4 epochs",
        ),
    ],
)
def test_a_run_that_has_not_finished_says_so(runs_dir, tmp_path, caplog, selection, words):
    path = runs_dir / "first" / "checkpoints" / "epoch-0003" / "checkpoint.pt"
    checkpoint = load_checkpoint(path)
    checkpoint.recipe["train"]["selection"] = selection
    save_checkpoint(tmp_path / "half.pt", checkpoint)
    report = evaluate_run(tmp_path / "half.pt", dataset_dir=dataset_of(runs_dir))
    content = report.to_dict()
    assert (content["epoch"], content["num_trained"], content["num_epochs"]) == (3, 3, 4)
    assert describe_selection(report.evaluated) == words
    assert words in page_of(report, open_dataset(Path(report.details.dataset_dir)))
    unfinished = f"{tmp_path / 'half.pt'}: trained for 3 of 4 epochs"
    assert caplog.messages.count(unfinished) == 1


def test_training_and_evaluation_report_that_one_view_does_not_turn(
    tiny_recipe, tiny_folder, tmp_path
):
    recipe = tiny_recipe.replacing({"evaluate.num_views": 1})
    assert recipe.evaluate.turn_rad > 0
    trained = train_run(recipe, tiny_folder, runs_dir=tmp_path, device="cpu")
    evaluated = evaluate_run(trained.folder).evaluated
    assert trained.report.evaluated == evaluated
    assert evaluated.turn_rad == 0


def test_without_a_target_it_takes_the_newest_run(runs_dir):
    assert evaluate_run(runs_dir=runs_dir).evaluated.checkpoint.startswith(str(runs_dir / "first"))


def test_a_run_goes_by_its_bare_name(runs_dir):
    assert evaluate_run(Path("first"), runs_dir=runs_dir).num_clips == 9


def test_other_views_and_another_case(runs_dir, caplog):
    report = evaluate_run(runs_dir / "first", case="cset", num_views=1)
    assert (report.evaluated.case, report.evaluated.num_views) == ("cset", 1)
    assert report.evaluated.turn_rad == 0  # the first view does not turn
    assert "12 of these 18 clips were used in training" in caplog.text
    assert report.details.num_seen == 12


def test_no_views(runs_dir):
    with pytest.raises(UsageError, match="invalid number of views: 0"):
        evaluate_run(runs_dir / "first", num_views=0)


def test_no_run_at_all(tmp_path):
    with pytest.raises(UsageError, match="no run"):
        evaluate_run(runs_dir=tmp_path)


def test_a_case_that_the_dataset_lacks(runs_dir):
    with pytest.raises(UsageError, match="cs, cv, cset"):
        evaluate_run(runs_dir / "first", case="csubb")


def test_a_corrupt_checkpoint_falls_back_to_the_previous_one(runs_dir, tmp_path, caplog):
    run = tmp_path / "torn"
    shutil.copytree(runs_dir / "first", run)
    newest = run / "checkpoints" / "epoch-0004" / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    assert evaluate_run(run).evaluated.epoch == 3
    assert "it is corrupt" in caplog.text


def test_the_dataset_of_a_checkpoint_is_found_through_its_run(runs_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no data/ here
    folder = runs_dir / "first" / "checkpoints" / "epoch-0003"
    assert evaluate_run(folder / "checkpoint.pt").evaluated.epoch == 3
    assert evaluate_run(folder).evaluated.epoch == 3


def test_a_model_with_nan_weights_is_refused(runs_dir, tmp_path):
    path = runs_dir / "first" / "checkpoints" / "epoch-0004" / "checkpoint.pt"
    checkpoint = load_checkpoint(path)
    weights = {key: value * float("nan") for key, value in checkpoint.weights.items()}
    save_checkpoint(tmp_path / "nan.pt", checkpoint.model_copy(update={"weights": weights}))
    for targets in ([tmp_path / "nan.pt"], [runs_dir / "first", tmp_path / "nan.pt"]):
        with pytest.raises(SgnError, match="output is not finite") as caught:
            evaluate_run(targets, dataset_dir=dataset_of(runs_dir))
        assert caught.value.where == f"{tmp_path / 'nan.pt'}, the scores of 9 clips"


def test_a_checkpoint_of_other_classes_is_refused(runs_dir, tmp_path):
    path = runs_dir / "first" / "checkpoints" / "epoch-0004" / "checkpoint.pt"
    checkpoint = load_checkpoint(path).model_copy(update={"class_names": ["a", "b", "c"]})
    save_checkpoint(tmp_path / "other.pt", checkpoint)
    with pytest.raises(CheckpointError, match="its class names differ"):
        evaluate_run(tmp_path / "other.pt", dataset_dir=dataset_of(runs_dir))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "octopus"}, "it was trained on octopus skeletons, the dataset has ntu25"),
        ({"joints": NTU25.joints[::-1]}, "the names or the order of its joints differ"),
        ({"origin": 0}, "its origin joint differs from the dataset's"),
    ],
)
def test_a_checkpoint_of_another_skeleton_is_refused(runs_dir, tmp_path, changes, message):
    path = runs_dir / "first" / "checkpoints" / "epoch-0004" / "checkpoint.pt"
    skeleton = dataclasses.replace(NTU25, **changes)
    checkpoint = load_checkpoint(path).model_copy(update={"skeleton": skeleton})
    save_checkpoint(tmp_path / "other.pt", checkpoint)
    with pytest.raises(CheckpointError, match=message):
        evaluate_run(tmp_path / "other.pt", dataset_dir=dataset_of(runs_dir))


def test_the_reference_checkpoint_needs_its_joints(flat_folder, tmp_path, save_like_the_reference):
    save_like_the_reference(tmp_path / "r.pth", num_classes=2)
    with pytest.raises(
        CheckpointError, match="on 25 joints of 3 coordinates, the dataset has 17 of 2"
    ):
        evaluate_run(tmp_path / "r.pth", dataset_dir=flat_folder)


def test_the_reference_checkpoint_needs_its_case_and_its_classes(
    runs_dir, tmp_path, save_like_the_reference
):
    with pytest.raises(UsageError, match="does not say which case"):
        evaluate_reference(save_like_the_reference, tmp_path, runs_dir, num_classes=3, case=None)
    with pytest.raises(CheckpointError, match="it has 60 classes, the dataset has 3"):
        evaluate_reference(save_like_the_reference, tmp_path, runs_dir, num_classes=60, case="cv")


def test_the_reference_checkpoint_is_scored(runs_dir, tmp_path, save_like_the_reference):
    report = evaluate_reference(
        save_like_the_reference, tmp_path, runs_dir, num_classes=3, case="cv"
    )
    assert report.num_clips == 9
    assert report.evaluated.selection == "test"
    assert report.evaluated.num_views == 5


def evaluate_reference(save, folder, runs_dir, *, num_classes, case):
    path = folder / f"{num_classes}.pth"
    save(path, num_classes=num_classes)
    return evaluate_run(path, dataset_dir=dataset_of(runs_dir), case=case)


def dataset_of(runs_dir: Path) -> Path:
    return Path(json.loads((runs_dir / "first" / "environment.json").read_text())["dataset_dir"])


def test_an_error_releases_the_workers_before_ray_is_disconnected(runs_dir, monkeypatch):
    events = []

    @contextmanager
    def connect(*_, **__):
        try:
            yield
        finally:
            events.append("disconnected")

    def run(work, jobs, **_):
        try:
            yield from (work(job, "cpu") for job in jobs)
        finally:
            events.append("released")

    def interrupt(*_):
        raise KeyboardInterrupt

    shared = SimpleNamespace(local_dir=lambda: dataset_of(runs_dir))
    monkeypatch.setattr("sgnray.evaluate.launch.SharedDataset.of", lambda _: shared)
    monkeypatch.setattr("sgnray.evaluate.launch.connected", connect)
    monkeypatch.setattr("sgnray.evaluate.launch.run_on_actors", run)
    trained = load_trained_model(runs_dir / "first")
    with pytest.raises(KeyboardInterrupt):
        compute_logits(
            [(trained.require_sgn(), trained.card)],
            dataset_of(runs_dir),
            np.arange(3),
            num_views=1,
            workers=1,
            address=None,
            device="cpu",
            request=WorkerRequest(),
            on_progress=interrupt,
        )
    assert events == ["released", "disconnected"]


def test_progress_in_this_process_is_reported_for_every_chunk(runs_dir):
    steps = []
    trained = load_trained_model(runs_dir / "first")
    compute_logits(
        [(trained.require_sgn(), trained.card)],
        dataset_of(runs_dir),
        np.arange(2 * CHUNK_CLIPS + 1) % 3,
        num_views=1,
        workers=0,
        address=None,
        device="cpu",
        request=WorkerRequest(),
        on_progress=lambda *step: steps.append(step),
    )
    assert steps == [(32, 65), (64, 65), (65, 65)]


def test_a_corrupt_record_of_the_run_can_be_removed(runs_dir, tiny_folder, tmp_path):
    run = tmp_path / "first"
    shutil.copytree(runs_dir / "first", run)
    (run / "environment.json").write_text("")
    with pytest.raises(RunError) as caught:
        evaluate_run(run, dataset_dir=tiny_folder)
    assert caught.value.now.endswith("else remove this file: the checkpoints do not need it")
    (run / "environment.json").unlink()
    assert evaluate_run(run, dataset_dir=tiny_folder).num_clips == 9
