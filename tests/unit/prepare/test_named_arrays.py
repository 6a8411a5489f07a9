"""Arrays of 2s-AGCN and ST-GCN with their pickles of labels, made from people that are known."""

import os
import pickle
import random
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from sgnray.data.skeleton import NTU25
from sgnray.data.skipped import Skipped
from sgnray.errors import InputError, UsageError
from sgnray.prepare.clip import Clip
from sgnray.prepare.normalize import normalize
from sgnray.prepare.readers.detect import detect
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.named_arrays import plan_named_arrays
from sgnray.storage.location import locate

from ... import pose_files as files

NUM_FRAMES = 40


def make_people(seed, num_actors=1, num_frames=15):
    """People in front of the camera, who come closer: M x T x V x C."""
    steps_TVC = np.linspace(0, 1, num_frames)[:, None, None] * (0, 0, -1.0)
    people = [files.move(NTU25, num_frames, walk_m=1.0, seed=seed + n) for n in range(num_actors)]
    people_MTVC = np.stack([p + steps_TVC + (n, 0, 3) for n, p in enumerate(people)])
    people_MTVC[:, :, -1] += steps_TVC[:, 0] / 10  # no two frames are the same
    return people_MTVC.astype("float32")


def pad_with_zeros(people_MTVC):
    """As ST-GCN: C x T x V x M."""
    row = np.zeros((3, NUM_FRAMES, people_MTVC.shape[2], 2), "float32")
    row[:, : people_MTVC.shape[1], :, : len(people_MTVC)] = people_MTVC.transpose(3, 1, 2, 0)
    return row


def center_and_repeat(people_MTVC, lengths=(NUM_FRAMES, NUM_FRAMES)):
    """As 2s-AGCN: every actor's frames again and again, from the main actor's spine, and turned."""
    row = np.zeros((3, NUM_FRAMES, people_MTVC.shape[2], 2), "float32")
    repeated_MTVC = np.stack(
        [
            person[np.arange(NUM_FRAMES) % min(len(person), length)]
            for person, length in zip(people_MTVC, lengths, strict=False)
        ]
    )
    repeated_MTVC = repeated_MTVC - repeated_MTVC[:1, :, 1:2]
    for start, end, axis in ((0, 1, (0, 0, 1)), (4, 8, (1, 0, 0))):  # first the spine is up
        bone = repeated_MTVC[0, 0, end] - repeated_MTVC[0, 0, start]
        turn = turn_to(bone / np.linalg.norm(bone), np.array(axis))
        repeated_MTVC = (repeated_MTVC @ turn.T).astype("float32")
    row[..., : len(people_MTVC)] = repeated_MTVC.transpose(3, 1, 2, 0)
    return row


def turn_to(start, end):
    """Make the shortest rotation from one direction to another, by Rodrigues' formula."""
    x, y, z = np.cross(start, end)
    cross = np.array([(0, -z, y), (z, 0, -x), (-y, x, 0)])
    return np.eye(3) + cross + cross @ cross / (1 + start @ end)


def with_y_up(row_CTVM):
    """Give M x T x V x C."""
    return row_CTVM.transpose(3, 1, 2, 0)[..., [0, 2, 1]] * np.float32([1, 1, -1])


def seen_from(side_rad, people_MTVC):
    """Turn people about the vertical axis."""
    sin, cos = np.sin(side_rad), np.cos(side_rad)
    return (people_MTVC @ np.array([(cos, 0, -sin), (0, 1, 0), (sin, 0, cos)])).astype("float32")


def seen_and_repeated(people_MTVC):
    """As center_and_repeat, of people whom the camera sees from one side."""
    return center_and_repeat(seen_from(0.4, people_MTVC))


def ntu_name(index, camera=1):
    return f"S001C{camera:03}P{index % 5 + 1:03}R001A{index % 4 + 1:03}.skeleton"


def write(folder, data="{}_data_joint.npy", **parts):
    """Write parts of (rows, names, labels)."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, (rows, names, labels) in parts.items():
        np.save(folder / data.format(part), np.stack(rows))
        (folder / f"{part}_label.pkl").write_bytes(pickle.dumps((names, labels)))
    return locate(folder)


def make_part(indices, prepare=pad_with_zeros, name=ntu_name, **keys):
    rows = [prepare(make_people(index, **keys)) for index in indices]
    return rows, [name(index) for index in indices], [index % 4 for index in indices]


def read_all(plan):
    results = [pickle.loads(pickle.dumps(job)).read() for job in plan.jobs]
    return [result for job in results for result in job]


@pytest.mark.parametrize("num_actors", [1, 2])
@pytest.mark.parametrize("data", ["{}_data_joint.npy", "{}_data.npy"])
def test_clips_padded_with_zeros_are_centered(tmp_path, num_actors, data):
    parts = {
        "train": make_part(range(5), num_actors=num_actors),
        "val": make_part(range(5, 8), num_actors=num_actors),
    }
    plan = plan_named_arrays(write(tmp_path, data, **parts))
    assert (plan.dataset, plan.skeleton, len(plan.class_names)) == ("ntu60", NTU25, 60)
    assert plan.splits is None  # those of NTU's subjects and cameras
    clips = read_all(plan)
    for index, clip in enumerate(clips):
        facts, people_MTVC = clip.facts, make_people(index, num_actors)
        assert f"{facts.name}.skeleton" == ntu_name(index)
        assert (facts.label, facts.subject, facts.camera, facts.setup, facts.replication) == (
            index % 4, index % 5 + 1, 1, 1, 1,
        )  # fmt: skip
        expected = (people_MTVC - people_MTVC[0, 0, 1]).transpose(1, 0, 2, 3).reshape(-1, 75)
        assert clip.poses.num_frames == 15
        assert clip.poses.values_PD.tobytes() == expected.tobytes()
        assert clip.poses.bodies.tolist() == list(range(num_actors)) * 15


@pytest.mark.parametrize("num_actors", [1, 2])
@pytest.mark.parametrize("num_frames", [1, 13, 20, 39, 40])
def test_clips_that_were_repeated_have_their_length_again(tmp_path, num_actors, num_frames):
    """15 frames fill 40 two and two thirds times."""
    keys = {"num_actors": num_actors, "num_frames": num_frames}
    part = make_part(range(2), seen_and_repeated, **keys)
    for clip in read_all(plan_named_arrays(write(tmp_path, train=part, val=part)))[:2]:
        row = part[0][clip.facts.label]
        expected = with_y_up(row)[:num_actors, :num_frames].transpose(1, 0, 2, 3).reshape(-1, 75)
        assert clip.poses.num_frames == num_frames
        assert np.array_equal(clip.poses.values_PD, expected)


def read_row(tmp_path, row):
    """Read the poses of one clip, M x T x V x C with zeros for an absent actor, and its bodies."""
    part = ([row], [ntu_name(0)], [0])
    clip, *_ = read_all(plan_named_arrays(write(tmp_path, train=part, val=part)))
    people_MTVC = np.zeros((2, clip.poses.num_frames, row.shape[2], 3), "float32")
    poses_PVC = clip.poses.values_PD.reshape(-1, row.shape[2], 3)
    people_MTVC[clip.poses.bodies, clip.poses.frames] = poses_PVC
    return people_MTVC


@pytest.mark.parametrize(
    "lengths", [(10, 30), (30, 10), (13, 30), (30, 13), (25, 40), (40, 25), (1, 17)]
)
def test_each_actor_is_repeated_after_an_own_number_of_frames(tmp_path, lengths):
    """Also if the main actor, whom actor 2 is measured from, is repeated after another one."""
    people_MTVC = seen_from(0.4, make_people(0, num_actors=2, num_frames=NUM_FRAMES))
    row = center_and_repeat(people_MTVC, lengths)
    found_MTVC, expected_MTVC = read_row(tmp_path, row), with_y_up(row)
    assert found_MTVC.shape[1] == max(lengths)
    for found_TVC, expected_TVC, length in zip(found_MTVC, expected_MTVC, lengths, strict=True):
        assert np.array_equal(found_TVC[:length], expected_TVC[:length])
        assert not found_TVC[length:].any()


@pytest.mark.parametrize("num_frames", [16, NUM_FRAMES])
def test_a_last_frame_like_the_first_is_kept_before_zeros(tmp_path, num_frames):
    people_MTVC = make_people(0, num_actors=2, num_frames=num_frames)
    people_MTVC[:, 15] = people_MTVC[:, 0]
    assert read_row(tmp_path, pad_with_zeros(people_MTVC)).shape[1] == num_frames


@pytest.mark.parametrize("side_rad", [-3, -1.2, 0.4, 2])
def test_arrays_of_2s_agcn_have_the_axes_of_skeleton_files(tmp_path, make_skeleton, side_rad):
    """From any side, they show people as a .skeleton file of people who face the camera does."""
    people_MTVC = make_people(3, num_actors=2)
    people_MTVC -= people_MTVC[:1, :, 1:2] - (0, 0, 3)
    people_MTVC[1] += 0.9 * (people_MTVC[1, :1] - people_MTVC[1])  # else it could be the main actor
    facing_MTVC = seen_from(np.pi, people_MTVC)  # their noses had a larger z
    frames = [dict(enumerate(people_VC, start=1)) for people_VC in facing_MTVC.swapaxes(0, 1)]
    recording = files.read_skeleton(make_skeleton(frames))
    poses_TMVC = normalize(recording, NTU25).values_PD.reshape(-1, 2, 25, 3)
    turned_MTVC = seen_from(side_rad, people_MTVC)
    found_MTVC = read_row(tmp_path, center_and_repeat(turned_MTVC))
    np.testing.assert_allclose(found_MTVC, poses_TMVC.swapaxes(0, 1), atol=1e-5)
    assert (found_MTVC[0, :, 3, 1] > found_MTVC[0, :, 0, 1]).all()  # the head is above the hips


def test_other_names_have_the_case_of_the_files(tmp_path):
    def name(index):
        return f"clip {index}"

    part = make_part(range(4), name=name)
    tested = make_part(range(4, 6), name=name)
    again = make_part(range(3, 5), name=name)
    for folder, case in (("xsub", "cs"), ("My clips", "fixed")):
        plan = plan_named_arrays(write(tmp_path / folder, train=part, val=tested))
        assert (plan.dataset, len(plan.class_names)) == (folder.lower().replace(" ", "-"), 4)
        assert plan.splits == {case: {"train": part[1], "test": tested[1]}}
    # Two parts for tests: the last one is tested.
    plan = plan_named_arrays(write(tmp_path / "xsub", test=again))
    assert plan.splits == {"cs": {"train": part[1] + tested[1], "test": []}}
    reasons = [item.reason for item in read_all(plan) if isinstance(item, Skipped)]
    assert reasons == ["another clip has this name"] * 2


def test_clips_that_cannot_be_used_are_left_out_with_their_reason(tmp_path):
    rows, names, labels = make_part(range(8))
    rows[0][:] = 0
    rows[1][0, 2, 3, 0] = np.nan
    rows[2] = np.roll(rows[2], 1, axis=-1)  # no main actor
    labels[3] = 7
    names[4] = names[5]
    names[6], labels[6] = "S001C002P005R002A008", 7
    location = write(tmp_path, train=(rows, names, labels), val=make_part([9], name=str))
    assert read_all(plan_named_arrays(location))[4].facts.camera is None  # not all are NTU's
    location = write(tmp_path, val=make_part([2]))
    reasons = [getattr(result, "reason", "") for result in read_all(plan_named_arrays(location))]
    assert reasons == [
        "every pose is zero",
        "a coordinate is not finite, or too large for float32",
        "every frame of the main actor is zero",
        "its label is 7, not 3 as in its name",
        "its label is 0, not 1 as in its name",
        "",
        "on the published list of missing skeletons",
        "",
        "another clip has this name",
    ]


def refused(folder):
    with pytest.raises(InputError) as caught:
        read_all(plan_named_arrays(locate(folder)))
    assert "\n" not in caught.value.what
    return caught.value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:2], "has 2 clips, and its pickle 3 labels"),
        (lambda rows: rows[0], "has the shape (3, 40, 25, 2), not 5 axes"),
        (lambda rows: rows[:, :2], "has the shape (3, 2, 40, 25, 2), not clips x 3 x frames x 25"),
        (lambda rows: rows[:, :, :, :18], "has the shape (3, 3, 40, 18, 2), not clips x 3 x"),
        (lambda rows: rows[:, :, :, :20], "has 20 joints, but train_data_joint.npy has 25"),
        (lambda rows: np.repeat(rows, 2, axis=-1), "has the shape (3, 3, 40, 25, 4), not clips"),
        (lambda rows: rows.astype(int), "contains int64, not floats of 64 bits or less"),
        (lambda rows: rows.astype(object), "contains Python objects, which are never unpickled"),
        (np.asfortranarray, "is stored by columns"),
    ],
)
def test_refused_arrays(tmp_path, change, said):
    part = make_part(range(3))
    write(tmp_path, train=part, val=part)
    np.save(tmp_path / "val_data_joint.npy", change(np.stack(part[0])))
    (problem,) = refused(tmp_path).problems
    assert problem.where == "val_data_joint.npy"
    assert problem.what.startswith(said)


def make_bones(rows_NCTVM):
    bones_NCTVM = np.zeros_like(rows_NCTVM)
    for child, parent in (*NTU25.bones, (20, 20)):
        bones_NCTVM[:, :, :, child] = rows_NCTVM[:, :, :, child] - rows_NCTVM[:, :, :, parent]
    return bones_NCTVM


def make_motions(rows_NCTVM):
    motions_NCTVM = np.zeros_like(rows_NCTVM)
    motions_NCTVM[:, :, :-1] = np.diff(rows_NCTVM, axis=2)
    return motions_NCTVM


@pytest.mark.parametrize(("make", "what"), [(make_bones, "bones"), (make_motions, "motions")])
def test_bones_and_motions_with_the_name_of_joints_are_refused(tmp_path, make, what):
    part = make_part(range(3), seen_and_repeated)
    changed = (make(np.stack(part[0])), *part[1:])
    write(tmp_path, train=part, val=changed)
    (problem,) = refused(tmp_path).problems
    assert (problem.where, problem.what) == ("val_data_joint.npy", f"has {what}, not joints")


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w')",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "it is not a list of names and a list of labels"),
        (5, "it is not a list of names and a list of labels"),
        ((["a", "b"], [1]), "it is not a list of names and a list of labels"),
        ((["a", "b", 3], [1, 2, 3]), "the name of clip 2 is not text"),
        ((["a", "b\n", "c"], [1, 2, 3]), "the name of clip 1 is not text"),
        ((["a", "b", "c"], [1, -2, 3]), "the label of clip 1 is not an integer of at least 0"),
        ((["a", "b", "c"], ["x", 2, 3]), "the label of clip 0 is not an integer of at least 0"),
        ((["a"], [3.0]), "the label of clip 0 is not an integer of at least 0"),
        ((["a"], [10**80]), "the label of clip 0 is not an integer of at least 0"),
    ],
)
def test_refused_labels(tmp_path, content, said):
    part = make_part(range(3))
    write(tmp_path, train=part, val=part)
    (tmp_path / "val_label.pkl").write_bytes(pickle.dumps(content))
    error = refused(tmp_path)
    assert said in error.what
    assert error.where.endswith("val_label.pkl")


def test_a_pickle_of_labels_runs_nothing(tmp_path):
    part = make_part(range(3))
    write(tmp_path, train=part, val=part)
    (tmp_path / "val_label.pkl").write_bytes(pickle.dumps((Touch(tmp_path / "ran"), [1])))
    assert "could run code" in refused(tmp_path).what
    assert not (tmp_path / "ran").exists()


def test_labels_that_count_from_1_are_refused(tmp_path):
    rows, names, labels = make_part(range(3))
    part = rows, names, [label + 1 for label in labels]
    write(tmp_path, train=part, val=part)
    assert refused(tmp_path).what == "the labels count from 1, and have to count from 0"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up rights takes root")
@pytest.mark.parametrize("name", ["train_data_joint.npy", "val_label.pkl"])
def test_files_that_may_not_be_read_are_not_corrupt(tmp_path, name):
    part = make_part(range(3))
    write(tmp_path, train=part, val=part)
    (tmp_path / name).chmod(0)
    script = (
        "import sys; from sgnray.errors import SgnError; from sgnray.prepare import *\n"
        "try: prepare_dataset(sys.argv[1], out='out')\n"
        "except SgnError as error: print(error.what)\n"
    )
    rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    command = [*rights, sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "ermission denied" in done.stdout
    assert "corrupt" not in done.stdout


def test_labels_may_be_an_array(tmp_path):
    part = make_part(range(3))
    location = write(tmp_path, train=(*part[:2], np.array(part[2])), val=make_part([5]))
    assert [clip.facts.label for clip in read_all(plan_named_arrays(location))] == [0, 1, 2, 1]


def test_missing_files_are_named(tmp_path):
    part = make_part(range(3))
    write(tmp_path, train=part)
    assert refused(tmp_path).problems[0].where == "val_data_joint.npy"
    write(tmp_path, val=part)
    (tmp_path / "val_label.pkl").unlink()
    error = refused(tmp_path)
    assert (error.what, error.where) == ("file not found", str(tmp_path / "val_label.pkl"))


def test_the_folder_is_found_by_its_files(tmp_path):
    """Also below the given one; bones and motions next to the joints are left out."""
    part = make_part(range(4))
    write(tmp_path / "ntu" / "xsub", train=part, val=make_part([5]))
    np.save(tmp_path / "ntu/xsub/train_data_bone.npy", np.zeros(3))
    for folder in (tmp_path / "ntu", tmp_path / "ntu" / "xsub"):
        plan = detect([locate(folder)])
        assert (plan.dataset, plan.num_clips, plan.source.num_files) == ("ntu60", 5, 4)
        with pytest.raises(UsageError, match="a name pattern is only for recordings"):
            detect([locate(folder)], "{label}")
    write(tmp_path / "ntu" / "xview", train=part, val=make_part([5]))
    with pytest.raises(UsageError, match="2 files in this folder could be a dataset") as caught:
        detect([locate(tmp_path / "ntu")])
    assert caught.value.now.endswith("ntu/xsub")
    # Recordings are read as before, and the arrays next to them are named.
    (tmp_path / "ntu" / "wave").mkdir()
    (tmp_path / "ntu" / "clap").mkdir()
    for label, seed in (("wave", 0), ("clap", 1)):
        (tmp_path / "ntu" / label / "a.json").write_bytes(files.make_file("YOLO", seed))
    plan = detect([locate(tmp_path / "ntu")])
    assert plan.class_names == ("clap", "wave")
    assert sorted(item.name for item in plan.skipped) == [
        f"{folder}/train_data_joint.npy" for folder in ("xsub", "xview")
    ]
    assert "prepare its folder alone" in plan.skipped[0].reason
    with pytest.raises(InputError) as caught:
        find_recordings(tmp_path / "ntu" / "xsub")
    assert caught.value.problems[0].what == plan.skipped[0].reason


def refused_paths(*paths):
    with pytest.raises((InputError, UsageError)) as caught:
        detect([locate(path) for path in paths])
    return caught.value


def test_what_is_almost_a_folder_of_arrays_is_refused_with_advice(tmp_path):
    part = make_part(range(4))
    for name in ("xsub", "xview", "bones", "both"):
        write(tmp_path / name, train=part, val=part)
    error = refused_paths(tmp_path / "xsub", tmp_path / "xview")
    assert error.what.startswith("several --raw make one dataset only if")
    with zipfile.ZipFile(tmp_path / "xsub.zip", "w") as archive:
        for path in (tmp_path / "xsub").iterdir():
            archive.write(path, f"xsub/{path.name}")
    assert refused_paths(tmp_path / "xsub.zip").now == "unpack it, and give the folder"
    (tmp_path / "bones/train_data_joint.npy").rename(tmp_path / "bones/train_data_bone.npy")
    (problem,) = refused_paths(tmp_path / "bones").problems
    assert (problem.where, problem.what) == ("train_data_joint.npy", "is missing")
    other = tmp_path / "both" / "other.pkl"
    other.write_bytes(b"")
    expected = f"give --raw {other}, or move that file to another folder"
    assert refused_paths(tmp_path / "both").now == expected


def test_another_array_makes_another_dataset(tmp_path):
    part, tested = make_part(range(4)), make_part([5])
    plans = [plan_named_arrays(write(tmp_path, train=part, val=tested))]
    part[0][0][0, 0, 0, 0] += 1
    plans.append(plan_named_arrays(write(tmp_path, train=part, val=tested)))
    part[1][0] = ntu_name(0, camera=3)
    plans.append(plan_named_arrays(write(tmp_path, train=part, val=tested)))
    assert len({plan.source.fingerprint for plan in plans}) == 3
    assert len({plan.source.num_bytes for plan in plans}) == 1


def test_damage_is_refused_skipped_or_gives_finite_poses(tmp_path):
    """200 random bytes, one at a time: refused, skipped, or finite poses; nothing else."""
    write(tmp_path, train=make_part(range(3)), val=make_part([5]))
    rng = random.Random(5)
    num_read = 0
    for number in range(200):
        path = tmp_path / ("train_data_joint.npy", "train_label.pkl")[number % 2]
        whole = path.read_bytes()
        data = bytearray(whole)
        data[rng.choice([rng.randrange(len(data)), rng.randrange(100)])] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data)] * 9 + [rng.randrange(len(data))])])
        try:
            results = read_all(plan_named_arrays(locate(tmp_path)))
        except InputError:
            continue
        finally:
            path.write_bytes(whole)
        num_read += 1
        for result in results:
            assert isinstance(result, Skipped) or np.isfinite(result.poses.values_PD).all()
    assert 0 < num_read < 200


def test_memory_is_bounded(tmp_path):
    """600 clips are 108 MB: an array is neither read nor mapped as a whole."""
    num_clips, row = 600, np.zeros((3, 300, 25, 2), np.float32)
    row[:, :3] = np.arange(25)[:, None]
    with (tmp_path / "train_data_joint.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (num_clips, *row.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(num_clips):
            file.write(row.tobytes())
    labels = [index % 4 for index in range(num_clips)]
    names = [f"clip {index}" for index in range(num_clips)]
    (tmp_path / "train_label.pkl").write_bytes(pickle.dumps((names, labels)))
    write(tmp_path, val=([row], ["tested"], [0]))
    tracemalloc.start()
    try:
        plan = plan_named_arrays(locate(tmp_path))
        assert sum(isinstance(clip, Clip) for job in plan.jobs for clip in job.read()) == 601
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()
