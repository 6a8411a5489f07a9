from __future__ import annotations

import pytest

from sgnray.errors import OutputError
from sgnray.storage.atomic import write_text, written_aside


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_keeps_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "one")
    path.with_name("a.json.partial").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        write_text(path, "two" * 100_000)
    assert path.read_text() == "one"


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    def fail():
        with written_aside(tmp_path / "a.onnx", suffix=".x") as aside:
            assert aside.name == "a.onnx.partial.x"
            aside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        write_text(tmp_path / "none" / "a.json", "one")
