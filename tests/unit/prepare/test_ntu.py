"""Single rules of the .skeleton reader; tests/fuzz compares it with its twin on broken files."""

import tracemalloc

import numpy as np
import pytest

from sgnray.errors import ClipError
from sgnray.prepare.readers.ntu import parse_ntu_name, read_skeletons

from ...pose_files import read_skeleton


def test_ids_beyond_2_to_53_stay_apart(make_skeleton):
    near = [72057594037900001, 72057594037900002]
    recording = read_skeleton(make_skeleton([dict.fromkeys(near, np.ones((25, 3)))]))
    assert len(recording.bodies) == 2


def test_the_same_id_twice_in_a_frame_is_refused(make_skeleton):
    pair = {1: np.ones((25, 3)), 2: np.ones((25, 3))}
    data = make_skeleton([pair]).replace(b"\n2 0 1", b"\n1 0 1")
    with pytest.raises(ClipError) as caught:
        read_skeleton(data)
    assert caught.value.what == "line 30: the same body id twice in one frame"


def test_more_frames_than_announced_are_refused(make_skeleton):
    data = make_skeleton([{1: np.ones((25, 3))}] * 2).replace(b"2\n", b"1\n", 1)
    with pytest.raises(ClipError) as caught:
        read_skeleton(data)
    assert caught.value.what == "line 30: continues after the 1 frames it declares"


@pytest.mark.parametrize("announced", [b"999999999999\n1\n", b"1\n999999999999\n"])
def test_absurd_counts_allocate_nothing(make_skeleton, announced):
    data = make_skeleton([{1: np.ones((25, 3))}]).replace(b"1\n1\n", announced, 1)
    tracemalloc.start()
    try:
        with pytest.raises(ClipError, match="declares 999999999999"):
            read_skeleton(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_zeros_and_blanks_around_a_count_are_ignored(make_skeleton):
    data = make_skeleton([{1: np.ones((25, 3))}])
    dressed = data.replace(b"\n25\n", b"\n 025 \n").replace(b"1\n1\n", b"01\n 1\n", 1)
    assert dressed.count(b"025") == 1
    assert read_skeleton(dressed).num_frames == read_skeleton(data).num_frames == 1


def test_the_first_wrong_number_is_named_by_its_line(make_skeleton):
    lines = make_skeleton([{1: np.ones((25, 3))}] * 3).split(b"\n")
    lines[84] = lines[84].replace(b"1 1 1", b"1 x 1")
    with pytest.raises(ClipError) as caught:
        read_skeleton(b"\n".join(lines))
    assert caught.value.what == "line 85: the coordinate 'x' is not a number"


def test_name():
    name = parse_ntu_name("S032C003P106R002A120.skeleton")
    assert (name.name, name.label, name.setup) == ("S032C003P106R002A120", 119, 32)
    assert (name.camera, name.subject, name.replication) == (3, 106, 2)


@pytest.mark.parametrize(
    "name",
    ["S01C001P001R001A001.skeleton", "S001C001P001R001A001.txt", "S000C001P001R001A001.skeleton"],
)
def test_other_names_are_refused(name):
    with pytest.raises(ClipError):
        parse_ntu_name(name)


def test_lines_without_end_take_no_memory(make_skeleton):
    data = make_skeleton([{1: np.ones((25, 3))}])
    assert read_skeleton(data + b"\n \r\n" * 50_000).num_frames == 1
    endless = b"1\n" + b"\n" * (8 << 20) + b"x"
    tracemalloc.start()
    try:
        with pytest.raises(ClipError, match="too many lines for its size"):
            read_skeleton(endless)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_bad_number_does_not_affect_other_files(make_skeleton):
    good = make_skeleton([{1: np.full((25, 3), 0.1)}])
    bad = good.replace(b"0.1", b"nan", 1)
    first, second, third = read_skeletons([good, bad, good])
    assert isinstance(second, ClipError)
    for recording in (first, third):
        assert recording.bodies[0].joints_TVC.tobytes() == np.full(75, 0.1, np.float32).tobytes()
