import zipfile

import pytest

from sgnray.errors import ClipError, InputError, UsageError
from sgnray.prepare.detect import detect
from sgnray.prepare.source import MAX_FILE_BYTES, list_files, read_file

NAME = "S001C001P001R001A001.skeleton"


def test_folders_are_searched_and_other_files_ignored(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for path in (f"a/b/{NAME}", "a/notes.txt", f"a/._{NAME}", "S001C001P001R001A000.skeleton"):
        (tmp_path / path).write_bytes(path.encode())
    files = list_files(tmp_path)
    assert [(file.name, file.depth) for file in files] == [
        ("S001C001P001R001A000.skeleton", 0),
        (NAME, 2),
    ]
    assert read_file(files[1]) == f"a/b/{NAME}".encode()


def test_members_that_would_climb_out_are_only_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr(f"../../{NAME}", "text")
    before = sorted(tmp_path.parent.rglob("*"))
    (file,) = list_files(tmp_path / "raw.zip")
    assert file.name == NAME
    assert read_file(file) == b"text"
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, bytes(MAX_FILE_BYTES + 1))
    (file,) = list_files(tmp_path / "raw.zip")
    with pytest.raises(ClipError) as caught:
        read_file(file)
    assert caught.value.what == "larger than 64 MiB, which no recording is"


def test_a_damaged_member_is_refused(tmp_path):
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(NAME, "some text")
    path.write_bytes(path.read_bytes().replace(b"some text", b"some tEXt"))
    (file,) = list_files(path)
    with pytest.raises(ClipError, match="cannot be read: Bad CRC-32"):
        read_file(file)


def test_a_file_that_went_is_no_matter_of_one_clip(tmp_path):
    (tmp_path / NAME).write_bytes(b"text")
    (file,) = list_files(tmp_path)
    (tmp_path / NAME).unlink()
    with pytest.raises(InputError) as caught:
        read_file(file)
    assert not isinstance(caught.value, ClipError)


def test_nothing_there(tmp_path):
    with pytest.raises(UsageError) as caught:
        list_files(tmp_path / "absent")
    assert caught.value.what == "there is no such raw folder or file"


def test_neither_folder_nor_zip(tmp_path):
    (tmp_path / "raw.rar").write_bytes(b"Rar!")
    with pytest.raises(InputError) as caught:
        list_files(tmp_path / "raw.rar")
    assert caught.value.what == "this is neither a folder nor a readable .zip"


@pytest.mark.parametrize("names", [[], ["notes.txt"], ["notes.json"], ["notes.skeleton"]])
def test_a_folder_of_something_else(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError) as caught:
        detect(tmp_path)
    assert caught.value.what == (
        "no recordings are here: neither SsssCcccPpppRrrrAaaa.skeleton (NTU RGB+D), "
        "nor aAA_sSS_eEE_vVV.json (NW-UCLA), in folders or .zip files"
    )
