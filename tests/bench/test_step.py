"""How fast SGN trains and predicts next to its twin; `pytest -m bench -s tests/bench/test_step.py`.

The twin is written as the reference is (tests/numerics/sgn_twin.py) and steps with the same fused
Adam. Rounds are interleaved: a ratio is taken within one round, so that other load of the machine
affects both. SGNRAY_BENCH_ROUNDS sets how many rounds.
"""

from __future__ import annotations

import os
import statistics
import time

import pytest
import torch

from sgnray.config import OptimConfig
from sgnray.model.sgn import SGN
from sgnray.train.optim import build_optimizer
from sgnray.train.step import smoothed_cross_entropy

from ..numerics.sgn_twin import Twin

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

NUM_ROUNDS = int(os.environ.get("SGNRAY_BENCH_ROUNDS", "9"))
BATCH_SIZE, NUM_FRAMES, NUM_CLASSES = 64, 20, 60
PRECISIONS = ("float32", "bf16")


@pytest.fixture(params=[1, 2], ids=lambda count: f"{count}-threads")
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_joints", [25, 20])
@pytest.mark.parametrize("what", ["step", "forward"])
def test_against_the_twin(what, num_joints, num_threads):
    torch.manual_seed(0)
    model = SGN(NUM_CLASSES, num_joints)
    prepare = prepare_step if what == "step" else prepare_forward
    candidates = {"twin": Twin(model), "sgn": model}
    runs = {
        (name, precision): prepare(candidate, num_joints, precision)
        for name, candidate in candidates.items()
        for precision in PRECISIONS
    }
    seconds = take_turns(runs)
    print(f"\n{what}, V={num_joints}, {num_threads} threads, {NUM_ROUNDS} rounds")
    for key, values in seconds.items():
        print(f"  {' '.join(key):<14} {statistics.median(values) * 1e3:7.1f} ms")
    for ours, theirs in (("float32", "float32"), ("bf16", "float32"), ("bf16", "bf16")):
        pairs = zip(seconds["twin", theirs], seconds["sgn", ours], strict=True)
        ratios = sorted(slow / fast for slow, fast in pairs)
        print(
            f"  sgn {ours:<8} is {statistics.median(ratios):.2f} times as fast as "
            f"twin {theirs:<8} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def take_turns(runs):
    """Seconds of each run in each round; one round before them warms up."""
    seconds = {key: [] for key in runs}
    for _ in range(NUM_ROUNDS + 1):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[key].append(time.perf_counter() - start)
    return {key: values[1:] for key, values in seconds.items()}


def prepare_step(model, num_joints, precision):
    joints_BTVC, labels_B = draw_batch(num_joints)
    optimizer = build_optimizer(model, OptimConfig())

    def step():
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits_BK = model(joints_BTVC)
        smoothed_cross_entropy(logits_BK, labels_B, smoothing=0.1).mean().backward()
        optimizer.step()

    return step


def prepare_forward(model, num_joints, precision):
    joints_BTVC, _ = draw_batch(num_joints)

    def forward():
        model.eval()
        with (
            torch.no_grad(),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"),
        ):
            model(joints_BTVC)

    return forward


def draw_batch(num_joints):
    generator = torch.Generator().manual_seed(1)
    joints_BTVC = torch.randn(BATCH_SIZE, NUM_FRAMES, num_joints, 3, generator=generator)
    return joints_BTVC, torch.randint(NUM_CLASSES, (BATCH_SIZE,), generator=generator)
