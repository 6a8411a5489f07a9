"""What a preparation survives: kills at any moment, a concurrent one, and a full disk."""

import os
import subprocess
import sys

import pytest

from sgnray.data.info import read_info
from sgnray.errors import OutputError
from sgnray.prepare import dataset, prepare_dataset
from sgnray.prepare.readers import listing

FILES = ("clips.arrow", "dataset.json", "skipped.csv")
# Forks, so that modules are imported only once. Each child kills itself after a random delay, which
# grows, with parts of one or two files; after each, the parent prints the checksum in `out`.
KILL = """
import json, os, random, signal, sys, threading, time
from pathlib import Path
from sgnray.data.store import checksum_file
from sgnray.prepare import prepare_dataset
from sgnray.prepare.readers import listing
listing.PART_BYTES = 300_000
raw, out, rng = Path(sys.argv[1]), Path(sys.argv[2]), random.Random(0)
overwrite = out.exists()
def die(delay_s):
    time.sleep(delay_s)
    os.kill(os.getpid(), signal.SIGKILL)
def output():
    if not (out / "dataset.json").exists():
        return "none"
    claimed = json.loads((out / "dataset.json").read_text())["checksum"]
    return claimed if claimed == checksum_file(out / "clips.arrow") else "half"
for attempt in range(200):
    child = os.fork()
    if child == 0:
        delay_s = rng.uniform(0, 0.05 * attempt)
        threading.Thread(target=die, args=(delay_s,), daemon=True).start()
        prepare_dataset(raw, out=out, overwrite=overwrite)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    print(output(), flush=True)
"""
PREPARE = """
import sys
from pathlib import Path
from sgnray.prepare import prepare_dataset
prepare_dataset(Path(sys.argv[1]), out=Path(sys.argv[2]))
"""


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("replaces", [False, True])
def test_a_preparation_killed_repeatedly_ends_in_the_same_bytes(
    tiny_raw, tiny_folder, golden_dataset, tmp_path, replaces
):
    out = tmp_path / "out"
    before = golden_dataset(out) if replaces else "none"
    command = [sys.executable, "-c", KILL, str(tiny_raw), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = done.stdout.split()
    # Between the two renames of a replacement the old dataset is in the staging folder.
    assert set(seen) <= {before, "none", read_info(tiny_folder).checksum}
    assert len(seen) > 3
    assert contents(out) == contents(tiny_folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.fixture
def golden_dataset(tiny_raw, tmp_path_factory):
    """Prepare another dataset: a part of the tiny one."""

    def make(out):
        raw = tmp_path_factory.mktemp("few")
        for path in sorted(tiny_raw.iterdir())[-5:]:
            (raw / path.name).symlink_to(path)
        return prepare_dataset(raw, out=out).info.checksum

    return make


def test_two_concurrent_preparations_of_one_output(tiny_raw, tiny_folder, tmp_path):
    command = [sys.executable, "-c", PREPARE, str(tiny_raw), str(tmp_path / "out")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes
    if codes != [0, 0]:  # else the second found the finished dataset
        assert any("another sgn prepare is writing this dataset" in text for text in errors)
    assert contents(tmp_path / "out") == contents(tiny_folder)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 600 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", disk]
    if subprocess.run(mount, check=False).returncode != 0:  # as root in a container
        pytest.skip("this machine does not allow it to mount a disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_leaves_the_dataset_that_was_there(tiny_raw, golden_dataset, small_disk):
    golden_dataset(small_disk / "out")
    before = contents(small_disk / "out")
    with pytest.raises(OutputError) as caught:
        prepare_dataset(tiny_raw, out=small_disk / "out", overwrite=True)
    assert caught.value.what == "it could not be written: No space left on device"
    assert contents(small_disk / "out") == before
    assert [path.name for path in small_disk.iterdir()] == ["out"]


@pytest.mark.ray
def test_workers_do_not_change_the_bytes(tiny_raw, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_STARTING_BYTES", 0)
    monkeypatch.setattr(listing, "PART_BYTES", 300_000)
    expected = contents(tiny_folder)
    for workers in (1, 2):
        folder = prepare_dataset(tiny_raw, out=tmp_path / str(workers), workers=workers).folder
        assert contents(folder) == expected
