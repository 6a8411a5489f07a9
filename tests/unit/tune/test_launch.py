"""How Ray runs a search: what can be tested without a cluster."""

import contextlib
import signal
from types import SimpleNamespace

import pytest

from sgnray.distributed.resources import Resources
from sgnray.errors import ClusterError
from sgnray.tune.ray import launch
from sgnray.tune.ray.launch import _environment, _interruptible, run_trials
from sgnray.tune.trial.resources import TrialResources


def test_a_search_is_interrupted_only_if_the_handler_of_the_caller_raises():
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        with _interruptible() as repeat:
            signal.raise_signal(signal.SIGINT)
            repeat()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with _interruptible() as repeat:
            with contextlib.suppress(KeyboardInterrupt):  # as Ray may do
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                repeat()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_lost_cluster_ends_a_search_in_order(monkeypatch, tiny_folder):
    def choose_precision(*_):
        raise TimeoutError("the head does not answer")

    ended = []
    search = SimpleNamespace(folder=None, begin=list, end=lambda: ended.append(True))
    monkeypatch.setattr(launch, "_choose_precision", choose_precision)
    cluster = Resources(1, 0, is_local=False)
    with pytest.raises(ClusterError, match="lost: the head does not answer") as caught:
        run_trials(search, tiny_folder, TrialResources(), cluster, time_budget_s=None)
    assert "trials that have ended are not repeated" in caught.value.now
    assert ended == [True]


@pytest.mark.parametrize(
    ("search", "concurrent", "num_waiting"),
    [("random", None, "4"), ("grid", None, "4"), ("tpe", None, None), ("grid", 9, None)],
)
def test_more_than_one_trial_waits_for_room_if_its_values_are_known(
    make_plan, search, concurrent, num_waiting
):
    """None: as many as `concurrent`, else one."""
    found = _environment(make_plan(search=search), TrialResources(concurrent=concurrent))
    assert found.get("TUNE_MAX_PENDING_TRIALS_PG") == num_waiting
