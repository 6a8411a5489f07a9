"""The cache of datasets: with real processes, one of them killed in the middle."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from sgnray.data.fetch import cache_dir, cached_dataset
from sgnray.data.info import read_info
from sgnray.data.store import open_dataset
from sgnray.errors import InputError, OutputError, UsageError

from ...processes import wait_for

FORKS = multiprocessing.get_context("fork")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


@pytest.fixture
def source(folder):
    return Source(folder)


class Source:
    """A folder to copy from, which records every copy."""

    def __init__(self, folder):
        self.folder = folder
        self.identity = read_info(folder).identity
        self.log = folder.with_name("copies")
        self.log.touch()

    def copy(self, target):
        assert list(target.iterdir()) == []
        with self.log.open("a") as file:
            file.write("copy\n")
        for path in self.folder.iterdir():
            shutil.copyfile(path, target / path.name)

    def copy_slowly(self, target):
        self.copy(target)
        time.sleep(0.5)

    def copy_half_and_hang(self, target):
        shutil.copyfile(self.folder / "clips.arrow", target / "clips.arrow")
        (self.folder.with_name("hanging")).touch()
        time.sleep(600)

    @property
    def num_copies(self):
        return len(self.log.read_text().splitlines())


def test_the_location_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SGNRAY_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == tmp_path / "home" / ".cache" / "sgnray"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_dir() == tmp_path / "home" / ".cache" / "sgnray"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "sgnray"
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.setenv("SGNRAY_CACHE", "~nobody-of-this-name/own")
    with pytest.raises(UsageError, match="this path cannot be used"):
        cache_dir()


def test_a_dataset_is_copied_once(cache, source):
    folder = cached_dataset(source.identity, source.copy)
    assert folder == cache / source.identity[7:23]
    assert open_dataset(folder).info == read_info(source.folder)
    assert cached_dataset(source.identity, source.copy) == folder
    assert source.num_copies == 1


def test_two_processes_at_once_copy_once(cache, source):
    processes = [
        FORKS.Process(target=cached_dataset, args=(source.identity, source.copy_slowly))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert source.num_copies == 1
    assert open_dataset(cached_dataset(source.identity, source.copy)).info.num_clips == 5
    assert source.num_copies == 1


def test_a_partial_copy_of_a_killed_fetch_is_not_used(cache, source):
    process = FORKS.Process(
        target=cached_dataset, args=(source.identity, source.copy_half_and_hang)
    )
    process.start()
    hanging = source.folder.with_name("hanging")
    wait_for(lambda: hanging.exists() or not process.is_alive(), lambda: "no copy began")
    assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    folder = cache / source.identity[7:23]
    assert not folder.exists()
    assert folder.with_name(f"{folder.name}.partial").exists()
    assert cached_dataset(source.identity, source.copy) == folder
    assert source.num_copies == 1
    assert {path.name for path in cache.iterdir()} == {folder.name, f"{folder.name}.lock"}


@pytest.mark.parametrize("name", ["clips.arrow", "dataset.json", "skipped.csv", "cached.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"{}")])
def test_a_changed_copy_is_fetched_again(cache, source, name, damage):
    folder = cached_dataset(source.identity, source.copy)
    damage(folder / name)
    assert cached_dataset(source.identity, source.copy) == folder
    assert source.num_copies == 2
    assert (folder / "clips.arrow").read_bytes() == (source.folder / "clips.arrow").read_bytes()
    assert len(list(cache.iterdir())) == 2


def test_a_copy_of_the_same_size_but_another_time_is_fetched_again(cache, source):
    path = cached_dataset(source.identity, source.copy) / "clips.arrow"
    os.utime(path, ns=(0, 0))
    cached_dataset(source.identity, source.copy)
    assert source.num_copies == 2


def test_an_open_copy_survives_a_fetch_over_it(cache, source):
    folder = cached_dataset(source.identity, source.copy)
    dataset = open_dataset(folder)
    (folder / "skipped.csv").unlink()
    cached_dataset(source.identity, source.copy)
    assert dataset.poses_PVC[-1, -1].tolist() == [70, 71]


def test_another_dataset_is_refused_and_nothing_kept(cache, source):
    wanted = f"sha256:{'0' * 64}"
    with pytest.raises(InputError) as caught:
        cached_dataset(wanted, source.copy)
    assert caught.value.what == "the fetched dataset is not the requested one"
    assert caught.value.where == f"clips.arrow: {source.identity}, wanted {wanted}"
    assert [path.name for path in cache.iterdir()] == [f"{'0' * 16}.lock"]


def test_a_description_of_another_dataset_is_refused(cache, source):
    path = source.folder / "dataset.json"
    path.write_text(
        path.read_text().replace(read_info(source.folder).checksum, f"sha256:{'0' * 64}")
    )
    with pytest.raises(InputError, match="not the requested one"):
        cached_dataset(source.identity, source.copy)


def test_a_fetch_that_copies_nothing_is_refused(cache, source):
    with pytest.raises(InputError, match="none, wanted sha256"):
        cached_dataset(source.identity, lambda folder: None)


def test_a_failing_copy_keeps_nothing(cache, source):
    def fail(folder):
        (folder / "clips.arrow").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_dataset(source.identity, fail)
    assert len(list(cache.iterdir())) == 1
    cached_dataset(source.identity, source.copy)


@pytest.mark.parametrize("checksum", ["", "sha256:../../../../../../x", "sha256:00", "0" * 64])
def test_an_invalid_checksum_is_refused(cache, checksum):
    with pytest.raises(InputError, match="is not a checksum of a dataset"):
        cached_dataset(checksum, lambda folder: None)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written(cache, source):
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(OutputError) as caught:
        cached_dataset(source.identity, source.copy)
    assert str(cache) in caught.value.where
