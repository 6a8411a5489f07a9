"""Measure several things in interleaved rounds: what else the machine does then meets all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import torch

Work = Callable[[], object]
Measure = Callable[[], float]
OnProgress = Callable[[int, int], None]

MIN_ROUNDS = 3
# Shorter ones would measure the clock and the launch of the first kernel.
_SHORTEST_S, _LONG_S = 0.05, 0.5


def rate_of(work: Work, *, amount: float, device: torch.device) -> Measure:
    """Return what measures `work`, which does `amount` of something: how much in a second.

    The first time it is also found out how often it must be repeated to be measured.
    """
    repeats = 0

    def measure() -> float:
        nonlocal repeats
        if repeats == 0:
            first_s = _time(work, 1, device)
            if first_s > _LONG_S:
                repeats = 1
                return amount / first_s
            # Most of the first time may have been the start.
            repeats = max(1, math.ceil(_SHORTEST_S / _time(work, 1, device)))
        return amount * repeats / _time(work, repeats, device)

    return measure


def interleave(
    measures: Mapping[str, Measure], *, seconds: float, on_progress: OnProgress
) -> dict[str, list[float]]:
    """Take all measures in turn for about `seconds`, and MIN_ROUNDS times at least.

    `on_progress` hears the seconds gone and the seconds in all.
    """
    begin = time.perf_counter()
    for measure in measures.values():  # the first time is slower, and not counted
        measure()
        on_progress(min(int(time.perf_counter() - begin), int(seconds)), int(seconds))
    values: dict[str, list[float]] = {name: [] for name in measures}
    num_rounds = 0
    while True:
        for name, measure in measures.items():
            values[name].append(measure())
            on_progress(min(int(time.perf_counter() - begin), int(seconds)), int(seconds))
        num_rounds += 1
        gone = time.perf_counter() - begin
        # The warm-up was about as long as a round.
        if num_rounds >= MIN_ROUNDS and gone + gone / (num_rounds + 1) > seconds:
            return values


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
