"""Actions come in pairs that share their poses; performances differ in everything else."""

import numpy as np
import pytest

from sgnray.synth.actions import list_actions
from sgnray.synth.people import draw_length, draw_person, perform

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


def test_lengths_are_those_of_real_clips():
    rng = np.random.default_rng(0)
    lengths = [draw_length(draw_person(rng).slowness, rng) for _ in range(2000)]
    assert min(lengths) >= 32
    assert max(lengths) <= 300
    assert np.median(lengths) == pytest.approx(76, abs=3)
    assert np.percentile(lengths, 95) > 115


def test_people_differ_in_size_and_manner():
    people = [draw_person(np.random.default_rng(seed)) for seed in range(200)]
    legs = [-(p.offsets_VC[13] + p.offsets_VC[14])[1] for p in people]
    assert np.ptp(legs) > 0.2
    assert 0.1 < np.mean([p.is_left_handed for p in people]) < 0.3
    assert np.ptp([p.amplitude for p in people]) > 0.3
    assert np.ptp([p.stance["bend"] for p in people]) > 0.2


def facing(motion):
    """The direction from the heels to the toes, on the floor, over the first frame."""
    joints = motion.joints_TVC[0]
    toes = (joints[15] + joints[19] - joints[14] - joints[18])[[0, 2]]
    return toes / np.linalg.norm(toes)


def test_two_people_face_each_other():
    person, other = (draw_person(np.random.default_rng(seed)) for seed in (1, 2))
    action = ACTIONS[2]
    rng = np.random.default_rng(3)
    lead, follow = perform(action, person, other, facing_rad=0.5, rng=rng)
    assert len(lead.joints_TVC) == len(follow.joints_TVC)
    apart = (follow.joints_TVC[0, 0] - lead.joints_TVC[0, 0])[[0, 2]]
    assert 1.1 < np.linalg.norm(apart) < 1.9
    assert facing(lead) @ apart > 0.85 * np.linalg.norm(apart)
    assert facing(follow) @ apart < -0.85 * np.linalg.norm(apart)


@pytest.mark.parametrize("first", [0, 2])
def test_the_second_action_of_a_pair_is_the_first_performed_backwards(first):
    person, other = (draw_person(np.random.default_rng(seed)) for seed in (1, 2))
    forwards, backwards = (
        perform(action, person, other, facing_rad=0.0, rng=np.random.default_rng(4))
        for action in ACTIONS[first : first + 2]
    )
    assert len(forwards) == len(backwards) == (1 if first == 0 else 2)
    for motion, reverse in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(motion.joints_TVC, reverse.joints_TVC[::-1])
        np.testing.assert_array_equal(motion.turned_TVCC, reverse.turned_TVCC[::-1])
        np.testing.assert_allclose(motion.joints_TVC[0], motion.joints_TVC[-1], atol=1e-12)


def test_an_approach_is_nearest_before_it_is_farthest():
    person, other = (draw_person(np.random.default_rng(seed)) for seed in (1, 2))
    rng = np.random.default_rng(4)
    lead, follow = perform(ACTIONS[2], person, other, facing_rad=0.0, rng=rng)
    distance = np.linalg.norm((lead.joints_TVC - follow.joints_TVC)[:, 0], axis=-1)
    assert distance.argmin() < distance.argmax()
