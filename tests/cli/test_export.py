"""`sgn export`: what it shows, what it refuses, and its exit codes."""

import json
import sys

import pytest

from sgnray.checkpoints.trained_model import load_trained_model


def test_what_is_written_is_shown(sgn, tiny_run, tiny_folder, tmp_path):
    done = sgn("export", str(tiny_run), "--to", "safetensors")
    assert (done.code, done.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    path = tmp_path / "first.safetensors"
    assert lines["written"].strip() == path.name
    assert lines["size"].strip() == f"{path.stat().st_size / 1e6:.2f} MB"
    assert lines["compared"].strip().startswith("27 clips of")
    assert lines["input"].strip() == "8 poses of 25 joints"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_clips_at_a_uri(sgn, tiny_run, tiny_raw):
    arguments = ("export", str(tiny_run), "--to", "safetensors", "--clips", tiny_raw.as_uri())
    assert "27 clips of" in sgn(*arguments).out


def test_json(sgn, tiny_run, tiny_folder, tmp_path):
    arguments = ("export", "--runs", str(tiny_run.parent), "--to", "safetensors", "--out", "a.st")
    done = sgn(*arguments, "--json")
    warning = "warning: sgn loads the file only if its name ends with .safetensors"
    assert done.err == f"using {tiny_run}\n{warning}\n"
    content = json.loads(done.out)
    assert content["format_version"] == 1
    assert content["path"] == "a.st"
    assert content["size_bytes"] == (tmp_path / "a.st").stat().st_size
    assert (content["num_clips"], content["checked_on"]) == (27, str(tiny_folder))
    assert content["largest_difference"] < 1e-5
    assert content["opset"] is None


def test_other_names_of_its_classes_go_into_the_file(sgn, tiny_run, tmp_path):
    (tmp_path / "classes.txt").write_text("wave\nsit <b>\nübung\n", encoding="utf-8")
    arguments = ("export", str(tiny_run), "--to", "safetensors", "--classes", "classes.txt")
    assert sgn(*arguments).code == 0
    labels = load_trained_model(tmp_path / "first.safetensors").card.class_names
    assert labels == ("wave", "sit <b>", "übung")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--opset", "999"], "error: cannot export to opset 999\n"),
        (["--opset", "17"], "error: cannot export to opset 17\n"),
        (["--to", "torch", "--opset", "18"], "error: --opset is for ONNX only\n"),
        (["--clips", "nowhere"], "error: file or folder not found\n"),
        (["--classes", "two.txt"], "error: there are 2 class names for 3 classes\n"),
        (["--to", "coreml"], "error: --to: 'coreml' is not one of "),
        (["--to", "onnx", "--out", "two.txt"], "error: the file exists already\n"),
        (["--out", "m.pt"], "error: no format has the suffix '.pt'\n"),
    ],
)
def test_usage_errors_are_one_block(sgn, tiny_run, tmp_path, arguments, message):
    (tmp_path / "two.txt").write_text("a\nb\n")
    done = sgn("export", str(tiny_run), *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(message)
    assert [line.split()[0] for line in done.err.splitlines()] == ["error:", "where", "now"]
    assert [path.name for path in tmp_path.iterdir()] == ["two.txt"]
    assert (tmp_path / "two.txt").read_text() == "a\nb\n"


def test_the_range_of_opsets_is_named(sgn, tiny_run):
    done = sgn("export", str(tiny_run), "--opset", "999")
    assert done.err.splitlines()[2].split()[-4:-2] == ["supports", "18"]


@pytest.mark.parametrize(
    ("to", "package"), [("onnx", "onnx"), ("onnx", "onnxscript"), ("safetensors", "safetensors")]
)
def test_without_the_extra(sgn, tiny_run, tmp_path, monkeypatch, to, package):
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # an import of it fails from now on
    done = sgn("export", str(tiny_run), "--to", to)
    assert done.code == 2
    assert done.err == (
        f"error: this needs the package {package}, which is not installed\n"
        "  where  extra 'export'\n"
        "  now    pip install 'sgnray[export]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_checkpoint(sgn, tiny_run, tmp_path):
    whole = (tiny_run / "checkpoints" / "epoch-0004" / "checkpoint.pt").read_bytes()
    (tmp_path / "bad.pt").write_bytes(whole[:3000])
    done = sgn("export", "bad.pt")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: the checkpoint cannot be used: it is corrupt")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]
