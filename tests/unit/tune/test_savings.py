"""ASHA's rule replayed over curves whose outcome was worked out by hand."""

import pytest

from sgnray.tune.report.savings import replay_asha
from sgnray.tune.state.board import TrialRow

pytestmark = pytest.mark.ray  # whose rule it is; importing it draws numbers


def make_row(number, *scores, status="finished"):
    return TrialRow(number, status, {}, scores)


def flat(number, score, num_epochs=9):
    return make_row(number, *[score] * num_epochs)


def test_each_worse_one_stops_at_its_first_look():
    """One at a time, best first: only the first is ever in the best third."""
    rows = [flat(number, 1.0 - number / 10) for number in range(1, 7)]
    savings = replay_asha(rows, num_epochs=9, grace_epochs=1, at_once=1)
    assert (savings.num_epochs, savings.num_epochs_asha) == (54, 9 + 5)
    assert savings.share == 1 - 14 / 54
    assert savings.best_score == savings.best_score_asha == pytest.approx(0.9)


def test_what_is_slow_at_first_is_lost():
    late = make_row(6, *[0.1] * 8, 1.0)
    rows = [*(flat(number, 0.5 - number / 100) for number in range(1, 6)), late]
    savings = replay_asha(rows, num_epochs=9, grace_epochs=3, at_once=1)
    assert (savings.best_score, savings.best_score_asha) == (1.0, 0.49)


def test_worst_first_spares_nothing():
    rows = [flat(number, number / 10) for number in range(1, 7)]
    savings = replay_asha(rows, num_epochs=9, grace_epochs=3, at_once=1)
    assert savings.share == 0.0


def test_nothing_is_said_of_few_trials_or_where_some_were_stopped():
    rows = [flat(number, 0.5) for number in range(1, 6)]
    assert replay_asha(rows, 9, 3, 1) is None
    assert replay_asha([*rows, make_row(6, 0.5, status="stopped")], 9, 3, 1) is None
