"""A place that cannot be used is refused before Ray starts, and nothing is left there."""

from __future__ import annotations

import os
import subprocess

import pytest

from sgnray.checkpoints.claim import claimed_folder

COMMANDS = {
    "train": ("train", "--case", "cv", "--workers", "2", "--name", "mine"),
    "train without a name": ("train", "--case", "cv", "--workers", "2", "train.precision=float32"),
    "train --seeds": ("train", "--case", "cv", "--workers", "2", "--seeds", "2"),
    "tune": ("tune", "--case", "cv", "--name", "mine"),
}


@pytest.fixture(params=COMMANDS)
def refused(sgn, tiny_folder, request):
    """Run a command that must be refused; returns the line that says why."""

    def run(runs):
        done = sgn(*COMMANDS[request.param], "--data", str(tiny_folder), "--runs", str(runs))
        assert (done.code, done.out) == (1, ""), done.err
        assert "starting Ray" not in done.err
        block = done.err.partition("error: ")[2].splitlines()
        assert [line[:9] for line in block[1:]] == ["  where  ", "  now    "], done.err
        return block[0]

    return run


def test_a_file_in_the_way(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file/runs") == "it could not be written: Not a directory"
    assert os.listdir(tmp_path) == ["file"]


@pytest.fixture
def read_only(tmp_path):
    """A folder that not even root can write to."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
def test_a_read_only_folder(refused, read_only):
    assert refused(read_only / "runs") == "it could not be written: Read-only file system"


def test_a_folder_in_use(sgn, tiny_folder, tmp_path):
    with claimed_folder(tmp_path, "mine", default=""):
        for command in ("train", "tune"):
            words = ("--data", str(tiny_folder), "--runs", str(tmp_path))
            done = sgn(*COMMANDS[command], *words)
            assert done.code == 1
            assert "starting Ray" not in done.err
            assert "error: another command is using this folder\n" in done.err
    assert os.listdir(tmp_path / "mine") == [".lock"]


def test_predictions(sgn, tiny_raw, tiny_run, tmp_path):
    (tmp_path / "file").write_text("")
    options = ("--checkpoint", str(tiny_run), "--workers", "2", "--out", "file/p.jsonl")
    for precision in ("float32", "auto"):
        done = sgn("predict", str(tiny_raw), *options, "--precision", precision)
        assert done.code == 1
        assert done.err.startswith("error: it could not be written: Not a directory\n")
    assert os.listdir(tmp_path) == ["file"]
