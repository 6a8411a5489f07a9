"""Three sensors, what goes wrong in them, and the text they write."""

import numpy as np
import pytest

from sgnray.data.skeleton import NTU25
from sgnray.errors import ClipError
from sgnray.prepare.normalize import keep_actors
from sgnray.synth.actions import list_actions
from sgnray.synth.body import turn_about
from sgnray.synth.people import draw_person, perform
from sgnray.synth.sensor import Setup, draw_setup, record
from sgnray.synth.text import _format_numbers, format_recording

from ...pose_files import read_skeleton

ACTIONS = list_actions()


def motions_of(action, seed):
    rng = np.random.default_rng(seed)
    return perform(action, draw_person(rng), draw_person(rng), facing_rad=0.0, rng=rng)


@pytest.fixture(scope="module")
def recordings():
    """Recordings of two single and two double actions: (people, recording)."""
    found = []
    for seed in range(160):
        motions = motions_of(ACTIONS[seed % 4], seed)
        rng = np.random.default_rng(1000 + seed)
        found.append((len(motions), record(motions, draw_setup(rng), 1 + seed % 3, rng)))
    return found


def plain_first(recordings):
    """The first recording that has no defects except noise."""
    return next(
        recording
        for people, recording in recordings
        if people == len(recording.tracks) == 1 and len(recording.tracks[0].frames) > 40
    )


@pytest.mark.parametrize(("camera", "azimuth"), [(1, 0.0), (2, -np.pi / 4), (3, np.pi / 4)])
def test_each_camera_sees_the_same_performance_from_its_side(camera, azimuth):
    """Rotated back by azimuth and pitch, a recording equals the motion, up to noise."""
    motions = motions_of(ACTIONS[0], 7)
    setup = Setup(height_m=2.0, distance_m=3.0)
    track = record(motions, setup, camera, np.random.default_rng(8)).tracks[0]
    assert track.joints_TVC[..., 2].mean() == pytest.approx(np.hypot(3.0, 1.05), abs=0.6)
    pitch = np.arctan2(1.05, 3.0)
    looking = turn_about(0, np.asarray(-pitch)) @ turn_about(1, np.asarray(-azimuth))
    seen = track.joints_TVC - track.joints_TVC[:, :1]
    happened = motions[0].joints_TVC - motions[0].joints_TVC[:, :1]
    error = np.abs(seen @ looking - happened[track.frames])
    assert 0.001 < np.median(error) < 0.02


def test_a_raised_sensor_looks_down():
    """The head is nearer to the sensor than the feet are."""
    motions = motions_of(ACTIONS[0], 7)
    track = record(motions, Setup(2.2, 2.6), 1, np.random.default_rng(8)).tracks[0]
    head, ankles = track.joints_TVC[0, 3, 2], track.joints_TVC[0, (14, 18), 2].mean()
    assert head < ankles - 0.3


def test_everything_that_goes_wrong_in_real_recordings_occurs(recordings):
    seen = dict.fromkeys(
        ("ghost", "wide ghost", "late", "empty start", "empty middle", "empty end", "inferred",
         "order", "new id"), 0,
    )  # fmt: skip
    for people, recording in recordings:
        tracks = recording.tracks
        shown = np.zeros(recording.num_frames, dtype=int)
        for track in tracks:
            shown[track.frames] += 1
            seen["inferred"] += bool((track.states_TV == 1).any())
        real = [track for track in tracks if np.any(track.states_TV == 2)]
        ghosts = [track for track in tracks if not np.any(track.states_TV == 2)]
        seen["new id"] += len(real) > people
        for ghost in ghosts:
            spread = np.ptp(ghost.joints_TVC, axis=1)
            wide = bool(np.mean(spread[:, 0] > 0.8 * spread[:, 1]) > 0.7)
            assert wide or len(ghost.frames) <= 11
            seen["wide ghost" if wide else "ghost"] += 1
        if people == 2 and len(real) == 2:
            seen["late"] += real[1].frames[0] > 5
            both = np.intersect1d(real[0].frames, real[1].frames)
            seen["order"] += len(set(recording.first[both])) > 1
        empty = np.flatnonzero(shown == 0)
        seen["empty start"] += 0 in empty
        seen["empty end"] += recording.num_frames - 1 in empty
        seen["empty middle"] += bool(np.any((empty > 0) & (empty < recording.num_frames - 1)))
    assert min(seen.values()) > 0, seen


def test_people_survive_preparation_and_ghosts_do_not(recordings):
    eventful = [pair for pair in recordings if len(pair[1].tracks) != pair[0]]
    assert len(eventful) > 20
    for people, recording in eventful:
        parsed = read_skeleton(format_recording(recording))
        assert 27 <= parsed.num_frames <= recording.num_frames
        real = [track for track in recording.tracks if np.any(track.states_TV == 2)]
        kept = keep_actors(parsed.bodies, NTU25) if len(parsed.bodies) > 1 else parsed.bodies
        assert people <= len(kept) <= len(real)
        real_joints = [track.joints_TVC[0].astype(np.float32) for track in real]
        for body in kept:
            first = body.joints_TVC[0]
            assert min(np.abs(first - joints).max() for joints in real_joints) < 1e-5


def test_the_text_contains_the_recorded_joints(recordings):
    recording = plain_first(recordings)
    parsed = read_skeleton(format_recording(recording, newline="\r\n"))
    track = recording.tracks[0]
    assert len(parsed.bodies) == 1
    np.testing.assert_allclose(parsed.bodies[0].joints_TVC, track.joints_TVC, atol=7e-7)


def test_the_twelve_columns(recordings):
    """x y z, the pixels of both cameras, the orientation w x y z, the tracking state."""
    recording = plain_first(recordings)
    track = recording.tracks[0]
    lines = format_recording(recording).decode().splitlines()
    assert int(lines[0]) == recording.num_frames
    first = int(track.frames[0])
    header, count, joints = lines[first + 2], lines[first + 3], lines[first + 4 : first + 29]
    assert header.split()[0] == str(track.body_id)
    assert (len(header.split()), len(header.split()[0]), count) == (10, 17, "25")
    table = np.array([[float(number) for number in line.split()] for line in joints])
    assert table.shape == (25, 12)
    x, y, z, *pixels = table[:, :7].T
    np.testing.assert_allclose(pixels[0], 256.0 + 365.5 * x / z, atol=2e-3)
    np.testing.assert_allclose(pixels[1], 212.0 - 365.5 * y / z, atol=2e-3)
    np.testing.assert_allclose(pixels[2], 960.0 + 1060.0 * x / z, atol=2e-3)
    np.testing.assert_allclose(pixels[3], 540.0 - 1060.0 * y / z, atol=2e-3)
    w, i, j, k = table[5, 7:11]
    expected = track.turned_TVCC[0, 5]
    assert w**2 + i**2 + j**2 + k**2 == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(
        (1 - 2 * (j * j + k * k), 2 * (i * j - k * w), 2 * (i * k + j * w)), expected[0], atol=1e-5
    )
    assert not table[[3, 15, 19, 21, 22, 23, 24], 7:11].any()
    np.testing.assert_array_equal(table[:, 11], track.states_TV[0])


def test_frames_without_anybody_and_changing_order_are_written(recordings):
    recording = next(
        r for people, r in recordings if people == len(r.tracks) == 2 and len(set(r.first)) == 2
    )
    lines = iter(format_recording(recording).decode().splitlines())
    order = []
    for _ in range(int(next(lines))):
        order.append([])
        for _ in range(int(next(lines))):
            order[-1].append(int(next(lines).split()[0]))
            for _ in range(int(next(lines))):
                next(lines)
    assert list(lines) == []
    for frame, ids in enumerate(order):
        shown = [track.body_id for track in recording.tracks if frame in track.frames]
        assert ids == (shown[::-1] if recording.first[frame] and len(shown) == 2 else shown)
    assert read_skeleton(format_recording(recording)).num_frames == sum(map(bool, order))


def test_a_ghost_alone_would_be_refused():
    """Verifies the check above: ghosts are of the kind that preparation removes."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        recording = record(motions_of(ACTIONS[0], seed), draw_setup(rng), 1, rng)
        ghosts = [track for track in recording.tracks if not np.any(track.states_TV == 2)]
        if ghosts and len(ghosts[0].frames) <= 11:
            parsed = read_skeleton(
                format_recording(
                    type(recording)(recording.num_frames, tuple(ghosts), recording.first)
                )
            )
            with pytest.raises(ClipError, match="no body is longer than 11 frames"):
                keep_actors(parsed.bodies, NTU25)
            return
    pytest.fail("no short ghost in 60 recordings")


def test_numbers_are_written_as_python_would():
    """Of every size and sign, against %-formatting one by one."""
    values = np.random.default_rng(2).normal(size=400) * 10.0 ** np.arange(-8, 2).repeat(40)
    values = np.concatenate([values.clip(-99, 99), [0.0, -0.0, 1.0, -9.9999996, 0.9999994]])
    text = _format_numbers(values, num_whole=2, num_decimals=6)
    written = text[text > 0].tobytes().decode().split()
    assert written == [f"{value:.6f}".replace("-0.000000", "0.000000") for value in values]
