import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
import zipfile

import pytest

from sgnray.data.skipped import Skipped
from sgnray.errors import ClipError, InputError, Problem, UsageError
from sgnray.prepare.readers import listing
from sgnray.prepare.readers.detect import detect
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.listing import join_listings, list_files
from sgnray.prepare.readers.raw_files import MAX_FILE_BYTES, read_file
from sgnray.storage.location import locate

NAME = "S001C001P001R001A001.skeleton"


def test_folders_are_searched_and_other_files_ignored(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for path in (f"a/b/{NAME}", "a/notes.unknown", f"a/._{NAME}", "S001C001P001R001A000.skeleton"):
        (tmp_path / path).write_bytes(path.encode())
    files = list_files(locate(tmp_path)).files
    assert [(file.name, file.depth) for file in files] == [
        ("S001C001P001R001A000.skeleton", 0),
        (NAME, 2),
    ]
    assert read_file(files[1]) == f"a/b/{NAME}".encode()


@pytest.mark.parametrize("path", ["../../", "/etc/", "a/../../", "..\\..\\"])
def test_members_with_paths_outside_the_zip_are_refused(tmp_path, path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr(f"{path}{NAME}", "text")
        archive.writestr(f"inside/{NAME}", "text")
    before = sorted(tmp_path.parent.rglob("*"))
    listing = list_files(locate(tmp_path / "raw.zip"))
    assert [file.member for file in listing.files] == [f"inside/{NAME}"]
    (refused,) = listing.refused
    assert refused.reason == "its path points outside the .zip"
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, bytes(17 << 20))
    listing = list_files(locate(tmp_path / "raw.zip"))
    assert listing.files == ()
    assert listing.refused == (Skipped(NAME, "it would grow 1028 times when unpacked"),)


def test_a_file_larger_than_any_recording_is_not_read(tmp_path):
    with (tmp_path / NAME).open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    (listed,) = list_files(locate(tmp_path)).files
    with pytest.raises(ClipError) as caught:
        read_file(listed)
    assert caught.value.what == "larger than 64 MiB, the limit for a recording"
    assert caught.value.now == "cut the recording into parts, or leave it out"


def test_pipes_and_dead_links_are_listed_with_the_reason(tmp_path):
    (tmp_path / "wave").mkdir()
    for name in ("wave/S001C001P001R001A002.skeleton", "jump", "notes.unknown", ".#lock.csv"):
        (tmp_path / name).symlink_to(tmp_path / "absent")
    (tmp_path / "itself.csv").symlink_to("itself.csv")
    os.mkfifo(tmp_path / "S001C001P001R001A003.skeleton")
    (tmp_path / NAME).write_bytes(b"text")
    listing = list_files(locate(tmp_path))
    assert [file.name for file in listing.files] == [NAME]
    assert listing.left_out == (Skipped("jump", "a link to a missing file"),)
    assert {item.name: item.reason for item in listing.refused} == {
        "wave/S001C001P001R001A002.skeleton": "a link to a missing file",
        "itself.csv": "it cannot be read: Too many levels of symbolic links",
        "S001C001P001R001A003.skeleton": "a pipe, socket or device",
    }


def test_linked_folders_are_searched_once(tmp_path):
    """A link into the folder or to one above it adds nothing."""
    raw, disk = tmp_path / "raw", tmp_path / "disk"
    for folder in (raw / "wave", disk / "jump/more"):
        folder.mkdir(parents=True)
    (raw / "wave" / NAME).write_bytes(b"text")
    (disk / "jump/more" / NAME).write_bytes(b"text")
    (tmp_path / NAME).write_bytes(b"text")
    for name, target in (
        ("jump", disk / "jump"),
        ("again", disk / "jump"),
        ("hop", raw / "wave"),
        ("wave/loop", raw),
        ("up", tmp_path),
    ):
        (raw / name).symlink_to(target)
    (disk / "jump/back").symlink_to(raw / "jump")
    files = list_files(locate(raw)).files
    assert [file.path for file in files] == [f"again/more/{NAME}", f"wave/{NAME}"]


def test_two_zips_and_a_folder_are_listed_as_one(tmp_path):
    names = [f"S00{index}C001P001R001A001.skeleton" for index in (3, 1, 2)]
    for name in names[:2]:
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(name, "text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / names[2]).write_text("text")
    places = [*(tmp_path / f"{name}.zip" for name in names[:2]), tmp_path / "folder"]
    listing = join_listings([list_files(locate(place)) for place in places])
    assert [file.name for file in listing.files] == sorted(names)


def test_a_zip_that_is_not_opened_is_listed(tmp_path):
    (tmp_path / "raw/more").mkdir(parents=True)
    for path in ("raw/more/jump.zip", "raw/._jump.zip"):
        with zipfile.ZipFile(tmp_path / path, "w") as archive:
            archive.writestr(NAME, "text")
    assert [file.name for file in list_files(locate(tmp_path / "raw")).files] == [NAME]
    (tmp_path / "raw" / NAME).write_text("text")
    listing = list_files(locate(tmp_path / "raw"))
    assert [file.path for file in listing.files] == [NAME]
    reason = "a .zip next to recordings is not opened: unpack it if it contains other recordings"
    assert (listing.refused, listing.left_out) == ((), (Skipped("more/jump.zip", reason),))


def test_a_zip_in_a_zip_is_listed(tmp_path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr("a/jump.zip", "PK")
        archive.writestr("__MACOSX/a/._jump.zip", "PK")
    with pytest.raises(InputError, match="no raw data found") as caught:
        detect([locate(tmp_path / "raw.zip")])
    what = "a .zip inside a .zip: unpack it first"
    assert caught.value.problems == (Problem("a/jump.zip", what),)
    with zipfile.ZipFile(tmp_path / "raw.zip", "a") as archive:
        archive.writestr(NAME, "text")
    listing = list_files(locate(tmp_path / "raw.zip"))
    assert [file.name for file in listing.files] == [NAME]
    assert (listing.refused, listing.left_out) == ((), (Skipped("a/jump.zip", what),))


def test_hidden_folders_of_other_programs_are_not_searched(tmp_path):
    root = tmp_path / ".mine"  # the user named it
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / NAME).write_text("text")
    for folder in ("wave", ".ipynb_checkpoints", "wave/.cache/deep", "__MACOSX/wave"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / NAME).write_text("text")
    (root / ".linked").symlink_to(tmp_path / "disk")
    shutil.make_archive(tmp_path / "raw", "zip", tmp_path, ".mine")
    shutil.make_archive(tmp_path / "flat", "zip", root)
    for place in (root, tmp_path / "flat.zip"):
        listing = list_files(locate(place))
        assert [file.path for file in listing.files] == [f"wave/{NAME}"]
        assert listing.refused == ()
    assert list_files(locate(tmp_path / "raw.zip")).files == ()


def test_of_members_with_one_path_the_last_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr(NAME, "old")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(NAME, "newer")
    listing = list_files(locate(tmp_path / "raw.zip"))
    assert [read_file(file) for file in listing.files] == [b"newer"]
    assert listing.refused == (Skipped(NAME, "another file has this path"),)


def test_only_deflated_members_are_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(NAME, "text")
    listing = list_files(locate(tmp_path / "raw.zip"))
    assert listing.refused == (Skipped(NAME, "it is not compressed with deflate"),)


def test_a_damaged_member_is_refused(tmp_path):
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(NAME, "some text")
    path.write_bytes(path.read_bytes().replace(b"some text", b"some tEXt"))
    (file,) = list_files(locate(path)).files
    with pytest.raises(ClipError, match="cannot be read: Bad CRC-32"):
        read_file(file)


def test_a_file_removed_after_listing_is_not_a_clip_error(tmp_path):
    (tmp_path / NAME).write_bytes(b"text")
    (file,) = list_files(locate(tmp_path)).files
    (tmp_path / NAME).unlink()
    with pytest.raises(InputError) as caught:
        read_file(file)
    assert not isinstance(caught.value, ClipError)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up rights takes root")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[]")
    path.chmod(0)
    script = (
        "import sys; from sgnray.prepare.readers.find_recordings import find_recordings\n"
        "find_recordings(sys.argv[1])"
    )
    rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    command = [*rights, sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "InputError: a raw file cannot be read: " in done.stderr
    assert f"Permission denied ({path})" in done.stderr


def test_a_missing_raw_folder_is_refused(tmp_path):
    with pytest.raises(UsageError) as caught:
        detect([locate(tmp_path / "absent")])
    assert caught.value.what == "raw folder or file not found"


def test_neither_folder_nor_zip(tmp_path):
    (tmp_path / "raw.rar").write_bytes(b"Rar!")
    with pytest.raises(InputError) as caught:
        detect([locate(tmp_path / "raw.rar")])
    assert caught.value.what.startswith("no raw data found")


@pytest.mark.parametrize("names", [[], ["a.unknown"], ["a.txt"], ["a.json"], ["a.skeleton"]])
def test_a_folder_of_something_else(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError) as caught:
        detect([locate(tmp_path)])
    assert caught.value.what.startswith("no raw data found")


def test_files_of_an_unknown_format_are_counted_by_the_reason(tmp_path):
    unknown = "not a recording: its content has no format that sgnray reads"
    for number in range(12):
        (tmp_path / f"{number:02}.json").write_text("{} {}")
    with pytest.raises(InputError, match="no raw data found") as caught:
        detect([locate(tmp_path)])
    assert caught.value.problems == (Problem("12 .json files, like 00.json", unknown),)
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").write_text("x,y\n")
    with pytest.raises(InputError, match="no recording found that can be used") as caught:
        find_recordings(tmp_path)
    assert caught.value.problems == (
        Problem("12 .json files, like 00.json", unknown),
        Problem("a.csv", "not a recording: it is empty"),
        Problem("b.csv", unknown),
    )


def test_unknown_files_next_to_zips_of_recordings_are_ignored(tmp_path):
    (tmp_path / "package.json").write_text("{}")
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr(NAME, "text")
    listing = list_files(locate(tmp_path))
    assert ([file.name for file in listing.files], listing.refused) == ([NAME], ())


def test_formats_of_several_files_are_detected_at_once(tmp_path, monkeypatch):
    """Each file waits until one of another block is read at the same time."""
    for number in range(2 * listing._BLOCK_FILES):
        (tmp_path / f"{number}.json").write_text("{}")
    together, peek = threading.Barrier(2, timeout=300), listing._peek

    def peek_together(file):
        together.wait()
        return peek(file)

    monkeypatch.setattr(listing, "_peek", peek_together)
    assert list_files(locate(tmp_path)).files == ()


@pytest.mark.parametrize("suffix", [".skeleton", ".json"])
def test_a_listed_file_takes_little_memory(tmp_path, suffix):
    """For millions of recordings; the path of the folder counts, too.

    The smallest of three: one may include Python's table of interned strings, which grew meanwhile.
    """
    data = b"0\n" if suffix == ".skeleton" else b'[[{"keypoints": []}]]'
    for number in range(2_000):
        (tmp_path / f"clip{number}{suffix}").write_bytes(data)
    list_files(locate(tmp_path))
    sizes_bytes = []
    for _ in range(3):
        tracemalloc.start()
        try:
            found = list_files(locate(tmp_path))
            sizes_bytes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        assert len(found.files) == 2_000
    assert min(sizes_bytes) < 2_000 * 1_000
