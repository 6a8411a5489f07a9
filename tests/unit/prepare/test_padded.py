"""Padded clips: every number is read back bit for bit, and every problem has a clear error."""

import pickle
import random
import tracemalloc
import zipfile
from functools import partial

import h5py
import numpy as np
import pytest

from sgnray.data.skipped import Skipped
from sgnray.errors import InputError
from sgnray.prepare.clip import Clip
from sgnray.prepare.readers import array_files, padded
from sgnray.prepare.readers.padded import plan_padded, read_npz
from sgnray.storage.location import locate

NPZ = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
H5 = {"train": ("x", "y"), "valid": ("valid_x", "valid_y"), "test": ("test_x", "test_y")}


def make_part(seed, num_clips, num_classes=60, num_frames=300, width=150, dtype="float32"):
    """Clips of 5 to 20 frames, padded; the second actor is there now and then."""
    rng = np.random.default_rng(seed)
    poses = np.zeros((num_clips, num_frames, width), dtype)
    for row, length in zip(poses, rng.integers(5, 20, num_clips), strict=True):
        row[:length] = rng.normal(size=(length, width))
        row[: length // 2, width // 2 :] = 0
        row[length // 3, : width // 2] = 0
        row[2] = 0
    labels = np.eye(num_classes)[np.arange(num_clips) % num_classes]
    return poses, labels


def write_npz(tmp_path, name="NTU60_CS.npz", save=np.savez_compressed, **parts):
    arrays = {}
    for part, (poses, labels) in parts.items():
        arrays |= {NPZ[part][0]: poses, NPZ[part][1]: labels}
    save(tmp_path / name, **arrays)
    return locate(tmp_path / name)


def write_h5(tmp_path, name="NTU_CV.h5", **parts):
    with h5py.File(tmp_path / name, "w") as file:
        for part, (poses, labels) in parts.items():
            file[H5[part][0]], file[H5[part][1]] = poses, labels
    return locate(tmp_path / name)


def read_all(plan):
    results = [pickle.loads(pickle.dumps(job)).read() for job in plan.jobs]
    return [result for job in results for result in job]


def list_slowly(row):
    """What SGN's loader samples from: halves that are not all zero, frame by frame."""
    half = row.shape[1] // 2
    poses = []
    for time, numbers in enumerate(row):
        for body in (0, 1):
            pose = numbers[body * half : (body + 1) * half]
            if (pose != 0).any():
                poses.append((time, body, pose))
    return poses


def assert_read(clips, parts):
    expected = [
        (f"{part}-{index:06}", row, label.argmax())
        for part, (poses, labels) in parts.items()
        for index, (row, label) in enumerate(zip(poses, labels, strict=True))
    ]
    assert [clip.facts.name for clip in clips] == [name for name, _, _ in expected]
    for clip, (_, row, label) in zip(clips, expected, strict=True):
        times, bodies, values = zip(*list_slowly(row), strict=True)
        assert clip.facts.label == label
        assert clip.poses.frames.tolist() == list(times)
        assert clip.poses.bodies.tolist() == list(bodies)
        assert clip.poses.num_frames == times[-1] + 1
        assert clip.poses.values_PD.tobytes() == np.float32(values).tobytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_bit_for_bit(tmp_path, save):
    parts = {"train": make_part(0, 7), "test": make_part(1, 5)}
    parts["train"][0][0, 0, :4] = [-0.0, 1e-45, -1e-40, 3.4e38]
    location = write_npz(tmp_path, save=save, **parts)
    plan = plan_padded(location)
    assert (plan.dataset, plan.skeleton.name, len(plan.class_names)) == ("ntu60", "ntu25", 60)
    assert_read(read_all(plan), parts)
    assert plan.splits == {
        "cs": {
            "train": [f"train-{row:06}" for row in range(7)],
            "test": [f"test-{row:06}" for row in range(5)],
        }
    }


def test_h5_bit_for_bit_and_validation_clips_train(tmp_path):
    parts = {
        "train": make_part(0, 7),
        "valid": make_part(1, 2, num_frames=310),
        "test": make_part(2, 5, dtype="float64"),
    }
    plan = plan_padded(write_h5(tmp_path, **parts))
    assert_read(read_all(plan), parts)
    assert list(plan.splits) == ["cv"]
    assert plan.splits["cv"]["train"][-3:] == ["train-000006", "valid-000000", "valid-000001"]
    assert len(plan.splits["cv"]["test"]) == 5


def test_h5_with_an_empty_part_and_chunks(tmp_path):
    parts = {"train": make_part(0, 40), "valid": make_part(1, 0), "test": make_part(2, 3)}
    path = tmp_path / "NTU_CS.h5"
    with h5py.File(path, "w") as file:
        for part, (poses, labels) in parts.items():
            options = {"chunks": (16, 300, 150), "compression": "gzip"} if len(poses) > 16 else {}
            file.create_dataset(H5[part][0], data=poses, **options)
            file[H5[part][1]] = labels
    assert_read(read_all(plan_padded(locate(path))), parts)


def test_jobs_may_come_in_any_order(tmp_path, monkeypatch):
    for module in (array_files, padded):
        monkeypatch.setattr(module, "JOB_BYTES", 4 * 300 * 150 * 2)
    parts = {"train": make_part(0, 7), "test": make_part(1, 3)}
    for location in (
        write_npz(tmp_path, **parts),
        write_h5(tmp_path, **parts, valid=make_part(2, 0)),
    ):
        plan = plan_padded(location)
        assert [job.num_clips for job in plan.jobs] == [2, 2, 2, 1, 2, 1]
        clips = [clip for job in reversed(plan.jobs) for clip in job.read()]
        clips.sort(key=lambda clip: ("train" not in clip.facts.name, clip.facts.name))
        assert_read(clips, parts)


def test_a_rewritten_file_is_read_again(tmp_path):
    """A worker must not continue to read the open member of the previous file."""
    for seed in range(3):
        poses, labels = make_part(seed, 3)
        location = write_npz(tmp_path, "new.npz", train=(poses, labels), test=(poses, labels))
        place = (tmp_path / location.name).rename(tmp_path / "same.npz")
        read = partial(read_npz, locate(place), place.stat().st_mtime_ns, "x_train")
        assert read(1, 3).tobytes() == poses[1:3].tobytes()
        assert read(0, 1).tobytes() == poses[:1].tobytes()


@pytest.mark.parametrize(
    ("name", "num_classes", "width", "dataset", "case"),
    [
        ("NTU60_CS.npz", 60, 150, "ntu60", "cs"),
        ("NTU60_CV.npz", 60, 150, "ntu60", "cv"),
        ("NTU120_CSub.npz", 120, 150, "ntu120", "csub"),
        ("ntu120-xset.npz", 120, 150, "ntu120", "cset"),
        ("any.npz", 60, 150, "ntu60", "fixed"),
        ("nw_ucla_XView.npz", 10, 120, "nwucla", "cv"),
        ("My Hands (v2).npz", 5, 150, "my-hands-v2", "fixed"),
        ("NTU60.npz", 5, 150, "ntu60-file", "fixed"),
        ("()_cs.npz", 60, 120, "cs", "cs"),
    ],
)
def test_dataset_and_case_are_recognized(tmp_path, name, num_classes, width, dataset, case):
    parts = {part: make_part(0, 2, num_classes, 20, width) for part in NPZ}
    plan = plan_padded(write_npz(tmp_path, name, **parts))
    assert (plan.dataset, list(plan.splits)) == (dataset, [case])
    assert len(plan.class_names) == num_classes


def test_the_kind_is_recognized_by_content(tmp_path):
    parts = {"train": make_part(0, 2), "test": make_part(1, 1)}
    location = write_npz(tmp_path, **parts)
    (tmp_path / location.name).rename(tmp_path / "NTU_CS.h5")
    assert_read(read_all(plan_padded(locate(tmp_path / "NTU_CS.h5"))), parts)


def test_a_clip_that_cannot_be_used_is_left_out_with_its_reason(tmp_path):
    poses, labels = make_part(0, 8, dtype="float64")
    poses[1] = 0
    poses[2, 3, 4] = np.nan
    poses[3, 3, 4] = 1e39
    labels[4] = 0
    labels[5, 7:9] = 1
    labels[6] *= 0.5
    plan = plan_padded(write_npz(tmp_path, train=(poses, labels), test=make_part(1, 1)))
    results = read_all(plan)
    assert [result.reason for result in results if isinstance(result, Skipped)] == [
        "every pose is zero",
        *["a number is not finite, or too large for float32"] * 2,
        *["its label is not one-hot"] * 3,
    ]
    assert isinstance(results[0], Clip)


def refused(location):
    with pytest.raises(InputError) as caught:
        read_all(plan_padded(location))
    return caught.value


def problems_by_name(error):
    return {problem.where: problem.what for problem in error.problems}


def test_all_problems_of_a_file_are_listed_at_once(tmp_path):
    poses, labels = make_part(0, 3)
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file["x"] = poses.astype("int32")
        file["y"] = labels[0]
        file["valid_x"] = h5py.ExternalLink("other.h5", "x")
        file["valid_y"] = ["a", "b"]
        file.create_group("test_x")
    error = refused(locate(tmp_path / "bad.h5"))
    problems = problems_by_name(error)
    assert set(problems) == {"x", "y", "valid_x", "valid_y", "test_x", "test_y"}
    assert "int32" in problems["x"]
    assert "2 axes" in problems["y"]
    assert "link" in problems["valid_x"]
    assert "object" in problems["valid_y"]
    assert problems["test_x"] == "is not an array"
    assert problems["test_y"] == "is missing"


def test_numbers_in_another_file_are_refused(tmp_path):
    parts = {part: make_part(0, 2) for part in H5}
    location = write_h5(tmp_path, **parts)
    layout = h5py.VirtualLayout((2, 300, 150), "float32")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (2, 300, 150))
    with h5py.File(location.path, "a") as file:
        del file["x"], file["test_x"]
        file.create_virtual_dataset("x", layout)
        external = [(str(tmp_path / "raw"), 0, 2 * 300 * 150 * 4)]
        file.create_dataset("test_x", (2, 300, 150), "float32", external=external)
    assert set(problems_by_name(refused(location))) == {"x", "test_x"}


@pytest.mark.parametrize("write", [write_npz, write_h5])
def test_mismatched_parts_are_refused(tmp_path, write):
    valid = {"valid": make_part(0, 0)} if write is write_h5 else {}
    good, (poses, labels) = make_part(0, 3), make_part(1, 2)
    error = refused(write(tmp_path, train=good, test=(poses, labels[:1]), **valid))
    assert "has 1 rows" in next(iter(problems_by_name(error).values()))
    error = refused(write(tmp_path, train=good, test=(poses, labels[:, :10]), **valid))
    assert problems_by_name(error) == {"its parts": "differ in their classes: 10 and 60"}
    error = refused(write(tmp_path, train=good, test=make_part(1, 2, width=120), **valid))
    assert "numbers in a frame: 120 and 150" in problems_by_name(error)["its parts"]
    odd = {part: make_part(0, 0 if part == "valid" else 2, width=75) for part in [*valid, *NPZ]}
    error = refused(write(tmp_path, **odd))
    assert "75 numbers in a frame" in next(iter(problems_by_name(error).values()))
    empty = {part: make_part(0, 0) for part in [*valid, *NPZ]}
    assert "contain no clip" in refused(write(tmp_path, **empty)).problems[-1].what
    assert refused(write(tmp_path, test=good)).problems[0].what == "is missing"


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w')",))


def test_objects_are_never_unpickled(tmp_path):
    harm = np.array([[[Touch(tmp_path / "ran")]]], object)
    location = write_npz(tmp_path, train=(harm, np.eye(60)[:1]), test=make_part(0, 1))
    assert "never unpickled" in problems_by_name(refused(location))["x_train"]
    assert not (tmp_path / "ran").exists()


def rewrite(location, change):
    """Write the archive again with changed members: name -> bytes."""
    with zipfile.ZipFile(location.path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(location.path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (members | change(members)).items():
            archive.writestr(name, data)
    return location


@pytest.mark.parametrize(
    "claim", [b"(3, 300, 150)", b"(2, 3000000, 150)", b"(9000000000, 300, 150)", b"(-1, 300, 150)"]
)
def test_a_header_that_claims_more_than_is_there(tmp_path, claim):
    def change(members):
        data = members["x_train.npy"]
        length = len(b"(2, 300, 150), }") + len(data.split(b"(2, 300, 150), }")[1].split(b"\n")[0])
        return {
            "x_train.npy": data.replace(
                b"(2, 300, 150), }" + b" " * (length - 16), (claim + b", }").ljust(length)
            )
        }

    location = write_npz(tmp_path, train=make_part(0, 2), test=make_part(1, 1))
    assert "x_train" in problems_by_name(refused(rewrite(location, change)))


def test_an_h5_file_that_claims_more_than_is_there(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for poses, labels in H5.values():
            shape, chunks = (10**9, 300, 150), (1, 300, 150)
            file.create_dataset(poses, shape, "float32", chunks=chunks, compression="gzip")
            file.create_dataset(labels, (10**9, 60), "float32", chunks=(1, 60))
    assert len(problems_by_name(refused(locate(tmp_path / "a.h5")))) == 6


def test_column_order_and_invalid_headers_are_refused(tmp_path):
    poses, labels = make_part(0, 2)
    train = (np.asfortranarray(poses), labels)
    location = write_npz(tmp_path, train=train, test=make_part(1, 1))
    assert "by columns" in problems_by_name(refused(location))["x_train"]
    location = write_npz(tmp_path, train=(poses, labels), test=make_part(1, 1))
    for junk in (b"", b"\x93NUMPY\x02\0\xff\xff\xff\xff{}", b"\x93NUMPY\x01\0\x04\0{}((" + b"\n"):
        refused(rewrite(location, lambda members, junk=junk: {"x_train.npy": junk}))


@pytest.mark.parametrize("write", [write_npz, write_h5])
def test_cut_off_files_are_refused(tmp_path, write):
    valid = {"valid": make_part(0, 0)} if write is write_h5 else {}
    location = write(tmp_path, train=make_part(0, 3), test=make_part(1, 2), **valid)
    path = tmp_path / location.name
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert refused(location).now


@pytest.mark.parametrize("write", [write_npz, write_h5])
def test_damage_is_refused_skipped_or_gives_finite_poses(tmp_path, write):
    """200 random bytes, one at a time: refused, skipped, or finite poses; nothing else."""
    small = {"num_frames": 20, "num_classes": 10}
    valid = {"valid": make_part(0, 0, **small)} if write is write_h5 else {}
    location = write(
        tmp_path, train=make_part(0, 3, **small), test=make_part(1, 2, **small), **valid
    )
    path = tmp_path / location.name
    whole = path.read_bytes()
    rng = random.Random(5)
    num_read = 0
    for _ in range(200):
        data = bytearray(whole)
        data[rng.choice([rng.randrange(len(data)), rng.randrange(3000)])] = rng.randrange(256)
        path.write_bytes(data)
        try:
            results = read_all(plan_padded(location))
        except InputError:
            continue
        num_read += 1
        for result in results:
            assert isinstance(result, Skipped) or np.isfinite(result.poses.values_PD).all()
    assert 0 < num_read < 200  # the CRC of a zip notices nearly all


def test_neither_h5_nor_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    assert "neither" in refused(locate(tmp_path / "a.npz")).what
    assert "file not found" in refused(locate(tmp_path)).what


def test_memory_is_bounded(tmp_path):
    """600 clips are 108 MB, packed into one deflated member."""
    poses, labels = np.zeros((600, 300, 150), np.float32), np.eye(60)[np.arange(600) % 60]
    poses[:, :3] = 1
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in (("x_train", poses), ("y_train", labels)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.save(stream, array)
        for name, array in (("x_test", poses[:1]), ("y_test", labels[:1])):
            with archive.open(f"{name}.npy", "w") as stream:
                np.save(stream, array)
    del poses, array
    tracemalloc.start()
    try:
        plan = plan_padded(locate(tmp_path / "a.npz"))
        assert sum(1 for job in plan.jobs for _ in job.read()) == 601
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()
