"""The .skeleton reader against the obvious twin: one line at a time, on files broken by chance."""

import math
import random
import re
import struct
import tracemalloc

import numpy as np
import pytest

from sgnray.errors import ClipError
from sgnray.prepare.ntu import parse_ntu_name
from sgnray.prepare.ntu_text import read_skeleton

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
COUNT = re.compile(r"\d{1,12}", re.ASCII)
# What a coordinate, an id or a count may turn into.
TOKENS = [
    *b"""nan inf Infinity -nan(ind) 1e39 1e400 -1e-400 1e-46 3.4028235677973366e38
    3.4028235677973362e38 +1.0 ++1 1_0 0x1p3 1. .5 -.5 . e5 1e 1e+ 1E-05 --1 +-1 1d5 1.0f '1' "1"
    12345678901234567890.123456789 0.1000000000000000055511151231257827021181583404541015625 00001
    -0 1e0000000000000000000005 25 0 2 1,5 99999999999 100000000000000000000000""".split(),
    b"",
    b" ",
    b"\t1",
]


class RefusedError(Exception):
    """What the twin raises."""


def read_plainly(data):
    """Return (frames with a body, {id: (first frame, [pose, ...])}); a pose is 25 x (x, y, z)."""
    text = data.decode("latin-1").replace("\r\n", "\n")
    check(all(char == "\n" or " " <= char <= "~" for char in text))
    lines = text.rstrip(" \n").split("\n")
    lines.reverse()  # so that the next one is popped
    bodies = {}
    frame = 0
    for _ in range(count(lines)):
        seen = set()
        for _ in range(count(lines)):
            info = take(lines).split(" ")
            check(len(info) == 10 and re.fullmatch(r"\d{1,20}", info[0], re.ASCII))
            body_id = int(info[0])
            check(body_id not in seen)
            seen.add(body_id)
            check(count(lines) == 25)
            pose = [joint(take(lines)) for _ in range(25)]
            bodies.setdefault(body_id, (frame, []))[1].append(pose)
        frame += bool(seen)
    check(not lines)
    check(bodies)
    return frame, bodies


def take(lines):
    check(lines)
    return lines.pop()


def count(lines):
    text = take(lines).strip()
    check(COUNT.fullmatch(text))
    check(int(text) <= len(lines))
    return int(text)


def joint(line):
    columns = line.split(" ")
    check(len(columns) == 12)
    check(all(NUMBER.fullmatch(column) for column in columns[:3]))
    return tuple(to_float32(float(column)) for column in columns[:3])


def to_float32(number):
    check(math.isfinite(number))
    try:
        # struct rounds to float32, and refuses what is beyond it.
        return struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError as error:
        raise RefusedError from error


def check(condition):
    if not condition:
        raise RefusedError


def make_file(rng, make_skeleton):
    ids = [72057594037900001, 72057594037900002, 72057594037900003]
    frames = [
        {
            body_id: [
                [rng.gauss(0, 10.0 ** rng.randint(-6, 2)) for _ in range(3)] for _ in range(25)
            ]
            for body_id in rng.sample(ids, rng.choice([0, 1, 1, 2]))
        }
        for _ in range(3)
    ]
    return make_skeleton(frames, newline=rng.choice(["\n", "\r\n"])) + rng.choice([b"", b"\n \r\n"])


def mutate(data, rng):
    lines = data.split(b"\n")
    line, place = rng.randrange(len(lines)), rng.randrange(len(data))
    byte = bytes([rng.choice([rng.randrange(256), 10, 13, 32, 45, 46, 48 + rng.randrange(10)])])
    match rng.randrange(9):
        case 0:
            return data[:place] + byte + data[place + 1 :]
        case 1:
            return data[:place] + byte + data[place:]
        case 2:
            return data[:place] + data[place + 1 :]
        case 3:
            return data[:place]
        case 4:
            del lines[line]
        case 5:
            lines.insert(line, rng.choice(lines))
        case 6:
            other = rng.randrange(len(lines))
            lines[line], lines[other] = lines[other], lines[line]
        case _:
            columns = lines[line].split(b" ")
            columns[rng.randrange(min(len(columns), 4))] = rng.choice(TOKENS)
            lines[line] = b" ".join(columns)
    return b"\n".join(lines)


def outcome_of(read, refusal, data):
    try:
        return read(data)
    except refusal:
        return None


def test_never_accepts_what_the_twin_refuses_nor_reads_it_otherwise(make_skeleton):
    num_accepted = 0
    for seed in range(400):
        rng = random.Random(seed)
        data = make_file(rng, make_skeleton)
        for _ in range(rng.randrange(3)):
            data = mutate(data, rng)
        expected = outcome_of(read_plainly, RefusedError, data)
        recording = outcome_of(read_skeleton, ClipError, data)
        assert (recording is None) == (expected is None), f"seed {seed}"
        if recording is None:
            continue
        num_accepted += 1
        num_frames, bodies = expected
        assert recording.num_frames == num_frames
        assert len(recording.bodies) == len(bodies)
        for body, (first_frame, poses) in zip(recording.bodies, bodies.values(), strict=True):
            assert body.first_frame == first_frame
            assert body.joints_TVC.tobytes() == np.array(poses, np.float32).tobytes()
    assert 100 < num_accepted < 300  # both sides of the border are visited


@pytest.mark.parametrize("token", TOKENS)
def test_every_odd_coordinate(make_skeleton, token):
    data = make_skeleton([{1: np.ones((25, 3))}]).replace(b"1 1 1 0", b"1 %s 1 0" % token, 1)
    expected = outcome_of(read_plainly, RefusedError, data)
    recording = outcome_of(read_skeleton, ClipError, data)
    assert (recording is None) == (expected is None)
    if recording is not None:
        assert recording.bodies[0].joints_TVC[0, 0, 1] == np.float32(float(token))


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
    assert caught.value.what == "line 30: goes on after the 1 frames it announces"


@pytest.mark.parametrize("announced", [b"999999999999\n1\n", b"1\n999999999999\n"])
def test_absurd_counts_allocate_nothing(make_skeleton, announced):
    data = make_skeleton([{1: np.ones((25, 3))}]).replace(b"1\n1\n", announced, 1)
    tracemalloc.start()
    try:
        with pytest.raises(ClipError, match="announces 999999999999"):
            read_skeleton(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_name():
    name = parse_ntu_name("S032C003P106R002A120.skeleton")
    assert (name.name, name.action, name.setup) == ("S032C003P106R002A120", 120, 32)
    assert (name.camera, name.subject, name.replication) == (3, 106, 2)


@pytest.mark.parametrize(
    "name",
    ["S01C001P001R001A001.skeleton", "S001C001P001R001A001.txt", "S000C001P001R001A001.skeleton"],
)
def test_other_names_are_refused(name):
    with pytest.raises(ClipError):
        parse_ntu_name(name)
