"""One recipe with several seeds: a run for each, in parallel if there is room, and one report."""

from __future__ import annotations

import json
import logging
import os
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from sgnray.checkpoints.claim import Runs, check_claim, check_name, folder_in
from sgnray.checkpoints.run_folder import (
    RECIPE_FILE,
    REPORT_FILE,
    RunFolder,
    check_owner,
    default_run_name,
    read_folder,
    run_name,
)
from sgnray.config import Recipe, load_recipe, to_dict
from sgnray.config.schema import Precision
from sgnray.data.store import SkeletonDataset, open_dataset
from sgnray.distributed.cluster import connected, is_at_hand, own_address
from sgnray.distributed.cores import num_cores
from sgnray.distributed.device import choose_device
from sgnray.distributed.precision import resolve_for_workers
from sgnray.distributed.resources import WorkerRequest, Workers, use_gpu, warn_of_few_cpus
from sgnray.errors import OutputError, Problem, SgnError, check_count
from sgnray.evaluate.report import FORMAT_VERSION as REPORT_VERSION
from sgnray.storage.atomic import write_text
from sgnray.storage.location import Location, as_folder
from sgnray.storage.mirror import address_of
from sgnray.train.checks import check_run
from sgnray.train.environment import check_num_workers
from sgnray.train.run import train_run
from sgnray.train.seed_processes import Train, train_in_processes

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_NUM_WAITING = 4  # seeds that wait for room on a cluster, each in a process of its own


@dataclass(frozen=True)
class SeedScore:
    """The test accuracy of one seed; `top1` is a share, `run` the folder of its run."""

    seed: int
    run: str
    epoch: int
    num_correct: int
    num_clips: int
    top1: float


@dataclass(frozen=True)
class SeedsReport:
    """All seeds of a recipe; `missing` has the reason of each seed that did not finish."""

    path: str
    dataset: str
    dataset_checksum: str
    recipe: Recipe
    scores: tuple[SeedScore, ...]
    missing: dict[int, str]

    @property
    def mean_top1(self) -> float:
        """Mean over the finished seeds."""
        return statistics.fmean(score.top1 for score in self.scores)

    @property
    def std_top1(self) -> float | None:
        """Sample standard deviation over the finished seeds; None for a single one."""
        tops = [score.top1 for score in self.scores]
        return statistics.stdev(tops) if len(tops) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as the file holds it."""
        return {
            "format_version": FORMAT_VERSION,
            "dataset": self.dataset,
            "dataset_checksum": self.dataset_checksum,
            "case": self.recipe.data.case,
            "selection": self.recipe.train.selection,
            "num_views": self.recipe.evaluate.num_views,
            "recipe": to_dict(self.recipe),
            "num_seeds": len(self.scores),
            "mean_top1": self.mean_top1,
            "std_top1": self.std_top1,
            "seeds": [asdict(score) for score in self.scores],
            "missing": {str(seed): reason for seed, reason in self.missing.items()},
        }


def train_seeds(
    recipe: Recipe,
    dataset_dir: Path | str,
    *,
    num_seeds: int,
    workers: int | tuple[int, int] = 0,
    runs_dir: Runs = Path("runs"),
    name: str | None = None,
    address: str | None = None,
    device: str = "auto",
    max_failures: int | None = None,
    request: WorkerRequest | None = None,
    command: str = "",
    on_epoch: Callable[[int, int], object] | None = None,
    on_seed: Callable[[SeedScore], object] | None = None,
) -> SeedsReport:
    """Train the seeds `train.seed`, `train.seed` + 1, ... of a recipe and report them together.

    Each seed is a run as `train_run` makes it, in a process of its own, named after its recipe or
    `<name>-seed<number>`. Seeds that finished before are not trained again. Without workers, as
    many run at once as there are GPUs, or CPU cores; on a cluster, as many as it has room for,
    and a few more wait for room. A seed that fails is in `missing`, the others continue; SgnError
    if all fail. `on_epoch` is called with (epochs done, epochs of all seeds), `on_seed` with each
    finished seed.
    """
    check_count(num_seeds, "seed", option="--seeds")
    if name is not None:
        check_name(name, runs_dir)
    check_claim(runs_dir, None)
    wanted, dataset = Workers.of(workers), open_dataset(dataset_dir)
    recipe = check_run(
        recipe,
        dataset,
        workers=wanted.most,
        device=device,
        address=address,
        max_failures=max_failures,
        request=request,
    )
    numbers = range(recipe.train.seed, recipe.train.seed + num_seeds)
    names = {seed: None if name is None else f"{name}-seed{seed}" for seed in numbers}
    if recipe.train.precision == "auto":  # one for all seeds
        precision = _known_precision(runs_dir, names, recipe)
        if precision is None:
            device, precision = resolve_for_workers(device, address, wanted.fewest, request)
        recipe = recipe.replacing({"train.precision": precision})
    path = _report_path(runs_dir, name or run_name(recipe), numbers)
    recipes = {seed: recipe.replacing({"train.seed": seed}) for seed in names}
    finished: dict[int, SeedScore] = {}

    def add(score: SeedScore) -> None:
        finished[score.seed] = score
        if on_seed is not None:
            on_seed(score)

    for seed, each in recipes.items():  # all are checked before the first one starts
        score = _finished(runs_dir, names[seed], each, dataset, wanted)
        if score is not None:
            add(score)
    missing: dict[int, str] = {}
    if len(finished) < num_seeds:
        slots, device, request = _slots(num_seeds, wanted, address, device, request)
        train = partial(
            train_run,
            dataset_dir=dataset.folder,
            workers=workers,
            runs_dir=runs_dir,
            address=own_address(address) if wanted.most else address,
            device=device,
            max_failures=max_failures,
            request=request,
            command=command,
        )
        left = [seed for seed in recipes if seed not in finished]
        waiting = {seed: partial(train, recipes[seed], name=names[seed]) for seed in left}
        missing = _train_rest(waiting, slots, recipe.train.num_epochs, on_epoch, add)
    if not finished:
        raise _all_failed(missing, runs_dir)
    report = SeedsReport(
        path=str(path),
        dataset=dataset.info.dataset,
        dataset_checksum=dataset.info.checksum,
        recipe=recipe,
        scores=tuple(finished[seed] for seed in sorted(finished)),
        missing=dict(sorted(missing.items())),
    )
    _write(path, report)
    return report


def _known_precision(
    runs_dir: Runs, names: Mapping[int, str | None], recipe: Recipe
) -> Precision | None:
    """Return the precision of most runs that the seeds have already; None if there are none."""
    found: Counter[Precision] = Counter()
    for seed, name in names.items():
        candidates = (
            recipe.replacing({"train.seed": seed, "train.precision": precision})
            for precision in ("bf16", "float32")
        )
        runs = (name or default_run_name(runs_dir, candidate) for candidate in candidates)
        for folder_name in dict.fromkeys(runs):  # one, if it is named
            path = read_folder(folder_in(runs_dir, folder_name)) / RECIPE_FILE
            if path.is_file():
                found[load_recipe(str(path)).train.precision] += 1
    if not found:
        return None
    ((known, _),) = found.most_common(1)
    log.info("train.precision=auto means %s, as in the runs that these seeds have already", known)
    return known


def _report_path(runs_dir: Runs, name: str, numbers: range) -> Path | Location:
    """Return the file of the report: it names the number of seeds, or their range if not from 0."""
    seeds = f"{numbers[0]}-{numbers[-1]}" if numbers[0] else str(len(numbers))
    path = folder_in(runs_dir, f"{name}-seeds{seeds}.json")
    if isinstance(path, Path) and path.is_dir():
        raise OutputError(
            "the report of all seeds cannot be written: a folder has its name",
            where=str(path),
            now="remove it, or choose another --name",
        )
    return path


def _finished(
    runs_dir: Runs, name: str | None, recipe: Recipe, dataset: SkeletonDataset, workers: Workers
) -> SeedScore | None:
    """Read the score of a run that has finished; RunError if its folder is another run's.

    None if report.json is not that of this recipe and epoch, so that the test is repeated.
    """
    path = read_folder(folder_in(runs_dir, name or default_run_name(runs_dir, recipe)))
    if not path.is_dir():
        return None
    check_owner(path, recipe, dataset)
    newest = RunFolder(path).newest_checkpoint()
    if newest is None or newest[1].epoch != recipe.train.num_epochs:
        return None
    check_num_workers(RunFolder(path), workers, is_finished=True)
    expected = {
        "format_version": REPORT_VERSION,
        "dataset_checksum": dataset.info.checksum,
        "case": recipe.data.case,
        "num_views": recipe.evaluate.num_views,
        "epoch": newest[1].evaluated_epoch,
    }
    try:
        content = json.loads((path / REPORT_FILE).read_text(encoding="utf-8"))
        if any(content[key] != value for key, value in expected.items()):
            return None
        return _score(content, recipe.train.seed, address_of(path))
    except (OSError, ValueError, TypeError, KeyError):  # pydantic's error is a ValueError
        return None


def _score(report: dict[str, Any], seed: int, run: str) -> SeedScore:
    text = json.dumps({**report, "seed": seed, "run": run})
    return TypeAdapter(SeedScore).validate_json(text, strict=True)


def _slots(
    num_seeds: int,
    workers: Workers,
    address: str | None,
    device: str,
    request: WorkerRequest | None,
) -> tuple[list[str | None], str, WorkerRequest | None]:
    """Decide how many seeds may run at once, and on what.

    Returns the GPU of each of them, or None, and the device and the request of all seeds. Seeds on
    one cluster divide its CPUs: a single seed would request all of them.
    """
    if workers.most > 0:
        if not is_at_hand(address):  # each starts its own Ray, which takes the whole machine
            if request is not None and request.num_gpus not in (None, 1):
                log.warning(
                    "seeds can share a GPU only on a running Ray cluster; start one with: "
                    "ray start --head"
                )
            return [None], device, request
        with connected(address, num_workers=workers.fewest) as resources:
            request = request or WorkerRequest()
            room = resources.free_cpus // (workers.most * (request.num_cpus or 1))
            num_gpus = workers.most * (request.num_gpus or 1)
            on_gpu = use_gpu(device, resources, request)
            device = "cuda" if on_gpu else "cpu"  # for all seeds, even if GPUs are added or lost
            if on_gpu and resources.num_gpus == 0:
                # With --wait, one at a time: else the wait of a queued seed would end while
                # another trains.
                room = num_seeds if request.wait_s is None else 1
            elif on_gpu:
                room = min(room, int(resources.free_gpus / num_gpus + 1e-6))  # 0.6 / 0.2 is 2.99...
            num_slots = max(1, min(room, num_seeds))
            if request.num_cpus is None and not on_gpu:
                warn_of_few_cpus(workers.most, resources)
                num_cpus = resources.cpus_per_worker(num_slots * workers.most)
                request = replace(request, num_cpus=num_cpus)
            # An autoscaler sees the requests of seeds that wait.
            if request.wait_s is None and not resources.is_local:
                num_slots = min(num_slots + _NUM_WAITING, num_seeds)
        return [None] * num_slots, device, request
    if choose_device(device).type == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        num_gpus = torch.cuda.device_count()  # CUDA ends the list at the first that is not there
        gpus = visible.split(",")[:num_gpus] if visible else map(str, range(num_gpus))
        return [*gpus][:num_seeds], "cuda", request
    return [None] * min(num_seeds, num_cores()), device, request


def _train_rest(
    waiting: dict[int, Train],
    slots: Sequence[str | None],
    num_epochs: int,
    on_epoch: Callable[[int, int], object] | None,
    on_seed: Callable[[SeedScore], None],
) -> dict[int, str]:
    """Train the seeds that have not finished; return why each that fails did."""
    epochs = dict.fromkeys(waiting, 0)

    def count_epoch(seed: int, epoch: int) -> None:
        epochs[seed] = epoch
        if on_epoch is not None:
            on_epoch(sum(epochs.values()), num_epochs * len(epochs))

    return train_in_processes(
        waiting,
        slots,
        on_epoch=count_epoch,
        on_finish=lambda seed, report, run: on_seed(_score(report, seed, run)),
    )


def _all_failed(missing: dict[int, str], runs_dir: Runs) -> SgnError:
    return SgnError(
        "no seed finished",
        where=str(as_folder(runs_dir)),
        now="read log.txt in the folder of a run, or train one seed alone: leave out --seeds",
        problems=[Problem(f"seed {seed}", reason) for seed, reason in missing.items()],
    )


def _write(path: Path | Location, report: SeedsReport) -> None:
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    if isinstance(path, Location):
        path.put(f"{text}\n".encode())
    else:
        write_text(path, text + "\n")
