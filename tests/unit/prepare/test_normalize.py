"""Thresholds of the rules that remove bodies; the golden files test the rules together."""

import numpy as np
import pytest

from sgnray.data.skeleton import NTU25
from sgnray.errors import ClipError
from sgnray.prepare.clip import Body, Recording
from sgnray.prepare.normalize import (
    arrange,
    assign_actors,
    find_wide_frames,
    keep_actors,
    list_poses,
    measure_motion,
    translate,
)


def make_body(num_frames, *, num_wide=0, motion=1.0, first_frame=0, seed=0):
    """A body one meter tall; in its wide frames, the last ones, it is one meter wide as well."""
    joints_TVC = np.zeros((num_frames, 25, 3), np.float32)
    joints_TVC[:, 1, 1] = 1
    joints_TVC[num_frames - num_wide :, 1, 0] = 1
    joints_TVC[:, :, 2] = np.random.default_rng(seed).normal(0, motion, (num_frames, 25))
    return Body(first_frame, joints_TVC)


def test_a_body_of_eleven_frames_is_removed():
    kept = keep_actors((make_body(11), make_body(12), make_body(20)), NTU25)
    assert sorted(body.num_frames for body in kept) == [12, 20]
    with pytest.raises(ClipError, match="no body is longer than 11 frames"):
        keep_actors((make_body(11), make_body(3)), NTU25)


def test_a_frame_is_wide_beyond_the_share_in_float32():
    joints_TVC = np.zeros((3, 25, 3), np.float32)
    joints_TVC[:, 1, 1] = 1
    border = np.float32(0.8)
    joints_TVC[:, 1, 0] = [border, np.nextafter(border, 1), np.nextafter(border, 0)]
    assert find_wide_frames(joints_TVC).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("num_wide", "num_frames", "num_kept"),
    [(69, 100, 2), (70, 100, 1), (23, 33, 2), (30, 43, 1)],  # 23 / 33 < 0.69754 < 30 / 43 < 0.7
)
def test_a_body_wide_in_enough_frames_goes(num_wide, num_frames, num_kept):
    other = make_body(100, seed=1)
    assert len(keep_actors((make_body(num_frames, num_wide=num_wide), other), NTU25)) == num_kept


def test_the_last_one_left_stays_however_wide():
    first, last = make_body(20, num_wide=20), make_body(20, num_wide=20, seed=1)
    assert keep_actors((first, last), NTU25) == [last]


def test_motion_is_the_smaller_of_all_frames_and_of_those_that_are_not_wide():
    lively, still = np.random.default_rng(1).normal(0, [[1.0], [0.5]], (2, 25))
    calmer = make_body(40, num_wide=20)
    calmer.joints_TVC[:20, :, 2] = still
    calmer.joints_TVC[20:, :, 2] = lively
    livelier = make_body(40, num_wide=20)
    livelier.joints_TVC[:20, :, 2] = lively
    livelier.joints_TVC[20:, :, 2] = still
    between = make_body(40)
    between.joints_TVC[:, :, 2] = np.sqrt(0.5) * lively
    motions = [measure_motion(body.joints_TVC) for body in (calmer, livelier)]
    assert abs(motions[0] - motions[1]) < 0.01 * motions[0]
    # Without its wide frames the first is calmer; the second is livelier, which does not count.
    assert keep_actors((calmer, livelier), NTU25) == [livelier, calmer]
    assert keep_actors((calmer, between), NTU25) == [between, calmer]
    moderate = make_body(40)
    moderate.joints_TVC[:, :, 2] = 0.95 * lively
    assert keep_actors((livelier, moderate), NTU25) == [moderate, livelier]


def test_motion_is_computed_in_float32():
    """Far away, its rounding adds motion to a body that stands still, as in the reference."""
    moving, still = make_body(20, motion=0.3), make_body(20)
    still.joints_TVC[:, :, 2] = 100_001
    assert keep_actors((moving, still), NTU25) == [still, moving]


def test_equal_motion_keeps_the_order_of_appearance():
    bodies = tuple(make_body(20) for _ in range(4))
    assert keep_actors(bodies, NTU25) == list(bodies)


def test_bodies_that_share_one_frame_are_one_actor():
    first, second = make_body(20), make_body(20, first_frame=19, seed=1)
    third = make_body(20, first_frame=5, seed=2)
    assert assign_actors([first, second, third]) == [[first, second], [third]]
    late = make_body(20, first_frame=18, seed=1)
    assert assign_actors([first, late, third]) == [[first], [late]]


def test_a_single_body_id_keeps_its_zero_frames():
    body = make_body(4)
    body.joints_TVC[1] = 0
    frames_TMD = arrange(Recording(4, (body,)), NTU25)
    assert frames_TMD.shape == (4, 1, 75)
    poses = list_poses(translate(frames_TMD, origin_joint=1))
    assert poses.num_frames == 4
    assert poses.frames.tolist() == [0, 1, 2, 3]  # after translation, it is no longer zero


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0.0, "every frame of the main actor is zero"),
        (1.0, "every pose is zero"),
        (3e38, "a coordinate is too large for float32 after the origin is subtracted"),
    ],
)
def test_clips_without_a_pose_are_refused(value, reason):
    frames_TMD = np.full((5, 1, 75), value, np.float32)
    frames_TMD[1:] = -value if value > 1 else value
    with pytest.raises(ClipError) as caught:
        list_poses(translate(frames_TMD, origin_joint=1))
    assert caught.value.what == reason
