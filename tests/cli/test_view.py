"""`sgn view`: what it writes, what it refuses, and its exit codes."""

import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


@pytest.fixture
def path(tiny_raw):
    return min(tiny_raw.glob("*.skeleton"))


def test_a_recording_becomes_an_animation(sgn, path, tmp_path):
    done = sgn("view", str(path))
    assert (done.code, done.out) == (0, f"written: {path.stem}.gif\n"), done.err
    with Image.open(tmp_path / f"{path.stem}.gif") as picture:
        assert picture.is_animated
        assert picture.info["loop"] == 0


def test_the_output_may_be_in_the_home_folder(sgn, path, tmp_path, monkeypatch):
    """A shell does not expand the ~ of --out=~/clip.png."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sgn("view", str(path), "--to", "png", "--out=~/clip.png").code == 0
    assert [item.name for item in tmp_path.iterdir()] == ["clip.png"]


def test_a_recording_at_a_uri(sgn, path, tmp_path):
    assert sgn("view", path.as_uri(), "--to", "png").code == 0
    assert [item.name for item in tmp_path.iterdir()] == [f"{path.stem}.png"]


def test_a_clip_of_a_dataset_as_a_sheet(sgn, tiny_folder, path, tmp_path):
    done = sgn("view", str(tiny_folder), path.stem, "--to", "png", "--json")
    assert json.loads(done.out) == {"format_version": 1, "path": f"{path.stem}.png"}
    with Image.open(tmp_path / f"{path.stem}.png") as picture:
        assert picture.format == "PNG"


def test_a_member_of_a_zip_as_a_page(sgn, tiny_raw, path, tmp_path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        for item in sorted(tiny_raw.glob("*.skeleton"))[:3]:
            archive.write(item, f"nturgb/{item.name}")
    done = sgn("view", "raw.zip", path.stem, "--to", "html", "--out", "a.html")
    assert (done.code, done.out) == (0, "written: a.html\n"), done.err
    page = (tmp_path / "a.html").read_text()
    assert path.stem in page
    assert "http://" not in page.replace("http://www.w3.org/", "")


def test_a_json_recording_loses_its_suffix(sgn, tmp_path):
    joints = np.random.default_rng(0).normal(size=(9, 20, 3)).tolist()
    (tmp_path / "a01_s01_e00_v01.json").write_text(json.dumps({"skeletons": joints}))
    assert sgn("view", "a01_s01_e00_v01.json").out == "written: a01_s01_e00_v01.gif\n"


def test_an_existing_file_stays_without_overwrite(sgn, path, tmp_path):
    (tmp_path / "a.png").write_text("mine")
    arguments = ("view", str(path), "--to", "png", "--out", "a.png")
    done = sgn(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: the file exists already\n"
        "  where  a.png\n"
        "  now    choose another with --out, or replace it with --overwrite\n"
    )
    assert (tmp_path / "a.png").read_text() == "mine"
    assert sgn(*arguments, "--overwrite").code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "b.png").mkdir()
    for overwrite in ((), ("--overwrite",)):
        done = sgn("view", str(path), "--out", "b.png", *overwrite)
        assert (done.code, done.out, done.err) == (
            2,
            "",
            "error: the output is a folder\n"
            "  where  b.png\n"
            "  now    choose another file with --out\n",
        )


def test_an_unknown_clip_suggests_similar_names(sgn, tiny_folder, path):
    done = sgn("view", str(tiny_folder), f"{path.stem[:-1]}9")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: clip '{path.stem[:-1]}9' not found\n")
    assert "did you mean S001C001P001R001A00" in done.err
    assert path.stem in done.err


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("absent.skeleton", None, 2, "file or folder not found"),
        ("film.mp4", b"", 1, "this is a video, and sgnray reads skeletons"),
        ("bad.skeleton", b"1\nx\n", 1, "line 2: the number of bodies is 'x'"),
        ("torn.zip", b"PK\x03\x04", 1, "this .zip cannot be read: "),
    ],
)
def test_unusable_input_is_one_block(sgn, tmp_path, name, content, code, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = sgn("view", name)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"error: {message}")
    assert name in done.err
    assert done.err.count("error: ") == 1
    assert "Traceback" not in done.err
    assert [item.name for item in tmp_path.iterdir()] == ([] if content is None else [name])


def test_an_unknown_format(sgn, path):
    done = sgn("view", str(path), "--to", "jpg")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert "jpg" in done.err


def test_a_folder_that_cannot_be_written(sgn, path, tmp_path):
    (tmp_path / "file").write_text("")
    done = sgn("view", str(path), "--out", "file/a.gif")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: it could not be written: ")
    assert "file/a.gif" in done.err


def test_a_table_is_refused_with_what_can_be_shown(sgn, tmp_path):
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "new.parquet")
    done = sgn("view", str(tmp_path / "new.parquet"))
    assert done.code == 1
    assert "sgn prepare --raw FILE.yaml, their description; then name the folder of" in done.err
