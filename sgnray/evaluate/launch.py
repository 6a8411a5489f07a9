"""Evaluate a run or a checkpoint in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sgnray.checkpoint import holds_reference, load_checkpoint, load_reference
from sgnray.data.batches import PoseBank
from sgnray.data.protocols import cases_of, resolve_case, split_clips
from sgnray.data.store import SkeletonDataset, find_dataset, open_dataset
from sgnray.device import choose_device
from sgnray.errors import CheckpointError, UsageError
from sgnray.evaluate.report import Report, Subject, make_report
from sgnray.evaluate.score import score_clips
from sgnray.model.sgn import SGN, count_parameters
from sgnray.runs import RunFolder, newest_run

log = logging.getLogger(__name__)

# What the reference's checkpoints do not say: the paper tests 5 views, and the official code picks
# its epoch on the test set.
_REFERENCE_VIEWS = 5
_REFERENCE_SELECTION = "test"


@dataclass(frozen=True)
class _Trained:
    """A model to evaluate and what its checkpoint says of it; None where it says nothing."""

    path: Path
    model: SGN
    layout: str | None
    class_names: tuple[str, ...] | None
    case: str | None
    selection: str
    epoch: int | None
    num_views: int


def evaluate_run(
    target: Path | None = None,
    *,
    runs_dir: Path = Path("runs"),
    data_dir: Path = Path("data"),
    dataset_dir: Path | None = None,
    case: str | None = None,
    num_views: int | None = None,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score a run, one of its checkpoints or the reference's .pth on every test clip of a case.

    Without a target it is the newest run; without a dataset the one that the run was trained on,
    else the one in `data_dir`. Raises UsageError, InputError or CheckpointError.
    """
    torch_device = choose_device(device)
    run = _run_of(target, runs_dir)
    trained = _load(run, target)
    dataset = open_dataset(dataset_dir or _dataset_of(run) or find_dataset(data_dir))
    _check_fit(trained, dataset)
    case = _choose_case(trained, dataset, case)
    num_views = trained.num_views if num_views is None else num_views
    tally = score_clips(
        trained.model.to(torch_device),
        PoseBank.of(dataset, torch_device),
        split_clips(dataset.info.dataset, case, dataset.clips).test,
        num_views=num_views,
        on_progress=on_progress,
    )
    subject = Subject(
        checkpoint=str(trained.path),
        dataset=dataset.info.dataset,
        dataset_checksum=dataset.info.checksum,
        case=case,
        selection=trained.selection,
        epoch=trained.epoch,
        num_views=num_views,
        num_parameters=count_parameters(trained.model),
    )
    return make_report(subject, tally, dataset.info.class_names)


def _run_of(target: Path | None, runs_dir: Path) -> RunFolder | None:
    if target is None:
        return newest_run(runs_dir)
    if target.is_dir():
        return RunFolder(target)
    if not target.exists() and target.parent == Path() and (runs_dir / target).is_dir():
        return RunFolder(runs_dir / target)  # the bare name of a run
    return None


def _load(run: RunFolder | None, target: Path | None) -> _Trained:
    if run is not None:
        path, checkpoint = run.require_checkpoint()
    elif target is not None and holds_reference(target):
        return _load_reference(target)
    else:
        assert target is not None
        path, checkpoint = target, load_checkpoint(target)
    recipe = checkpoint.parse_recipe()
    return _Trained(
        path=path,
        model=checkpoint.build_model(),
        layout=checkpoint.layout,
        class_names=tuple(checkpoint.class_names),
        case=recipe.data.case,
        selection=recipe.train.selection,
        epoch=checkpoint.evaluated_epoch,
        num_views=recipe.evaluate.num_views,
    )


def _load_reference(path: Path) -> _Trained:
    return _Trained(
        path=path,
        model=load_reference(path),
        layout=None,
        class_names=None,
        case=None,
        selection=_REFERENCE_SELECTION,
        epoch=None,
        num_views=_REFERENCE_VIEWS,
    )


def _dataset_of(run: RunFolder | None) -> Path | None:
    """Return the dataset that the run was trained on, where it still is."""
    environment = run.environment() if run is not None else None
    if environment is None:
        return None
    folder = Path(environment["dataset_dir"])
    return folder if folder.is_dir() else None


def _choose_case(trained: _Trained, dataset: SkeletonDataset, case: str | None) -> str:
    name = dataset.info.dataset
    if case is None and trained.case is None and len(cases_of(name)) > 1:
        raise UsageError(
            "the checkpoint does not say which case it was trained for",
            where=str(trained.path),
            now=f"say it: --case {' or --case '.join(cases_of(name))}",
        )
    resolved = resolve_case(name, case or trained.case or cases_of(name)[0])
    if trained.case is not None and resolved != trained.case:
        log.warning(
            "trained for case %s and scored on case %s: it has seen some of these clips",
            trained.case,
            resolved,
        )
    return resolved


def _check_fit(trained: _Trained, dataset: SkeletonDataset) -> None:
    """Refuse a checkpoint whose joints or classes are not the dataset's."""
    model, layout, class_names = trained.model, dataset.layout, dataset.info.class_names
    if trained.layout not in (None, layout.name) or model.num_joints != layout.num_joints:
        known = trained.layout or f"{model.num_joints} joints"
        what = f"it was trained on {known} skeletons, the dataset has {layout.name}"
    elif model.num_classes != len(class_names):
        what = f"it knows {model.num_classes} classes, the dataset has {len(class_names)}"
    elif trained.class_names not in (None, class_names):
        what = "its classes have other names than the dataset's"
    else:
        return
    raise CheckpointError(
        f"the checkpoint does not fit the dataset: {what}",
        where=f"{trained.path}, {dataset.folder}",
        now="name the dataset that it was trained on with --data",
    )
