"""People differ in size and manner, and perform an action alone or facing each other."""

import numpy as np
import pytest

from sgnray.synth.actions import list_actions
from sgnray.synth.people import draw_length, draw_person, perform

ACTIONS = list_actions()


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
