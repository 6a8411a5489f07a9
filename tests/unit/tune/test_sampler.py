"""Which values trials get: listed, drawn, or proposed from earlier scores."""

import json
import logging
import sys

import pytest

from sgnray.errors import MissingExtraError, RecipeError, UsageError
from sgnray.tune.sampler import make_sampler
from sgnray.tune.space import Choice, Range, Space

AXES = {
    "optim.schedule": Choice(("steps", "cosine")),
    "optim.warmup_epochs": Range("integer", 0, 5),
    "model.dropout": Range("uniform", 0.0, 0.5),
    "optim.learning_rate": Range("log_uniform", 1e-4, 1e-2),
}
SPACE = Space("mine", AXES, {"optim.warmup_epochs": {"optim.schedule": ("cosine",)}})


def goodness(values):
    """The lower the dropout the better, whatever the rest is."""
    return 0.9 - values["model.dropout"]


def run(sampler, numbers):
    """Propose and learn in turns, and return what was proposed."""
    proposed = []
    for number in numbers:
        values = sampler.propose(number, proposed)
        proposed.append(values)
        score = goodness(values)
        sampler.learn(values, [score - 0.1, score], is_complete=number % 3 != 0)
    return proposed


def test_random_trials_are_the_spaces_draws_however_many_follow():
    few, many = (make_sampler(SPACE, "random", count, 7) for count in (5, 9))
    proposed = [few.propose(number) for number in range(1, 6)]
    assert proposed == [SPACE.draw(7, index) for index in range(5)]
    assert proposed == [many.propose(number) for number in range(1, 6)]
    assert few.propose(6) is None


def test_repeated_draws_are_skipped_with_a_warning(caplog):
    caplog.set_level(logging.WARNING, logger="sgnray.tune.sampler")
    space = Space("mine", {"data.num_segments": Choice((4, 8))})
    sampler = make_sampler(space, "random", 8, 0)
    assert sampler.num_trials == 2
    assert sorted(sampler.propose(number)["data.num_segments"] for number in (1, 2)) == [4, 8]
    assert "6 of 8 trials would repeat others" in caplog.text


@pytest.mark.parametrize(
    "settings", [{"axes": {"data.num_segments": Choice((4, 8))}}, {"rows": ({}, {"a.b": 1})}]
)
def test_a_number_of_trials_that_a_grid_does_not_have_is_refused(settings):
    space = Space("mine", **settings)
    assert make_sampler(space, "grid", 2, 0).num_trials == 2
    with pytest.raises(UsageError, match="mine has 2 trials, which are all run") as caught:
        make_sampler(space, "grid", 3, 0)
    assert ("--search random" in caught.value.now) == ("axes" in settings)


def test_a_grid_has_all_its_points_once():
    """Points that differ only in a key whose condition does not hold are one point."""
    axes = {"a.schedule": Choice(("steps", "cosine")), "a.warmup": Choice((0, 3))}
    space = Space("mine", axes, {"a.warmup": {"a.schedule": ("cosine",)}})
    sampler = make_sampler(space, "grid", None, 0)
    assert [sampler.propose(number) for number in range(1, sampler.num_trials + 1)] == [
        {"a.schedule": "steps"},
        {"a.schedule": "cosine", "a.warmup": 0},
        {"a.schedule": "cosine", "a.warmup": 3},
    ]


def test_a_huge_grid_is_refused_before_it_is_built():
    axes = {f"key.{number}": Choice(tuple(range(100))) for number in range(20)}
    with pytest.raises(RecipeError, match="points"):
        make_sampler(Space("mine", axes), "grid", None, 0)


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_a_list_of_trials_is_refused_by_random_and_tpe_search(search):
    with pytest.raises(RecipeError, match="a list of trials"):
        make_sampler(Space("mine", rows=({}, {"model.dropout": 0.1})), search, 3, 0)


def test_tpe_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna.samplers", None)  # an import of it fails from now on
    with pytest.raises(MissingExtraError, match="needs the package optuna, which is not installed"):
        make_sampler(SPACE, "tpe", 3, 0)


@pytest.mark.parametrize("seed", range(3))
def test_tpe_finds_what_is_better_and_keeps_to_the_space(seed):
    proposed = run(make_sampler(SPACE, "tpe", 40, seed), range(1, 41))
    later = [goodness(values) for values in proposed[10:]]
    assert sum(later) / 30 > 0.75  # random search: 0.64 to 0.69
    for values in proposed:
        assert ("optim.warmup_epochs" in values) == (values["optim.schedule"] == "cosine")
        assert 0.0 <= values["model.dropout"] <= 0.5
        assert values["model.dropout"] == float(f"{values['model.dropout']:.4g}")
    assert make_sampler(SPACE, "tpe", 40, seed).propose(41) is None


def test_tpe_proposes_the_same_for_the_same_seed_and_another_for_another():
    runs = [run(make_sampler(SPACE, "tpe", 12, seed), range(1, 13)) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_tpe_learns_what_an_earlier_process_found(capfd):
    known = run(make_sampler(SPACE, "tpe", 30, 0), range(1, 20))
    proposed = []
    for seed in range(1, 7):
        second = make_sampler(SPACE, "tpe", 30, seed)
        for number, values in enumerate(known, start=1):
            scores = [] if number == 4 else [goodness(values)]
            second.learn(json.loads(json.dumps(values)), scores, is_complete=number != 5)
        proposed.append(second.propose(20))
    states = [trial.state.name for trial in second._study.trials]
    assert (states[3], states[4], states.count("COMPLETE")) == ("FAIL", "PRUNED", 17)
    assert [trial.params["model.dropout"] for trial in second._study.trials[:19]] == [
        values["model.dropout"] for values in known
    ]
    assert min(map(goodness, proposed)) > 0.68  # random search: 0.58
    assert capfd.readouterr() == ("", "")


def test_tpe_runs_no_point_twice():
    axes = {"model.dropout": Choice((0.0, 0.1, 0.2)), "optim.decay": Choice((0.1, 0.2))}
    sampler = make_sampler(Space("mine", axes), "tpe", 16, 0)
    assert sampler.num_trials == 6
    proposed = run(sampler, range(1, 7))
    assert len({tuple(values.values()) for values in proposed}) == 6
    assert sampler.propose(7) is None


def test_points_that_differ_in_inactive_keys_only_are_one_trial_of_tpe():
    axes = {"optim.schedule": Choice(("steps", "cosine")), "optim.warmup_epochs": Choice((1, 2, 3))}
    conditions = {"optim.warmup_epochs": {"optim.schedule": ("cosine",)}}
    assert make_sampler(Space("mine", axes, conditions), "tpe", 16, 0).num_trials == 4
