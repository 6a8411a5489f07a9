"""PYSKL pickles against a slow twin, and all that can be wrong with one."""

import pickle
import random

import numpy as np
import pytest

from sgnray.data.skipped import Skipped
from sgnray.errors import InputError
from sgnray.prepare.clip import Clip
from sgnray.prepare.dataset import prepare_dataset
from sgnray.prepare.readers.pyskl import plan_pyskl
from sgnray.storage.location import locate


def annotate(name, keypoint, label=0, **others):
    return {
        "frame_dir": name,
        "label": label,
        "total_frames": keypoint.shape[1],
        "keypoint": keypoint,
        **others,
    }


def make_keypoint(seed, num_actors=2, num_frames=6, num_joints=25, dtype="float32"):
    rng = np.random.default_rng(seed)
    keypoint = rng.normal(size=(num_actors, num_frames, num_joints, 3)).astype(dtype)
    keypoint[:, rng.integers(num_frames, size=2)] = 0
    keypoint[0, 0] = 0
    return keypoint


def ntu_name(index, setup=1):
    number = index % 5
    return f"S{setup:03}C{index % 3 + 1:03}P{number + 1:03}R001A{index % 4 + 1:03}"


def write(tmp_path, content, protocol=2, name="ntu_3danno.pkl"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return locate(path)


def read_all(plan):
    results = [pickle.loads(pickle.dumps(job)).read() for job in plan.jobs]
    return [result for job in results for result in job]


def list_slowly(keypoint):
    """Center and list poses, number by number: [(frame, body, pose)]."""
    frames = np.float32(keypoint)
    first = next(frame for frame in frames[0] if frame.any())
    poses = []
    for time in range(frames.shape[1]):
        for actor in range(len(frames)):
            pose = frames[actor, time]
            if pose.any() and (moved := pose - first[1]).any():
                poses.append((time, actor, moved.ravel()))
    return poses


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_poses_are_those_of_the_slow_twin(tmp_path, dtype, protocol):
    keypoints = {
        ntu_name(index): make_keypoint(index, num_actors=1 + index % 2, dtype=dtype)
        for index in range(12)
    }
    keypoints[ntu_name(0)] = np.asfortranarray(keypoints[ntu_name(0)])
    annotations = [
        annotate(name, keypoint, label=np.int64(index % 4), keypoint_score=np.ones(3))
        for index, (name, keypoint) in enumerate(keypoints.items())
    ]
    plan = plan_pyskl(write(tmp_path, {"annotations": annotations}, protocol))
    clips = {clip.facts.name: clip for clip in read_all(plan)}
    assert set(clips) == set(keypoints)
    assert (plan.dataset, plan.splits, len(plan.class_names)) == ("ntu60", None, 60)
    for index, (name, keypoint) in enumerate(keypoints.items()):
        poses, facts = clips[name].poses, clips[name].facts
        frames, bodies, values = zip(*list_slowly(keypoint), strict=True)
        assert poses.frames.tolist() == list(frames)
        assert poses.bodies.tolist() == list(bodies)
        assert poses.values_PD.tobytes() == np.array(values).tobytes()
        assert poses.num_frames == 6
        assert (facts.label, facts.setup, facts.camera) == (index % 4, 1, index % 3 + 1)
        assert (facts.subject, facts.replication) == (index % 5 + 1, 1)


def test_the_splits_are_the_files_own(tmp_path, caplog):
    names = [ntu_name(index, setup=20) for index in range(4)]
    split = {
        "xsub_train": names[:2],
        "xsub_val": [names[2], "nobody"],
        "xset_train": (names[3],),
        "xset_test": names[:1],
        "xview_train": names[:1],  # there is no xview_val
        "half_train": names[:2],
        "half_val": ["nobody"],
        "odd": 5,
    }
    annotations = [annotate(name, make_keypoint(0), i) for i, name in enumerate(names)]
    plan = plan_pyskl(write(tmp_path, {"split": split, "annotations": annotations}))
    assert plan.dataset == "ntu120"
    assert plan.splits == {
        "csub": {"train": names[:2], "test": [names[2]]},
        "cset": {"train": [names[3]], "test": [names[0]]},
    }
    assert "nobody" in caplog.text
    assert "odd" in caplog.text
    split["xsub_val"].append(names[0])
    with pytest.raises(InputError) as caught:
        plan_pyskl(write(tmp_path, {"split": split, "annotations": annotations}))
    assert caught.value.problems[0].where == "split csub"


def test_other_clip_names_make_a_dataset_named_after_the_file(tmp_path):
    annotations = [
        annotate(f"clip {index}", make_keypoint(index, num_joints=20), label=index)
        for index in range(3)
    ]
    split = {"train": ["clip 0"], "val": ["clip 1"], "My Split_train": ["clip 1"]}
    split["My Split_test"] = ["clip 2"]
    location = write(
        tmp_path, {"split": split, "annotations": annotations}, name="My Gestures (v2).pkl"
    )
    plan = plan_pyskl(location)
    assert (plan.dataset, plan.skeleton.name) == ("my-gestures-v2", "kinect20")
    assert plan.class_names == ("class 0", "class 1", "class 2")
    assert set(plan.splits) == {"fixed", "my-split"}
    assert all(isinstance(clip, Clip) for clip in read_all(plan))


def test_numbered_splits_are_cases(tmp_path):
    """As in HMDB51 and UCF101, which have three splits."""
    names = ["a", "b", "c"]
    split = {"train1": names[:2], "test1": names[2:], "train2": names[1:], "test2": names[:1]}
    annotations = [annotate(name, make_keypoint(0), label) for label, name in enumerate(names)]
    plan = plan_pyskl(write(tmp_path, {"split": split, "annotations": annotations}))
    assert plan.splits == {
        "split1": {"train": names[:2], "test": names[2:]},
        "split2": {"train": names[1:], "test": names[:1]},
    }


def test_ntu_in_2d_has_the_facts_of_its_names_but_is_another_dataset(tmp_path):
    missing = "S001C002P005R002A008"  # only as a skeleton of Kinect
    names = [*(ntu_name(index) for index in range(4)), missing]
    keypoint = np.random.default_rng(0).uniform(100, 900, (1, 20, 17, 2)).astype("float32")
    annotations = [
        annotate(name, keypoint, label=int(name[-3:]) - 1, keypoint_score=np.ones((1, 20, 17)))
        for name in names
    ]
    location = write(tmp_path, {"annotations": annotations}, name="ntu60_hrnet.pkl")
    plan = plan_pyskl(location)
    expected = read_all(plan)
    assert (plan.dataset, plan.skeleton.name) == ("ntu60_hrnet", "coco17")
    assert (len(plan.class_names), plan.class_names[0]) == (60, "drink water")
    clips = {clip.facts.name: clip.facts for clip in read_all(plan)}
    assert set(clips) == set(names)
    assert (clips[missing].subject, clips[missing].camera, clips[missing].label) == (5, 2, 7)
    # Of the 133 points of a whole body, the first 17 are the same, also if some clips have only 17.
    for count in (3, 5):
        for item in annotations[:count]:
            item["keypoint"] = np.pad(keypoint, [(0, 0), (0, 0), (0, 116), (0, 0)], mode="edge")
            item["keypoint_score"] = np.ones((1, 20, 133))
        whole = read_all(plan_pyskl(write(tmp_path, {"annotations": annotations})))
        for one, other in zip(whole, expected, strict=True):
            assert one.poses.values_PD.tobytes() == other.poses.values_PD.tobytes()


@pytest.mark.parametrize("num_joints", [25, 17])
def test_an_action_beyond_the_classes_is_left_out(tmp_path, num_joints):
    """NTU RGB+D 120 has no action 130: the dataset would be corrupt."""
    names = ["S001C001P001R001A001", "S001C001P001R001A130"]
    keypoint = make_keypoint(0, num_joints=num_joints)[..., : 3 if num_joints == 25 else 2]
    annotations = [annotate(name, keypoint, int(name[-3:]) - 1) for name in names]
    plan = plan_pyskl(write(tmp_path, {"annotations": annotations}))
    assert len(plan.class_names) == 120
    assert plan.skipped == (
        Skipped(names[1], "its action is 130, and the dataset has 120 classes"),
    )
    assert plan.num_clips == 1


def test_a_clip_that_cannot_be_used_is_left_out_with_its_reason(tmp_path):
    whole = make_keypoint(0)
    nobody, infinite, far = whole.copy(), whole.copy(), whole.astype("float64")
    nobody[0] = 0
    infinite[1, 2, 3, 0] = np.inf
    far[1, 2, 3, 0] = 1e39
    cases = {
        ntu_name(0): (annotate(ntu_name(0), whole), None),
        ntu_name(1): (annotate(ntu_name(1), nobody, label=1), "main actor is zero"),
        ntu_name(2): (annotate(ntu_name(2), infinite, label=2), "not finite"),
        ntu_name(3): (annotate(ntu_name(3), far, label=3), "not finite"),
        ntu_name(4): (annotate(ntu_name(4), whole, label=5), "as in its name"),
        "S001C002P005R002A008": (
            annotate("S001C002P005R002A008", whole, label=7),
            "missing skeletons",
        ),
        ntu_name(5): ({**annotate(ntu_name(5), whole, label=1), "total_frames": 7}, "total_frames"),
        ntu_name(6): (annotate(ntu_name(6), whole[:, :0], label=2), "main actor is zero"),
    }
    annotations = [annotation for annotation, _ in cases.values()]
    plan = plan_pyskl(write(tmp_path, {"annotations": [*annotations, annotations[0]]}))
    results = [*plan.skipped, *read_all(plan)]
    twice = Skipped(ntu_name(0), "another clip has this name")
    assert results.count(twice) == 1
    results.remove(twice)
    assert len(results) == len(cases)
    for result in results:
        name = result.name if isinstance(result, Skipped) else result.facts.name
        reason = cases[name][1]
        assert (reason is None) == isinstance(result, Clip), result
        assert reason is None or reason in result.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keypoint": np.zeros((3, 6, 25, 3))}, "1 or 2 x T x V x C"),
        ({"keypoint": np.zeros((6, 25, 3))}, "1 or 2 x T x V x C"),
        ({"keypoint": np.zeros((1, 6, 25, 3), "int32")}, "not floats"),
        ({"keypoint": [[1.0]]}, "keypoint"),
        ({"label": "walk"}, "label"),
        ({"label": -1}, "label"),
        ({"label": True}, "label"),
        ({"label": 2**80}, "label"),
        ({"frame_dir": ""}, "frame_dir"),
        ({"frame_dir": "a\nb"}, "frame_dir"),
        ({"total_frames": None}, "total_frames"),
    ],
)
def test_an_invalid_annotation_refuses_the_file(tmp_path, change, said):
    annotations = [annotate("a", make_keypoint(0)), annotate("b", make_keypoint(1)) | change]
    with pytest.raises(InputError) as caught:
        plan_pyskl(write(tmp_path, {"annotations": annotations}))
    (problem,) = caught.value.problems
    assert problem.where == "annotations[1]"
    assert said in problem.what


@pytest.mark.parametrize("shape", [(1, 6, 17, 3), (1, 6, 25, 2), (1, 6, 0, 3)])
def test_another_skeleton_is_referred_to_the_custom_format(tmp_path, shape):
    with pytest.raises(InputError, match="joints x coordinates") as caught:
        plan_pyskl(write(tmp_path, {"annotations": [annotate("a", np.zeros(shape))]}))
    assert "custom" in caught.value.now


def test_clips_of_several_skeletons_are_not_one_dataset(tmp_path):
    annotations = [annotate("a", np.ones((1, 6, 25, 3))), annotate("b", np.ones((1, 6, 17, 2)))]
    said = "the poses have 17 x 2, 25 x 3 joints x coordinates, not one skeleton"
    with pytest.raises(InputError, match=said):
        plan_pyskl(write(tmp_path, {"annotations": annotations}))


def test_clips_that_are_all_left_out_are_an_error_with_the_reason(tmp_path):
    item = annotate("a", np.ones((1, 6, 25, 3))) | {"total_frames": 7}
    location = write(tmp_path, {"annotations": [item]})
    with pytest.raises(InputError, match="none of 1 recordings can be used") as caught:
        prepare_dataset(location.path, out=tmp_path / "out")
    assert caught.value.problems[0].what == "total_frames is 7, but it has 6"


def test_a_file_that_is_not_a_pyskl_pickle_is_refused(tmp_path):
    for content in ({}, [], {"annotations": []}, {"annotations": {}}, 5, b"", b"text"):
        with pytest.raises(InputError):
            plan_pyskl(write(tmp_path, content))
    with pytest.raises(InputError, match="file not found"):
        plan_pyskl(locate(tmp_path / "none.pkl"))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_damage_is_refused_skipped_or_gives_finite_poses(tmp_path, protocol):
    """200 random bytes, one set at a time: refused, skipped, or finite poses; nothing else."""
    annotations = [annotate(ntu_name(index), make_keypoint(index), index) for index in range(4)]
    split = {"xsub_train": [ntu_name(0)], "xsub_val": [ntu_name(1)]}
    whole = pickle.dumps({"split": split, "annotations": annotations}, protocol)
    rng = random.Random(protocol)
    num_read = 0
    for _ in range(200):
        data = bytearray(whole)
        data[rng.choice([rng.randrange(len(data)), rng.randrange(600)])] = rng.randrange(256)
        try:
            results = read_all(plan_pyskl(write(tmp_path, bytes(data))))
        except InputError:
            continue
        num_read += 1
        for result in results:
            assert isinstance(result, Skipped) or np.isfinite(result.poses.values_PD).all()
    assert 0 < num_read < 200


def test_jobs_are_cut_and_a_job_reads_its_own_clips(tmp_path):
    keypoint = make_keypoint(0, num_frames=4000, dtype="float64")  # 4.8 MB
    annotations = [annotate(ntu_name(index), keypoint, index % 4) for index in range(9)]
    plan = plan_pyskl(write(tmp_path, {"annotations": annotations}, protocol=4))
    assert [job.num_clips for job in plan.jobs] == [4, 4, 1]
    assert plan.num_clips == 9
    names = [clip.facts.name for job in reversed(plan.jobs) for clip in job.read()]
    assert sorted(names) == sorted(ntu_name(index) for index in range(9))


def test_a_file_cut_off_after_planning_loses_nothing(tmp_path):
    """The file is read once, when it is planned: jobs have their arrays with them."""
    annotations = [annotate(ntu_name(index), make_keypoint(index), index) for index in range(3)]
    location = write(tmp_path, {"annotations": annotations})
    plan = plan_pyskl(location)
    (tmp_path / location.name).write_bytes(b"")
    results = read_all(plan)
    assert [result.facts.name for result in results] == [ntu_name(index) for index in range(3)]


def test_a_clip_whose_bytes_are_damaged_is_left_out(tmp_path):
    annotations = [annotate(ntu_name(index), make_keypoint(index), index) for index in range(2)]
    location = write(tmp_path, {"annotations": annotations}, protocol=2)
    data = (tmp_path / location.name).read_bytes()
    first = annotations[0]["keypoint"].tobytes().decode("latin-1").encode()
    assert first in data
    # In the text of protocol 2, a character of two bytes that is beyond latin-1.
    at = data.index(first) + next(i for i in range(1, len(first)) if first[i] in (0xC2, 0xC3))
    (tmp_path / location.name).write_bytes(data[:at] + b"\xc4" + data[at + 1 :])
    damaged, whole = read_all(plan_pyskl(location))
    assert isinstance(damaged, Skipped)
    assert "damaged" in damaged.reason
    assert isinstance(whole, Clip)
