"""dataset.json: round trips, older versions, and every kind of invalid content."""

import json

import pytest

from sgnray.data.info import DatasetInfo, read_info, write_info
from sgnray.data.skeleton import NTU25, Skeleton
from sgnray.errors import InputError

INFO = DatasetInfo(
    format_version=2,
    dataset="mine",
    skeleton=Skeleton("dog", ("nose", "tail"), ((1, 0),), None, 2),
    class_names=("a", "b"),
    num_clips=3,
    num_poses=9,
    num_skipped=0,
    source={"num_files": 1},
    checksum="sha256:" + "0" * 64,
    splits={"hand": {"train": ["x", "y"], "test": ["z"]}},
)


def edit(folder, **changes):
    write_info(folder, INFO)
    path = folder / "dataset.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


@pytest.mark.parametrize(
    "info", [INFO, INFO.model_copy(update={"skeleton": NTU25, "splits": None})]
)
def test_dataset_json_round_trips(tmp_path, info):
    write_info(tmp_path, info)
    assert read_info(tmp_path) == info


def test_dataset_json_contains_the_skeleton(tmp_path):
    write_info(tmp_path, INFO)
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert (content["format_version"], content["layout"]) == (2, "dog")
    assert content["skeleton"] == {
        "joints": ["nose", "tail"],
        "bones": [[1, 0]],
        "origin": None,
        "num_coordinates": 2,
    }


def test_version_1_has_only_the_name_of_its_layout(tmp_path):
    edit(tmp_path, format_version=1, layout="ntu25", skeleton=..., splits=None)
    info = read_info(tmp_path)
    assert (info.format_version, info.skeleton) == (1, NTU25)
    edit(tmp_path, format_version=1, layout="octopus", skeleton=...)
    with pytest.raises(InputError, match="layout is 'octopus', which is unknown"):
        read_info(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": True}, "no readable format_version"),
        ({"format_version": 0}, "no readable format_version"),
        ({"format_version": "2"}, "no readable format_version"),
        ({"format_version": ...}, "no readable format_version"),
        ({"format_version": 3}, "has format version 3, this sgnray reads up to 2"),
        ({"skeleton": ...}, "keys skeleton"),
        ({"format_version": 1}, "keys skeleton"),
        ({"more": 1}, "keys more"),
        ({"dataset": "../x"}, 'dataset is "../x", not a name such as ntu60'),
        ({"dataset": "mine\n"}, "dataset is"),
        ({"num_clips": -1}, "num_clips is -1, not a count"),
        ({"num_clips": True}, "num_clips is true, not a count"),
        ({"num_poses": 1.5}, "num_poses is 1.5, not a count"),
        ({"num_skipped": None}, "num_skipped is null, not a count"),
        ({"checksum": "sha256:00"}, 'checksum is "sha256:00", not sha256: and 64 hex digits'),
        ({"class_names": []}, r"class_names is \[\], not a list of names"),
        ({"class_names": ["a", 1]}, "class_names is"),
        ({"source": []}, "source is"),
        ({"layout": 3}, "layout is 3"),
        ({"skeleton": []}, "skeleton is"),
        ({"skeleton": {"joints": ["a"]}}, "skeleton: is not a description"),
        ({"layout": "ntu25"}, "skeleton: joints or num_coordinates are not those of ntu25"),
        ({"splits": []}, "splits is"),
        ({"splits": {"A": {"train": [], "test": []}}}, "splits is"),
        ({"splits": {"a": {"train": []}}}, "splits is"),
        ({"splits": {"a": {"train": [], "test": [1]}}}, "splits is"),
        ({"splits": {"a": {"train": ["x"], "test": ["x"]}}}, "names a clip of the case a twice"),
    ],
)
def test_invalid_content_is_named(tmp_path, changes, message):
    edit(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        read_info(tmp_path)


def test_all_wrong_values_are_named_at_once(tmp_path):
    splits = {"a": {"train": ["x"], "test": ["x"]}}
    edit(tmp_path, num_clips=-1, checksum="", splits=splits, class_names=["a", 1, 2])
    with pytest.raises(InputError, match="the dataset is corrupt or not ours: 4 values") as caught:
        read_info(tmp_path)
    assert {(problem.where, problem.what) for problem in caught.value.problems} == {
        ("num_clips", "is -1, not a count"),
        ("checksum", 'is "", not sha256: and 64 hex digits'),
        ("splits", "names a clip of the case a twice"),
        ("class_names", 'is ["a", 1, 2], not a list of names'),
    }


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, '"\ud800"', "\xff"])
def test_a_file_that_is_not_a_json_object_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_bytes(text.encode("latin-1", "backslashreplace"))
    with pytest.raises(InputError, match="the dataset is corrupt or not ours"):
        read_info(tmp_path)
