"""Against the reference's own preparation, bit for bit; provenance in reference.json."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sgnray.data.skeleton import NTU25
from sgnray.data.store import open_dataset
from sgnray.prepare import prepare_dataset
from sgnray.prepare.normalize import arrange, list_poses, translate
from sgnray.prepare.readers.ntu import read_skeletons

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "golden" / "prepare" / "reference.json").read_text()
)["clips"]

REASONS = {
    "S001C001P011R001A001.skeleton": "empty",
    "S001C001P011R001A002.skeleton": (
        "line 282: declares 1 bodies, but only 18 lines follow (cut off?)"
    ),
    "S001C001P011R001A003.skeleton": "line 11: the coordinate 'abc' is not a number",
    "S001C001P011R001A004.skeleton": "line 4: declares 24 joints, not 25",
    "S001C001P011R001A005.skeleton": "no frame has a body",
    "S001C001P011R001A006.skeleton": "line 1: the number of frames is '-3'",
    "S001C001P011R001A007.skeleton": "line 11: the coordinate 'nan' is not a number",
    "S001C001P011R001A008.skeleton": "not a text file",
    "S001C001P011R001A009.skeleton": "line 11: a joint line has 7 columns, not 12",
    "S001C001P011R001A010.skeleton": "no body is longer than 11 frames",
    "S001C001P011R001A012.skeleton": (
        "line 1: declares 99999999999 frames, but only 1120 lines follow"
    ),
    "S001C001P011R001A013.skeleton": (
        "line 2: declares 1000000000 bodies, but only 1119 lines follow (cut off?)"
    ),
    "S001C001P011R001A014.skeleton": "line 11: the coordinate '1e39' is too large for float32",
    "notes.skeleton": "not an NTU name (SsssCcccPpppRrrrAaaa.skeleton)",
}


def digest(array):
    return [*array.shape, hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()]


@pytest.mark.parametrize("name", REFERENCE)
def test_a_clip_equals_that_of_the_reference(golden_raw, name):
    (recording,) = read_skeletons([(golden_raw / "raw" / f"{name}.skeleton").read_bytes()])
    frames_TMD = translate(arrange(recording, NTU25), origin_joint=1)
    assert digest(frames_TMD.reshape(len(frames_TMD), -1)) == REFERENCE[name]["translated"]
    assert digest(list_poses(frames_TMD).values_PD) == REFERENCE[name]["poses"]


def test_dataset_of_all_good_and_all_malformed_files(golden_raw, tmp_path):
    result = prepare_dataset(golden_raw, out=tmp_path / "out")
    assert result.info.dataset == "ntu120"
    assert {item.name: item.reason for item in result.skipped} == REASONS
    dataset = open_dataset(result.folder)
    assert list(dataset.clips.names) == sorted(REFERENCE)
    for row, name in enumerate(dataset.clips.names):
        poses_PVC = dataset.poses_PVC[dataset.offsets[row] : dataset.offsets[row + 1]]
        assert digest(poses_PVC.reshape(-1, 75)) == REFERENCE[name]["poses"]
        assert dataset.clips.num_frames[row] == REFERENCE[name]["translated"][0]
    assert (tmp_path / "out" / "skipped.csv").read_text().splitlines()[:3] == [
        "file,reason",
        "S001C001P011R001A001.skeleton,empty",
        'S001C001P011R001A002.skeleton,"line 282: declares 1 bodies, '
        'but only 18 lines follow (cut off?)"',
    ]


def test_zip_gives_the_same_bytes_as_the_folder(golden_raw, tmp_path):
    prepare_dataset(golden_raw, out=tmp_path / "folder")
    # In another order and at another depth, with and without compression.
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        for index, path in enumerate(sorted(golden_raw.rglob("*.skeleton"), reverse=True)):
            method = zipfile.ZIP_DEFLATED if index % 2 else zipfile.ZIP_STORED
            archive.write(path, f"nturgb+d_skeletons/{path.name}", method)
    prepare_dataset(tmp_path / "raw.zip", out=tmp_path / "zip")
    # Two archives in a folder, as NTU RGB+D 120 comes.
    (tmp_path / "zips").mkdir()
    shutil.make_archive(str(tmp_path / "zips" / "a"), "zip", golden_raw / "raw")
    shutil.make_archive(str(tmp_path / "zips" / "b"), "zip", golden_raw / "malformed")
    prepare_dataset(tmp_path / "zips", out=tmp_path / "two")
    for name in ("clips.arrow", "dataset.json", "skipped.csv"):
        expected = (tmp_path / "folder" / name).read_bytes()
        assert (tmp_path / "zip" / name).read_bytes() == expected
        assert (tmp_path / "two" / name).read_bytes() == expected


def test_frames_and_bodies_of_poses(golden_raw, tmp_path):
    import pyarrow as pa

    folder = prepare_dataset(golden_raw / "raw", out=tmp_path / "out").folder
    table = pa.ipc.open_file(folder / "clips.arrow").read_all().to_pylist()
    for row in table:
        order = np.array([row["frame"], row["body"]])
        assert order.shape == (2, len(row["poses"]))
        # Strictly ascending by (frame, body): the main actor first.
        assert np.all(np.diff(order[0] * 2 + order[1]) > 0)
        assert order[0].max() < row["num_frames"]
        assert set(order[1]) <= {0, 1}
    two = next(row for row in table if row["name"] == "S002C001P003R001A050")
    assert two["frame"][:4] == [0, 0, 1, 1]
    assert two["body"][:4] == [0, 1, 0, 1]
