"""What is measured in this process: the data path, matrix products, steps and a whole epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sgnray.bench.result import Epoch, Product, Rate, Speed, Subject
from sgnray.bench.rounds import Measure, OnProgress, interleave, rate_of
from sgnray.config import Recipe
from sgnray.data.batches import Batch, TrainBatches
from sgnray.data.pose_bank import PoseBank
from sgnray.data.protocols import IntArray
from sgnray.data.store import SkeletonDataset
from sgnray.distributed.world import World
from sgnray.train.job import train_batches
from sgnray.train.loop import train_epoch
from sgnray.train.state import TrainState
from sgnray.train.step import LaunchedSteps, Steps, backward, choose_steps

STEP, FORWARD = "training step", "forward"
# Large enough to reach what the machine can, small enough to be repeated in every round.
_PRODUCT_SIZES = {"cpu": 1024, "cuda": 8192}
# An epoch takes about so much of the time that there is, within these limits.
_EPOCH_SHARE = 1 / 20
_MIN_BATCHES, MAX_EPOCH_BATCHES = 2, 64
_DATA_CLIPS = 8192
_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ProcessSpeeds:
    """What was measured in this process."""

    data_clips_per_s: Rate
    products: tuple[Product, ...]
    speeds: tuple[Speed, ...]
    epoch: Epoch

    def clips_per_s(self, what: str, precision: str) -> float:
        """Return the median of one of the speeds."""
        rows = (row for row in self.speeds if (row.what, row.precision) == (what, precision))
        return next(rows).clips_per_s.median


def measure_process(
    recipe: Recipe,
    subject: Subject,
    dataset: SkeletonDataset,
    rows: IntArray,
    *,
    device: torch.device,
    precisions: tuple[str, ...],
    seconds: float,
    on_progress: OnProgress,
) -> ProcessSpeeds:
    """Measure all of it in interleaved rounds, on the training clips `rows`."""
    bank = PoseBank.of(dataset, device, wanted=recipe.data.pose_device)
    one = recipe.optim.batch_size

    def prepared(precision: str, num_clips: int) -> Steps:
        # An epoch of few steps over few clips: what it draws for its clips stays in proportion.
        batches = train_batches(recipe, bank, rows[:num_clips], world=World())
        changed = with_precision(recipe, precision)
        state = TrainState.initial(changed, dataset, device=device, world=World())
        return choose_steps(state, batches)

    all_batches = train_batches(recipe, bank, rows[:_DATA_CLIPS], world=World())
    measures: dict[str, Measure] = {"data": _data(all_batches)}
    size = _PRODUCT_SIZES[device.type]
    for precision in precisions:
        measures[f"product {precision}"] = _product(size, precision, device)
        measures[f"{STEP} {precision}"] = _bare_steps(prepared(precision, one))
        measures[f"{FORWARD} {precision}"] = _forward(prepared(precision, one))
    num_batches = _affordable(measures[f"{STEP} {subject.precision}"], one, seconds)
    steps = prepared(subject.precision, num_batches * one)
    measures |= {"bare": _bare_steps(steps), "epoch": _epoch(steps)}
    values = interleave(measures, seconds=seconds, on_progress=on_progress)
    products = {precision: max(values[f"product {precision}"]) for precision in precisions}
    return ProcessSpeeds(
        data_clips_per_s=Rate.of(values["data"]),
        products=tuple(Product(precision, size, best) for precision, best in products.items()),
        speeds=tuple(
            _speed(what, precision, values[f"{what} {precision}"], flops, products[precision])
            for precision in precisions
            for what, flops in ((STEP, subject.step_flops), (FORWARD, subject.forward_flops))
        ),
        epoch=Epoch(
            num_batches=steps.batches.num_batches,
            clips_per_s=Rate.of(values["epoch"]),
            outside=Rate.of(_outside(bare=values["bare"], epoch=values["epoch"])),
        ),
    )


def with_precision(recipe: Recipe, precision: str) -> Recipe:
    """Change the arithmetic of a recipe."""
    return recipe.replacing({"train.precision": precision})


def _affordable(step: Measure, batch_size: int, seconds: float) -> int:
    """Return how many batches an epoch may have for its share of the time."""
    step()  # the first time is slower
    wanted = int(step() / batch_size * seconds * _EPOCH_SHARE)
    return min(max(wanted, _MIN_BATCHES), MAX_EPOCH_BATCHES)


def _data(batches: TrainBatches) -> Measure:
    def draw_epoch() -> None:
        for _ in batches.epoch(0):
            pass

    return rate_of(draw_epoch, amount=batches.num_clips, device=batches.bank.device)


def _product(size: int, precision: str, device: torch.device) -> Measure:
    left, right = (torch.ones(size, size, dtype=_DTYPES[precision], device=device) for _ in "lr")
    result = torch.empty_like(left)
    return rate_of(lambda: torch.mm(left, right, out=result), amount=2 * size**3, device=device)


def _bare_steps(steps: Steps) -> Measure:
    """Measure forward, backward and optimizer step on ready batches.

    Captured steps cannot be taken apart: their batches are made in the same graph.
    """
    state, batches = steps.state, steps.batches
    if not isinstance(steps, LaunchedSteps):
        return rate_of(lambda: steps.run(0), amount=batches.num_clips, device=state.device)
    ready = list(batches.epoch(0))
    state.parallel.train()

    def take() -> None:
        for batch in ready:
            _step(state, batch)

    return rate_of(take, amount=batches.num_clips, device=state.device)


def _step(state: TrainState, batch: Batch) -> None:
    backward(state, batch)
    state.optimizer.step()


def _forward(steps: Steps) -> Measure:
    state = steps.state
    model = state.model.eval()
    batch = next(iter(steps.batches.epoch(0)))
    use_bf16 = state.recipe.train.precision == "bf16"

    @torch.no_grad()
    def answer() -> None:
        with torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=use_bf16):
            model(batch.joints_BTVC)

    return rate_of(answer, amount=len(batch.labels_B), device=state.device)


def _epoch(steps: Steps) -> Measure:
    return rate_of(
        lambda: train_epoch(steps), amount=steps.batches.num_clips, device=steps.state.device
    )


def _outside(*, bare: Sequence[float], epoch: Sequence[float]) -> list[float]:
    """Return the share of an epoch's time that the bare steps of its round do not explain."""
    return [1 - whole / steps for steps, whole in zip(bare, epoch, strict=True)]


def _speed(
    what: str, precision: str, clips_per_s: Sequence[float], flops: int, product: float
) -> Speed:
    rate = Rate.of(clips_per_s)
    flops_per_s = rate.median * flops
    return Speed(what, precision, rate, flops_per_s, flops_per_s / product)
