"""Evaluate runs or checkpoints, one or several together, on every test clip of a case.

Legend: N clips, W views, K classes.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sgnray.checkpoints.trained_model import TrainedModel, dataset_of, load_trained_model
from sgnray.data.protocols import IntArray, split_clips
from sgnray.data.store import SkeletonDataset, find_dataset, open_dataset
from sgnray.distributed.device import check_device_name, choose_device
from sgnray.errors import UsageError
from sgnray.evaluate.analysis import calibrate, find_mistakes, score_groups, top1_by_views
from sgnray.evaluate.compatibility import check_fit, choose_case, count_seen
from sgnray.evaluate.cost import measure_cost
from sgnray.evaluate.details import Details, Member
from sgnray.evaluate.launch import OnProgress, logits_here, logits_on_ray
from sgnray.evaluate.report import EvaluatedModel, Report, make_report
from sgnray.evaluate.score import tally_logits
from sgnray.model.sgn import count_parameters


@dataclass(frozen=True)
class _Test:
    """What is asked of whom: some models, and the test clips of a case."""

    models: tuple[TrainedModel, ...]
    dataset: SkeletonDataset
    case: str
    rows: IntArray
    num_views: int


def evaluate_run(
    targets: Path | Sequence[Path] | None = None,
    *,
    runs_dir: Path = Path("runs"),
    data_dir: Path = Path("data"),
    dataset_dir: Path | None = None,
    case: str | None = None,
    num_views: int | None = None,
    workers: int = 0,
    address: str | None = None,
    device: str = "auto",
    on_progress: OnProgress | None = None,
) -> Report:
    """Score runs, their checkpoints or the reference's .pth on every test clip of a case.

    Several are scored together, by the mean of their logits, and each alone. Without a target it
    is the newest run; without a dataset the one that the run was trained on, else the one in
    `data_dir`. `workers` spreads the clips over Ray, which changes no logit. Raises UsageError,
    InputError, CheckpointError or ClusterError.
    """
    check_device_name(device)
    here = choose_device("auto" if workers and device == "cuda" else device)
    models = [load_trained_model(target, runs_dir=runs_dir) for target in _listed(targets)]
    _check_different(models)
    dataset = open_dataset(
        dataset_dir or dataset_of(models[0]) or find_dataset(data_dir, name=models[0].card.dataset)
    )
    test = _prepare(models, dataset, case, num_views)
    num_seen = count_seen(test.models, test.dataset, test.rows)
    networks = [(each.model, each.card.windows) for each in test.models]
    if workers:
        logits = logits_on_ray(
            networks,
            dataset.folder,
            test.rows,
            num_views=test.num_views,
            workers=workers,
            address=address,
            device=device,
            on_progress=on_progress,
        )
    else:
        logits = logits_here(
            networks,
            dataset.folder,
            test.rows,
            num_views=test.num_views,
            device=here,
            on_progress=on_progress,
        )
    return _report(test, logits, num_seen, here)


def _listed(targets: Path | Sequence[Path] | None) -> Sequence[Path | None]:
    if targets is None or isinstance(targets, Path):
        return [targets]
    return list(targets) or [None]


def _check_different(models: Sequence[TrainedModel]) -> None:
    paths = [trained_model.path.resolve() for trained_model in models]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise UsageError(
                "a checkpoint is named twice", where=str(path), now="name each model once"
            )


def _prepare(
    models: Sequence[TrainedModel],
    dataset: SkeletonDataset,
    case: str | None,
    num_views: int | None,
) -> _Test:
    for trained_model in models:
        check_fit(trained_model, dataset)
    case = choose_case(models, dataset, case)
    return _Test(
        models=tuple(models),
        dataset=dataset,
        case=case,
        rows=split_clips(dataset.info.dataset, case, dataset.clips).test,
        num_views=num_views or max(trained_model.card.num_views for trained_model in models),
    )


def _report(
    test: _Test, logits: Sequence[Tensor], num_seen: int | None, device: torch.device
) -> Report:
    """Draw the conclusions from the logits (N, W, K) of each model."""
    dataset, rows = test.dataset, test.rows
    labels_N = torch.from_numpy(dataset.clips.labels[rows])
    logits_NWK = torch.stack(list(logits)).mean(dim=0)
    logits_NK = logits_NWK.mean(dim=1)
    tally = tally_logits(logits_NK, labels_N)
    members = tuple(
        _member(trained_model, own_NWK, labels_N)
        for trained_model, own_NWK in zip(test.models, logits, strict=True)
    )
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
        cost=measure_cost(test.models, test.num_views, device),
        confusion_KK=tuple(map(tuple, tally.confusion_KK.tolist())),
        mistakes=find_mistakes(logits_NK, labels_N, dataset, rows),
    )
    return make_report(_subject(test), tally, dataset.info.class_names, details)


def _member(trained_model: TrainedModel, logits_NWK: Tensor, labels_N: Tensor) -> Member:
    tally = tally_logits(logits_NWK.mean(dim=1), labels_N)
    return Member(
        checkpoint=str(trained_model.path),
        selection=trained_model.card.selection,
        epoch=trained_model.card.epoch,
        seed=trained_model.card.seed,
        num_correct=tally.num_correct,
        top1=tally.top1,
    )


def _subject(test: _Test) -> EvaluatedModel:
    epochs = {trained_model.card.epoch for trained_model in test.models}
    selections = {trained_model.card.selection for trained_model in test.models}
    return EvaluatedModel(
        checkpoint=", ".join(str(trained_model.path) for trained_model in test.models),
        dataset=test.dataset.info.dataset,
        dataset_checksum=test.dataset.info.checksum,
        case=test.case,
        # The worst that was done to any of them.
        selection=next(how for how in ("test", "validation", "last") if how in selections),
        epoch=epochs.pop() if len(epochs) == 1 else None,
        num_views=test.num_views,
        num_parameters=sum(count_parameters(member.model) for member in test.models),
    )
