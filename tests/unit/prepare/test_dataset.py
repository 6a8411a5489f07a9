"""A dataset appears complete or not at all, and the same raw files give the same bytes."""

import contextlib
import fcntl
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sgnray.data.store import open_dataset
from sgnray.distributed.resources import WorkerRequest
from sgnray.errors import InputError, OutputError, UsageError
from sgnray.prepare import dataset
from sgnray.prepare.dataset import prepare_dataset
from sgnray.prepare.readers.listing import PART_FILES
from sgnray.prepare.staging import hold_staging

from ...pose_files import make_file

FILES = ("clips.arrow", "dataset.json", "skipped.csv")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_counts_of_the_result(make_nwucla, tmp_path):
    steps = []
    result = prepare_dataset(
        make_nwucla(36), data_dir=tmp_path / "data", on_progress=lambda *step: steps.append(step)
    )
    assert result.folder == tmp_path / "data" / "nwucla"
    assert result.splits == {"cv": (24, 12)}
    assert (result.info.num_clips, result.info.num_poses, result.reused) == (36, 72, False)
    assert steps == [(done, 36) for done in range(1, 37)]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["nwucla"]
    assert sorted(path.name for path in result.folder.iterdir()) == sorted(FILES)


def test_the_output_may_be_in_the_home_folder(make_nwucla, tmp_path, monkeypatch):
    """A shell does not expand the ~ of --out=~/nwucla."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    raw = make_nwucla(18)
    for reused in (False, True):
        result = prepare_dataset(raw, out="~/data/nwucla")
        assert (result.folder, result.reused) == (tmp_path / "home" / "data" / "nwucla", reused)
    assert not (tmp_path / "~").exists()


def test_a_refused_preparation_leaves_no_folder(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "S001C001P001R001A001.skeleton").write_text("x")
    with pytest.raises(InputError):
        prepare_dataset(raw, data_dir=tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_killed_preparation_continues_and_ends_in_the_same_bytes(make_nwucla, tmp_path):
    raw = make_nwucla(PART_FILES + 20)
    script = (
        "import os, signal, sys; from pathlib import Path; from sgnray.prepare import *\n"
        f"stop = lambda done, _: done > {PART_FILES + 5} and os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare_dataset(Path(sys.argv[1]), out=Path(sys.argv[2]), on_progress=stop)"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", script, str(raw), str(out)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not out.exists()
    steps = []
    prepare_dataset(raw, out=out, on_progress=lambda *step: steps.append(step))
    assert steps[0] == (PART_FILES, PART_FILES + 20)
    assert len(steps) == 21
    assert not (tmp_path / "out.partial").exists()
    assert contents(out) == contents(prepare_dataset(raw, out=tmp_path / "straight").folder)


def interrupt(raw, out):
    """Prepare a dataset until its first part is finished."""

    def stop(done, _):
        if done > PART_FILES:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(raw, out=out, on_progress=stop)


def test_an_interrupted_preparation_of_other_files_is_not_continued(make_nwucla, tmp_path):
    out = tmp_path / "out"
    interrupt(make_nwucla(PART_FILES + 2, "a", seed=1), out)
    other = make_nwucla(PART_FILES + 2, "b", seed=2)
    prepare_dataset(other, out=out)
    assert contents(out) == contents(prepare_dataset(other, out=tmp_path / "straight").folder)


def test_an_interrupted_preparation_of_a_file_that_was_rewritten_is_not_continued(
    make_nwucla, tmp_path
):
    """Its name and its size are the same."""
    raw, out = make_nwucla(PART_FILES + 2), tmp_path / "out"
    interrupt(raw, out)
    first, before = min(raw.rglob("*.json")), os.stat(min(raw.rglob("*.json")))
    first.write_text(first.read_text().translate(str.maketrans("56", "65")))
    os.utime(first, ns=(0, before.st_mtime_ns + 10**9))
    assert first.stat().st_size == before.st_size
    prepare_dataset(raw, out=out)
    assert contents(out) == contents(prepare_dataset(raw, out=tmp_path / "straight").folder)


def test_a_corrupt_part_is_prepared_again(make_nwucla, tmp_path):
    raw, out = make_nwucla(PART_FILES + 2), tmp_path / "out"
    interrupt(raw, out)
    part = tmp_path / "out.partial" / "part-00000.arrow"
    part.write_bytes(part.read_bytes()[:-100])
    prepare_dataset(raw, out=out)
    assert contents(out) == contents(prepare_dataset(raw, out=tmp_path / "straight").folder)


def test_the_same_raw_files_are_not_prepared_twice(make_nwucla, tmp_path):
    raw, out = make_nwucla(6), tmp_path / "out"
    prepare_dataset(raw, out=out)
    before = (out / "clips.arrow").stat().st_mtime_ns
    assert prepare_dataset(raw, out=out).reused
    assert (out / "clips.arrow").stat().st_mtime_ns == before
    assert not prepare_dataset(raw, out=out, overwrite=True).reused
    assert (out / "clips.arrow").stat().st_mtime_ns != before


def test_another_dataset_in_the_way(make_nwucla, tmp_path):
    out = tmp_path / "out"
    prepare_dataset(make_nwucla(6, "a"), out=out)
    before = contents(out)
    other = make_nwucla(7, "b")
    with pytest.raises(UsageError) as caught:
        prepare_dataset(other, out=out)
    assert (
        caught.value.what
        == "the output exists already: a dataset from other raw files or another description"
    )
    assert caught.value.now == (
        "choose another folder with --out, or replace this one with --overwrite"
    )
    assert contents(out) == before
    assert prepare_dataset(other, out=out, overwrite=True).info.num_clips == 7


def test_a_dataset_that_another_version_prepared_is_named_as_such(
    make_nwucla, tmp_path, monkeypatch
):
    raw, out = make_nwucla(6), tmp_path / "out"
    prepare_dataset(raw, out=out)
    monkeypatch.setattr(dataset, "PREPARE_VERSION", 2)
    with pytest.raises(UsageError, match="these raw files, prepared by another version of sgnray"):
        prepare_dataset(raw, out=out)
    assert prepare_dataset(raw, out=out, overwrite=True).info.source["prepare_version"] == 2


def test_a_folder_that_is_not_a_dataset_is_never_overwritten(make_nwucla, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="something that is not a dataset"):
        prepare_dataset(make_nwucla(6), out=tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "precious"


def test_a_second_preparation_of_the_same_output_is_refused(make_nwucla, tmp_path):
    (tmp_path / "out.partial").mkdir()
    with (tmp_path / "out.partial" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError) as caught:
            prepare_dataset(make_nwucla(6), out=tmp_path / "out")
    assert caught.value.what == "another sgn prepare is writing this dataset"
    assert prepare_dataset(tmp_path / "nwucla", out=tmp_path / "out").info.num_clips == 6


def test_a_replacement_cut_off_between_its_two_renames_is_undone(make_nwucla, tmp_path):
    raw, out = make_nwucla(6), tmp_path / "out"
    prepare_dataset(raw, out=out)
    before = contents(out)
    (tmp_path / "out.partial").mkdir()
    out.rename(tmp_path / "out.partial" / "previous")
    with pytest.raises(UsageError, match="other raw files"):
        prepare_dataset(make_nwucla(7, "b"), out=out)
    assert contents(out) == before
    assert prepare_dataset(raw, out=out).reused


def test_a_dataset_without_usable_clips_is_refused(make_nwucla, tmp_path):
    raw = make_nwucla(2)
    for path in raw.rglob("*.json"):
        path.write_text("{}")
    with pytest.raises(InputError) as caught:
        prepare_dataset(raw, out=tmp_path / "out")
    assert caught.value.what == "none of 2 recordings can be used"
    assert caught.value.now.startswith("correct what the reasons say, in the files or in what name")
    (problem,) = caught.value.problems
    assert problem.where == "2 files, like a01_s01_e00_v01.json"
    assert problem.what.startswith("not a JSON object")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nwucla"]


@contextlib.contextmanager
def files_no_larger_than(num_bytes):
    """Let every write beyond a size fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# The key, the first part, the poses of the second, and clips.arrow are cut off in turn.
@pytest.mark.parametrize("num_bytes", [10, 5_000, 150_000, 190_000])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_full_disk_leaves_what_was_there(make_nwucla, tmp_path, num_bytes, replaces):
    raw, out = make_nwucla(PART_FILES + 120), tmp_path / "out"
    if replaces:
        prepare_dataset(raw, out=out)
        before = contents(out)
    with files_no_larger_than(num_bytes), pytest.raises(OutputError) as caught:
        prepare_dataset(raw, out=out, overwrite=replaces)
    assert caught.value.what == "it could not be written: File too large"
    assert not (tmp_path / "out.partial").exists()
    assert out.exists() == replaces
    assert not replaces or contents(out) == before


def test_a_place_that_cannot_be_written(make_nwucla, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        prepare_dataset(make_nwucla(3), out=tmp_path / "file" / "out")
    assert caught.value.what == "it could not be written: Not a directory"


@pytest.mark.parametrize("name", ["file/out", "x" * 250])
def test_an_error_names_the_output_as_the_user_did(make_nwucla, tmp_path, monkeypatch, name):
    (tmp_path / "file").write_text("")
    raw = make_nwucla(3)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError) as caught:
        prepare_dataset(raw, out=name)
    assert caught.value.where == name


def test_zip_and_folder_are_the_same_source(make_nwucla, tmp_path):
    raw = make_nwucla(9)
    shutil.make_archive(str(tmp_path / "raw"), "zip", raw)
    prepare_dataset(raw, out=tmp_path / "out")
    assert prepare_dataset(tmp_path / "raw.zip", out=tmp_path / "out").reused


@pytest.mark.ray
def test_two_workers_give_the_same_bytes(make_nwucla, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_STARTING_BYTES", 0)
    raw = make_nwucla(2 * PART_FILES + 10)
    steps = []
    result = prepare_dataset(
        raw, out=tmp_path / "two", workers=2, on_progress=lambda *step: steps.append(step)
    )
    assert steps[-1] == (2 * PART_FILES + 10, 2 * PART_FILES + 10)
    assert contents(result.folder) == contents(prepare_dataset(raw, out=tmp_path / "none").folder)
    open_dataset(result.folder)


def test_overwrite_replaces_a_dataset_and_nothing_else(golden_raw, tmp_path):
    out = tmp_path / "out"
    prepare_dataset(golden_raw / "raw", out=out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"and also notes\.txt"):
        prepare_dataset(golden_raw / "raw", out=out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    assert not prepare_dataset(golden_raw / "raw", out=out, overwrite=True).reused


@pytest.mark.parametrize("out", [".", "raw", "raw/deep/out"])
def test_the_dataset_and_the_raw_files_lie_apart(golden_raw, out):
    before = sorted(golden_raw.rglob("*"))
    with pytest.raises(UsageError, match="must be in separate folders"):
        prepare_dataset(golden_raw / "raw", out=golden_raw / out, overwrite=True)
    assert sorted(golden_raw.rglob("*")) == before


def test_links_to_the_raw_files_are_seen_through(make_nwucla, tmp_path):
    raw = make_nwucla(2)
    (tmp_path / "link").symlink_to(raw)
    with pytest.raises(UsageError, match="must be in separate folders"):
        prepare_dataset(tmp_path / "link", out=raw / "data")
    with pytest.raises(UsageError, match="given twice"):
        prepare_dataset([raw, tmp_path / "link"], out=tmp_path / "data")


def test_a_staging_folder_that_holds_something_else_is_left_alone(make_nwucla, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match=r"other files: thesis\.tex"):
        prepare_dataset(make_nwucla(3), out=tmp_path / "out")
    assert (tmp_path / "out.partial" / "thesis.tex").read_text() == "precious"


def test_files_that_a_killed_process_was_writing_are_ours(make_nwucla, tmp_path):
    """Also those of an earlier version."""
    (tmp_path / "out.partial").mkdir()
    for name in ("key.tmp", "key.7.partial", "key.partial", "part-00000.arrow.tmp"):
        (tmp_path / "out.partial" / name).write_text("cut")
    (tmp_path / "out.partial" / "part-00001.arrow.123.partial").write_text("cut")
    prepare_dataset(make_nwucla(3), out=tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_the_lock_is_the_last_file_that_is_removed(tmp_path, monkeypatch):
    """Another process may write to the folder as soon as the lock is gone."""
    removed = []
    unlink = os.unlink

    def note(path, **options):
        removed.append(Path(path).name)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", note)
    names = [f"part-{number:05}.arrow" for number in range(20)]
    with hold_staging(tmp_path / "out", shown=tmp_path / "out", key="key") as folder:
        for name in names:
            (folder / name).write_text("")
    assert os.listdir(tmp_path) == []
    assert {*names, "key"} <= set(removed)
    assert removed[-1] == "lock"


def test_a_missing_file_stops_the_preparation_and_keeps_finished_parts(make_nwucla, tmp_path):
    raw, out = make_nwucla(PART_FILES + 2), tmp_path / "out"
    last = sorted(raw.rglob("*.json"))[-1]
    text = last.read_text()

    def remove(done, _):
        if done == PART_FILES:
            last.unlink()

    with pytest.raises(InputError, match="is missing"):
        prepare_dataset(raw, out=out, on_progress=remove)
    last.write_text(text)
    assert (tmp_path / "out.partial" / "part-00000.arrow").is_file()
    assert prepare_dataset(raw, out=out).info.num_clips == PART_FILES + 2


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up rights takes root")
def test_a_folder_that_may_not_be_read_stops_it(make_nwucla, tmp_path):
    raw = make_nwucla(6)
    (raw / "closed").mkdir(mode=0)
    script = (
        "import sys; from sgnray.prepare import *; prepare_dataset(sys.argv[1], out=sys.argv[2])"
    )
    rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    command = [*rights, sys.executable, "-c", script, str(raw), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "a folder cannot be read: Permission denied" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "~nobody-of-this-name/raw", "n\udcff"])
def test_invalid_paths_are_refused(tmp_path, name):
    with pytest.raises(UsageError):
        prepare_dataset(name, out=tmp_path / "out")


def test_sources_that_do_not_form_one_dataset_are_refused(make_nwucla, golden_raw, tmp_path):
    nwucla = make_nwucla(6)
    with pytest.raises(UsageError, match="do not make one dataset"):
        prepare_dataset([golden_raw / "raw", nwucla], out=tmp_path / "out")
    with pytest.raises(UsageError, match="given twice"):
        prepare_dataset([nwucla, nwucla], out=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no raw data found"):
        prepare_dataset([nwucla, tmp_path / "empty"], out=tmp_path / "out")


def test_ray_options_are_refused_without_workers(tiny_raw, tmp_path):
    for option in ({"address": "head:6379"}, {"request": WorkerRequest(wait_s=5)}):
        with pytest.raises(UsageError, match="without workers, Ray is not used"):
            prepare_dataset(tiny_raw, out=tmp_path / "data", **option)
    assert not (tmp_path / "data").exists()


def test_workers_wait_as_long_as_asked(tiny_raw, tmp_path, monkeypatch):
    asked = []

    def run(work, jobs, *, request, **_):
        asked.append(request)
        return (work(job, "cpu") for job in jobs)

    monkeypatch.setattr("sgnray.prepare.dataset._STARTING_BYTES", 0)
    monkeypatch.setattr("sgnray.prepare.dataset.run_on_actors", run)
    request = WorkerRequest(wait_s=5)
    prepare_dataset(tiny_raw, out=tmp_path / "data", workers=2, request=request)
    assert asked == [request]


def test_a_dataset_that_lacks_most_clips_is_warned_of(make_nwucla, tmp_path, caplog):
    raw = make_nwucla(36)
    prepare_dataset(raw, out=tmp_path / "whole")
    assert caplog.messages == []
    files = sorted(raw.rglob("*.json"))
    for file in files[:18]:
        file.write_text("{}")
    prepare_dataset(raw, out=tmp_path / "half")
    assert caplog.messages == []
    for file in files[18:30]:
        file.write_text('{"file_name": "a", "skeletons": [], "label": 1}')
    for _ in range(2):  # also if it is already prepared
        prepare_dataset(raw, out=tmp_path / "few")
    reason = caplog.messages[0].partition("this reason: ")[2]
    assert reason
    few = f"30 of 36 recordings were left out, 18 of them for this reason: {reason}"
    assert caplog.messages == [few, few]


def test_clips_of_a_single_frame_are_warned_of(tmp_path, caplog):
    """Such as files of one image each whose names do not end with their number."""
    for label, number in itertools.product(("wave", "still"), range(4)):
        path = tmp_path / "raw" / label / f"image{chr(97 + number)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_file("YOLO", num_frames=1 if number else 3))
    prepare_dataset(tmp_path / "raw", out=tmp_path / "out")
    assert caplog.messages == [
        "6 of 8 clips have a single frame: if a recording has a file for each frame, put them into "
        "its own folder, named by the number of the frame"
    ]
