"""Windows of a long recording: which frames they have, and that each is prepared alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sgnray.data.skeleton import NTU25
from sgnray.errors import ClipError
from sgnray.predict.windows import SlidingWindow, Span, cut
from sgnray.prepare.clip import Body, Poses, Recording
from sgnray.prepare.normalize import normalize


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
    assert spans_of(np.arange(num_frames)) == expected


def spans_of(frames, window=SlidingWindow(10, 4)):  # noqa: B008
    values, bodies = np.ones((len(frames), 75), np.float32), np.zeros(len(frames), np.int8)
    poses = Poses(int(frames[-1]) + 1, values, np.int32(frames), bodies)
    return [(span.first, span.end) for span in window.spans(poses)]


def test_gaps_of_any_length_take_no_time():
    late = 2_000_000_000
    assert spans_of([0, 1, 2, 30, 31, late, late + 1]) == [
        (0, 10), (24, 34), (28, 38), (late - 8, late + 2),
    ]  # fmt: skip


@pytest.mark.parametrize(("step", "is_refused"), [(3, False), (4, True)])
def test_timestamps_instead_of_frame_numbers_are_refused(step, is_refused):
    frames = [7 + step * pose for pose in range(20)]
    if is_refused:
        with pytest.raises(ClipError, match="4 frames apart, too far for windows of 10"):
            spans_of(frames)
    else:
        assert len(spans_of(frames)) == 15


@pytest.mark.parametrize("size", [1, 2])
def test_windows_of_one_or_two_frames(size):
    poses = Poses(
        3, np.ones((3, 75), np.float32), np.arange(3, dtype=np.int32), np.zeros(3, np.int8)
    )
    found = [(span.first, span.end) for span in SlidingWindow(size, 1).spans(poses)]
    assert found == [(first, first + size) for first in range(4 - size)]


def test_a_window_is_prepared_like_its_frames_alone():
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


def test_the_origin_is_the_main_actor_if_present():
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
