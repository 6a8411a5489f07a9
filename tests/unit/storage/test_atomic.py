from __future__ import annotations

import errno
import os

import pytest

from sgnray.errors import OutputError, UsageError
from sgnray.storage.atomic import choose_format, output_errors, write_text, written_atomically


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_keeps_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "one")
    path.with_name(f"a.json.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        write_text(path, "two" * 100_000)
    assert path.read_text() == "one"


@pytest.mark.parametrize(
    ("number", "now"),
    [
        (errno.ENOSPC, "free some space, then run it again"),
        (errno.EFBIG, "raise the limit on file sizes (ulimit -f), then run it again"),
        (errno.ENAMETOOLONG, "choose a shorter name, then run it again"),
        (errno.EACCES, "choose a writable folder, then run it again"),
    ],
)
def test_what_to_do_about_an_error_of_the_system(tmp_path, number, now):
    with pytest.raises(OutputError) as caught, output_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert caught.value.now == now


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    def fail():
        with written_atomically(tmp_path / "a.onnx", suffix=".x") as aside:
            assert aside.name == f"a.onnx.{os.getpid()}.partial.x"
            aside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        write_text(tmp_path / "none" / "a.json", "one")


FORMATS = {"onnx": ".onnx", "torch": ".pt2"}


@pytest.mark.parametrize(
    ("to", "out", "chosen"),
    [
        (None, None, "onnx"),
        (None, "a.PT2", "torch"),
        (None, "run.v2/a", "onnx"),
        (None, "noname", "onnx"),
        ("torch", "run.v2", "torch"),
        ("torch", None, "torch"),
    ],
)
def test_a_format_is_chosen_by_its_name_or_the_suffix(to, out, chosen):
    assert choose_format(to, out, FORMATS, default="onnx") == chosen


@pytest.mark.parametrize("out", ["m.pt", "runs/run.v2"])
def test_an_unknown_suffix_without_a_format_is_refused(out):
    with pytest.raises(UsageError) as caught:
        choose_format(None, out, FORMATS, default="onnx")
    suffix = out[out.rindex(".") :]
    assert caught.value.what == f"no format has the suffix {suffix!r}"
    assert caught.value.where == f"--out {out}"
    assert caught.value.now == (
        "use one of the suffixes .onnx, .pt2; or name the format with --to onnx or torch"
    )
