"""Evaluate runs or checkpoints, individually and together, on every test clip of a case.

Legend: N clips, W views, K classes.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sgnray.checkpoints.claim import Runs
from sgnray.checkpoints.model_card import ModelCard
from sgnray.checkpoints.run_folder import is_trained_on
from sgnray.checkpoints.trained_model import TrainedModel, dataset_of, load_trained_model
from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.data.protocols import IntArray, cases_of, resolve_case, split_clips
from sgnray.data.skeleton import describe_misfit
from sgnray.data.store import SkeletonDataset, find_dataset, open_dataset
from sgnray.distributed.device import choose_device
from sgnray.distributed.resources import WorkerRequest, check_without_ray
from sgnray.errors import CheckpointError, UsageError, check_count
from sgnray.evaluate.analysis import (
    calibrate,
    find_mistakes,
    measure_cost,
    score_groups,
    top1_by_views,
)
from sgnray.evaluate.launch import compute_logits
from sgnray.evaluate.report import Details, EvaluatedModel, Member, Report, make_report
from sgnray.evaluate.score import tally_logits
from sgnray.model.sgn import count_parameters
from sgnray.storage.mirror import display_name

log = logging.getLogger(__name__)


def evaluate_run(
    targets: Path | str | Sequence[Path | str] | None = None,
    *,
    runs_dir: Runs = Path("runs"),
    data_dir: Path | str = Path("data"),
    dataset_dir: Path | str | None = None,
    case: str | None = None,
    num_views: int | None = None,
    workers: int = 0,
    address: str | None = None,
    device: str = "auto",
    request: WorkerRequest | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Report:
    """Score runs, their checkpoints or the reference's .pth on every test clip of a case.

    Several are scored together, by the mean of their logits, and individually. The default target
    is the newest run of `runs_dir`; the default dataset is the one that the run was trained on,
    else the one in `data_dir`. `workers` spreads the clips over Ray, which changes no logit;
    `request` is what each worker requests from the cluster. Raises UsageError, InputError,
    CheckpointError or ClusterError.
    """
    check_count(num_views, "view", option="--views")
    if not workers:
        check_without_ray(address, request)
    local_device = choose_device("auto" if workers and device == "cuda" else device)
    models = _load_models(targets, runs_dir)
    dataset = open_dataset(
        dataset_dir or dataset_of(models[0]) or find_dataset(data_dir, name=models[0].card.dataset)
    )
    for model in models:
        _check_fit(model, dataset)
    case = _choose_case(models, dataset, case)
    rows = split_clips(dataset.info.dataset, case, dataset.clips).test
    num_views = num_views or max(model.card.num_views for model in models)
    num_seen = _count_seen(models, dataset, rows)
    logits = compute_logits(
        [(each.require_sgn(), each.card) for each in models],
        dataset.folder,
        rows,
        num_views=num_views,
        workers=workers,
        address=address,
        device=device,
        request=request or WorkerRequest(),
        on_progress=on_progress,
    )
    labels_N = torch.from_numpy(dataset.clips.labels[rows])
    pairs = zip(models, logits, strict=True)
    members = tuple(_score_member(model, own_NWK, labels_N) for model, own_NWK in pairs)
    logits_NWK = torch.stack(logits).mean(dim=0)
    logits_NK = logits_NWK.mean(dim=1)
    tally = tally_logits(logits_NK, labels_N)
    scores = [member.top1 for member in members]
    details = Details(
        dataset_dir=str(dataset.folder),
        members=members,
        mean_top1=statistics.fmean(scores),
        std_top1=statistics.stdev(scores) if len(scores) > 1 else None,
        num_seen=num_seen,
        calibration=calibrate(logits_NK, labels_N),
        groups=score_groups(logits_NK.argmax(dim=1) == labels_N, dataset, rows),
        top1_by_views=top1_by_views(logits_NWK, labels_N),
        cost=measure_cost(models, num_views, local_device),
        confusion_KK=tuple(map(tuple, tally.confusion_KK.tolist())),
        mistakes=find_mistakes(logits_NK, labels_N, dataset, rows),
    )
    evaluated = _summarize(models, dataset, case, num_views)
    return make_report(evaluated, tally, dataset.info.class_names, details)


def _load_models(
    targets: Path | str | Sequence[Path | str] | None, runs_dir: Runs
) -> list[TrainedModel]:
    listed: Sequence[Path | str | None] = [None]  # the newest run
    if targets:
        listed = [targets] if isinstance(targets, Path | str) else targets
    models = [load_trained_model(target, runs_dir=runs_dir) for target in listed]
    for model in models:
        model.require_sgn()
    paths = [model.path.resolve() for model in models]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(
                "a checkpoint is named twice", where=display_name(path), now="name each model once"
            )
    return models


def _check_fit(model: TrainedModel, dataset: SkeletonDataset) -> None:
    """Refuse a checkpoint whose skeleton or classes differ from the dataset's.

    An official checkpoint names no dataset: only its numbers of joints and classes are compared.
    """
    class_names, num_classes = dataset.info.class_names, model.model.num_classes
    is_named = model.card.dataset is not None
    what = describe_misfit(model.card.skeleton, dataset.skeleton, is_named=is_named)
    if what is None and num_classes != len(class_names):
        what = f"it has {num_classes} classes, the dataset has {len(class_names)}"
    elif what is None and is_named and model.card.class_names != class_names:
        what = "its class names differ from the dataset's"
    if what is not None:
        raise CheckpointError(
            f"the checkpoint does not fit the dataset: {what}",
            where=f"{display_name(model.path)}, {dataset.folder}",
            now="name the dataset that it was trained on with --data",
        )


def _choose_case(models: Sequence[TrainedModel], dataset: SkeletonDataset, case: str | None) -> str:
    """Resolve the requested case, else the one that all models were trained for."""
    name, fixed = dataset.info.dataset, dataset.clips.splits
    cases = cases_of(name, fixed)
    trained = {model.card.case for model in models}
    if case is None and len(trained) > 1:
        raise UsageError(
            "the checkpoints were trained for different cases",
            where=", ".join(sorted(known or "unknown" for known in trained)),
            now=f"choose the one to score: --case {' or --case '.join(cases)}",
        )
    case = case or next(iter(trained))
    if case is None and len(cases) > 1:
        raise UsageError(
            "the checkpoint does not say which case it was trained for",
            where=display_name(models[0].path),
            now=f"choose it: --case {' or --case '.join(cases)}",
        )
    return resolve_case(name, case or cases[0], fixed)


def _count_seen(
    models: Sequence[TrainedModel], dataset: SkeletonDataset, rows: IntArray
) -> int | None:
    """Count the clips `rows` that some model was trained on, and warn about them.

    None if that is unknown: a checkpoint does not record it, or is from another dataset.
    """
    name = dataset.info.dataset
    known = cases_of(name, dataset.clips.splits)
    if any(model.card.dataset != name or model.card.case not in known for model in models):
        return None
    records = [(model, model.run.environment() if model.run else None) for model in models]
    if dataset.clips.splits and any(
        each and not is_trained_on(each, dataset.info, model.card.case) for model, each in records
    ):
        log.warning("the dataset has changed: which clips were used in training is unknown")
        return None
    cases = sorted({model.card.case for model in models if model.card.case is not None})
    seen = [split_clips(name, case, dataset.clips).train for case in cases]
    num_seen = int(np.isin(rows, np.concatenate(seen)).sum())
    if num_seen:
        log.warning(
            "trained for case %s: %d of these %d clips were used in training",
            ", ".join(cases),
            num_seen,
            len(rows),
        )
    return num_seen


def _score_member(model: TrainedModel, logits_NWK: Tensor, labels_N: Tensor) -> Member:
    name = display_name(model.path)
    tally = tally_logits(logits_NWK.mean(dim=1), labels_N, where=name)
    return Member(
        checkpoint=name,
        selection=model.card.selection,
        epoch=model.card.epoch,
        seed=model.card.seed,
        num_correct=tally.num_correct,
        top1=tally.top1,
        num_trained=model.card.num_trained,
        num_epochs=model.card.num_epochs,
    )


def _summarize(
    models: Sequence[TrainedModel], dataset: SkeletonDataset, case: str, num_views: int
) -> EvaluatedModel:
    epochs = {model.card.epoch for model in models}
    least_trained = min((model.card for model in models), key=_share_trained)
    selections = {model.card.selection for model in models}
    return EvaluatedModel(
        checkpoint=", ".join(display_name(model.path) for model in models),
        dataset=dataset.info.dataset,
        dataset_checksum=dataset.info.checksum,
        case=case,
        # The most biased selection of all models.
        selection=next(how for how in ("test", "validation", "last") if how in selections),
        epoch=epochs.pop() if len(epochs) == 1 else None,
        num_views=num_views,
        turn_rad=max(model.card.turn_rad for model in models),
        num_parameters=sum(count_parameters(model.model) for model in models),
        num_trained=least_trained.num_trained,
        num_epochs=least_trained.num_epochs,
    )


def _share_trained(card: ModelCard) -> float:
    """Return the share of its epochs that a model was trained for; just below 1 if unknown."""
    if card.num_trained is None or card.num_epochs is None:
        return math.nextafter(1.0, 0.0)
    return card.num_trained / card.num_epochs
