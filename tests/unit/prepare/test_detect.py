import json

import pytest

from sgnray.data.datasets import read_class_names
from sgnray.data.skipped import Skipped
from sgnray.errors import InputError, UsageError
from sgnray.prepare import prepare_dataset
from sgnray.prepare.readers.detect import detect
from sgnray.storage.location import locate


def files_of(plan):
    return [file for job in plan.jobs for file in job.read.args[0]]


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.skeleton").write_text("0")


@pytest.mark.parametrize(
    ("names", "dataset", "num_classes"),
    [
        (["S017C003P040R002A060"], "ntu60", 60),
        (["S001C001P001R001A001", "S018C001P001R001A001"], "ntu120", 120),
        (["S001C001P001R001A001", "S001C001P001R001A061"], "ntu120", 120),
    ],
)
def test_ntu_is_recognized_by_the_names(tmp_path, names, dataset, num_classes):
    touch(tmp_path, *names)
    plan = detect([locate(tmp_path)])
    assert (plan.dataset, len(plan.class_names)) == (dataset, num_classes)
    assert [file.name for file in files_of(plan)] == [f"{name}.skeleton" for name in names]


def test_no_raw_data_at_all(tmp_path):
    with pytest.raises(UsageError, match="no raw data are named"):
        prepare_dataset([], data_dir=tmp_path)


def test_class_names():
    names = read_class_names("ntu120")
    assert (names[0], names[59], names[119]) == (
        "drink water",
        "walking apart from each other",
        "finger-guessing game (playing rock-paper-scissors)",
    )


def test_published_missing_clips_are_left_out_of_ntu_only(tmp_path):
    touch(tmp_path, "S001C002P005R002A008", "S001C001P001R001A001")
    expected = Skipped(
        "S001C002P005R002A008.skeleton", "on the published list of missing skeletons"
    )
    assert detect([locate(tmp_path)]).skipped == (expected,)
    (tmp_path / "synth.json").write_text(json.dumps({"format_version": 1, "class_names": ["a"]}))
    plan = detect([locate(tmp_path)])
    assert plan.skipped == ()
    assert (plan.dataset, plan.class_names, plan.num_clips) == ("synth", ("a",), 2)


def test_the_same_name_twice(tmp_path):
    touch(tmp_path / "a", "S001C001P001R001A001")
    touch(tmp_path / "b", "S001C001P001R001A001")
    plan = detect([locate(tmp_path)])
    assert [file.place.path for file in files_of(plan)] == [
        str(tmp_path / "a" / "S001C001P001R001A001.skeleton")
    ]
    assert plan.skipped == (Skipped("S001C001P001R001A001.skeleton", "another file has this name"),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format_version": 2, "class_names": ["a"]}',
        '{"format_version": 1, "class_names": []}',
        '{"format_version": 1, "class_names": [1]}',
    ],
)
def test_an_invalid_description_of_synthetic_data_is_refused(tmp_path, text):
    touch(tmp_path, "S001C001P001R001A001")
    (tmp_path / "synth.json").write_text(text)
    with pytest.raises(InputError) as caught:
        detect([locate(tmp_path)])
    assert caught.value.now == "synthesize it again: sgn synth OUT"


def test_the_one_file_of_a_folder_needs_a_name_in_utf8(tmp_path):
    (tmp_path / "k\udcfc.npz").write_bytes(b"PK")
    with pytest.raises(UsageError, match="it is not UTF-8"):
        detect([locate(tmp_path)])
