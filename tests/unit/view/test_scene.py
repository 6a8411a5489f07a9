"""Raw recordings next to prepared ones: the role of each body, and which were removed."""

from __future__ import annotations

import numpy as np
import pytest

from sgnray.data.skeleton import AZURE32, COCO17, KINECT20, MEDIAPIPE33, NTU25, OPENPOSE25
from sgnray.prepare.clip import Body, Recording
from sgnray.prepare.normalize import normalize
from sgnray.view.scene import scene_of_recording


def person(first_frame, num_frames, *, seed, motion=1.0, x=0.0):
    """A body taller than wide, with a given amount of motion."""
    random = np.random.default_rng(seed)
    shape = np.stack([0.2 * random.random(25), np.linspace(0, 1.7, 25), np.zeros(25)], axis=1)
    sway = motion * random.normal(size=(num_frames, 1, 3)) * 0.1
    return Body(first_frame, (shape + sway + [x, 0, 2]).astype(np.float32))


@pytest.fixture
def crowd():
    """A lively actor, a calm one, a ghost of nine frames, and a third person too many."""
    return Recording(
        40,
        (
            person(0, 40, seed=0, motion=0.2),
            person(5, 9, seed=1),
            person(0, 40, seed=2, motion=2.0, x=1.0),
            person(2, 38, seed=3, motion=0.1, x=-1.0),
        ),
    )


def test_each_track_has_its_role(crowd):
    scene = scene_of_recording("crowd", crowd, NTU25)
    recorded, prepared = scene.panels
    assert [track.role for track in recorded.tracks] == ["second", "removed", "main", "removed"]
    assert [track.role for track in prepared.tracks] == ["main", "second"]
    assert scene.num_frames == 40


def test_the_raw_panel_is_what_was_recorded(crowd):
    ghost = scene_of_recording("crowd", crowd, NTU25).panels[0].tracks[1].joints_TVC
    assert np.isnan(ghost[[0, 4, 14, 39]]).all()
    np.testing.assert_array_equal(ghost[5:14], crowd.bodies[1].joints_TVC)


def test_the_prepared_panel_is_what_is_trained_on(crowd):
    poses = normalize(crowd, NTU25)
    tracks = scene_of_recording("crowd", crowd, NTU25).panels[1].tracks
    for values, frame, body in zip(poses.values_PD, poses.frames, poses.bodies, strict=True):
        np.testing.assert_array_equal(tracks[body].joints_TVC[frame].ravel(), values)
    shown = sum(int(np.isfinite(track.joints_TVC[:, 0, 0]).sum()) for track in tracks)
    assert shown == len(poses.bodies)


def test_one_body_is_the_main_actor():
    scene = scene_of_recording("one", Recording(20, (person(0, 20, seed=0),)), NTU25)
    assert [[track.role for track in panel.tracks] for panel in scene.panels] == [["main"]] * 2


def test_a_recording_that_preparation_refuses_is_shown_raw_with_the_reason():
    ghosts = Recording(9, (person(0, 9, seed=0), person(0, 8, seed=1)))
    (panel,) = scene_of_recording("ghosts", ghosts, NTU25).panels
    assert panel.title == "recorded; preparation rejects it: no body is longer than 11 frames"
    assert [track.role for track in panel.tracks] == ["removed", "removed"]


@pytest.mark.parametrize(
    ("skeleton", "num_kept"),
    [(NTU25, 1), (KINECT20, 1), (COCO17, 2), (OPENPOSE25, 2), (MEDIAPIPE33, 2), (AZURE32, 2)],
    ids=lambda item: getattr(item, "name", None),
)
def test_only_a_body_of_kinect_is_removed_because_it_is_wide(skeleton, num_kept):
    """An actor at a desk, or on the floor, is wide in the image of a pose estimator."""
    upright_TVC = np.random.default_rng(0).normal(
        size=(20, skeleton.num_joints, skeleton.num_coordinates)
    )
    upright_TVC[..., 0] *= 0.1
    wide_TVC = 2 * upright_TVC[..., [1, 0, 2][: skeleton.num_coordinates]]
    bodies = (Body(0, upright_TVC.astype(np.float32)), Body(0, wide_TVC.astype(np.float32)))
    scene = scene_of_recording("a", Recording(20, bodies), skeleton)
    roles = ["main", "removed"] if num_kept == 1 else ["second", "main"]
    assert [track.role for track in scene.panels[0].tracks] == roles
    assert len(scene.panels[1].tracks) == num_kept
