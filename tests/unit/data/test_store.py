import json

import numpy as np
import pyarrow as pa
import pytest

from sgnray.data.skeleton import KINECT20
from sgnray.data.store import checksum_file, find_dataset, open_dataset
from sgnray.errors import InputError, UsageError
from sgnray.prepare import prepare_dataset


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path, "nwucla")


def make_dataset(tmp_path, name, num_files=9):
    raw = tmp_path / f"raw-{name}"
    raw.mkdir()
    rng = np.random.default_rng(0)
    for index in range(num_files):
        joints = rng.normal(size=(index + 1, 20, 3)).tolist()
        path = raw / f"a{index % 3 + 1:02}_s01_e{index // 3:02}_v{index % 3 + 1:02}.json"
        path.write_text(json.dumps({"skeletons": joints}))
    return prepare_dataset(raw, out=tmp_path / "data" / name).folder


def test_poses_are_a_view_on_the_file(folder):
    dataset = open_dataset(folder)
    assert dataset.poses_PVC.shape == (45, 20, 3)
    assert dataset.poses_PVC.dtype == np.float32
    assert not dataset.poses_PVC.flags.writeable
    assert not dataset.poses_PVC.flags.owndata
    assert np.array_equal(np.sort(np.diff(dataset.offsets)), np.arange(1, 10))
    assert dataset.clips.names[0] == "a01_s01_e00_v01"
    assert dataset.clips.cameras.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert set(dataset.clips.setups) == {-1}
    assert dataset.skeleton.name == "kinect20"


def test_it_is_plain_arrow(folder):
    table = pa.ipc.open_file(folder / "clips.arrow").read_all()
    assert table.schema.names == [
        "name", "label", "setup", "camera", "subject", "replication",
        "num_frames", "poses", "frame", "body",
    ]  # fmt: skip
    assert table.schema.field("poses").type == pa.list_(pa.list_(pa.float32(), 60))
    assert table.schema.field("label").type == pa.int32()
    assert table.schema.field("camera").type == pa.int16()
    assert table.schema.field("frame").type == pa.list_(pa.int32())
    assert table.schema.field("body").type == pa.list_(pa.int8())
    assert table.column("setup").null_count == 9
    dataset = open_dataset(folder)
    for row in table.select(["poses", "frame", "num_frames"]).to_pylist():
        assert len(row["poses"]) == len(row["frame"]) == row["num_frames"]
    assert np.array_equal(
        np.array(table.column("poses")[0].as_py(), np.float32).reshape(-1, 20, 3),
        dataset.poses_PVC[: dataset.offsets[1]],
    )


def test_checksum(folder):
    assert open_dataset(folder).info.checksum == checksum_file(folder / "clips.arrow")


def test_the_dataset_contains_no_paths_of_this_machine(folder):
    assert str(folder.parent).encode() not in b"".join(
        path.read_bytes() for path in folder.iterdir()
    )


def edit_info(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_newer_format_is_refused(folder):
    edit_info(folder, format_version=3)
    with pytest.raises(InputError) as caught:
        open_dataset(folder)
    assert caught.value.what == "the dataset has format version 3, this sgnray reads up to 2"
    assert caught.value.where == str(folder / "dataset.json")
    assert caught.value.now == (
        "update sgnray, or prepare it again: sgn prepare --raw PATH --overwrite"
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "clips.arrow").unlink(),
        lambda folder: (folder / "clips.arrow").write_bytes(b""),
        lambda folder: cut(folder / "clips.arrow", 2000),
        lambda folder: (folder / "clips.arrow").write_bytes(b"something else entirely"),
        lambda folder: edit_info(folder, num_clips=8),
        lambda folder: edit_info(folder, num_poses=46),
    ],
)
def test_corrupt_or_unrelated_files_are_refused(folder, damage):
    damage(folder)
    with pytest.raises(InputError, match="sgn prepare --raw PATH --overwrite"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("frame", lambda rows: [[-1], *rows[1:]], "outside of the frames of a clip"),
        ("frame", lambda rows: [[12], *rows[1:]], "outside of the frames of a clip"),
        (
            "frame",
            lambda rows: [*rows[:-1], [*rows[-1][:-1], 9]],
            "outside of the frames of a clip",
        ),
        ("frame", lambda rows: [[0, 0], *rows[1:]], "not every pose has one frame"),
        ("frame", lambda rows: rows[::-1], "not every pose has one frame"),
        ("body", lambda rows: [[-1], *rows[1:]], "with a body below 0"),
        ("body", lambda rows: [[], *rows[1:]], "not every pose has one body"),
        ("body", lambda rows: [[None], *rows[1:]], "a required value is null"),
        ("num_frames", lambda rows: [0, *rows[1:]], "outside of the frames of a clip"),
        ("label", lambda rows: [3, *rows[1:]], "a label that is not one of the 2 classes"),
        ("label", lambda rows: [-1, *rows[1:]], "a label that is not one of the 2 classes"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(
    write_dataset, tmp_path, column, change, message
):
    folder = write_dataset(tmp_path / "own", make_clips(9))
    path = folder / "clips.arrow"
    batch = pa.ipc.open_file(path.read_bytes()).get_batch(0)
    field = batch.schema.field(column)
    changed = pa.array(change(batch.column(column).to_pylist()), field.type)
    batch = batch.set_column(batch.schema.get_field_index(column), field, changed)
    with pa.ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(InputError, match=message):
        open_dataset(folder)


def make_clips(num_clips):
    """Clips of 1, 2, 3, ... poses."""
    rng = np.random.default_rng(0)
    return [
        {"name": f"clip-{number}", "label": 0, "poses": rng.normal(size=(number + 1, 17, 2))}
        for number in range(num_clips)
    ]


def test_named_splits_become_rows(write_dataset, tmp_path):
    splits = {"hand": {"train": ["clip-2", "clip-0"], "test": ["clip-1"]}}
    dataset = open_dataset(write_dataset(tmp_path / "own", make_clips(4), splits=splits))
    assert dataset.clips.splits["hand"].train.tolist() == [0, 2]
    assert dataset.clips.splits["hand"].test.tolist() == [1]
    assert dataset.poses_PVC.shape == (10, 17, 2)
    splits["hand"]["test"] = ["clip-7"]
    folder = write_dataset(tmp_path / "torn", make_clips(4), splits=splits)
    with pytest.raises(InputError, match="hand names 1 unknown clip, for example clip-7"):
        open_dataset(folder)


def test_datasets_of_version_1_are_read(folder):
    path = folder / "dataset.json"
    content = json.loads(path.read_text()) | {"format_version": 1}
    del content["skeleton"]
    path.write_text(json.dumps(content))
    dataset = open_dataset(folder)
    assert dataset.skeleton is KINECT20
    assert dataset.clips.splits == {}


def cut(path, num_bytes):
    path.write_bytes(path.read_bytes()[:-num_bytes])


def test_no_dataset(tmp_path):
    with pytest.raises(InputError, match="dataset not found"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(InputError, match="not a prepared dataset"):
        open_dataset(tmp_path)


def test_the_one_dataset_is_found(folder, tmp_path):
    assert find_dataset(tmp_path / "data") == folder
    assert find_dataset(folder) == folder
    assert find_dataset(tmp_path / "data", name="nwucla") == folder


def test_no_dataset_or_several_are_refused(folder, tmp_path):
    with pytest.raises(UsageError) as caught:
        find_dataset(tmp_path / "empty")
    assert caught.value.what == "prepared dataset not found"
    assert caught.value.now.startswith("if it was moved, name its folder with --data; else prepare")
    make_dataset(tmp_path, "mine")
    with pytest.raises(UsageError) as caught:
        find_dataset(tmp_path / "data")
    assert caught.value.what == "there are 2 prepared datasets"
    assert [problem.where for problem in caught.value.problems] == [
        str(tmp_path / "data" / "mine"),
        str(folder),
    ]
    assert find_dataset(tmp_path / "data", name="mine").name == "mine"
    assert find_dataset(tmp_path / "data", name="nwucla") == folder


def test_an_unreadable_dataset_does_not_block_the_search_for_others(folder, tmp_path):
    """It is listed with the reason."""
    newer, broken = make_dataset(tmp_path, "newer"), make_dataset(tmp_path, "broken")
    edit_info(newer, format_version=3)
    (broken / "dataset.json").write_text("")
    renamed = folder.rename(folder.with_name("mine"))
    data_dir = tmp_path / "data"
    assert find_dataset(data_dir, name="nwucla") == renamed
    for name, names in ((None, "there are 3 prepared datasets"), ("ntu60", "ntu60 not found")):
        with pytest.raises(UsageError, match=names) as caught:
            find_dataset(data_dir, name=name)
        assert [(problem.where, problem.what) for problem in caught.value.problems] == [
            (str(broken), "the dataset is corrupt or not ours: it is not valid JSON"),
            (str(renamed), "nwucla"),
            (str(newer), "the dataset has format version 3, this sgnray reads up to 2"),
        ]
