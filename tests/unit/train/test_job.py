"""Progress within an epoch: rare and complete reports."""

from types import SimpleNamespace

from sgnray.train.job import ProgressReporter, TrainProgress

STATE = SimpleNamespace(
    epoch=3,
    recipe=SimpleNamespace(train=SimpleNamespace(num_epochs=4)),
    world=SimpleNamespace(size=2),
)


def test_progress_is_reported_at_most_once_a_second():
    seen, clock = [], SimpleNamespace(now=0.0)
    reporter = ProgressReporter(STATE, seen.append, clock=lambda: clock.now)
    for step in range(1, 11):
        clock.now += 0.25
        reporter.report("train", step, 10)
    assert [news.done for news in seen] == [1, 5, 9]
    assert seen[0] == TrainProgress("train", 4, 4, 1, 10, 2)


def test_test_progress_belongs_to_the_last_epoch():
    seen = []
    state = SimpleNamespace(**(vars(STATE) | {"epoch": 4}))
    ProgressReporter(state, seen.append).report("test", 32, 464)
    assert seen == [TrainProgress("test", 4, 4, 32, 464, 2)]


def test_progress_without_a_listener_is_ignored():
    ProgressReporter(STATE, None).report("train", 1, 2)
