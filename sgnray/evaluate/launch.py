"""Evaluate a run or a checkpoint in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sgnray.checkpoint import holds_reference, load_checkpoint, load_reference
from sgnray.data.bank import PoseBank
from sgnray.data.protocols import cases_of, resolve_case, split_clips
from sgnray.data.sampling import Windows
from sgnray.data.skeleton import SkeletonLayout
from sgnray.data.store import SkeletonDataset, find_dataset, open_dataset, read_info
from sgnray.device import choose_device, keep_freed_memory
from sgnray.errors import CheckpointError, UsageError
from sgnray.evaluate.report import Report, Subject, make_report
from sgnray.evaluate.score import score_clips
from sgnray.model.sgn import SGN, count_parameters
from sgnray.runs import CHECKPOINT_FILE, RunFolder, newest_run

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
    skeleton: SkeletonLayout | None
    class_names: tuple[str, ...] | None
    dataset: str | None
    case: str | None
    selection: str
    epoch: int | None
    num_views: int
    windows: Windows


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
    keep_freed_memory()
    path = _find_checkpoint(target, runs_dir)
    trained = _load_reference(path) if holds_reference(path) else _load(path)
    dataset = open_dataset(
        dataset_dir or _dataset_of(path) or find_dataset(data_dir, name=trained.dataset)
    )
    _check_fit(trained, dataset)
    case = _choose_case(trained, dataset, case)
    num_views = trained.num_views if num_views is None else num_views
    tally = score_clips(
        trained.model.to(torch_device),
        PoseBank.of(dataset, torch_device),
        split_clips(dataset.info.dataset, case, dataset.clips).test,
        num_views=num_views,
        windows=trained.windows,
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


def _find_checkpoint(target: Path | None, runs_dir: Path) -> Path:
    """Find the file: of the newest run, of a run by its folder or bare name, or as it was given."""
    if target is None:
        return newest_run(runs_dir).require_checkpoint()[0]
    if not target.exists() and target.parent == Path():
        target = runs_dir / target
    if not target.exists():
        raise UsageError(
            "there is no such run or checkpoint",
            where=str(target),
            now="name a run folder or a checkpoint; without one, sgn eval takes the newest run",
        )
    if target.is_file():
        return target
    own = target / CHECKPOINT_FILE  # the folder of one epoch
    return own if own.is_file() else RunFolder(target).require_checkpoint()[0]


def _load(path: Path) -> _Trained:
    checkpoint = load_checkpoint(path)
    recipe = checkpoint.parse_recipe()
    return _Trained(
        path=path,
        model=checkpoint.build_model(),
        skeleton=checkpoint.skeleton,
        class_names=tuple(checkpoint.class_names),
        dataset=recipe.data.dataset,
        case=recipe.data.case,
        selection=recipe.train.selection,
        epoch=checkpoint.evaluated_epoch,
        num_views=recipe.evaluate.num_views,
        windows=recipe.data.windows,
    )


def _load_reference(path: Path) -> _Trained:
    return _Trained(
        path=path,
        model=load_reference(path),
        skeleton=None,
        class_names=None,
        dataset=None,
        case=None,
        selection=_REFERENCE_SELECTION,
        epoch=None,
        num_views=_REFERENCE_VIEWS,
        windows="paper",
    )


def _dataset_of(checkpoint_path: Path) -> Path | None:
    """Return the dataset that a checkpoint's run was trained on, where it still is."""
    for folder in checkpoint_path.parents[1:3]:
        environment = RunFolder(folder).environment()
        if environment is not None and Path(environment["dataset_dir"]).is_dir():
            dataset_dir = Path(environment["dataset_dir"])
            if read_info(dataset_dir).checksum != environment["dataset_checksum"]:
                log.warning("%s has changed since the run was trained on it", dataset_dir)
            return dataset_dir
    return None


def _choose_case(trained: _Trained, dataset: SkeletonDataset, case: str | None) -> str:
    name, fixed = dataset.info.dataset, dataset.clips.splits
    cases = cases_of(name, fixed)
    if case is None and trained.case is None and len(cases) > 1:
        raise UsageError(
            "the checkpoint does not say which case it was trained for",
            where=str(trained.path),
            now=f"say it: --case {' or --case '.join(cases)}",
        )
    resolved = resolve_case(name, case or trained.case or cases[0], fixed)
    if trained.case is not None and resolved != trained.case:
        log.warning(
            "trained for case %s and scored on case %s: it has seen some of these clips",
            trained.case,
            resolved,
        )
    return resolved


def _check_fit(trained: _Trained, dataset: SkeletonDataset) -> None:
    """Refuse a checkpoint whose skeleton or classes are not the dataset's."""
    class_names, num_classes = dataset.info.class_names, trained.model.num_classes
    what = _other_skeleton(trained, dataset.layout)
    if what is None and num_classes != len(class_names):
        what = f"it knows {num_classes} classes, the dataset has {len(class_names)}"
    elif what is None and trained.class_names not in (None, class_names):
        what = "its classes have other names than the dataset's"
    if what is not None:
        raise CheckpointError(
            f"the checkpoint does not fit the dataset: {what}",
            where=f"{trained.path}, {dataset.folder}",
            now="name the dataset that it was trained on with --data",
        )


def _other_skeleton(trained: _Trained, skeleton: SkeletonLayout) -> str | None:
    """Say how the skeleton that a checkpoint was trained on differs; None where it does not."""
    known, model = trained.skeleton, trained.model
    if known is not None and known.name != skeleton.name:
        return f"it was trained on {known.name} skeletons, the dataset has {skeleton.name}"
    shape = (skeleton.num_joints, skeleton.num_coordinates)
    if (model.num_joints, model.num_coordinates) != shape:
        return (
            f"it was trained on {model.num_joints} joints of {model.num_coordinates} coordinates, "
            f"the dataset has {shape[0]} of {shape[1]}"
        )
    if known is not None and known.joints != skeleton.joints:
        return "its joints have other names, or another order, than the dataset's"
    return None
