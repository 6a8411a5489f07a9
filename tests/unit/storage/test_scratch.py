"""Temporary folders: private, removed, and not left by a signal."""

import os
import tempfile

import pytest

from sgnray.storage.scratch import scratch_folder


@pytest.fixture
def parent(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_private_and_removed_with_its_content(parent):
    with scratch_folder("sgn-test-") as folder:
        assert (folder.parent, folder.stat().st_mode & 0o777) == (parent, 0o700)
        (folder / "file").touch()
    assert list(parent.iterdir()) == []


def test_a_folder_may_have_another_parent(parent):
    (parent / "other").mkdir()
    with scratch_folder("sgn-test-", parent / "other") as folder:
        assert folder.parent == parent / "other"


def test_a_signal_while_the_folder_is_made_leaves_none(parent, monkeypatch):
    """Python raises KeyboardInterrupt between any two of its instructions."""
    mkdir, made = os.mkdir, []

    def interrupted(path, *options):
        mkdir(path, *options)
        made.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), scratch_folder("sgn-test-"):
        pass
    assert len(made) == 1
    assert list(parent.iterdir()) == []
