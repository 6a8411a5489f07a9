"""The four commands in a row on a tiny dataset, in this process, and what they refuse."""

import json
import re
import shutil
from pathlib import Path

import pytest

from ..conftest import TINY

SMALL = (*TINY, "train.num_epochs=2")


@pytest.fixture
def prepared(tiny_folder, tmp_path):
    """A folder with nothing but the tiny dataset under data/."""
    shutil.copytree(tiny_folder, tmp_path / "data/synth")


def notes(done):
    """The lines of stderr, without the progress that a slow machine adds."""
    lines = done.err.splitlines()
    return [line for line in lines if not re.fullmatch(r"[a-z ]+: \d+ of \d+", line)]


def test_synth_and_prepare(sgn):
    size = ("--classes", "2", "--subjects", "2", "--setups", "1", "--replications", "1")
    done = sgn("synth", "raw", *size)
    assert done.code == 0
    assert re.fullmatch(r"12 recordings of 2 actions, \d+ MB, in raw\n", done.out)
    assert notes(done) == ["next: sgn prepare --raw raw"]
    assert json.loads(sgn("synth", "raw", *size, "--overwrite", "--json").out)["num_files"] == 12

    done = sgn("prepare", "--raw", "raw")
    assert (done.code, notes(done)) == (0, [])
    assert done.out.startswith("synth: 12 clips, ")
    assert "written: data/synth\n" in done.out
    assert re.search(r"^cv +8 +4\s*$", done.out, re.MULTILINE)
    again = json.loads(sgn("prepare", "--raw", "raw", "--json").out)
    assert again["reused"] is True
    assert again["splits"]["cv"] == {"train": 8, "test": 4}


def test_train_then_eval(sgn, prepared):
    done = sgn("train", "--case", "cv", *SMALL)
    assert done.code == 0, done.err
    first, *epochs, last = notes(done)
    run = re.fullmatch(r"run (runs/synth-cv-[0-9a-f]{8}), 2 epochs in \w+ on .+", first)[1]
    assert [line.split()[1] for line in epochs] == ["1/2", "2/2"]
    assert last == f"run {run}; full report: sgn eval {run}"
    assert done.out.startswith("top-1  ")

    for arguments in (("eval",), ("eval", run), ("eval", "--data", "data/synth")):
        scored = sgn(*arguments)
        using = [] if run in arguments else [f"using {run}"]
        assert (scored.code, notes(scored)) == (0, [*using, f"written: {run}/report.html"])
        assert scored.out.startswith(done.out)
        assert "weakest classes" in scored.out
    report = json.loads(sgn("eval", "--json").out)
    assert report["num_clips"] == 9
    assert f"top-1  {report['top1']:.2%}" in done.out.splitlines()[0]

    again = json.loads(sgn("train", "--case", "cv", *SMALL, "--json").out)
    assert (again["run"], again["resumed_from"]) == (run, 2)
    assert again["report"] == {key: report[key] for key in again["report"]}


def test_quiet_training_prints_the_result_only(sgn, prepared):
    done = sgn("train", "--case", "cv", *SMALL, "-q", "--name", "hush")
    assert (done.code, done.err) == (0, "")
    assert "runs/hush/checkpoints" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["prepare", "--raw", "nowhere"], 2, "nowhere"),
        (["prepare", "--raw", "empty"], 1, "empty"),
        (["prepare", "--raw", "other"], 1, "other"),
        (["eval"], 2, "runs"),
        (["eval", "nowhere"], 2, "nowhere"),
        (["eval", "other"], 2, "other"),
        (["train", "--case", "cv", "--device", "cuda"], 2, "--device"),
        (["train", "--recipe", "ntu60-cv"], 2, "data/synth"),
        (["train", "--case", "cv", "--name", "../out"], 2, "--name"),
        (["tune", "--space", "nowhere"], 2, "nowhere"),
    ],
)
def test_bad_input_is_one_block_and_leaves_nothing(sgn, prepared, arguments, code, what):
    Path("empty").mkdir()
    Path("other").mkdir()
    Path("other/notes.txt").write_text("hello")
    before = sorted(Path().rglob("*"))
    done = sgn(*arguments)
    assert (done.code, done.out) == (code, "")
    lines = [line for line in done.err.splitlines() if not line.startswith("searching with")]
    assert lines[0].startswith("error: ")
    assert "bug" not in lines[0]
    assert [line.split()[0] for line in lines[-2:]] == ["where", "now"]
    assert what in done.err
    assert sorted(Path().rglob("*")) == before


def test_a_checkpoint_that_would_run_code_is_refused(sgn, prepared):
    """A pickle that would run code is refused, and does not run."""
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path.touch, (Path("ran"),))

    Path("evil.pt").write_bytes(pickle.dumps(Evil()))
    done = sgn("eval", "evil.pt")
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert not Path("ran").exists()
