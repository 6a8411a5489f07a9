"""Exports against what they were made of: read back, every number is the same bit for bit."""

import pickle
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from sgnray.data.formats.export import export_dataset
from sgnray.data.protocols import Split, split_clips
from sgnray.data.skeleton import COCO17
from sgnray.data.store import open_dataset
from sgnray.errors import InputError, UsageError
from sgnray.prepare import prepare_dataset
from sgnray.prepare.clip import Clip
from sgnray.prepare.readers.padded import plan_padded
from sgnray.prepare.readers.pyskl import plan_pyskl
from sgnray.storage.location import locate

from ... import pose_files as files

GOLDEN = Path(__file__).parents[2] / "golden" / "prepare" / "raw.tar.xz"
SUFFIXES = {"npz": "npz", "h5": "h5", "pyskl": "pkl"}


@pytest.fixture(scope="module")
def golden_dataset(tmp_path_factory):
    """31 clips, some with two people, one with a negative zero and subnormal numbers put in."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(folder, filter="data")
    dataset = open_dataset(prepare_dataset(folder / "raw", out=folder / "data").folder)
    poses = dataset.poses_PVC.copy()
    poses[3, 5:8] = [-0.0, 1e-45, -1e-40]
    object.__setattr__(dataset, "poses_PVC", poses)
    return dataset


def read_all(plan):
    clips = [clip for job in plan.jobs for clip in job.read()]
    assert all(isinstance(clip, Clip) for clip in clips), clips
    return {clip.facts.name: clip for clip in clips}


def poses_of(dataset, clip):
    """One clip of a dataset, by the columns of its file."""
    import pyarrow as pa

    batch = pa.ipc.open_file(str(dataset.folder / "clips.arrow")).get_batch(0)
    frames = np.array(batch.column("frame")[clip].as_py())
    bodies = np.array(batch.column("body")[clip].as_py())
    values = dataset.poses_PVC[dataset.offsets[clip] : dataset.offsets[clip + 1]]
    return frames, bodies, values.reshape(len(values), -1)


def assert_same(read, dataset, clip):
    frames, bodies, values = poses_of(dataset, clip)
    assert read.facts.label == dataset.clips.labels[clip]
    np.testing.assert_array_equal(read.poses.frames, frames)
    np.testing.assert_array_equal(read.poses.bodies, bodies)
    assert read.poses.values_PD.tobytes() == values.tobytes()


@pytest.mark.parametrize("to", ["npz", "h5"])
def test_padded_files_give_every_pose_back(golden_dataset, tmp_path, to):
    out = tmp_path / f"NTU120_CSub.{to}"
    steps = []
    result = export_dataset(
        golden_dataset, out, to=to, case="csub", on_progress=lambda *at: steps.append(at)
    )
    plan = plan_padded(locate(out))
    clips = read_all(plan)
    split = split_clips("ntu120", "csub", golden_dataset.clips)
    assert plan.dataset == "ntu120"
    assert list(plan.splits) == ["csub"]
    for part, rows in (("train", split.train), ("test", split.test)):
        for name, row in zip(plan.splits["csub"][part], rows, strict=True):
            assert_same(clips[name], golden_dataset, row)
            frames, _, _ = poses_of(golden_dataset, row)
            assert clips[name].poses.num_frames == frames[-1] + 1
    assert result.num_clips == len(clips) == 31
    assert steps[-1] == (31, 31)
    assert result.num_bytes == out.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_only_trailing_zero_frames_are_lost_and_the_losses_say_so(golden_dataset, tmp_path):
    num_frames = golden_dataset.clips.num_frames.copy()
    num_frames[:3] += 2
    longer = replace(golden_dataset, clips=replace(golden_dataset.clips, num_frames=num_frames))
    for dataset, expected in ((golden_dataset, []), (longer, ["the zero frames at the end of 3"])):
        out = tmp_path / f"{len(expected)}.npz"
        result = export_dataset(dataset, out, to="npz", case="csub")
        said = [loss for loss in result.losses if "zero frames" in loss]
        assert [loss.partition(" clips")[0] for loss in said] == expected


def test_a_pyskl_file_gives_clips_names_and_cases_back(golden_dataset, tmp_path):
    out = tmp_path / "ntu.pkl"
    result = export_dataset(golden_dataset, out, to="pyskl")
    plan = plan_pyskl(locate(out))
    clips = read_all(plan)
    table = golden_dataset.clips
    assert set(clips) == set(table.names)
    assert plan.dataset == "ntu120"
    for row, name in enumerate(table.names):
        assert_same(clips[name], golden_dataset, row)
        assert clips[name].poses.num_frames == table.num_frames[row]
        assert clips[name].facts.subject == table.subjects[row]
        assert clips[name].facts.setup == table.setups[row]
    assert set(plan.splits) == {"csub", "cset"}
    for case, parts in plan.splits.items():
        split = split_clips("ntu120", case, table)
        assert parts["train"] == [table.names[row] for row in split.train]
        assert parts["test"] == [table.names[row] for row in split.test]
    assert result.losses == ()


def test_a_pyskl_file_names_only_modules_that_numpy_1_has(golden_dataset, tmp_path):
    export_dataset(golden_dataset, tmp_path / "clips.pkl", to="pyskl")
    content = (tmp_path / "clips.pkl").read_bytes()
    num_arrays = content.count(b"_reconstruct\n")
    assert num_arrays == len(golden_dataset.clips.names)
    assert content.count(b"numpy.core.multiarray\n") == num_arrays
    assert b"numpy._core" not in content


def test_cases_of_the_same_published_name_are_all_in_a_pyskl_file(tiny_dataset, tmp_path):
    """cs, csub and xsub are names of one split, which a description may give to several."""
    cases = {"cs": ([0], [1]), "csub": ([2], [3]), "cv": ([4], [5])}
    for more in ({}, {"xsub": ([6], [7])}):
        given = {
            case: Split(*(np.array(rows) for rows in parts))
            for case, parts in (cases | more).items()
        }
        clips = replace(tiny_dataset.clips, splits=given)
        out = tmp_path / f"{len(given)}.pkl"
        export_dataset(replace(tiny_dataset, clips=clips), out, to="pyskl")
        found = pickle.loads(out.read_bytes())["split"]
        words = ["cs" if more else "xsub", "csub", "xview", *more]
        for word, split in zip(words, given.values(), strict=True):
            assert found.pop(f"{word}_train") == [clips.names[row] for row in split.train]
            assert found.pop(f"{word}_val") == [clips.names[row] for row in split.test]
        assert not found


def test_standard_tools_read_the_files(golden_dataset, tmp_path):
    """numpy, h5py and pickle themselves open them, with the keys and shapes that tools expect."""
    for to, suffix in SUFFIXES.items():
        export_dataset(golden_dataset, tmp_path / f"a.{suffix}", to=to, case="cset")
    with np.load(tmp_path / "a.npz") as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
        padded = arrays["x_train"]
        labels = arrays["y_train"].argmax(axis=1)
    assert shapes == {
        "x_train": (17, 300, 150),
        "y_train": (17, 120),
        "x_test": (14, 300, 150),
        "y_test": (14, 120),
    }
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file) == {"x", "y", "valid_x", "valid_y", "test_x", "test_y"}
        assert file["x"][:].tobytes() == padded.tobytes()
        assert file["valid_x"].shape == (0, 300, 150)
    content = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert set(content["split"]) == {"xset_train", "xset_val"}
    of_name = {item["frame_dir"]: item for item in content["annotations"]}
    for row, name in enumerate(content["split"]["xset_train"]):
        item = of_name[name]
        keypoint = item["keypoint"]
        assert item["label"] == labels[row]
        assert keypoint.dtype == np.float32
        assert keypoint.shape[1:] == (item["total_frames"], 25, 3)
        rest = padded[row].reshape(300, 2, 25, 3)[: len(keypoint[0]), : len(keypoint)]
        np.testing.assert_array_equal(rest, keypoint.swapaxes(0, 1))


@pytest.mark.parametrize("to", SUFFIXES)
def test_the_same_dataset_gives_the_same_bytes(golden_dataset, tmp_path, to):
    for name in ("one", "two"):
        export_dataset(golden_dataset, tmp_path / name, to=to, case="cset")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_exporting_a_synthetic_dataset_to_one_file_needs_a_case(tiny_dataset, tmp_path):
    with pytest.raises(UsageError, match="several cases: cs, cv, cset"):
        export_dataset(tiny_dataset, tmp_path / "tiny.npz", to="npz")
    (loss,) = export_dataset(tiny_dataset, tmp_path / "tiny.pkl", to="pyskl").losses
    assert "reads the file back as NTU" in loss
    result = export_dataset(tiny_dataset, tmp_path / "tiny.npz", to="npz", case="xview")
    plan = plan_padded(locate(result.path))
    assert (plan.dataset, plan.class_names) == ("tiny", ("class 0", "class 1", "class 2"))
    assert len(read_all(plan)) == result.num_clips


def test_an_existing_file_stays_without_overwrite(tiny_dataset, tmp_path):
    out = tmp_path / "tiny.pkl"
    out.write_text("mine")
    with pytest.raises(UsageError, match="the file exists already"):
        export_dataset(tiny_dataset, out, to="pyskl")
    assert out.read_text() == "mine"
    export_dataset(tiny_dataset, out, to="pyskl", overwrite=True)
    assert plan_pyskl(locate(out)).jobs[0].num_clips == len(tiny_dataset.clips.names)
    with pytest.raises(UsageError, match="is a folder"):
        export_dataset(tiny_dataset, tmp_path, to="pyskl", overwrite=True)


def with_bodies(dataset, folder, change):
    """Copy a dataset, with other numbers of its bodies."""
    import pyarrow as pa

    shutil.copytree(dataset.folder, folder)
    batch = pa.ipc.open_file(str(folder / "clips.arrow")).get_batch(0)
    bodies = batch.column("body")
    values = bodies.values.to_numpy().copy()
    change(values)
    index = batch.schema.get_field_index("body")
    columns = list(batch.columns)
    columns[index] = pa.ListArray.from_arrays(bodies.offsets, pa.array(values))
    changed = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
    (folder / "clips.arrow").unlink()
    with pa.ipc.new_file(str(folder / "clips.arrow"), batch.schema) as writer:
        writer.write_batch(changed)
    return open_dataset(folder)


def test_padded_clips_may_all_be_empty(tiny_dataset, tmp_path):
    empty = replace(
        tiny_dataset,
        offsets=np.zeros_like(tiny_dataset.offsets),
        poses_PVC=tiny_dataset.poses_PVC[:0],
        frames_P=tiny_dataset.frames_P[:0],
        bodies_P=tiny_dataset.bodies_P[:0],
    )
    for to in ("npz", "h5"):
        result = export_dataset(empty, tmp_path / f"empty.{to}", to=to, case="cv")
        read = [clip for job in plan_padded(locate(result.path)).jobs for clip in job.read()]
        assert {clip.reason for clip in read} == {"every pose is zero"}
        assert len(read) == result.num_clips


def test_bodies_may_be_numbered_from_one(tiny_dataset, tmp_path):
    dataset = with_bodies(tiny_dataset, tmp_path / "ones", lambda values: values.fill(1))
    losses = export_dataset(dataset, tmp_path / "ones.pkl", to="pyskl").losses
    assert f"{len(dataset.clips.names)} clips are not centered" in losses[-1]


def test_more_than_two_bodies_cannot_be_padded(tiny_dataset, tmp_path):
    dataset = with_bodies(
        tiny_dataset, tmp_path / "three", lambda values: values.__setitem__(-1, 2)
    )
    with pytest.raises(InputError, match="this dataset has 3"):
        export_dataset(dataset, tmp_path / "three.npz", to="npz", case="cv")
    losses = export_dataset(dataset, tmp_path / "three.pkl", to="pyskl").losses
    assert any("cannot read the file back" in loss for loss in losses)


def test_poses_that_were_pixels_are_not_exported(tmp_path):
    """PYSKL's files in 2D contain pixels with y down; a reader would mirror and rescale these."""
    annotations = [
        files.annotate_2d(f"c{seed}", files.project(files.move(COCO17, seed=seed))[:, None], seed)
        for seed in range(2)
    ]
    (tmp_path / "coco.pkl").write_bytes(pickle.dumps({"split": {}, "annotations": annotations}))
    prepared = prepare_dataset(tmp_path / "coco.pkl", out=tmp_path / "data")
    dataset = open_dataset(prepared.folder)
    for to in SUFFIXES:
        with pytest.raises((UsageError, InputError)) as caught:
            export_dataset(dataset, tmp_path / "out", to=to)
        assert caught.value.now == (
            "read clips.arrow in this folder, which pyarrow, polars, DuckDB and pandas open"
        )
    assert caught.type is UsageError
    assert caught.value.what == (
        "its poses are normalized, in meters with y up, and PYSKL's files in 2D contain pixels"
    )
    assert not (tmp_path / "out").exists()


def test_a_skeleton_of_ones_own_in_the_plane_has_any_unit(flat_folder, tmp_path):
    dataset = open_dataset(flat_folder)
    losses = export_dataset(dataset, tmp_path / "flat.pkl", to="pyskl").losses
    assert "sgnray reads the file back as pixels with y down, and rescales its poses" in losses
    assert plan_pyskl(locate(tmp_path / "flat.pkl")).skeleton is COCO17
    with pytest.raises(InputError) as caught:
        export_dataset(dataset, tmp_path / "flat.npz", to="npz")
    assert caught.value.now == "export it with --to pyskl"


FILL = """
import resource, signal, sys
from pathlib import Path
from sgnray.data.formats.export import export_dataset
from sgnray.data.store import open_dataset
from sgnray.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
dataset = open_dataset(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
try:
    export_dataset(dataset, Path(sys.argv[2]), to=sys.argv[3], case="cv", overwrite=True)
except OutputError:
    sys.exit(7)
"""


@pytest.mark.parametrize("to", SUFFIXES)
def test_a_full_disk_leaves_what_was_there(tiny_folder, tmp_path, to):
    out = tmp_path / "full"
    out.write_text("before")
    command = [sys.executable, "-c", FILL, str(tiny_folder), str(out), to, "20000"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 7, ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert out.read_text() == "before"
