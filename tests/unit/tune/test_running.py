"""What a report of a trial changes: the record, the tables, the caller, and errors on the way."""

import csv

import pytest

from sgnray.errors import OutputError, RunError
from sgnray.storage import mirror
from sgnray.storage.location import locate
from sgnray.tune.folder import claim_search
from sgnray.tune.running import RunningSearch
from sgnray.tune.sampler import make_sampler
from sgnray.tune.trials import EpochReport, FailureReport, Started


class Heard:
    def __init__(self):
        self.trials, self.updates = [], []

    def on_trial_end(self, row):
        self.trials.append(row)

    def on_update(self, rows, num_trials, num_epochs):
        self.updates.append((len(rows), num_trials, num_epochs))


@pytest.fixture
def folder(tmp_path, plan):
    with claim_search(tmp_path, None, plan) as folder:
        yield folder


def statuses(folder):
    with (folder.path / "trials.csv").open() as file:
        return [row["status"] for row in csv.DictReader(file)]


def report(search, number, epoch, score):
    search.on_report(number, EpochReport(epoch, score, None, 1.0, 7, 9, "here"))


def begin(folder, sampler, listener=None):
    search = RunningSearch(folder, sampler, listener)
    search.begin()
    return search


def test_the_tables_and_the_caller_follow_the_trials(folder, sampler):
    heard = Heard()
    search = begin(folder, sampler, heard)
    trials = [search.next_trial() for _ in range(3)]
    assert [trial.number for trial in trials] == [1, 2, 3]
    assert trials[1].values == sampler.propose(2)
    assert search.next_trial() is None
    report(search, 1, 1, 0.5)
    report(search, 1, 2, 0.6)
    search.on_end(1, is_cut=False)
    report(search, 2, 1, 0.5)
    search.save_state(2, b"state")
    assert list(search.folder.states_dir.iterdir()) == [folder.state_path(2)]
    search.on_end(2, is_cut=False)
    assert not list(search.folder.states_dir.iterdir())
    search.on_report(3, FailureReport("ValueError: no", "Traceback"))
    search.on_end(3, is_cut=False)
    assert statuses(folder) == ["finished", "stopped", "failed"]
    assert [(row.number, row.score) for row in heard.trials] == [(1, 0.6), (2, 0.5), (3, None)]
    assert heard.updates[-1] == (3, 3, 2)
    search.end()
    assert folder.best_path.exists()


def test_only_states_of_unfinished_trials_are_kept(folder, sampler):
    search = begin(folder, sampler)
    for number in (1, 2, 3):
        search.next_trial()
        report(search, number, 1, 0.5)
        search.save_state(number, f"state {number}".encode())
    search.save_state(1, None)  # no newer one
    search.on_end(2, is_cut=False)
    search.save_state(2, b"that of a trial that Ray still ends")
    (folder.states_dir / "0001").mkdir()  # an earlier version's
    search.on_end(3, is_cut=True)
    search.end()
    assert sorted(folder.states_dir.iterdir()) == [folder.state_path(1), folder.state_path(3)]
    assert dict(begin(folder, sampler).read_states()) == {1: b"state 1", 3: b"state 3"}


def test_a_search_ends_after_another_command_has_taken_over_its_folder(
    folder, sampler, monkeypatch
):
    copy = mirror.Mirror(locate(folder.path), folder.path.parent)
    monkeypatch.setitem(mirror._mirrors, folder.path, copy)
    search = begin(folder, sampler)
    search.next_trial()
    copy.error = RunError("another command has taken over this folder", where="here", now="rerun")
    report(search, 1, 1, 0.5)
    with pytest.raises(RunError, match="taken over"):
        report(search, 1, 2, 0.5)


def test_the_same_search_resumes_unfinished_trials(folder, sampler):
    first = begin(folder, sampler)
    for _ in range(2):
        first.next_trial()
    report(first, 1, 1, 0.5)
    report(first, 2, 1, 0.5)
    report(first, 2, 2, 0.7)
    first.on_end(2, is_cut=False)
    first.on_end(1, is_cut=True)
    first.end()
    assert statuses(folder) == ["interrupted", "finished"]
    second = begin(folder, sampler)
    assert [row.number for row in second.ended] == [2]
    assert second.next_trial() == Started(1, sampler.propose(1))
    assert second.next_trial() == Started(3, sampler.propose(3))
    assert second.next_trial() is None


def test_tpe_learns_from_the_trials_of_an_earlier_command(tmp_path, make_plan):
    plan = make_plan(search="tpe", num_trials=8)
    with claim_search(tmp_path, None, plan) as folder:
        proposals = []
        for _ in range(2):  # the second one with a new sampler, as in a new process
            search = begin(folder, make_sampler(plan.space, "tpe", 8, 0))
            trials = [search.next_trial() for _ in range(2)]
            for trial in trials:
                report(search, trial.number, 1, 0.5)
                report(search, trial.number, 2, 0.6)
                search.on_end(trial.number, is_cut=False)
            proposals += [trial.number for trial in trials]
        assert proposals == [1, 2, 3, 4]
        study = search._sampler._study
        assert sum(trial.value == 0.6 for trial in study.trials) == 4
        values = [search.table.row(number).values for number in (1, 2, 3, 4)]
        assert len({str(each) for each in values}) == 4  # the seed's first draws are not repeated


def test_tpe_does_not_repeat_the_trials_that_an_interrupt_left_unfinished(tmp_path, make_plan):
    plan = make_plan(search="tpe", num_trials=8)
    with claim_search(tmp_path, None, plan) as folder:
        for num_started in (2, 4):  # the second one with a new sampler, as in a new process
            search = begin(folder, make_sampler(plan.space, "tpe", 8, 0))
            trials = [search.next_trial() for _ in range(num_started)]
            search.end()
    assert [trial.number for trial in trials] == [1, 2, 3, 4]
    assert len({str(trial.values) for trial in trials}) == 4


def test_tpe_does_not_learn_the_scores_of_a_failed_trial(tmp_path, make_plan):
    """Such as those before a loss that is no longer finite."""
    plan = make_plan(search="tpe", num_trials=8)
    with claim_search(tmp_path, None, plan) as folder:
        sampler = make_sampler(plan.space, "tpe", 8, 0)
        search = begin(folder, sampler)
        search.next_trial()
        report(search, 1, 1, 0.9)
        search.on_report(1, FailureReport("SgnError: the loss is no longer finite", "Traceback"))
        search.on_end(1, is_cut=False)
        search.end()
    assert search.table.row(1).scores == (0.9,)
    last = sampler._study.trials[-1]
    assert (last.state.name, last.intermediate_values) == ("FAIL", {})


def test_an_error_in_the_callers_listener_is_raised_again(folder, sampler):
    class Fails(Heard):
        def on_trial_end(self, row):
            raise OutputError("full", where="here", now="make space")

    search = begin(folder, sampler, Fails())
    search.next_trial()
    search.on_lost(1, "it was lost")
    with pytest.raises(OutputError):
        report(search, 1, 1, 0.5)
    with pytest.raises(OutputError):
        search.end()
    assert statuses(folder) == ["failed"]
