"""Broken files of pose estimators: refused in one line, or read as finite poses, and nothing else.

A long run: SGNRAY_FUZZ=50000 SGNRAY_FUZZ_SEED=1 pytest -s --timeout 0 \
tests/fuzz/test_pose_estimators.py
"""

import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgnray.data.skeleton import OPENPOSE18, OPENPOSE25
from sgnray.errors import ClipError
from sgnray.prepare.normalize import normalize
from sgnray.prepare.readers.format_table import FORMATS, detect_format
from sgnray.prepare.readers.openpose import join_frames

from .. import pose_files as files
from .limits import MIB, fuzz, memory_bound
from .skeleton_files import CHANGES, DRAW, TOKENS

BATCH = 16
KINDS = [*files.SAMPLES, "OpenPose"]
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
JSON_TOKENS = [*TOKENS, b"[]", b"{}", b"[1,2]", b'{"x":1}', b"null", b"Infinity", b"[" * 5000]
JSON_PARTS = re.compile(rb'"[a-z_0-9]+"|[\[\]{},:]')


def replace_number(data, where, what):
    """Replace a number by an unusual value."""
    return replace(NUMBER, data, where, JSON_TOKENS[what % len(JSON_TOKENS)])


def replace_part(data, where, what):
    """Replace a key or bracket by another one of the file."""
    parts = JSON_PARTS.findall(data) or [b""]
    return replace(JSON_PARTS, data, where, parts[what % len(parts)])


def replace(pattern, data, where, value):
    found = list(pattern.finditer(data))
    if not found:
        return data + value
    start, end = found[where % len(found)].span()
    return data[:start] + value + data[end:]


def repeat_stretch(data, where, what):
    start = where % (len(data) + 1)
    end = start + what % 2000
    return data[:end] + data[start:end] + data[end:]


ALL_CHANGES = [*CHANGES, *[replace_number] * 8, *[replace_part] * 4, *[repeat_stretch] * 2]


def broken_files():
    change = st.tuples(st.integers(0, len(ALL_CHANGES) - 1), DRAW, DRAW)
    return st.tuples(DRAW, st.lists(change, max_size=4))


def break_file(kind, seed, changes):
    rng = random.Random(seed)
    num_frames = rng.randint(1, 4)
    if kind == "OpenPose":
        return break_frames(rng.choice((OPENPOSE25, OPENPOSE18)), seed, num_frames, changes)
    data = files.make_file(kind, seed, num_frames)
    for number, where, what in changes:
        data = ALL_CHANGES[number](data, where, what)
    return data


def break_frames(skeleton, seed, num_frames, changes):
    """Break one frame at a time, before they are joined for the reader."""
    pixels_TVC = files.project(files.move(skeleton, num_frames, seed=seed))
    frames = [files.format_openpose(pose_VC[None]) for pose_VC in pixels_TVC]
    for number, where, what in changes:
        frame = what % num_frames
        frames[frame] = ALL_CHANGES[number](frames[frame], where, what)
    return join_frames((f"a_{number}_keypoints.json", text) for number, text in enumerate(frames))


def detect_or_refuse(name, head):
    try:
        return detect_format(name, lambda: head)
    except ClipError as error:  # such as a file whose frames are all empty
        return error


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_or_reads_finite_poses(kind):
    tally = Counter()
    suffix = ".json" if kind == "OpenPose" else files.SAMPLES[kind].suffix

    @fuzz(num_files=160, batch=BATCH)
    @given(st.lists(broken_files(), min_size=BATCH, max_size=BATCH))
    def compare(drawn):
        for seed, changes in drawn:
            data = break_file(kind, seed, changes)
            tally["files"] += 1
            if kind == "PYSKL" and len(data) > MIB:
                continue
            with memory_bound(256 * MIB):
                found = detect_or_refuse(f"clip{suffix}", data[: 64 * 1024])
                if found is None:
                    assert changes
                    tally["of no format"] += 1
                    continue
                if isinstance(found, ClipError):
                    result = found
                else:
                    layout, skeleton = found
                    (result,) = layout.read_files([data], skeleton)
                if isinstance(result, ClipError):
                    assert changes, result
                    assert result.what == result.what.strip() != ""
                    assert "\n" not in result.what
                    tally["refused"] += 1
                    continue
                check(result, skeleton)
                tally["accepted"] += 1

    for other in FORMATS.values():  # what libraries load once is loaded
        other.read_files([b""], OPENPOSE25)
    compare()
    print(f"\n{kind} files: {dict(tally)}")
    assert min(tally["accepted"], tally["refused"]) > tally["files"] / 20


def check(recording, skeleton):
    """Bodies are within the recording, with finite numbers, and become finite poses or none."""
    assert recording.bodies
    for body in recording.bodies:
        assert 0 <= body.first_frame < body.first_frame + body.num_frames <= recording.num_frames
        assert body.joints_TVC.dtype == np.float32
        assert body.joints_TVC.shape[1:] == (skeleton.num_joints, skeleton.num_coordinates)
        assert np.isfinite(body.joints_TVC).all()
    try:
        poses = normalize(recording, skeleton)
    except ClipError:
        return
    assert np.isfinite(poses.values_PD).all()
    assert poses.values_PD.shape[1] == skeleton.num_joints * skeleton.num_coordinates
