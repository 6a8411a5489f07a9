"""Tables of clips and their descriptions: what is read, against a plain loop over the same rows."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sgnray.data.skeleton import COCO17, NTU25
from sgnray.data.skipped import Skipped
from sgnray.errors import InputError
from sgnray.prepare.clip import Clip, Poses
from sgnray.prepare.dataset import prepare_dataset
from sgnray.prepare.readers import tables
from sgnray.prepare.readers.described import plan_described
from sgnray.prepare.readers.table_clips import open_clips, read_clips
from sgnray.storage.location import locate

FLAT = [f"joint {number}" for number in range(17)]


def describe(folder, **changes):
    """Write a description of 2D skeletons with 17 joints; None leaves a key out."""
    content = {
        "format_version": 1,
        "dataset": "my-cameras",
        "clips": "clips.table",
        "joints": FLAT,
        "bones": [["joint 1", "joint 0"]],
        "coordinates": 2,
        "origin": "joint 2",
        "classes": ["wave", "clap"],
        "splits": {"people": {"test": {"subject": [3, 4]}}},
    } | changes
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return locate(path)


def make_rows(num_rows, num_joints=17, num_coordinates=2):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(num_rows):
        num_poses = 1 + number % 7
        shape = (num_poses, num_joints * num_coordinates)
        rows.append(
            {
                "name": f"clip-{number:03}",
                "label": number % 2,
                "subject": number % 5,
                "camera": number % 3 or None,
                "poses": rng.normal(size=shape).astype(np.float32).tolist(),
                "frame": [2 * pose // 2 for pose in range(num_poses)],
                "body": [0] * num_poses,
            }
        )
    return rows


def write_parquet(path, table):
    pq.write_table(table, path, row_group_size=7)


def write_file(path, table):
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def write_compressed(path, table):
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(path), table.schema, options=options) as writer:
        writer.write_table(table)


def write_stream(path, table):
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


WRITERS = [write_parquet, write_file, write_compressed, write_stream]


def read(plan):
    """Do the jobs, each pickled and unpickled as for a worker."""
    results = []
    for job in pickle.loads(pickle.dumps(plan.jobs)):
        part = list(job.read())
        assert len(part) == job.num_clips
        results += part
    return results


def read_slowly(row, layout):
    """The obvious twin: one pose after the other."""
    poses, frames, bodies = [], [], []
    for index, pose in enumerate(row["poses"]):
        joints = np.array(pose, np.float32).reshape(layout.num_joints, layout.num_coordinates)
        if joints.any():
            poses.append(joints)
            frames.append(row["frame"][index] if row.get("frame") else index)
            bodies.append(row["body"][index] if row.get("body") else 0)
    if layout.origin is not None:
        origin = poses[bodies.index(0)][layout.origin].copy()
        poses = [pose - origin for pose in poses]
    return np.stack(poses).reshape(len(poses), -1), frames, bodies


def check_against_twin(rows, results, layout):
    assert [result.facts.name for result in results] == [row["name"] for row in rows]
    for row, result in zip(rows, results, strict=True):
        values, frames, bodies = read_slowly(row, layout)
        assert np.array_equal(result.poses.values_PD, values)
        assert result.poses.values_PD.dtype == np.float32
        assert result.poses.frames.tolist() == frames
        assert result.poses.bodies.tolist() == bodies
        assert result.facts.subject == row.get("subject")
        assert result.facts.camera == row.get("camera")
        assert result.facts.setup is None


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("job_bytes", "num_jobs"), [(1, 40), (tables.JOB_BYTES, 1)])
def test_flat_skeletons(tmp_path, monkeypatch, write, job_bytes, num_jobs):
    monkeypatch.setattr(tables, "JOB_BYTES", job_bytes)
    rows = make_rows(40)
    write(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    plan = plan_described(describe(tmp_path))
    assert (len(plan.jobs), plan.num_clips) == (num_jobs, 40)
    assert (plan.dataset, plan.class_names) == ("my-cameras", ("wave", "clap"))
    assert (plan.skeleton.name, plan.skeleton.num_coordinates) == ("my-cameras", 2)
    assert plan.skeleton.bones == ((1, 0),)
    check_against_twin(rows, read(plan), plan.skeleton)


@pytest.mark.parametrize("write", WRITERS)
def test_jobs_come_in_any_order(tmp_path, monkeypatch, write):
    monkeypatch.setattr(tables, "JOB_BYTES", 9000)
    rows = make_rows(40)
    write(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    plan = plan_described(describe(tmp_path))
    jobs = plan.jobs
    assert len(jobs) > 3
    order = np.random.default_rng(1).permutation(len(jobs))
    found = {clip.facts.name: clip for number in order for clip in jobs[number].read()}
    half = next(iter(jobs[2].read()))  # a reader that is abandoned in the middle
    assert half.facts.name in found
    check_against_twin(rows, [found[row["name"]] for row in rows], plan.skeleton)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int16()])
def test_ntu_like_skeletons_with_two_bodies_and_nested_joints(tmp_path, write, kind):
    rng = np.random.default_rng(2)
    rows = []
    for number in range(9):
        poses = rng.integers(-9, 9, size=(6, 25, 3)).astype(float)
        poses[number % 6] = 0
        rows.append(
            {
                "name": f"clip {number}",
                "label": ("clap", "wave")[number % 2],
                "poses": poses.tolist(),
                "frame": [0, 0, 1, 5, 5, 9],
                "body": [0, 1, 0, 0, 1, 1],
            }
        )
    pose = pa.list_(pa.list_(kind, 3), 25) if number % 2 else pa.list_(pa.list_(kind))
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "poses"}
    if kind == pa.float16():
        poses = [np.array(row["poses"], np.float16).tolist() for row in rows]
        poses = pa.array(poses, pa.list_(pa.list_(pa.list_(pa.float64())))).cast(pa.list_(pose))
    else:
        poses = pa.array([row["poses"] for row in rows], pa.list_(pose))
    write(tmp_path / "clips.table", pa.table({**columns, "poses": poses}))
    location = describe(
        tmp_path, dataset="ntu60", joints=list(NTU25.joints), coordinates=3, bones=None,
        origin="spine middle", splits=None,
    )  # fmt: skip
    plan = plan_described(location)
    assert (plan.skeleton.name, plan.skeleton.joints, plan.skeleton.bones) == (
        "ntu25",
        NTU25.joints,
        (),
    )
    assert plan.splits is None
    results = read(plan)
    check_against_twin(rows, results, plan.skeleton)
    assert [result.facts.label for result in results] == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert {result.poses.num_frames for result in results} == {10}


def test_frames_and_bodies_may_be_absent(tmp_path):
    rows = [{"name": "a", "label": 1, "poses": [[0.0] * 34, [1.0] * 34, [2.0] * 34, [0.0] * 34]}]
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    plan = plan_described(describe(tmp_path, origin=None, splits=None))
    (clip,) = read(plan)
    assert clip.poses.num_frames == 4
    assert clip.poses.frames.tolist() == [1, 2]
    assert clip.poses.bodies.tolist() == [0, 0]
    assert clip.poses.values_PD[:, 0].tolist() == [1, 2]


def test_frames_count_in_each_clip(tmp_path):
    """A clip that is cut out of a longer recording is as long as its own frames."""
    pose = [1.0] * 34
    row = {"label": 1, "poses": [[0.0] * 34, pose, pose]}
    rows = [row | {"name": "a", "frame": [676, 677, 680]}, row | {"name": "b", "frame": [1, 2, 3]}]
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    clips = read(plan_described(describe(tmp_path, splits=None)))
    assert [clip.poses.frames.tolist() for clip in clips] == [[1, 4], [1, 2]]
    assert [clip.poses.num_frames for clip in clips] == [5, 3]
    # To recognize a clip, its frames are those of the recording, which a timeline shows.
    (piece,) = open_clips(locate(tmp_path / "clips.table"), COCO17).pieces()
    (_, poses), _ = read_clips(piece, COCO17)
    assert (poses.frames.tolist(), poses.num_frames) == ([677, 680], 681)


@pytest.mark.parametrize(
    ("changes", "is_warned"),
    [({}, True), ({"origin": "b"}, False), ({"coordinates": 2}, False)],
)
def test_a_description_in_3d_without_an_origin_is_warned_of(tmp_path, caplog, changes, is_warned):
    changes = {"joints": ["a", "b"], "coordinates": 3, "origin": None} | changes
    rows = make_rows(6, num_joints=2, num_coordinates=changes["coordinates"])
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    plan_described(describe(tmp_path, bones=None, **changes))
    assert bool(caplog.messages) is is_warned
    if is_warned:
        assert caplog.messages == [
            "mine.yaml has no origin: its clips keep their position in the room; name a joint, "
            "such as 'origin: pelvis'"
        ]


def test_several_files_make_one_dataset(tmp_path):
    rows = make_rows(12)
    write_parquet(tmp_path / "a.parquet", pa.Table.from_pylist(rows[:5]))
    write_stream(tmp_path / "b.arrow", pa.Table.from_pylist(rows[5:]))
    plan = plan_described(describe(tmp_path, clips=["a.parquet", "b.arrow"]))
    assert plan.source.num_files == 3
    check_against_twin(rows, read(plan), plan.skeleton)


def test_clips_that_cannot_be_used_are_skipped_with_their_reasons(tmp_path):
    good = [[1.0] * 34, [2.0] * 34]
    bad = {
        "zero": {"poses": [[0.0] * 34]},
        "empty": {"poses": []},
        "null": {"poses": None},
        "narrow": {"poses": [good[0], [1.0] * 33]},
        "nan": {"poses": [[float("nan")] * 34]},
        "infinite": {"poses": [[float("nan")] * 2 + [float("inf")] + [1.0] * 31]},
        "huge": {"poses": [[1e300] * 34]},
        "wide": {"poses": [[3e38] * 4 + [-3e38] * 30]},
        "null number": {"poses": [[None] * 34]},
        "null pose": {"poses": [None]},
        "no label": {"label": None},
        "big label": {"label": 2},
        "minus": {"label": -1},
        "frames": {"frame": [0]},
        "back": {"frame": [1, 0]},
        "twice": {"frame": [1, 1], "body": [0, 0]},
        "gap": {"frame": [0, 86_400_000]},
        "clock": {"frame": [1_600_000_000_000, 1_600_000_000_033]},
        "microseconds": {"poses": [good[0]] * 4, "frame": [0, 33_333, 66_667, 100_000]},
        "every second": {"poses": [good[0]] * 4, "frame": [0, 60, 120, 180]},
        "no main": {"body": [1, 1]},
        "subject": {"subject": 40_000},
        "good": {},
    }
    rows = [
        {"name": name, "label": 0, "poses": good, "frame": None, "body": None, "subject": 1}
        | changes
        for name, changes in bad.items()
    ]
    rows += [rows[-1], rows[-1] | {"name": None}, rows[-1] | {"name": ""}]
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    results = read(plan_described(describe(tmp_path, splits=None)))
    reasons = [(r.name, r.reason) for r in results if isinstance(r, Skipped)]
    assert [r.facts.name for r in results if isinstance(r, Clip)] == [
        "gap",
        "every second",
        "good",
    ]
    assert reasons == [
        ("zero", "every pose is zero"),
        ("empty", "it has no poses"),
        ("null", "it has no poses"),
        ("narrow", "33 numbers in a pose instead of 34"),
        ("nan", "every pose is zero or NaN"),
        ("infinite", "a number is not finite in float32"),
        ("huge", "a number is not finite in float32"),
        ("wide", "a coordinate is too large for float32 after the origin is subtracted"),
        ("null number", "every pose is zero or NaN"),
        ("null pose", "every pose is zero or NaN"),
        ("no label", "it has no label"),
        ("big label", "its label is 2, not one of 0 to 1"),
        ("minus", "its label is -1, not one of 0 to 1"),
        ("frames", "it has 2 poses, and 1 numbers in frame"),
        ("back", "its poses are not in order: frame by frame, and in a frame body by body"),
        ("twice", "pose 1: frame 1 of body 0 is repeated"),
        ("clock", "a number in frame is below 0, or too large: it must count from 0"),
        (
            "microseconds",
            "its poses are 33,333 frames apart: number its frames 0, 1, ..., not by time",
        ),
        ("no main", "it has no pose of body 0 to center it on"),
        ("subject", "its subject is 40000, not null or a number from 0 to 32,767"),
        ("good", "another clip has this name"),
        ("row 24 of clips.table", "it has no name"),
        ("row 25 of clips.table", "it has no name"),
    ]


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int16()])
def test_missing_joints_are_interpolated_over_the_frames_of_their_body(tmp_path, missing, kind):
    if pa.types.is_integer(kind) and missing is not None:
        pytest.skip("integers have no NaN")
    frames, bodies = [0, 1, 1, 2, 5, 5, 6], [0, 0, 1, 0, 0, 1, 0]
    numbers = np.random.default_rng(5).integers(-9, 9, size=(7, 17, 2))
    poses = numbers.astype(float if pa.types.is_floating(kind) else int).tolist()
    expected = numbers.astype(np.float64)
    poses[1][4] = [missing, missing]  # from frames 0 and 2
    poses[3][5][1] = missing  # one coordinate, from frames 1 and 5
    poses[6][6] = None if missing is None else [missing, missing]  # at the end
    poses[2][7] = poses[5][7] = [missing, missing]  # never in body 1
    expected[1, 4] = (expected[0, 4] + expected[3, 4]) / 2
    expected[3, 5] = expected[1, 5] + (expected[4, 5] - expected[1, 5]) / 4
    expected[6, 6] = expected[4, 6]
    for pose in (2, 5):
        expected[pose, 7] = np.delete(expected[pose], 7, axis=0).mean(axis=0)
    row = {"name": ["a"], "label": [0], "frame": [frames], "body": [bodies]}
    pose = pa.list_(pa.list_(kind))
    nested = pa.array([poses], pa.list_(pa.list_(pa.list_(pa.float64())))).cast(pa.list_(pose))
    write_file(tmp_path / "clips.table", pa.table({**row, "poses": nested}))
    (clip,) = read(plan_described(describe(tmp_path, origin=None, splits=None)))
    assert clip.poses.frames.tolist() == frames
    assert clip.poses.bodies.tolist() == bodies
    found = clip.poses.values_PD.reshape(7, 17, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    (piece,) = open_clips(locate(tmp_path / "clips.table"), COCO17).pieces()
    ((_, predicted),) = read_clips(piece, dataclasses.replace(COCO17, origin=None))
    assert predicted.values_PD.tobytes() == clip.poses.values_PD.tobytes()


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.list_(pa.float64()))])
def test_a_null_pose_is_left_out(tmp_path, kind):
    pose = [1.0] * 34 if kind.value_type == pa.float64() else [[1.0, 1.0]] * 17
    poses = pa.array([[pose, None, pose]], pa.list_(kind))
    write_parquet(tmp_path / "clips.table", pa.table({"name": ["a"], "label": [0], "poses": poses}))
    (clip,) = read(plan_described(describe(tmp_path, origin=None, splits=None)))
    assert clip.poses.frames.tolist() == [0, 2]


def test_wrong_labels_are_not_reported_as_wrong_splits(tmp_path):
    rows = [row | {"label": "Wave"} for row in make_rows(6)]
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    plan = plan_described(describe(tmp_path))
    assert {item.reason for item in read(plan)} == {"its label 'Wave' is not one of the classes"}


def test_a_pose_without_any_joint_is_left_out(tmp_path):
    nan = float("nan")
    row = {"name": "a", "label": 1, "poses": [[1.0] * 34, [nan] * 34, [nan, 5.0] * 17, [2.0] * 34]}
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist([row]))
    (clip,) = read(plan_described(describe(tmp_path, origin=None, splits=None)))
    assert clip.poses.frames.tolist() == [0, 3]
    assert clip.poses.num_frames == 4
    assert clip.poses.values_PD[:, 0].tolist() == [1, 2]


def test_labels_that_count_from_1_are_refused(tmp_path):
    """They would be the names of other classes, and the last class would be lost."""
    rows = [row | {"label": 1 + row["label"]} for row in make_rows(6)]
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    with pytest.raises(InputError) as caught:
        plan_described(describe(tmp_path))
    assert caught.value.what == (
        "labels run from 1 to 2; integers must count from 0, and class names must be text"
    )
    for others in ([0, 1, 2], [1], [None, 1], [1, 3], [-1, 1]):
        rows = [row | {"label": others[i % len(others)]} for i, row in enumerate(make_rows(6))]
        write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
        plan_described(describe(tmp_path, splits=None))


def test_the_reason_for_an_unknown_label_is_short(tmp_path):
    row = {"name": "a", "label": "x" * 200_000, "poses": [[1.0] * 34]}
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist([row]))
    (result,) = read(plan_described(describe(tmp_path, splits=None)))
    assert result.reason == f"its label '{'x' * 59} is not one of the classes"


def test_a_table_for_the_skeleton_of_a_pose_estimator_is_in_meters(tmp_path):
    """Its pixels became meters when the model's dataset was prepared."""
    poses_PVC = np.random.default_rng(0).normal(size=(5, 17, 2))
    sizes = {"meters": 1, "far": 3, "pixels": 100, "millimeters": 1000, "huge": 1e38}
    rows = [{"name": name, "poses": (size * poses_PVC).tolist()} for name, size in sizes.items()]
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    (piece,) = open_clips(locate(tmp_path / "clips.table"), COCO17).pieces()
    found = dict(read_clips(piece, COCO17))
    for name in ("pixels", "millimeters", "huge"):
        assert found.pop(name).what.startswith("its people are larger than 20 m")
    assert all(isinstance(poses, Poses) for poses in found.values())


def test_splits_name_their_clips(tmp_path):
    rows = make_rows(15)
    rows[7]["subject"] = None
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    splits = {
        "people": {"test": {"subject": [3, 4]}},
        "left-camera": {"train": {"camera": [1]}, "test": {"camera": [2], "subject": [0, 1]}},
        "given": {"train": ["clip-001", "clip-000"], "test": ["clip-002"]},
        "rest": {"train": ["clip-001"]},
    }
    found = plan_described(describe(tmp_path, splits=splits)).splits
    known = [row for row in rows if row["subject"] is not None]
    assert found["people"] == {
        "train": [row["name"] for row in known if row["subject"] not in (3, 4)],
        "test": [row["name"] for row in known if row["subject"] in (3, 4)],
    }
    assert found["left-camera"] == {
        "train": [row["name"] for row in rows if row["camera"] == 1],
        "test": [r["name"] for r in known if r["camera"] == 2 and r["subject"] in (0, 1)],
    }
    assert found["given"] == {"train": ["clip-000", "clip-001"], "test": ["clip-002"]}
    assert found["rest"]["test"] == [row["name"] for row in rows if row["name"] != "clip-001"]


def test_without_splits_the_cases_are_those_of_recordings(tmp_path):
    rows = make_rows(15)
    rows[7]["subject"] = rows[8]["name"] = None
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows[::-1]))
    found = plan_described(describe(tmp_path, splits=None)).splits
    rows.pop(8)
    assert list(found) == ["cs", "cv", "random"]
    known = [row for row in rows if row["subject"] is not None]
    assert found["cs"] == {  # every third subject
        "train": [row["name"] for row in known if row["subject"] != 2],
        "test": [row["name"] for row in known if row["subject"] == 2],
    }
    assert found["cv"] == {  # the second of two cameras
        "train": [row["name"] for row in rows if row["camera"] == 1],
        "test": [row["name"] for row in rows if row["camera"] == 2],
    }
    assert found["random"]["test"] == ["clip-009", "clip-010"]  # the fifth of each class
    assert len(found["random"]["train"]) == 12
    rows = [rows[0] | {"subject": None}]
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    assert plan_described(describe(tmp_path, splits=None)).splits is None


def test_a_case_that_lacks_a_part_is_warned_of(tmp_path, caplog):
    rows = make_rows(15)
    for row in rows:
        if row["subject"] in (3, 4):
            row["poses"] = []
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    location = describe(tmp_path, splits={"people": {"test": {"subject": [3, 4]}}})
    assert prepare_dataset(location.path, out=tmp_path / "out").splits == {"people": (9, 0)}
    assert caplog.messages == ["the case people has no test clips"]


def test_wrong_splits_are_listed_at_once(tmp_path):
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(make_rows(15)))
    splits = {
        "a": {"test": {"subject": [9]}},
        "b": {"train": ["clip-001"], "test": ["clip-001", "no", "neither"]},
        "c": {"test": {"setup": [1]}},
    }
    with pytest.raises(InputError) as caught:
        plan_described(describe(tmp_path, splits=splits))
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("splits.a", "leaves no clips for test"),
        ("splits.b", "clip 'no' not found, and 1 more are unknown"),
        ("splits.b", "has 1 clip in both parts, such as 'clip-001'"),
        ("splits.c", "leaves no clips for train"),
        ("splits.c", "leaves no clips for test"),
    ]


def test_a_wrong_table_is_refused_at_once(tmp_path):
    table = pa.table({"label": [0.5], "poses": [[[1.0, 2.0]]], "subject": ["x"], "frame": [0]})
    table = table.set_column(1, "poses", pa.array([[[1.0, 2.0]]], pa.list_(pa.list_(pa.int8(), 2))))
    write_parquet(tmp_path / "a.parquet", table)
    (tmp_path / "b.csv").write_text("name,label\n")
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError) as caught:
        plan_described(describe(tmp_path, clips=["a.parquet", "b.csv", "c", "d"]))
    listed = {(problem.where, problem.what) for problem in caught.value.problems}
    assert ("a.parquet", "column name not found") in listed
    assert ("c", "file not found") in listed
    assert ("d", "is a folder") in listed
    text = str(caught.value)
    assert "8 problems" in text
    for word in (
        "the column label is double, and must be integers from 0, or names of classes",
        "each 34 numbers, or 17 joints of 2 numbers",
        "the column subject is string, and must be integers, null where unknown",
        "the column frame is int64, and must be a list of integers, one for each pose",
        "b.csv: is not a complete Arrow or Parquet file",
    ):
        assert word in text


@pytest.mark.parametrize("write", WRITERS)
def test_a_damaged_table_raises_input_errors_only(tmp_path, write):
    path = tmp_path / "clips.table"
    write(path, pa.Table.from_pylist(make_rows(40)))
    whole = path.read_bytes()
    location = describe(tmp_path)
    rng = np.random.default_rng(3)
    damaged = [whole[: len(whole) // 2], whole[:10], b""]
    for _ in range(60):
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        damaged.append(bytes(data))
    num_refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:  # what is still read may differ
            read(plan_described(location))
        except InputError:
            num_refused += 1
    assert num_refused > 3  # not only those that are cut off


@pytest.mark.parametrize("write", WRITERS)
def test_a_remote_table_is_read_like_a_local_one(tmp_path, monkeypatch, write):
    """A location with a URI is read as a remote one, even if it is on this machine."""
    monkeypatch.setattr(tables, "JOB_BYTES", 9000)
    rows = make_rows(40)
    write(tmp_path / "clips.table", pa.Table.from_pylist(rows))
    location = dataclasses.replace(describe(tmp_path), uri=tmp_path.as_uri())
    plan = plan_described(location)
    check_against_twin(rows, read(plan), plan.skeleton)


def test_a_table_that_changes_after_planning_is_refused(tmp_path):
    path = tmp_path / "clips.table"
    write_parquet(path, pa.Table.from_pylist(make_rows(4)))
    plan = plan_described(describe(tmp_path))
    write_parquet(path, pa.Table.from_pylist(make_rows(5)))
    with pytest.raises(InputError, match="the table has changed"):
        read(plan)


def test_a_published_dataset_name_requires_its_skeleton(tmp_path):
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(make_rows(4)))
    with pytest.raises(InputError, match="ntu60 has 25 joints of 3 coordinates"):
        plan_described(describe(tmp_path, dataset="ntu60"))


def test_the_source_changes_with_the_description(tmp_path):
    write_parquet(tmp_path / "clips.table", pa.Table.from_pylist(make_rows(15)))
    first, again, other = (
        plan_described(describe(tmp_path, classes=classes)).source.fingerprint
        for classes in (["wave", "clap"], ["wave", "clap"], ["clap", "wave"])
    )
    assert first == again != other
