"""Recordings given as a file, a folder or a .zip, and files that are not recordings."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from sgnray.data.skeleton import KINECT20, NTU25
from sgnray.errors import ClipError, InputError, UsageError
from sgnray.prepare.clip import Recording
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.recordings import read_recording, read_recordings

from ...pose_files import make_file

NWUCLA = "a01_s01_e00_v01.json"


@pytest.fixture
def path(tiny_raw):
    return min(tiny_raw.glob("*.skeleton"))


def write_nwucla(path, *, num_frames=4):
    joints = np.random.default_rng(0).normal(size=(num_frames, 20, 3)).round(6)
    path.write_text(json.dumps({"skeletons": joints.tolist()}))
    return joints.astype(np.float32)


def test_one_file_of_any_name(path, tmp_path):
    shutil.copy(path, tmp_path / "Mine.SKELETON")
    (file,) = find_recordings(tmp_path / "Mine.SKELETON").files
    recording, skeleton = read_recording(file)
    assert (file.name, skeleton) == ("Mine.SKELETON", NTU25)
    (original,) = find_recordings(path).files
    expected = read_recording(original)[0]
    assert recording.num_frames == expected.num_frames
    for body, other in zip(recording.bodies, expected.bodies, strict=True):
        np.testing.assert_array_equal(body.joints_TVC, other.joints_TVC)


def test_json_holds_the_twenty_joints_of_nwucla(tmp_path):
    joints = write_nwucla(tmp_path / "any.json")
    (file,) = find_recordings(tmp_path / "any.json").files
    recording, skeleton = read_recording(file)
    assert skeleton == KINECT20
    np.testing.assert_array_equal(recording.bodies[0].joints_TVC, joints)


def test_a_folder_and_its_zip_hold_the_same(path, tmp_path):
    folder = tmp_path / "raw"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(path, folder / "deep")
    write_nwucla(folder / NWUCLA)
    (folder / "synth.json").write_text("{}")  # describes recordings, but is not one
    (folder / "notes.unknown").write_text("")
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        for item in folder.rglob("*.*"):
            archive.write(item, item.relative_to(folder))
    for source in (folder, tmp_path / "raw.zip"):
        files = find_recordings(source).files
        assert [file.name for file in files] == [path.name, NWUCLA]
        assert [read_recording(file)[1] for file in files] == [NTU25, KINECT20]


def test_a_broken_recording_does_not_stop_the_others(path, tmp_path):
    shutil.copy(path, tmp_path / "S001C001P001R001A003.skeleton")
    (tmp_path / "S001C001P001R001A001.skeleton").write_text("1\nx\n")
    write_nwucla(tmp_path / NWUCLA)
    found = {file.name: what for file, _, what in read_recordings(find_recordings(tmp_path).files)}
    broken = found.pop("S001C001P001R001A001.skeleton")
    assert isinstance(broken, ClipError)
    assert len(found) == 2
    assert all(isinstance(what, Recording) for what in found.values())


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.skeleton", "1\nx\n"), ("a.json", '{"skeletons": 1}'), ("b.skeleton", "")],
)
def test_a_broken_recording_names_its_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    (file,) = find_recordings(tmp_path / name).files
    with pytest.raises(ClipError) as caught:
        read_recording(file)
    assert str(tmp_path / name) in caught.value.where


def test_a_zip_is_opened_once(tmp_path, monkeypatch):
    """Also if the clips of many alternate, as their names may."""
    opened = []
    for number in range(9):
        with zipfile.ZipFile(tmp_path / f"raw{number}.zip", "w") as archive:
            for clip in range(3):
                archive.writestr(f"{clip}_{number}.csv", make_file("MediaPipe"))
    open_zip = zipfile.ZipFile.__init__

    def count(self, file, *options):
        opened.append(file)
        open_zip(self, file, *options)

    monkeypatch.setattr(zipfile.ZipFile, "__init__", count)
    files = find_recordings(tmp_path).files
    assert [file.name for file in files[:2]] == ["0_0.csv", "0_1.csv"]
    for file in files:
        read_recording(file)
    assert sorted(opened) == sorted(str(path) for path in tmp_path.glob("*.zip"))


def test_a_broken_member_is_named_beside_its_zip(tmp_path):
    member = "deep/S001C001P001R001A001.skeleton"
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr(member, "1\nx\n")
    (file,) = find_recordings(tmp_path / "raw.zip").files
    with pytest.raises(ClipError) as caught:
        read_recording(file)
    assert caught.value.where == f"{tmp_path / 'raw.zip'}, {member}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("film.avi", "this is a video, and sgnray reads skeletons"),
        ("film.MP4", "this is a video, and sgnray reads skeletons"),
        ("poses.csv", "not a recording: its content has no format that sgnray reads"),
        ("poses.json", "not a recording: its content has no format that sgnray reads"),
        ("empty.csv", "not a recording: it is empty"),
        ("poses.unknown", "this is a .unknown file, and sgnray reads skeletons"),
        ("poses", "this is a file without a suffix, and sgnray reads skeletons"),
    ],
)
def test_other_files(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"" if name == "empty.csv" else b"RIFF")
    with pytest.raises(InputError, match=message) as caught:
        find_recordings(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)
    assert ".skeleton" in caught.value.now


@pytest.mark.parametrize(("name", "word"), [("a b.mp4", "it"), ("", "each of them")])
def test_a_video_is_answered_with_a_command(tmp_path, name, word):
    (tmp_path / "a b.mp4").write_bytes(b"RIFF")
    with pytest.raises(InputError) as caught:
        find_recordings(tmp_path / name)
    assert caught.value.now.startswith(
        f"run a pose estimator on {word} first, such as openpose.bin --video 'a b.mp4' "
        "--write_json 'a b' --display 0 --render_pose 0 (more in .github/docs/pose-estimators.md), "
        "and give recordings of "
    )


def test_sources_without_recordings_are_refused(tmp_path):
    with pytest.raises(UsageError, match="not found"):
        find_recordings(tmp_path / "absent.skeleton")
    (tmp_path / "film.avi").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="no recording found"):
        find_recordings(tmp_path)
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04torn")
    with pytest.raises(InputError):
        find_recordings(tmp_path / "torn.zip")


def test_members_that_are_refused_are_listed(path, tmp_path):
    with zipfile.ZipFile(tmp_path / "mix.zip", "w") as archive:
        archive.write(path, path.name)
        archive.write(path, f"../{path.name}")
        archive.write(path, "packed.skeleton", compress_type=zipfile.ZIP_BZIP2)
    found = find_recordings(tmp_path / "mix.zip")
    assert [file.member for file in found.files] == [path.name]
    assert {item.name for item in found.refused} == {path.name, "packed.skeleton"}
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.write(path, "packed.skeleton", compress_type=zipfile.ZIP_BZIP2)
    with pytest.raises(InputError, match="no recording found that can be used") as caught:
        find_recordings(tmp_path / "bad.zip")
    assert caught.value.problems[0].where == "packed.skeleton"
