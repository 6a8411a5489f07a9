"""How Ray runs a search: what can be tested without a cluster."""

import contextlib
import importlib
import inspect
import itertools
import pkgutil
import re
import signal
from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher

from sgnray.distributed.resources import Resources
from sgnray.errors import ClusterError
from sgnray.tune.folder import SearchFolder
from sgnray.tune.ray import callbacks, launch
from sgnray.tune.ray.callbacks import Proposals
from sgnray.tune.ray.launch import _environment, _interruptible, run_trials
from sgnray.tune.trial_resources import TrialResources
from sgnray.tune.trials import Started


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


def test_a_lost_cluster_ends_a_search_in_order(monkeypatch, tmp_path, plan, tiny_folder):
    def choose_precision(*_):
        raise TimeoutError("the head does not answer")

    ended = []
    folder = SearchFolder(tmp_path, plan)
    search = SimpleNamespace(folder=folder, ended=[], begin=list, end=lambda: ended.append(True))
    monkeypatch.setattr(launch, "_choose_precision", choose_precision)
    cluster = Resources(1, 0, is_local=False)
    with pytest.raises(ClusterError, match="lost: the head does not answer") as caught:
        run_trials(search, tiny_folder, cluster, TrialResources(), num_folds=2, time_budget_s=None)
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


def test_no_private_method_of_ray_is_overridden():
    """The next version of Ray might not call it."""
    ours = {
        name: each
        for package in ("sgnray.distributed", "sgnray.tune.ray")
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__)
        for module in [importlib.import_module(f"{package}.{found.name}")]
        for name, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and each.__base__.__module__.startswith("ray.")
    }
    assert ours.keys() == {"_Asha", "Proposals", "Reports", "TimeBudget"}
    for each in ours.values():
        methods = [name for name, value in vars(each).items() if callable(value)]
        private = [name for name in methods if re.match("_[^_]", name)]
        assert [name for name in private if hasattr(each.__base__, name)] == []


class FakeRoom:
    """A request for room, which a test grants."""

    def __init__(self):
        self.is_granted, self.is_released = False, False

    def count(self):
        assert not self.is_released
        return int(self.is_granted)

    def release(self):
        assert not self.is_released
        self.is_released = True


@pytest.fixture
def asked():
    """The requests for room so far."""
    return []


@pytest.fixture
def propose(asked, monkeypatch):
    """Build the proposals of a search of nine trials."""
    monkeypatch.setattr(callbacks, "_NOTICE_LOSS_S", 0)

    def ask_room():
        asked.append(FakeRoom())
        return asked[-1]

    def build(room):
        trials = (Started(number, {}) for number in range(1, 10))
        search = SimpleNamespace(next_trial=lambda: next(trials, None))
        return Proposals(search, SimpleNamespace(room=room, ask_room=ask_room))

    return build


TRIAL_IDS = itertools.count()


def take(proposals):
    """Return the numbers of the trials that Ray gets until it has to ask again."""
    taken = []
    while (config := proposals.suggest(f"trial {next(TRIAL_IDS)}")) is not None:
        if config == Searcher.FINISHED:
            taken.append(config)
            break
        assert config.keys() == {"number", "values"}
        taken.append(config["number"])
    return taken


@pytest.mark.parametrize(("room", "first"), [(0, [1]), (1, [1]), (3, [1, 2, 3])])
def test_a_trial_of_several_workers_starts_once_there_is_room(propose, asked, room, first):
    proposals = propose(room)
    assert take(proposals) == first
    waiting = sorted(proposals._given)
    while waiting:  # for their workers
        assert take(proposals) == []
        assert not asked
        proposals.on_trial_result(waiting.pop(), {})
    for _ in range(3):  # one request, however often Ray asks
        assert take(proposals) == []
    (request,) = asked
    request.is_granted = True
    assert take(proposals) == [len(first) + 1]
    assert request.is_released
    assert len(asked) == 1


@pytest.mark.parametrize("has_reported", [True, False])
def test_a_trial_that_ends_makes_room_for_the_next(propose, asked, has_reported):
    """Even if its room was not granted: without any trial, Ray Tune would wait for one."""
    proposals = propose(0)
    for number in range(1, 10):
        assert take(proposals) == [number]
        (trial_id,) = proposals._given
        if has_reported:
            proposals.on_trial_result(trial_id, {})
            assert take(proposals) == []
        proposals.on_trial_complete(trial_id=trial_id, result=None, error=not has_reported)
    assert take(proposals) == [Searcher.FINISHED]
    assert len(asked) == (9 if has_reported else 0)
    assert all(request.is_released for request in asked)


def test_as_many_trials_as_have_run_at_once_start_without_waiting(propose, asked):
    proposals = propose(1)
    for number in (1, 2, 3):
        assert take(proposals) == [number]
        for trial_id in sorted(proposals._given):
            proposals.on_trial_result(trial_id, {})
        assert take(proposals) == []
        asked[-1].is_granted = True
    assert take(proposals) == [4]
    for trial_id in sorted(proposals._given)[:2]:
        proposals.on_trial_complete(trial_id)
    assert take(proposals) == [5]


def test_a_trial_that_is_restarted_gets_its_room_back(propose, asked, monkeypatch):
    """Ray Train frees it before Ray Tune notices the loss: it is not given to the next trial."""
    monkeypatch.setattr(callbacks, "_NOTICE_LOSS_S", 1000)
    proposals = propose(1)
    take(proposals)
    (trial_id,) = proposals._given
    proposals.on_trial_result(trial_id, {})
    assert take(proposals) == []
    asked[0].is_granted = True
    assert take(proposals) == []
    proposals.on_lost_worker(trial_id)
    assert asked[0].is_released
    assert take(proposals) == []
    assert len(asked) == 1  # none is requested before the trial reports again
    proposals.on_trial_result(trial_id, {})
    assert take(proposals) == []
    assert len(asked) == 2


def test_a_request_for_room_ends_with_the_search(propose, asked):
    proposals = propose(1)
    take(proposals)
    proposals.on_trial_result(*proposals._given, {})
    take(proposals)
    for _ in range(2):
        proposals.close()
    assert [request.is_released for request in asked] == [True]


def test_ray_tune_decides_how_many_trials_of_one_worker_start(propose):
    assert take(propose(None)) == [*range(1, 10), Searcher.FINISHED]
