"""Do a model and a dataset fit each other, and which of its clips has the model seen."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from sgnray.checkpoints.trained_model import TrainedModel
from sgnray.data.protocols import IntArray, cases_of, resolve_case, split_clips
from sgnray.data.skeleton import Skeleton
from sgnray.data.store import SkeletonDataset
from sgnray.errors import CheckpointError, UsageError

log = logging.getLogger(__name__)


def check_fit(trained_model: TrainedModel, dataset: SkeletonDataset) -> None:
    """Refuse a checkpoint whose skeleton or classes are not the dataset's."""
    class_names, num_classes = dataset.info.class_names, trained_model.model.num_classes
    what = _other_skeleton(trained_model, dataset.skeleton)
    if what is None and num_classes != len(class_names):
        what = f"it knows {num_classes} classes, the dataset has {len(class_names)}"
    elif what is None and trained_model.card.class_names not in (None, class_names):
        what = "its classes have other names than the dataset's"
    if what is not None:
        raise CheckpointError(
            f"the checkpoint does not fit the dataset: {what}",
            where=f"{trained_model.path}, {dataset.folder}",
            now="name the dataset that it was trained on with --data",
        )


def choose_case(models: Sequence[TrainedModel], dataset: SkeletonDataset, case: str | None) -> str:
    """Resolve the case to score: the one asked for, else the one that all were trained for."""
    name, fixed = dataset.info.dataset, dataset.clips.splits
    cases = cases_of(name, fixed)
    trained = {member.card.case for member in models}
    if case is None and len(trained) > 1:
        raise UsageError(
            "the checkpoints were trained for different cases",
            where=", ".join(sorted(known or "unknown" for known in trained)),
            now=f"say which one to score: --case {' or --case '.join(cases)}",
        )
    case = case or next(iter(trained))
    if case is None and len(cases) > 1:
        raise UsageError(
            "the checkpoint does not say which case it was trained for",
            where=str(models[0].path),
            now=f"say it: --case {' or --case '.join(cases)}",
        )
    return resolve_case(name, case or cases[0], fixed)


def count_seen(
    models: Sequence[TrainedModel], dataset: SkeletonDataset, rows: IntArray
) -> int | None:
    """Count the clips `rows` that some model was trained on, and warn of them.

    None where that cannot be known: a checkpoint that does not say, or that is of another dataset.
    """
    name = dataset.info.dataset
    known = cases_of(name, dataset.clips.splits)
    if any(member.card.dataset != name or member.card.case not in known for member in models):
        return None
    cases = {member.card.case for member in models if member.card.case is not None}
    seen = [split_clips(name, case, dataset.clips).train for case in sorted(cases)]
    num_seen = int(np.isin(rows, np.concatenate(seen)).sum())
    if num_seen:
        log.warning(
            "trained for case %s: it has seen %d of these %d clips in training",
            ", ".join(sorted(cases)),
            num_seen,
            len(rows),
        )
    return num_seen


def _other_skeleton(trained_model: TrainedModel, skeleton: Skeleton) -> str | None:
    """Say how the skeleton that a checkpoint was trained on differs; None where it does not."""
    known, model = trained_model.card.skeleton, trained_model.model
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
