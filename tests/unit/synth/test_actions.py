"""Actions come in pairs that share their poses."""

import numpy as np
import pytest

from sgnray.synth.actions import list_actions

ACTIONS = list_actions()
PHASE = np.linspace(0.0, 1.0, 101)


def test_the_first_eight_need_two_people_in_two_cases():
    assert sum(action.movement.distance_m is not None for action in ACTIONS[:8]) == 2
    names = [action.name for action in ACTIONS]
    assert len(names) == len(set(names)) == 24


def test_pairs_are_one_movement_and_its_reverse():
    for action, reverse in zip(ACTIONS[::2], ACTIONS[1::2], strict=True):
        assert action.movement is reverse.movement
        assert (action.is_reversed, reverse.is_reversed) == (False, True)


@pytest.mark.parametrize("action", ACTIONS[::2], ids=lambda action: action.name)
def test_a_movement_returns_to_where_it_began_and_differs_from_its_reverse(action):
    """So neither the first pose, nor the last, nor the set of poses reveals the direction."""
    angles = action.movement.gesture(PHASE)
    for angle in angles.values():
        assert angle[0] == pytest.approx(angle[-1], abs=1e-9)
    path = np.stack(list(angles.values()))
    assert np.abs(path - path[:, ::-1]).max() > 0.4


def test_movements_differ_from_each_other():
    means = set()
    for action in ACTIONS[::2]:
        angles = action.movement.gesture(PHASE)
        means.add(tuple(sorted((name, round(np.ptp(angle), 2)) for name, angle in angles.items())))
    assert len(means) == 12
