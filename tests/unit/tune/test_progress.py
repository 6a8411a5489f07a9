"""What becomes of what Ray tells: the record, the tables, the caller, and errors on the way."""

import csv

import pytest

from sgnray.errors import OutputError
from sgnray.tune.space.sampler import make_sampler
from sgnray.tune.state.events import Started
from sgnray.tune.state.folder import claim_search
from sgnray.tune.state.progress import Progress

METRICS = {"spread": None, "duration_s": 1.0, "num_parameters": 7, "flops": 9, "node": "here"}


class Heard:
    def __init__(self):
        self.trials, self.boards = [], []

    def on_trial(self, row):
        self.trials.append(row)

    def on_board(self, rows, num_trials, num_epochs):
        self.boards.append((len(rows), num_trials, num_epochs))


@pytest.fixture
def folder(tmp_path, plan):
    with claim_search(tmp_path, None, plan) as folder:
        yield folder


def statuses(folder):
    with (folder.path / "trials.csv").open() as file:
        return [row["status"] for row in csv.DictReader(file)]


def report(progress, number, epoch, score):
    values = progress.board.row(number).values
    progress.on_epoch(number, values, {**METRICS, "epoch": epoch, "val/top1": score})


def begin(folder, sampler, listener=None):
    progress = Progress(folder, sampler, listener)
    progress.begin()
    return progress


def test_the_tables_and_the_caller_follow_the_trials(folder, sampler):
    heard = Heard()
    progress = begin(folder, sampler, heard)
    trials = [progress.next_trial() for _ in range(3)]
    assert [trial["number"] for trial in trials] == [1, 2, 3]
    assert trials[1]["values"] == sampler.propose(2)
    assert progress.next_trial() is None
    report(progress, 1, 1, 0.5)
    report(progress, 1, 2, 0.6)
    progress.on_end(1, is_cut=False)
    report(progress, 2, 1, 0.5)
    (folder.states_dir / "0002").mkdir()
    progress.on_end(2, is_cut=False)
    assert not (folder.states_dir / "0002").exists()
    progress.on_epoch(3, {}, {"epoch": 0, "failure": "ValueError: no", "story": "Traceback"})
    progress.on_end(3, is_cut=False)
    assert statuses(folder) == ["finished", "stopped", "failed"]
    assert [(row.number, row.score) for row in heard.trials] == [(1, 0.6), (2, 0.5), (3, None)]
    assert heard.boards[-1] == (3, 3, 2)
    progress.end()
    assert folder.best_path.exists()


def test_the_same_search_goes_on_with_what_is_not_finished(folder, sampler):
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
    assert second.next_trial() == {"number": 1, "values": sampler.propose(1)}
    assert second.next_trial() == {"number": 3, "values": sampler.propose(3)}
    assert second.next_trial() is None


def test_a_searcher_that_learns_is_told_of_an_earlier_command(tmp_path, make_plan):
    plan = make_plan(search="tpe", num_trials=8)
    with claim_search(tmp_path, None, plan) as folder:
        proposals = []
        for _ in range(2):  # the second one with a new sampler, as in a new process
            progress = begin(folder, make_sampler(plan.space, "tpe", 8, 0))
            trials = [progress.next_trial() for _ in range(2)]
            for trial in trials:
                report(progress, trial["number"], 1, 0.5)
                report(progress, trial["number"], 2, 0.6)
                progress.on_end(trial["number"], is_cut=False)
            proposals += [trial["number"] for trial in trials]
        assert proposals == [1, 2, 3, 4]
        study = progress._sampler._study
        assert sum(trial.value == 0.6 for trial in study.trials) == 4
        values = [progress.board.row(number).values for number in (1, 2, 3, 4)]
        assert len({str(each) for each in values}) == 4  # the seed's first draws are not repeated


def test_values_that_pbt_changed_are_the_trials_from_then_on(folder, sampler):
    progress = begin(folder, sampler)
    progress.next_trial()
    report(progress, 1, 1, 0.5)
    values = {"optim.learning_rate": 0.02, "data.num_segments": 4}
    progress.on_epoch(1, values, {**METRICS, "epoch": 2, "val/top1": 0.6})
    assert progress.board.row(1).values == values
    assert progress.board.row(1).scores == (0.5, 0.6)
    assert folder.record.read()[-2] == Started(1, values)


def test_an_error_of_the_callers_is_not_lost(folder, sampler):
    class Fails(Heard):
        def on_trial(self, row):
            raise OutputError("full", where="here", now="make space")

    progress = begin(folder, sampler, Fails())
    progress.next_trial()
    progress.on_lost(1, "it was lost")
    with pytest.raises(OutputError):
        progress.on_epoch(1, {}, {})
    with pytest.raises(OutputError):
        progress.end()
    assert statuses(folder) == ["failed"]
