"""Rounds are interleaved and end in time; rates are amounts over seconds."""

import time

import pytest
import torch

from sgnray.bench.measure import MIN_ROUNDS, Rate, interleave, rate_of

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def test_measures_take_turns():
    taken = []

    def measure(name):
        def take():
            taken.append(name)
            return float(len(taken))

        return take

    heard = []
    values = interleave(
        {"a": measure("a"), "b": measure("b")},
        seconds=1e-9,
        on_progress=lambda *args: heard.append(args),
    )
    assert taken == ["a", "b"] * (1 + MIN_ROUNDS)
    assert values == {"a": [3.0, 5.0, 7.0], "b": [4.0, 6.0, 8.0]}  # the first round is not counted
    assert len(heard) == len(taken)


def test_rounds_continue_until_the_time_is_over(monkeypatch):
    """The first round counts as time, but not as a value; none starts that would end too late."""
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def take():
        nonlocal now
        now += 0.25
        return 1.0

    heard = []
    values = interleave(
        {"a": take, "b": take}, seconds=5.25, on_progress=lambda *args: heard.append(args)
    )
    assert (values["a"], now) == ([1.0] * 9, 105.0)
    assert heard[-1] == (5, 5)


def test_a_rate_is_an_amount_over_seconds():
    measure = rate_of(lambda: time.sleep(0.02), amount=10, device=CPU)
    rates = [measure() for _ in range(3)]
    # A sleep is never shorter than requested.
    assert 10 < max(rates) <= 500


def test_short_work_is_repeated_until_it_can_be_timed():
    calls = 0

    def work():
        nonlocal calls
        calls += 1

    measure = rate_of(work, amount=1, device=CPU)
    measure()
    before = calls
    measure()
    assert calls - before > 100


def test_quartiles():
    rate = Rate.of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (rate.median, rate.low, rate.high, rate.num_rounds) == (3.0, 2.0, 4.0, 5)
    assert rate.spread == pytest.approx(1 / 3)
    assert Rate.of([7.0]) == Rate(7.0, 7.0, 7.0, 1)
    assert Rate.of([0.0, 0.0]).spread == 0.0
