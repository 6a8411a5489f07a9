"""Clips in memory and streams of frames, against `predict_clips` on files with the same poses."""

from __future__ import annotations

import cProfile
import itertools
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from sgnray.checkpoints.trained_model import load_trained_model
from sgnray.data.skeleton import COCO17, MEDIAPIPE33, NTU25, OPENPOSE18, OPENPOSE25, Skeleton
from sgnray.errors import ClipError, InputError, UsageError
from sgnray.model import SGN
from sgnray.predict import (
    Stream,
    meters_per_pixel,
    predict_clips,
    predict_lines,
    read_clip,
    recognize_each,
)
from sgnray.prepare.in_memory import arrange_frames, list_clip
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.keypoints import read_keypoints
from sgnray.prepare.readers.recordings import read_recordings

from ... import pose_files

WALK = np.random.default_rng(5).normal(size=(50, 25, 3)).cumsum(axis=0).astype(np.float32)
MP4 = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41\0\0\0\x08free\xa9"


@pytest.fixture(scope="module")
def model(tiny_run):
    return load_trained_model(tiny_run)


@pytest.fixture(scope="module")
def coco_model(model):
    """An untrained model of a pose estimator's joints."""
    sgn = SGN(3, COCO17.num_joints, 8, num_coordinates=2).eval()
    return replace(model, model=sgn, card=model.card.replacing(skeleton=COCO17))


def test_a_clip_in_memory_is_predicted_like_its_recording(model, tiny_run, tiny_raw):
    recordings = read_recordings(find_recordings(tiny_raw).files)
    file, (body,) = next(
        (file, recording.bodies) for file, _, recording in recordings if len(recording.bodies) == 1
    )
    joints = body.joints_TVC
    (found,) = predict_clips(tiny_raw / file.name, tiny_run)
    assert found.num_poses == len(joints)
    assert model.predict(joints) == found.guesses
    assert model.predict(joints.tolist(), num_guesses=2) == found.guesses[:2]
    assert model.predict(torch.from_numpy(joints)) == found.guesses
    (three_views,) = predict_clips(tiny_raw / file.name, tiny_run, num_views=3)
    assert model.predict(joints, num_views=3) == three_views.guesses != found.guesses


def test_a_clip_of_two_people_is_predicted_like_the_dataset(
    model, tiny_run, tiny_folder, tiny_dataset
):
    row = next(row for row in range(27) if tiny_dataset.bodies_P[tiny_dataset.rows_of(row)].any())
    last_frame = tiny_dataset.frames_P[tiny_dataset.rows_of(row)][-1]
    joints_TMVC = tiny_dataset.arrange(row, num_frames=last_frame + 1)
    (found,) = predict_clips(tiny_folder, tiny_run, clips=[tiny_dataset.clips.names[row]])
    assert model.predict(joints_TMVC) == found.guesses


def test_people_and_frames_that_are_absent_do_not_count(model):
    alone = model.predict(WALK)
    gaps = np.insert(WALK, [0, 7, 50], np.nan, axis=0)
    assert model.predict(gaps) == alone
    assert model.predict(np.stack([np.nan_to_num(gaps), np.zeros_like(gaps)], axis=1)) == alone
    assert [one.probability for one in model.predict(WALK + 8)] == pytest.approx(
        [one.probability for one in alone], abs=1e-4
    )


def test_the_origin_is_the_first_person_where_there_is_one():
    frames = np.stack([np.insert(WALK, 0, 0, axis=0), np.full((51, 25, 3), 9.0)], axis=1)
    poses = list_clip(frames, NTU25)
    assert poses.bodies[:3].tolist() == [1, 0, 1]
    assert poses.frames[:3].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(poses.values_PD[1].reshape(25, 3)[NTU25.origin], 0)
    np.testing.assert_array_equal(
        poses.values_PD[0].reshape(25, 3), np.float32(9.0) - WALK[0, [NTU25.origin] * 25]
    )


def test_numbers_that_become_infinite_are_refused():
    joints = 3e38 * np.where(np.arange(25) == NTU25.origin, -1, 1)
    with pytest.raises(InputError, match="too large for float32 after the origin is subtracted"):
        list_clip(np.tile(joints[:, None], (2, 1, 3)), NTU25)


def broken(value, frame=3):
    joints = WALK.copy()
    joints[frame, 4, 1] = value
    return joints


BAD = [
    (WALK[:, :24], "a frame has the shape (24, 3), and one person of the skeleton ntu25 has"),
    (WALK[:, :, :2], "a frame has the shape (25, 2)"),
    (WALK[0], "a frame has the shape (3,)"),
    (WALK[:0], "there is no frame"),
    (7.0, "a frame has the shape ()"),
    (np.stack([WALK] * 3, axis=1), "there are 3 people, and the model supports at most 2"),
    (WALK[None, None], "a frame has the shape (1, 50, 25, 3), and one person"),
    (broken(np.nan), "a coordinate is not finite"),
    (broken(-np.inf), "a coordinate is not finite"),
    (WALK.astype(np.float64) * 1e39, "a coordinate is not finite"),
    (np.zeros_like(WALK), "no frame contains a person"),
    (np.full_like(WALK, np.nan), "no frame contains a person"),
    ([[], []], "no frame contains a person"),
    ([WALK[0].tolist(), WALK[1, :9].tolist()], "the joints are not an array of numbers"),
    (WALK.astype(str), "the joints are not an array of numbers"),
    (WALK.astype(complex), "the joints are not an array of numbers"),
    (None, "the joints are not an array of numbers"),
    ({"joints": 1}, "the joints are not an array of numbers"),
    (torch.ones(5, 25, 3, requires_grad=True), "the joints are not an array of numbers"),
]


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_one_are_refused(model, number):
    for options in ({"num_views": number}, {"num_guesses": number}):
        with pytest.raises(UsageError, match=f"invalid number of [a-z]+: {number}"):
            model.predict(WALK, **options)
        with pytest.raises(UsageError, match=f"invalid number of [a-z]+: {number}"):
            Stream(model, **options)


def test_landmarks_of_the_image_are_refused_in_memory():
    world = np.random.default_rng(0).normal(0, 0.3, (4, 33, 3))
    world[:, 23] = -world[:, 24]  # the hips
    assert arrange_frames(world, MEDIAPIPE33).shape == (4, 1, 33, 3)
    with pytest.raises(InputError, match="these are not world landmarks") as caught:
        arrange_frames(world / 4 + 0.5, MEDIAPIPE33)
    assert "y up" in caught.value.now


def test_frames_in_json_may_lack_people_and_joints(model):
    frames = WALK[:20].tolist()
    plain = read_clip(json.dumps(frames).encode(), NTU25)
    assert plain.values_PD.tobytes() == list_clip(WALK[:20], NTU25).values_PD.tobytes()
    frames[3], frames[5][7], frames[9] = None, None, [frames[9], frames[9]]
    clip = read_clip(json.dumps(frames).encode(), NTU25)
    assert (clip.num_frames, len(clip.values_PD)) == (19, 20)
    frames[4][2] = "x"
    with pytest.raises(InputError) as caught:
        read_clip(json.dumps(frames).encode(), NTU25)
    assert caught.value.where == "frame 5 of the clip"


def test_utf_16_is_named():
    """As PowerShell's > writes it."""
    with pytest.raises(InputError, match="it is UTF-16 text: save it as UTF-8"):
        read_clip(json.dumps(WALK.tolist()).encode("utf-16"), NTU25)


@pytest.mark.parametrize("data", [MP4, MP4[:20]])
def test_bytes_that_are_not_text_are_called_that(data):
    with pytest.raises(InputError) as caught:
        read_clip(data, NTU25)
    assert caught.value.what == "neither a recording nor JSON: it is not UTF-8 text"
    assert read_clip(b"\xef\xbb\xbf" + json.dumps(WALK.tolist()).encode(), NTU25)


@pytest.mark.parametrize(
    ("shape", "skeleton", "what", "now"),
    [
        ((25, 3), COCO17, "a frame has the shape (25, 3), as ntu25 has, and one person", "a frame"),
        ((2, 25, 3), COCO17, "a frame has the shape (2, 25, 3), as ntu25 has, and one", "a frame"),
        ((17, 2), NTU25, "a frame has the shape (17, 2), as coco17 has, and one person", "a frame"),
        ((17, 3), COCO17, "a frame has the shape (17, 3), and one", "leave out the scores: a fr"),
        ((25, 3), OPENPOSE25, "a frame has the shape (25, 3), as ntu25 h", "leave out the scores"),
        ((16, 2), COCO17, "a frame has the shape (16, 2), and one person", "a frame"),
    ],
)
def test_the_skeleton_of_another_shape_is_named(shape, skeleton, what, now):
    with pytest.raises(InputError) as caught:
        list_clip(np.ones((4, *shape)), skeleton)
    assert caught.value.what.startswith(what)
    assert f"of the skeleton {skeleton.name} has" in caught.value.what
    assert caught.value.now.startswith(now)
    with pytest.raises(InputError) as caught:
        read_clip(json.dumps(np.ones((4, *shape)).tolist()).encode(), skeleton)
    assert caught.value.what.startswith(what)


def test_one_frame_that_is_far_away_does_not_refuse_a_clip_in_json():
    frames = np.random.default_rng(0).normal(0, 0.3, (20, 17, 2))
    frames[7, 3] = 20.0
    clip = read_clip(json.dumps(frames.tolist()).encode(), COCO17)
    assert len(clip.values_PD) == 20


@pytest.mark.parametrize(("joints", "what"), BAD, ids=range(len(BAD)))
def test_an_invalid_clip_is_refused(model, joints, what):
    with pytest.raises(InputError) as caught:
        model.predict(joints)
    assert caught.value.what.startswith(what)


def test_the_first_frame_with_a_broken_number_is_named(model):
    with pytest.raises(InputError) as caught:
        model.predict(broken(np.nan, frame=30))
    assert caught.value.where == "frame 30 of the joints"


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist, torch.from_numpy])
def test_a_stream_predicts_like_its_windows(model, form):
    stream = Stream(model, window=20, stride=7)
    found = {number: stream.add(form(frame)) for number, frame in enumerate(WALK, start=1)}
    assert {number for number, guesses in found.items() if guesses is not None} == {
        *(7, 14, 21, 28, 35, 42, 49)
    }
    assert found[14] == model.predict(WALK[:14])
    assert found[49] == model.predict(WALK[29:49])
    assert found[49] != found[42]


def test_people_come_and_go_in_a_stream(model):
    stream = Stream(model, window=4, stride=2, num_views=3, num_guesses=1)
    one, other = WALK[0], WALK[1]
    frames = [None, [], one, [one, other], [np.zeros_like(one), other], None, (), one * 0, None]
    found = [stream.add(frame) for frame in frames]
    assert found[::2] == [None] * 5
    assert found[1] == ()
    seen = np.full((5, 2, 25, 3), np.nan, np.float32)
    seen[2, 0] = seen[3, 0] = one
    seen[3, 1] = seen[4, 1] = other
    for end in (4, 6):
        expected = model.predict(seen[max(end - 4, 0) : end], num_views=3, num_guesses=1)
        assert found[end - 1] == expected
        assert len(expected) == 1
    assert found[7] != ()
    assert stream.add(None) == ()
    assert stream.num_frames == 10


def test_missing_joints_of_a_stream_are_filled_in(model):
    seen, expected = WALK[:20].copy(), WALK[:20].copy()
    seen[4:7, 5, 1] = seen[:3, 8] = seen[16:, 9] = seen[:, 11] = np.nan
    expected[4:7, 5] = [WALK[3, 5] + (WALK[7, 5] - WALK[3, 5]) * step / 4 for step in (1, 2, 3)]
    expected[:3, 8], expected[16:, 9] = WALK[3, 8], WALK[15, 9]
    expected[:, 11] = np.delete(expected, 11, axis=1).mean(axis=1)
    as_json = [
        [None if number == 11 else [None if np.isnan(x) else x for x in joint]
         for number, joint in enumerate(frame)]
        for frame in seen.tolist()
    ]  # fmt: skip
    two = [[None, frame] for frame in as_json]
    alone = np.stack([np.full_like(expected, np.nan), expected], axis=1)
    for frames, filled in ((seen, expected), (as_json, expected), (two, alone)):
        stream = Stream(model, window=20, stride=20)
        found = [stream.add(frame) for frame in frames][-1]
        shares = [guess.probability for guess in model.predict(filled)]
        assert [guess.probability for guess in found] == pytest.approx(shares, abs=1e-6)
    assert found != model.predict(WALK[:20])


def test_fewer_than_three_joints_are_not_a_person(model):
    """As in recordings of pose estimators."""
    seen = np.full((6, 2, 25, 3), np.nan)
    seen[:, 0] = WALK[:6]
    seen[3, 1, 4:7] = WALK[3, 4:7] + 1
    expected = Stream(model, window=6, stride=6)
    (guesses,) = [found for frame in seen if (found := expected.add(frame))]
    seen[2, 1, 4:6] = WALK[2, 4:6] + 1
    seen[5, 1, 3] = WALK[5, 3] + 1
    stream = Stream(model, window=6, stride=6)
    assert [stream.add(frame) for frame in seen][-1] == guesses
    alone = Stream(model, window=2, stride=2)
    assert [alone.add(frame) for frame in (seen[2, 1], seen[5, 1])] == [None, ()]
    seen[2, 1, 7] = np.inf
    with pytest.raises(InputError, match="a coordinate is not finite"):
        alone.add(seen[2])


def test_a_person_of_one_or_two_joints_is_a_person(model):
    """Of a skeleton that has no more of them."""
    for num_joints in (1, 2):
        card = model.card.replacing(skeleton=Skeleton(
            name="own", joints=("a", "b")[:num_joints], bones=(), origin=None, num_coordinates=3,
        ))  # fmt: skip
        own = replace(model, model=SGN(3, num_joints, 8).eval(), card=card)
        assert Stream(own, window=1, stride=1).add(WALK[0, :num_joints])


@pytest.mark.parametrize(
    "frame",
    [
        [None] * 25,
        [None, None],
        [[None] * 25, [None] * 25],
        [[None] * 25, None],
        [[[None] * 3] * 25] * 2,
        [[None] * 25, [[None] * 3] * 25],
        [[None] * 3] * 25,
    ],
)
def test_a_frame_of_null_has_no_person(model, frame):
    stream = Stream(model, window=2, stride=2)
    assert [stream.add(frame), stream.add(frame)] == [None, ()]


@pytest.mark.parametrize("absent", [None, [None] * 25, [[None] * 3] * 25])
def test_null_in_the_place_of_a_person(model, absent):
    stream = Stream(model, window=2, stride=2)
    stream.add([absent, WALK[0].tolist()])
    other = np.full((2, 2, 25, 3), np.nan)
    other[0, 1], other[1, 0] = WALK[:2]
    assert stream.add([WALK[1].tolist(), absent]) == model.predict(other)


def test_the_advice_for_a_stream_is_null(model):
    with pytest.raises(InputError) as caught:
        Stream(model).add(broken(np.inf)[3].tolist())
    assert caught.value.now.startswith("write null for a missing joint")
    with pytest.raises(InputError) as caught:
        model.predict(broken(np.inf))
    assert caught.value.now.startswith("fill in single joints")


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (WALK[0, :24], "a frame has the shape (24, 3), and one person of the skeleton ntu25 has"),
        (WALK[:3], "there are 3 people"),
        (WALK[0] * np.inf, "a coordinate is not finite"),
        (WALK[0] * (1, 1, np.nan), "a coordinate is not finite"),
        (broken(np.inf)[3], "a coordinate is not finite"),
        ([[1, 2], [3]], "the joints are not an array of numbers"),
        ({"a": 1}, "the joints are not an array of numbers"),
        (5, "a frame has the shape ()"),
    ],
)
def test_a_frame_that_cannot_be_used_is_named_and_does_not_count(model, frame, what):
    stream = Stream(model, window=20, stride=2)
    stream.add(WALK[0])
    with pytest.raises(InputError) as caught:
        stream.add(frame)
    assert caught.value.what.startswith(what)
    assert caught.value.where == "frame 2 of the stream"
    assert stream.add(WALK[1]) == model.predict(WALK[:2])


def test_pixels_are_refused(coco_model):
    meters_TVC = pose_files.move(COCO17)[..., :2]
    pixels_TVC = pose_files.project(pose_files.move(COCO17))
    assert coco_model.predict(meters_TVC)
    stream = Stream(coco_model)
    stream.add(meters_TVC[0])
    uses = (
        lambda: coco_model.predict(pixels_TVC),
        lambda: read_clip(json.dumps(pixels_TVC.tolist()).encode(), COCO17),
        lambda: stream.add(pixels_TVC[1]),
        lambda: list(predict_lines([json.dumps(pixels_TVC[0].tolist()).encode()], coco_model)),
        lambda: list_clip(1000 * pose_files.move(MEDIAPIPE33), MEDIAPIPE33),
    )
    for use in uses:
        with pytest.raises(InputError, match="larger than 20 m: these are not meters") as caught:
            use()
        assert "in meters with y up" in caught.value.now
        is_image = use is not uses[-1]
        assert ("sgnray.predict.meters_per_pixel" in caught.value.now) == is_image
    assert stream.num_frames == 1


@pytest.mark.parametrize("skeleton", [COCO17, OPENPOSE18, OPENPOSE25], ids=lambda one: one.name)
@pytest.mark.parametrize("unseen", ["", "ear", "hip knee ankle", "eye ear toe heel ankle"])
def test_points_normalized_by_the_size_of_the_image_are_refused(skeleton, unseen):
    """In which y is down; a joint at zero is missing."""
    points_TVC = pose_files.project(pose_files.move(skeleton)) / (1280, 720)
    is_unseen_V = [any(part in joint for part in unseen.split()) for joint in skeleton.joints]
    points_TVC[:, is_unseen_V] = 0
    points_TVC[3, :, 1] = 0.9 - points_TVC[3, :, 1]  # bends down in one frame
    points_TVC[5, 0] = 1.02  # outside the image
    two = np.stack([points_TVC, np.full_like(points_TVC, np.nan)], axis=1)
    for clip in (points_TVC, two, points_TVC[4:5]):
        with pytest.raises(InputError, match="the points are normalized, which dis") as caught:
            list_clip(clip, skeleton)
        assert "in meters with y up" in caught.value.now
    with pytest.raises(InputError, match="the points are normalized"):
        read_clip(json.dumps(points_TVC.tolist()).encode(), skeleton)


def test_normalized_points_of_a_stream_are_refused(coco_model):
    points_TVC = pose_files.project(pose_files.move(COCO17)) / (1280, 720)
    frames = points_TVC.tolist()
    frames[1][11] = frames[2][11] = None
    with pytest.raises(InputError, match="the points are normalized") as caught:
        list(predict_lines([json.dumps(frame).encode() for frame in frames], coco_model))
    assert caught.value.where == "the 15 frames up to frame 15 of the stream"
    assert "in meters with y up" in caught.value.now


@pytest.mark.parametrize("skeleton", [COCO17, OPENPOSE18, OPENPOSE25], ids=lambda one: one.name)
def test_meters_are_not_taken_for_normalized_points(skeleton):
    """Of people who stand, sit, lie, do a handstand or are children, wherever the origin is."""
    standing_TVC = pose_files.move(skeleton)[..., :2]
    is_leg_V = np.array(
        [bool({"knee", "ankle", "heel", "toe"} & {*name.split()}) for name in skeleton.joints]
    )
    webcam_TVC = np.where(is_leg_V[:, None], standing_TVC.mean(axis=1, keepdims=True), standing_TVC)
    poses = [standing_TVC, webcam_TVC, webcam_TVC / 2]
    poses += [pose_TVC[..., ::-1] * signs for pose_TVC in poses for signs in ((1, 1), (-1, 1))]
    for pose_TVC in poses:
        corner_C = pose_TVC.min(axis=(0, 1))
        for origin in (0, corner_C, pose_TVC[0, skeleton.origin]):
            assert list_clip(pose_TVC - origin, skeleton)
            assert list_clip(pose_TVC[:1] - origin, skeleton)
    for pose_TVC in (-standing_TVC, -webcam_TVC):
        assert list_clip(pose_TVC, skeleton)
        assert list_clip(pose_TVC - pose_TVC[0, skeleton.origin], skeleton)


def test_a_person_of_mediapipe_with_y_down_is_reported(model, caplog):
    """As MediaPipe's own landmarks have it; recordings in files are turned."""
    sgn = SGN(3, MEDIAPIPE33.num_joints, 8).eval()
    own = replace(model, model=sgn, card=model.card.replacing(skeleton=MEDIAPIPE33))
    up_TVC = pose_files.move(MEDIAPIPE33)
    down_TVC = up_TVC * (1, -1, -1)
    lying_TVC = up_TVC[..., [1, 0, 2]]
    own.predict(up_TVC)
    own.predict(lying_TVC)
    own.predict(-lying_TVC)
    for angle_rad in np.radians((80, 100)):  # on a slope
        cos, sin = np.cos(angle_rad), np.sin(angle_rad)
        own.predict(up_TVC @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]))
    own.predict(np.concatenate([down_TVC, up_TVC]))  # a handstand
    read_clip(pose_files.make_file("MediaPipe"), MEDIAPIPE33)
    assert caplog.messages == []
    expected = (
        "the head is below the hips in every frame: if nobody is upside down, multiply "
        "MediaPipe's world landmarks by (1, -1, -1), because y must be up"
    )
    own.predict(down_TVC)
    read_clip(json.dumps(down_TVC.tolist()).encode(), MEDIAPIPE33)
    assert caplog.messages == [expected] * 2
    caplog.clear()
    stream = Stream(own, window=5, stride=5)
    found = [stream.add(pose_VC) for pose_VC in [*up_TVC[:5], *down_TVC, *down_TVC]]
    assert caplog.messages == [expected]
    assert found[-1] == own.predict(down_TVC[-5:])
    caplog.clear()
    list_clip(WALK * (1, -1, -1), NTU25)
    assert caplog.messages == []


def test_pixels_become_meters_as_in_recordings(coco_model):
    """With the factor of the whole clip, also of a window of it; a joint at zero is missing."""
    pixels_TVC = pose_files.project(pose_files.move(COCO17))
    pixels_TVC[:, 3] = 0
    data = json.dumps([[{"keypoints": pose.tolist()}] for pose in pixels_TVC]).encode()
    (body,) = read_keypoints(data, COCO17).bodies
    factor = meters_per_pixel(pixels_TVC, COCO17)
    found_TVC = np.delete(pixels_TVC * factor, 3, axis=1)
    np.testing.assert_allclose(found_TVC, np.delete(body.joints_TVC, 3, axis=1), rtol=1e-6)
    # As the guide and the message say it: 0.50 m from shoulder to hip.
    height_px = pixels_TVC[0, 11, 1] - pixels_TVC[0, 5, 1]
    np.testing.assert_allclose(factor, np.array((1, -1)) * 0.5 / height_px, rtol=1e-6)
    two = np.stack([pixels_TVC[:4], pixels_TVC[:4] + 300], axis=1)
    np.testing.assert_allclose(meters_per_pixel(two.tolist(), COCO17), factor)
    two[:, 1] = np.nan
    np.testing.assert_allclose(meters_per_pixel(two, COCO17), factor)
    stream = Stream(coco_model, window=20, stride=20)
    for pose in np.delete(pixels_TVC, 3, axis=1):
        guesses = stream.add(np.insert(pose * factor, 3, np.nan, axis=0))
    (expected,) = recognize_each(coco_model, [read_clip(data, COCO17)])
    assert [guess.label for guess in guesses] == [guess.label for guess in expected]


@pytest.mark.parametrize(
    ("frames", "skeleton", "what"),
    [
        (np.ones((2, 16, 2)), COCO17, "the pixels have the shape (2, 16, 2), not ... x 17 x 2"),
        ("text", COCO17, "frames contains something that is not a number"),
        (np.ones((2, 25, 3)), NTU25, "the skeleton ntu25 is not in an image"),
        (np.full((2, 17, 2), np.nan), COCO17, "no frame shows a whole limb"),
        (np.full((2, 17, 2), np.inf), COCO17, "a coordinate is not finite"),
        (np.full((2, 17, 2), 0.5), COCO17, "the points are normalized"),
    ],
)
def test_pixels_without_a_scale_are_refused(frames, skeleton, what):
    with pytest.raises(ClipError) as caught:
        meters_per_pixel(frames, skeleton)
    assert caught.value.what.startswith(what)


def test_a_single_joint_that_is_far_away_is_not_another_unit(coco_model):
    meters_TVC = pose_files.move(COCO17)[..., :2]
    meters_TVC[3, 5] = 100
    assert coco_model.predict(np.insert(meters_TVC, 0, np.nan, axis=0))


def test_the_unit_of_a_sensor_is_free(model):
    assert model.predict(1000 * WALK)


def test_coordinates_without_a_finite_result_are_not_blamed_on_the_model(model):
    with pytest.raises(InputError, match="the model gives no finite result"):
        model.predict(WALK * 1e30)
    stream = Stream(model, window=20, stride=2)
    for frame in WALK[:3]:
        stream.add(frame)
    with pytest.raises(InputError, match="the model gives no finite result") as caught:
        stream.add(WALK[3] * 1e30)
    assert caught.value.where == "the 4 frames up to frame 4 of the stream"
    assert stream.add(WALK[4]) is None
    assert stream.add(WALK[5]) == model.predict(WALK[4:6])
    frames = [*WALK[:3], WALK[3] * 1e30]
    lines = [json.dumps(frame.tolist()).encode() for frame in frames]
    with pytest.raises(InputError, match="the model gives no finite result") as caught:
        list(predict_lines(lines, model, stride=4))
    assert caught.value.where == "the 4 frames up to frame 4 of the stream"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"[[1, 2", "this is not JSON"),
        (b"\xff\n", "this is not JSON: it is not UTF-8 text"),
        (MP4, "this is not JSON: it is not UTF-8 text"),
        (MP4[:20], "this is not JSON: it is not UTF-8 text"),
        (b"1 2 3\n", "this is not JSON"),
        (b"[" * 100_000 + b"\n", "this is not JSON"),
        (b"9" * 5000 + b"\n", "this is not JSON"),
        (b"1e999\n", "a frame has the shape ()"),
        (b"true\n", "the joints are not an array of numbers"),
        (b'"null"\n', "the joints are not an array of numbers"),
        (b'{"frame": 1}\n', "the joints are not an array of numbers"),
        (b"[[1, 2, 3], [4, 5]]\n", "the joints are not an array of numbers"),
        (json.dumps([[0.5, 0.5, float("nan")]] * 25).encode(), "a coord"),
    ],
    ids=range(13),
)
def test_an_invalid_line_is_named(tiny_run, line, what):
    lines = [json.dumps(WALK[0].tolist()).encode(), b"null\n", b"\n", line, b"null"]
    with pytest.raises(InputError) as caught:
        list(predict_lines(lines, tiny_run))
    assert caught.value.what.startswith(what)
    assert caught.value.where == "line 4 of the stream"
    is_binary = "not UTF-8 text" in caught.value.what
    assert ("run a pose estimator on a video first" in caught.value.now) == is_binary


@pytest.mark.parametrize(("window", "stride"), [(0, 5), (5, 0), (-1, 2)])
def test_a_window_without_frames(model, window, stride):
    with pytest.raises(UsageError, match="at least one frame"):
        Stream(model, window=window, stride=stride)


def test_neither_memory_nor_work_depend_on_the_length_of_a_stream(model):
    stream = Stream(model, window=10, stride=5)

    def cost_of_a_prediction():
        tracemalloc.start()
        with cProfile.Profile(builtins=True) as profile:
            assert [stream.add(frame) is None for frame in WALK[:5]] == [True] * 4 + [False]
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return sum(entry.callcount for entry in profile.getstats()), peak_bytes

    for _ in range(3):
        cost_of_a_prediction()  # what is loaded and kept once
    calls, peak_bytes = cost_of_a_prediction()
    for frame in itertools.chain.from_iterable([WALK] * 20):
        stream.add(frame)
    later_calls, later_peak_bytes = cost_of_a_prediction()
    assert stream.num_frames == 1025
    assert abs(later_calls - calls) < calls / 100
    assert later_peak_bytes < peak_bytes + 25 * 3 * 4 * 100  # 100 of the 1,000 frames
