"""Measurements in this process: the data path, matrix products, steps and a whole epoch.

Everything is measured in interleaved rounds, so that other load on the machine affects all equally.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from sgnray.config import Recipe
from sgnray.data.batches import TrainBatches
from sgnray.data.progress import OnProgress
from sgnray.data.protocols import IntArray
from sgnray.data.store import SkeletonDataset
from sgnray.distributed.world import World
from sgnray.train.job import open_bank, train_batches
from sgnray.train.loop import train_epoch
from sgnray.train.state import TrainState
from sgnray.train.step import LaunchedSteps, Steps, backward, choose_steps

Work = Callable[[], object]
Measure = Callable[[], float]

STEP, FORWARD = "training step", "forward"
MIN_ROUNDS = 3
# Large enough to reach the machine's peak, small enough to be repeated in every round.
PRODUCT_SIZES = {"cpu": 1024, "cuda": 8192}
MAX_EPOCH_BATCHES = 64
# Shorter measurements would time the clock and the launch of the first kernel.
_SHORTEST_S, _LONG_S = 0.05, 0.5
# An epoch takes about this share of the time, within these limits.
_EPOCH_SHARE = 1 / 20
_MIN_EPOCH_BATCHES = 2
_DATA_CLIPS = 8192
_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Rate:
    """The median of several rounds, and the quartiles around it."""

    median: float
    low: float
    high: float
    num_rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Rate:
        """Summarize at least one measured value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    @property
    def spread(self) -> float:
        """Half the interquartile range, as a share of the median."""
        return (self.high - self.low) / 2 / abs(self.median) if self.median else 0.0


def measure_process(
    recipe: Recipe,
    dataset: SkeletonDataset,
    rows: IntArray,
    *,
    device: torch.device,
    precisions: Sequence[str],
    seconds: float,
    on_progress: OnProgress,
) -> dict[str, list[float]]:
    """Measure on the training clips `rows`; return the values of all rounds, by name.

    In clips/s: "data"; for each precision, "training step ..." and "forward ..."; "bare" (only the
    steps of an epoch) and "epoch" (the whole epoch). In FLOP/s: "product ...".
    """
    bank = open_bank(recipe, dataset, device)
    batch_size = recipe.optim.batch_size

    def prepare(precision: str, num_clips: int) -> Steps:
        # A short epoch over few clips, so that the cost of its draws stays in proportion.
        batches = train_batches(recipe, bank, rows[:num_clips], world=World())
        changed = recipe.replacing({"train.precision": precision})
        state = TrainState.initial(changed, dataset, device=device, world=World())
        return choose_steps(state, batches)

    measures = {"data": _data(train_batches(recipe, bank, rows[:_DATA_CLIPS], world=World()))}
    for precision in precisions:
        measures[f"product {precision}"] = _product(precision, device)
        # Captured steps are measured with the draws of their epoch, which need several steps.
        num_steps = MAX_EPOCH_BATCHES if bank.pose_device.type == "cuda" else 1
        measures[f"{STEP} {precision}"] = _bare_steps(prepare(precision, num_steps * batch_size))
        measures[f"{FORWARD} {precision}"] = _forward(prepare(precision, batch_size))
    step = measures[f"{STEP} {recipe.train.precision}"]
    step()  # the first time is slower
    num_batches = int(step() / batch_size * seconds * _EPOCH_SHARE)
    num_batches = min(max(num_batches, _MIN_EPOCH_BATCHES), MAX_EPOCH_BATCHES)
    steps = prepare(recipe.train.precision, num_batches * batch_size)
    measures["bare"] = _bare_steps(steps)
    measures["epoch"] = rate_of(
        lambda: train_epoch(steps), amount=steps.batches.num_clips, device=device
    )
    return interleave(measures, seconds=seconds, on_progress=on_progress)


def interleave(
    measures: Mapping[str, Measure], *, seconds: float, on_progress: OnProgress
) -> dict[str, list[float]]:
    """Take all measures in turn for about `seconds`, at least MIN_ROUNDS times.

    The first round is slower and not counted. `on_progress` gets the elapsed and total seconds.
    """
    begin = time.perf_counter()
    values: dict[str, list[float]] = {name: [] for name in measures}
    num_rounds = -1
    while True:
        for name, measure in measures.items():
            values[name].append(measure())
            on_progress(min(int(time.perf_counter() - begin), int(seconds)), int(seconds))
        num_rounds += 1
        elapsed = time.perf_counter() - begin
        if num_rounds >= MIN_ROUNDS and elapsed + elapsed / (num_rounds + 1) > seconds:
            return {name: rounds[1:] for name, rounds in values.items()}


def rate_of(work: Work, *, amount: float, device: torch.device) -> Measure:
    """Return a function that measures the rate of `work`; one call processes `amount` units.

    The first call also determines how often `work` must be repeated to be measurable.
    """
    repeats = 0

    def measure() -> float:
        nonlocal repeats
        if repeats == 0:
            first_s = _time(work, 1, device)
            # On a GPU, loading its libraries may take most of the first time; on a CPU, startup.
            if first_s > _LONG_S and device.type == "cpu":
                repeats = 1
                return amount / first_s
            repeats = max(1, math.ceil(_SHORTEST_S / _time(work, 1, device)))
        return amount * repeats / _time(work, repeats, device)

    return measure


def _time(work: Work, repeats: int, device: torch.device) -> float:
    _wait_for(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait_for(device)
    return time.perf_counter() - begin


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _data(batches: TrainBatches) -> Measure:
    def draw_epoch() -> None:
        for _ in batches.epoch(0):
            pass

    return rate_of(draw_epoch, amount=batches.num_clips, device=batches.bank.device)


def _product(precision: str, device: torch.device) -> Measure:
    size = PRODUCT_SIZES[device.type]
    left, right = (torch.ones(size, size, dtype=_DTYPES[precision], device=device) for _ in "lr")
    result = torch.empty_like(left)
    return rate_of(lambda: torch.mm(left, right, out=result), amount=2 * size**3, device=device)


def _bare_steps(steps: Steps) -> Measure:
    """Measure forward, backward and optimizer step on ready batches.

    Captured steps are measured as a whole: their graph also makes the batches.
    """
    state, batches = steps.state, steps.batches
    if not isinstance(steps, LaunchedSteps):
        return rate_of(lambda: steps.run(0), amount=batches.num_clips, device=state.device)
    ready = list(batches.epoch(0))
    state.parallel.train()

    def take() -> None:
        for batch in ready:
            backward(state, batch)
            state.optimizer.step()

    return rate_of(take, amount=batches.num_clips, device=state.device)


def _forward(steps: Steps) -> Measure:
    state = steps.state
    model = state.model.eval()
    batch = next(iter(steps.batches.epoch(0)))
    use_bf16 = state.recipe.train.precision == "bf16"

    @torch.no_grad()
    def forward() -> None:
        with torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=use_bf16):
            model(batch.joints_BTVC)

    return rate_of(forward, amount=len(batch.labels_B), device=state.device)
