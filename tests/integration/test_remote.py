"""Raw data and datasets that lie on an object store: a real S3 protocol, over a real socket."""

import shutil

import pytest

from sgnray.data.remote import dataset_at
from sgnray.data.skeleton import OPENPOSE25
from sgnray.data.store import open_dataset
from sgnray.errors import UsageError
from sgnray.prepare import prepare_dataset

from .. import pose_files

FILES = ("clips.arrow", "dataset.json", "skipped.csv")


def upload(files, folder, path):
    for source in folder.rglob("*"):
        if source.is_file():
            with files.open_output_stream(f"{path}/{source.relative_to(folder)}") as stream:
                stream.write(source.read_bytes())


def test_raw_files_and_a_zip_of_them_on_s3_give_the_same_bytes(s3, tiny_raw, tiny_folder, tmp_path):
    uri_of, files = s3
    upload(files, tiny_raw, "bucket/raw")
    archive = shutil.make_archive(str(tmp_path / "raw"), "zip", tiny_raw)
    upload(files, tmp_path, "bucket/zips")
    assert archive.endswith("raw.zip")
    for place in ("bucket/raw", "bucket/zips/raw.zip", "bucket/zips"):
        out = tmp_path / place.replace("/", "-")
        prepare_dataset(uri_of(place), out=out)
        for name in FILES:
            assert (out / name).read_bytes() == (tiny_folder / name).read_bytes()


def test_frames_of_openpose_on_s3_give_the_same_bytes(s3, tmp_path):
    uri_of, files = s3
    for number, label in enumerate(("wave", "clap")):
        pixels_TVC = pose_files.project(pose_files.move(OPENPOSE25, 12, seed=number))
        pose_files.write_openpose(tmp_path / "mine" / label / "clip", "frame", pixels_TVC[:, None])
    upload(files, tmp_path / "mine", "bucket/mine")
    here, there = tmp_path / "here", tmp_path / "there"
    prepare_dataset(tmp_path / "mine", out=here)
    prepare_dataset(uri_of("bucket/mine"), out=there)
    assert (there / "clips.arrow").read_bytes() == (here / "clips.arrow").read_bytes()
    assert open_dataset(there).clips.names == ("clap/clip", "wave/clip")


def test_a_dataset_on_s3_is_fetched_once(s3, tiny_folder, tmp_path, monkeypatch):
    uri_of, files = s3
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "cache"))
    upload(files, tiny_folder, "bucket/synth")
    folder = dataset_at(uri_of("bucket/synth"))
    assert folder.is_relative_to(tmp_path / "cache")
    assert open_dataset(folder).info == open_dataset(tiny_folder).info
    written = (folder / "clips.arrow").stat().st_mtime_ns
    assert dataset_at(uri_of("bucket/synth")) == folder
    assert (folder / "clips.arrow").stat().st_mtime_ns == written


def test_nothing_there(s3, tmp_path):
    uri_of, _ = s3
    for path in ("bucket/absent", "other-bucket/raw"):
        with pytest.raises(UsageError) as caught:
            prepare_dataset(uri_of(path), out=tmp_path / "out")
        assert caught.value.what == "raw folder or file not found"
        assert caught.value.where == f"--raw s3://{path}"


def test_a_file_system_that_is_not_there(tmp_path):
    with pytest.raises(UsageError) as caught:
        prepare_dataset("nfs://me:secret@server/raw", out=tmp_path / "out")
    assert caught.value.what.startswith("this place cannot be reached")
    assert "secret" not in str(caught.value)
