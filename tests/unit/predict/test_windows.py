"""Windows of a long recording: which frames they have, and that each is prepared alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sgnray.data.skeleton import NTU25
from sgnray.predict.windows import SlidingWindow, Span, cut
from sgnray.prepare.clip import Poses
from sgnray.prepare.normalize import normalize
from sgnray.prepare.recording import Body, Recording


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (5, [(0, 5)]),
        (10, [(0, 10)]),
        (11, [(0, 10), (1, 11)]),
        (20, [(0, 10), (4, 14), (8, 18), (10, 20)]),
        (18, [(0, 10), (4, 14), (8, 18)]),
    ],
)
def test_windows_cover_all_frames_and_end_with_them(num_frames, expected):
    spans = [(span.first, span.end) for span in SlidingWindow(10, 4).spans(num_frames)]
    assert spans == expected


def test_a_window_is_what_its_frames_alone_would_be():
    joints = np.random.default_rng(0).normal(size=(40, 25, 3)).astype(np.float32)
    whole = normalize(Recording(40, (Body(0, joints),)), NTU25)
    part = cut(whole, Span(12, 30), NTU25)
    alone = normalize(Recording(18, (Body(0, joints[12:30]),)), NTU25)
    assert part.num_frames == alone.num_frames
    np.testing.assert_array_equal(part.frames, alone.frames)
    np.testing.assert_allclose(part.values_PD, alone.values_PD, atol=1e-6)


def test_a_window_without_anybody_is_none():
    poses = Poses(30, np.ones((2, 75), np.float32), np.int32([0, 29]), np.int8([0, 0]))
    assert cut(poses, Span(5, 20), NTU25) is None


def test_the_origin_is_the_main_actor_if_he_is_there():
    values = np.zeros((3, 75), np.float32)
    values[0], values[1], values[2] = 5.0, 1.0, 2.0
    poses = Poses(2, values, np.int32([0, 1, 1]), np.int8([1, 0, 1]))
    moved = cut(poses, Span(0, 2), NTU25).values_PD
    assert [row[0] for row in moved] == [4.0, 0.0, 1.0]
    moved = cut(poses, Span(0, 1), NTU25).values_PD
    assert [row[0] for row in moved] == [0.0]


def test_without_an_origin_nothing_moves():
    skeleton = dataclasses.replace(NTU25, origin=None)
    poses = Poses(1, np.full((1, 75), 3.0, np.float32), np.int32([0]), np.int8([0]))
    np.testing.assert_array_equal(cut(poses, Span(0, 1), skeleton).values_PD, poses.values_PD)
