"""Raw data and datasets in an object store: a real S3 protocol, over a real socket."""

import shutil

import pytest

from sgnray.data.fetch import dataset_at
from sgnray.data.skeleton import OPENPOSE25
from sgnray.data.store import open_dataset
from sgnray.errors import UsageError
from sgnray.predict import predict_clips, write_predictions
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


def test_recordings_and_a_dataset_on_s3_are_recognized(
    s3, tiny_raw, tiny_folder, tiny_run, tmp_path, monkeypatch
):
    uri_of, files = s3
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "cache"))
    upload(files, tiny_raw, "bucket/recordings")
    upload(files, tiny_folder, "bucket/dataset")
    shutil.make_archive(str(tmp_path / "zips" / "raw"), "zip", tiny_raw)
    upload(files, tmp_path / "zips", "bucket/archives")
    here = {item.clip: item.guesses for item in predict_clips(tiny_raw, tiny_run)}
    for place in ("bucket/recordings", "bucket/archives/raw.zip", "bucket/archives"):
        found = list(predict_clips(uri_of(place), tiny_run))
        assert {item.clip: item.guesses for item in found} == here
        assert all(item.place.startswith("s3://bucket/") for item in found)
    name = sorted(here)[3]
    (one,) = predict_clips([uri_of(f"bucket/recordings/{name}")], tiny_run)
    assert (one.clip, one.place) == (name, f"s3://bucket/recordings/{name}")
    (clip,) = predict_clips(
        uri_of("bucket/dataset"), tiny_run, clips=[name.removesuffix(".skeleton")]
    )
    assert clip.guesses[0].label == here[name][0].label


def test_an_interrupted_prediction_of_s3_is_continued(
    s3, tiny_raw, tiny_run, tmp_path, monkeypatch
):
    uri_of, files = s3
    monkeypatch.setattr("sgnray.predict.clips.PART_RECORDINGS", 4)
    upload(files, tiny_raw, "bucket/more")
    plan, seen = predict_clips(uri_of("bucket/more"), tiny_run), []

    def interrupt(done, total):
        if done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(plan, tmp_path / "p.jsonl", on_progress=interrupt)
    again = predict_clips(uri_of("bucket/more"), tiny_run)
    write_predictions(again, tmp_path / "p.jsonl", on_progress=lambda *step: seen.append(step))
    assert (seen[0], seen[-1]) == ((12, 27), (27, 27))


def test_a_missing_recording_on_s3_is_refused(s3, tiny_run):
    uri_of, _ = s3
    with pytest.raises(UsageError, match="file or folder not found") as caught:
        predict_clips(uri_of("bucket/absent"), tiny_run)
    assert caught.value.where == "s3://bucket/absent"


def test_a_missing_raw_folder_on_s3_is_refused(s3, tmp_path):
    uri_of, _ = s3
    for path in ("bucket/absent", "other-bucket/raw"):
        with pytest.raises(UsageError) as caught:
            prepare_dataset(uri_of(path), out=tmp_path / "out")
        assert caught.value.what == "raw folder or file not found"
        assert caught.value.where == f"--raw s3://{path}"


def test_an_unsupported_file_system_is_refused(tmp_path):
    with pytest.raises(UsageError) as caught:
        prepare_dataset("nfs://me:secret@server/raw", out=tmp_path / "out")
    assert caught.value.what.startswith("this location is not accessible")
    assert "secret" not in str(caught.value)
