"""Measure what a recipe does here, from the data path to the time of the whole training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sgnray.bench import launch
from sgnray.bench.noise import Shape, known_shape, write_noise
from sgnray.bench.process import (
    FORWARD,
    MAX_EPOCH_BATCHES,
    ProcessSpeeds,
    measure_process,
    with_precision,
)
from sgnray.bench.result import BenchResult, Estimate, Subject, WorkersSpeed
from sgnray.bench.rounds import OnProgress
from sgnray.checkpoints.checkpoint import build_model
from sgnray.config import Recipe
from sgnray.data.protocols import IntArray
from sgnray.data.store import SkeletonDataset, open_dataset
from sgnray.distributed.device import choose_device, describe_device, resolve_precision
from sgnray.model.flops import forward_flops, step_flops
from sgnray.model.sgn import count_parameters
from sgnray.train.checks import check_batch_norm
from sgnray.train.job import VALIDATION_VIEWS, check_shares, choose_parts
from sgnray.train.run import match_recipe

DEFAULT_SECONDS = 30.0
_NOISE_CLIPS = 2048
# About the share of the training clips that `selection: validation` holds out.
_FOLDS = 5
# What a launch on Ray adds to the training itself, for the progress bar.
_LAUNCH_S = 15.0


@dataclass(frozen=True)
class Clips:
    """The clips that are measured, and how many an epoch of the real training has."""

    dataset: SkeletonDataset
    rows: IntArray
    shape: Shape
    has_dataset: bool
    num_validation: int


def bench_recipe(
    recipe: Recipe,
    dataset_dir: Path | None = None,
    *,
    workers: int = 0,
    device: str = "auto",
    address: str | None = None,
    seconds: float = DEFAULT_SECONDS,
    on_progress: OnProgress = lambda done, total: None,
) -> BenchResult:
    """Measure for about `seconds` in this process, then on 1 to `workers` workers of Ray.

    Without a dataset, noise in the shape of the recipe's stands in. `on_progress` hears seconds.
    """
    here = choose_device(device)
    counts = launch.worker_counts(workers) if workers else []
    each_s = seconds / 3
    total_s = seconds + len(counts) * (each_s + _LAUNCH_S)
    with _clips_of(recipe, dataset_dir) as (recipe, clips):
        num_clips = clips.shape.num_train
        check_shares(recipe, num_clips, max(1, workers))
        check_batch_norm(recipe, num_clips, workers, device=device, address=address)
        recipe = resolve_precision(recipe, here.type)
        subject = _describe(recipe, clips, here)
        auto = resolve_precision(with_precision(recipe, "auto"), here.type).train.precision
        precisions = tuple(dict.fromkeys(("float32", auto, subject.precision)))
        speeds = measure_process(
            recipe,
            subject,
            clips.dataset,
            clips.rows,
            device=here,
            precisions=precisions,
            seconds=seconds,
            on_progress=lambda done, _: on_progress(done, int(total_s)),
        )
    rows: list[WorkersSpeed] = []
    if workers:
        trial = launch.WorkerScaling(recipe, clips.shape, each_s, speeds.epoch.clips_per_s.median)
        with launch.measuring(trial, most=workers, device=device, address=address) as measured:
            for row in measured:
                rows.append(row)
                on_progress(int(seconds + len(rows) * (each_s + _LAUNCH_S)), int(total_s))
    return BenchResult(
        subject=subject,
        data_clips_per_s=speeds.data_clips_per_s,
        products=speeds.products,
        speeds=speeds.speeds,
        epoch=speeds.epoch,
        workers=tuple(rows),
        estimates=tuple(_estimates(subject, speeds, rows)),
    )


@contextmanager
def _clips_of(recipe: Recipe, dataset_dir: Path | None) -> Iterator[tuple[Recipe, Clips]]:
    """Open the dataset, or write noise that is gone afterwards; give the recipe its case's name."""
    if dataset_dir is not None:
        dataset = open_dataset(dataset_dir)
        recipe = match_recipe(recipe, dataset)
        yield recipe, _opened(recipe, dataset)
        return
    case, shape = known_shape(recipe.data.dataset, recipe.data.case)
    recipe = recipe.replacing({"data.case": case})
    num_clips = min(shape.num_train, max(_NOISE_CLIPS, MAX_EPOCH_BATCHES * recipe.optim.batch_size))
    with TemporaryDirectory(prefix="sgn-bench-") as folder:
        path = write_noise(Path(folder) / "noise", recipe, shape, num_train=num_clips, num_test=1)
        noise = open_dataset(path)
        rows = noise.clips.splits[case].train
        match recipe.train.selection:
            case "last":
                yield recipe, Clips(noise, rows, shape, False, 0)
            case "test":
                yield recipe, Clips(noise, rows, shape, False, shape.num_test)
            case "validation":
                held_out = shape.num_train // _FOLDS
                shape = replace(shape, num_train=shape.num_train - held_out)
                yield recipe, Clips(noise, rows, shape, False, held_out)


def _opened(recipe: Recipe, dataset: SkeletonDataset) -> Clips:
    parts, info = choose_parts(recipe, dataset), dataset.info
    shape = Shape(
        skeleton=dataset.skeleton,
        num_classes=len(info.class_names),
        poses_per_clip=max(1, info.num_poses // info.num_clips),
        num_train=len(parts.train),
        num_test=len(parts.test),
    )
    num_validation = 0 if parts.validation is None else len(parts.validation)
    return Clips(dataset, parts.train, shape, True, num_validation)


def _describe(recipe: Recipe, clips: Clips, device: torch.device) -> Subject:
    shape = clips.shape
    forward = forward_flops(
        recipe.model,
        num_frames=recipe.data.num_segments,
        num_joints=shape.skeleton.num_joints,
        num_coordinates=shape.skeleton.num_coordinates,
        num_classes=shape.num_classes,
    )
    return Subject(
        dataset=recipe.data.dataset,
        case=recipe.data.case,
        has_dataset=clips.has_dataset,
        num_train=shape.num_train,
        num_validation=clips.num_validation,
        num_test=shape.num_test,
        batch_size=recipe.optim.batch_size,
        num_epochs=recipe.train.num_epochs,
        num_views=recipe.evaluate.num_views,
        precision=recipe.train.precision,
        device=describe_device(device),
        num_threads=torch.get_num_threads(),
        num_parameters=count_parameters(build_model(recipe, shape.skeleton, shape.num_classes)),
        forward_flops=forward,
        step_flops=step_flops(forward),
    )


def _estimates(
    subject: Subject, speeds: ProcessSpeeds, workers: Sequence[WorkersSpeed]
) -> Iterator[Estimate]:
    """Estimate the whole of the recipe: evaluation is float32, and taken to grow as training."""
    here = speeds.epoch.clips_per_s.median
    rates = {0: here} | {row.num_workers: row.clips_per_s.median for row in workers}
    per_epoch = min(
        subject.num_train, max(1, subject.num_train // subject.batch_size) * subject.batch_size
    )
    looks = subject.num_epochs * subject.num_validation * VALIDATION_VIEWS
    looks += subject.num_test * subject.num_views
    for num_workers, rate in rates.items():
        views_per_s = speeds.clips_per_s(FORWARD, "float32") * rate / here
        yield Estimate(num_workers, subject.num_epochs * per_epoch / rate, looks / views_per_s)
