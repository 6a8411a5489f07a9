"""Measure a recipe here, from the data path to an estimate of the whole training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sgnray.bench.measure import (
    FORWARD,
    MAX_EPOCH_BATCHES,
    PRODUCT_SIZES,
    STEP,
    Rate,
    measure_process,
)
from sgnray.bench.noise import Shape, known_shape, write_noise
from sgnray.checkpoints.checkpoint import build_model
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.config import Recipe
from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.data.protocols import IntArray
from sgnray.data.store import SkeletonDataset, open_dataset
from sgnray.distributed.cluster import connected, is_at_hand
from sgnray.distributed.cores import num_cores
from sgnray.distributed.device import choose_device, describe_device
from sgnray.distributed.precision import choose_precision, without_auto
from sgnray.distributed.resources import (
    Resources,
    WorkerRequest,
    Workers,
    check_local,
    check_without_ray,
)
from sgnray.metric_keys import CLIPS_PER_S
from sgnray.model.flops import STEP_FACTOR, forward_flops
from sgnray.model.sgn import count_parameters
from sgnray.storage.scratch import scratch_folder
from sgnray.train.checks import check_recipe, is_on_cpus, match_recipe
from sgnray.train.job import VALIDATION_VIEWS, choose_parts
from sgnray.train.launch import open_executor
from sgnray.train.loop import EpochResult

FORMAT_VERSION = 3
# On workers: the steps of an epoch, and the least number of epochs; the first is not counted.
EPOCH_STEPS = 8
_MIN_EPOCHS = 4
_NOISE_CLIPS = 2048
# About the share of the training clips that `selection: validation` holds out.
_FOLDS = 5
# Extra seconds for a launch on Ray, for the progress bar.
_LAUNCH_S = 15.0


@dataclass(frozen=True)
class Workload:
    """What was measured and where; `has_dataset` is False if noise replaced its poses.

    FLOPs are per clip and count a multiply-add as 2; model/flops.py says what is counted.
    """

    dataset: str
    case: str
    has_dataset: bool
    num_train: int
    num_validation: int
    num_test: int
    batch_size: int
    num_epochs: int
    num_views: int
    precision: str
    device: str
    num_threads: int
    num_parameters: int
    forward_flops: int
    step_flops: int


@dataclass(frozen=True)
class Product:
    """The plain product of two square matrices of `size`, the best of all rounds."""

    precision: str
    size: int
    flops_per_s: float


@dataclass(frozen=True)
class Speed:
    """A training step on a ready batch, or forward alone, and its share of the plain product."""

    what: str
    precision: str
    clips_per_s: Rate
    flops_per_s: float
    share_of_product: float


@dataclass(frozen=True)
class Epoch:
    """A whole epoch, and the share of its time outside of forward, backward and the step."""

    clips_per_s: Rate
    outside: Rate


@dataclass(frozen=True)
class WorkersSpeed:
    """The speed of several Ray workers together.

    Their `precision` may differ from this process's if the recipe says auto. `per_thread` is the
    clips/s of one of their threads as a share of those of the first row.
    """

    num_workers: int
    threads_per_worker: int
    precision: str
    clips_per_s: Rate
    per_thread: float


@dataclass(frozen=True)
class Estimate:
    """How long the recipe takes here, without startup; 0 workers means this process."""

    num_workers: int
    training_s: float
    evaluation_s: float

    @property
    def total_s(self) -> float:
        """Training and evaluation."""
        return self.training_s + self.evaluation_s


@dataclass(frozen=True)
class BenchResult:
    """All that `sgn bench` measured."""

    workload: Workload
    data_clips_per_s: Rate
    products: tuple[Product, ...]
    speeds: tuple[Speed, ...]
    epoch: Epoch
    workers: tuple[WorkersSpeed, ...]
    estimates: tuple[Estimate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data that JSON can hold."""
        estimates = [asdict(row) | {"total_s": row.total_s} for row in self.estimates]
        return {"format_version": FORMAT_VERSION, **asdict(self), "estimates": estimates}


def bench_recipe(
    recipe: Recipe,
    dataset_dir: Path | None = None,
    *,
    seconds: float,
    workers: int = 0,
    device: str = "auto",
    address: str | None = None,
    request: WorkerRequest | None = None,
    on_progress: OnProgress = ignore_progress,
) -> BenchResult:
    """Measure for about `seconds` in this process, then on 1 to `workers` Ray workers.

    Without a dataset, noise in the shape of the recipe's is used. `on_progress` gets seconds.
    UsageError, before anything is measured, if this machine has no room for the workers.
    """
    here = choose_device(device)
    if not workers:
        check_without_ray(address, request)
    elif not is_at_hand(address):
        _check_here(workers, here, request or WorkerRequest())
    counts = worker_counts(workers)
    each_s = seconds / 3
    total_s = int(seconds + len(counts) * (each_s + _LAUNCH_S))
    with _open_clips(recipe, dataset_dir) as (dataset, rows, shape):
        recipe = check_recipe(
            recipe.replacing({"train.log": ()}),  # nothing is tracked
            dataset,
            workers=workers,
            on_cpus=is_on_cpus(workers, device, address),
            num_clips=shape.num_train,
        )
        fastest = choose_precision(here.type)
        resolved = without_auto(recipe, lambda: fastest)
        workload = _describe(resolved, shape, here, has_dataset=dataset_dir is not None)
        precisions = tuple(dict.fromkeys(("float32", fastest, workload.precision)))
        rounds = measure_process(
            resolved,
            dataset,
            rows,
            device=here,
            precisions=precisions,
            seconds=seconds,
            on_progress=lambda done, _: on_progress(done, total_s),
        )
    epoch = Rate.of(rounds["epoch"])
    on_workers: list[WorkersSpeed] = []
    if workers:
        short = shorten_to_time(recipe, seconds=each_s, clips_per_s=epoch.median)
        for row in _measure_workers(short, shape, counts, device, address, request):
            on_workers.append(row)
            on_progress(int(seconds + len(on_workers) * (each_s + _LAUNCH_S)), total_s)
    products = {precision: max(rounds[f"product {precision}"]) for precision in precisions}
    size = PRODUCT_SIZES[here.type]
    forward = Rate.of(rounds[f"{FORWARD} float32"]).median
    outside = [
        1 - whole / bare for bare, whole in zip(rounds["bare"], rounds["epoch"], strict=True)
    ]
    return BenchResult(
        workload=workload,
        data_clips_per_s=Rate.of(rounds["data"]),
        products=tuple(Product(precision, size, best) for precision, best in products.items()),
        speeds=tuple(_speeds(workload, products, rounds)),
        epoch=Epoch(epoch, Rate.of(outside)),
        workers=tuple(on_workers),
        estimates=tuple(_estimates(workload, epoch.median, forward, on_workers)),
    )


def _check_here(workers: int, device: torch.device, request: WorkerRequest) -> None:
    """Raise UsageError if a Ray that starts on this machine has no room for the workers."""
    num_gpus = torch.cuda.device_count()
    here = Resources(num_cpus=max(num_cores(), workers), num_gpus=num_gpus, is_local=True)
    check_local(workers, here, replace(request, num_gpus=int(device.type == "cuda")))


@contextmanager
def _open_clips(
    recipe: Recipe, dataset_dir: Path | None
) -> Iterator[tuple[SkeletonDataset, IntArray, Shape]]:
    """Open the dataset, or write noise that is removed at the end.

    Yields it with the rows of its training clips and the shape of the real dataset.
    """
    if dataset_dir is not None:
        dataset = open_dataset(dataset_dir)
        parts, info = choose_parts(match_recipe(recipe, dataset), dataset), dataset.info
        shape = Shape(
            skeleton=dataset.skeleton,
            num_classes=len(info.class_names),
            poses_per_clip=max(1, info.num_poses // info.num_clips),
            num_train=len(parts.train),
            num_validation=0 if parts.validation is None else len(parts.validation),
            num_test=len(parts.test),
        )
        yield dataset, parts.train, shape
        return
    case, shape = known_shape(recipe.data.dataset, recipe.data.case)
    num_clips = min(shape.num_train, max(_NOISE_CLIPS, MAX_EPOCH_BATCHES * recipe.optim.batch_size))
    with scratch_folder("sgn-bench-") as folder:
        path = folder / "noise"
        write_noise(path, recipe.data.dataset, case, shape, num_train=num_clips, num_test=1)
        noise = open_dataset(path)
        if recipe.train.selection == "test":
            shape = replace(shape, num_validation=shape.num_test)
        elif recipe.train.selection == "validation":
            held_out = shape.num_train // _FOLDS
            shape = replace(shape, num_train=shape.num_train - held_out, num_validation=held_out)
        yield noise, noise.clips.splits[case].train, shape


def _describe(recipe: Recipe, shape: Shape, device: torch.device, *, has_dataset: bool) -> Workload:
    model = build_model(recipe, shape.skeleton, shape.num_classes)
    forward = forward_flops(recipe.model, model)
    return Workload(
        dataset=recipe.data.dataset,
        case=recipe.data.case,
        has_dataset=has_dataset,
        num_train=shape.num_train,
        num_validation=shape.num_validation,
        num_test=shape.num_test,
        batch_size=recipe.optim.batch_size,
        num_epochs=recipe.train.num_epochs,
        num_views=recipe.evaluate.num_views,
        precision=recipe.train.precision,
        device=describe_device(device),
        num_threads=torch.get_num_threads(),
        num_parameters=count_parameters(model),
        forward_flops=forward,
        step_flops=STEP_FACTOR * forward,
    )


def worker_counts(most: int) -> list[int]:
    """Return 1, 2, 4 and so on, and `most`; nothing for 0."""
    doubled = {2**power for power in range(most.bit_length())}
    return sorted(doubled | {most}) if most else []


def shorten_to_time(recipe: Recipe, *, seconds: float, clips_per_s: float) -> Recipe:
    """Shorten a recipe to as many epochs of EPOCH_STEPS steps as fit into `seconds`."""
    num_epochs = math.ceil(seconds * clips_per_s / (EPOCH_STEPS * recipe.optim.batch_size))
    return recipe.replacing(
        {
            "train.num_epochs": max(_MIN_EPOCHS, num_epochs),
            "train.selection": "last",
            # A warmup may be longer than these few epochs, and speed does not depend on it.
            "optim.warmup_epochs": 0,
            "evaluate.num_views": 1,
        }
    )


def _measure_workers(
    recipe: Recipe,
    shape: Shape,
    counts: Sequence[int],
    device: str,
    address: str | None,
    request: WorkerRequest | None,
) -> Iterator[WorkersSpeed]:
    """Train on noise as `sgn train` does, with each number of workers in turn."""
    # Other machines cannot see this one's temporary folder, but may share the current folder.
    parent = Path.cwd() if is_at_hand(address) else None
    one_thread = None
    with (
        # Outside the cluster's context, so that no worker writes into it while it is removed.
        scratch_folder("sgn-bench-", parent) as folder,
        connected(address, num_workers=counts[-1]),
    ):
        dataset = write_noise(
            folder / "noise",
            recipe.data.dataset,
            recipe.data.case,
            shape,
            num_train=EPOCH_STEPS * recipe.optim.batch_size,
            num_test=counts[-1],
        )
        for count in counts:
            with open_executor(
                workers=Workers.of(count),
                device=device,
                address=address,
                max_failures=0,
                request=request,
            ) as executor:
                resolved = executor.without_auto(recipe)
                run = RunFolder(folder / f"workers-{count}")
                run.path.mkdir()
                epochs: list[EpochResult] = []
                executor.run(resolved, dataset, run, epochs.append)
                history = epochs[-1].history  # of all epochs; the first one is not counted
                rate = Rate.of([metrics[CLIPS_PER_S] for metrics in history[1:]])
                threads = executor.hardware.threads_per_worker
            per_thread = rate.median / (count * threads)
            one_thread = one_thread or per_thread
            yield WorkersSpeed(
                count, threads, resolved.train.precision, rate, per_thread / one_thread
            )


def _speeds(
    workload: Workload, products: Mapping[str, float], rounds: Mapping[str, Sequence[float]]
) -> Iterator[Speed]:
    for precision, product in products.items():
        for what, flops in ((STEP, workload.step_flops), (FORWARD, workload.forward_flops)):
            rate = Rate.of(rounds[f"{what} {precision}"])
            flops_per_s = rate.median * flops
            yield Speed(what, precision, rate, flops_per_s, flops_per_s / product)


def _estimates(
    workload: Workload, here: float, forward: float, workers: Sequence[WorkersSpeed]
) -> Iterator[Estimate]:
    """Estimate the whole recipe; evaluation is float32 and assumed to scale like training."""
    rates = {0: here} | {row.num_workers: row.clips_per_s.median for row in workers}
    num_batches = max(1, workload.num_train // workload.batch_size)
    per_epoch = min(workload.num_train, num_batches * workload.batch_size)
    num_scored = workload.num_epochs * workload.num_validation * VALIDATION_VIEWS
    num_scored += workload.num_test * workload.num_views
    for num_workers, rate in rates.items():
        training_s = workload.num_epochs * per_epoch / rate
        yield Estimate(num_workers, training_s, num_scored / (forward * rate / here))
