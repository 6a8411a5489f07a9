"""Every failure is shown as one block and has an exit code."""

import errno
import logging
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

import sgnray.prepare
import sgnray.synth.generate
from sgnray.cli import render
from sgnray.config import list_recipes
from sgnray.errors import Problem, SgnError

RECIPES = ", ".join(list_recipes())


@pytest.mark.parametrize(
    ("arguments", "block"),
    [
        (
            ["trian"],
            "error: unknown command 'trian'; did you mean train?\n"
            "  where  sgn\n"
            "  now    see 'sgn --help'\n",
        ),
        (
            ["unheard-of"],
            "error: unknown command 'unheard-of'; the commands are demo, synth, prepare, data, "
            "bench, train, tune, eval, predict, export, view\n"
            "  where  sgn\n"
            "  now    see 'sgn --help'\n",
        ),
        (
            ["prepare"],
            "error: the option --raw is missing\n"
            "  where  sgn prepare\n"
            "  now    see 'sgn prepare --help'\n",
        ),
        (
            ["synth"],
            "error: the argument OUT is missing\n"
            "  where  sgn synth\n"
            "  now    see 'sgn synth --help'\n",
        ),
        (
            ["train", "--recipe", "ntu60-xsub"],
            "error: recipe 'ntu60-xsub' not found; did you mean ntu60-cs?\n"
            f"  where  shipped recipes: {RECIPES}\n"
            "  now    choose one of these, or give the path of a .yaml file\n",
        ),
        (
            ["train", "--recipe", "ntu60-cs", "optim.lerning_rate=1", "data.num_segments=0"],
            "error: the command line has 2 problems\n"
            "  optim.lerning_rate=1 (command line)  unknown key; did you mean "
            "optim.learning_rate?\n"
            "  data.num_segments (command line)     must be an integer from 1 to 10,000, got 0\n"
            "  where  overrides of ntu60-cs\n"
            "  now    correct them; 'sgn train --recipe ntu60-cs --dry-run' shows every key\n",
        ),
        (
            ["tune", "--recipe", "./nowhere.yaml"],
            "error: recipe file not found\n"
            "  where  nowhere.yaml\n"
            f"  now    give the path of a .yaml file, or a shipped recipe: {RECIPES}\n",
        ),
        (
            ["synth", "out", "--subjects", "1000"],
            "error: the number of subjects must be from 1 to 999, got 1000\n"
            "  where  --subjects\n"
            "  now    choose a number from 1 to 999\n",
        ),
    ],
)
def test_usage_errors_word_for_word(sgn, arguments, block):
    done = sgn(*arguments)
    assert (done.code, done.out, done.err) == (2, "", block)


@pytest.mark.parametrize(
    ("arguments", "what", "where"),
    [
        (["--wrokers", "3"], "unknown option --wrokers; did you mean --workers?", "sgn train"),
        (["--case", "cv"], "prepared dataset not found", "data"),
        (["--data", "nowhere", "--case", "cv"], "dataset folder not found", "--data nowhere"),
        (
            ["--case", "cv", "--recipe", "ntu60-cs"],
            "--case and --recipe cannot be combined",
            "--case cv --recipe ntu60-cs",
        ),
        (["--workers", "two"], "invalid number of workers: 'two'", "--workers"),
        (["--workers", "0:2"], "a run in this process cannot grow", "--workers 0:2"),
    ],
)
def test_usage_errors_of_training(sgn, arguments, what, where):
    done = sgn("train", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {what}")
    assert f"\n  where  {where}\n  now    " in done.err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["train", "--device", "gpu"], "--device: 'gpu'"),
        (["train", "--recipe"], "option '--recipe' requires an argument"),
        (["data", "verify", "two"], "got unexpected extra argument"),
        (["synth", "out", "--classes", "1"], "--classes: "),
        (
            ["train", "--seeds", "999999999999"],
            "--seeds: the value must be less than or equal to 1000",
        ),
        (
            ["tune", "--trials", "1000000000000"],
            "--trials: the value must be less than or equal to 100000",
        ),
        (
            ["predict", "x", "--views", "100001"],
            "--views: the value must be less than or equal to 100000",
        ),
        (["--wrong"], "unknown option --wrong"),
        (["bench", "--workers", "x"], "--workers: the value must be a valid integer\n"),
        (["view", "x", "--fps", "x"], "--fps: the value must be a valid number\n"),
        (
            ["view", "--clip", "x"],
            "--clip is an argument, not an option: write its value without --clip",
        ),
    ],
)
def test_parser_errors_are_one_block(sgn, arguments, what):
    done = sgn(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {what}")
    _, where, now = done.err.splitlines()
    assert where.startswith("  where  sgn")
    assert re.match(r"  now    see 'sgn[ a-z]* --help'$", now)


@pytest.fixture
def sgn_fails_with(sgn, monkeypatch):
    """Run `sgn synth` with a library that raises: how the command shows errors is tested."""

    def run(failure, *flags):
        def raise_it(*_, **__):
            raise failure

        monkeypatch.setattr(sgnray.synth.generate, "synthesize", raise_it)
        return sgn("synth", "out", *flags)

    return run


def test_a_failure_of_the_library_exits_1(sgn_fails_with):
    done = sgn_fails_with(SgnError("it broke", where="here", now="mend it"))
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: it broke\n  where  here\n  now    mend it\n"


def test_a_bug_is_named_as_one_and_its_traceback_is_in_a_file(sgn_fails_with):
    done = sgn_fails_with(ZeroDivisionError("by zero"))
    assert done.code == 1
    first, where, now = done.err.splitlines()
    assert first == "error: this is a bug in sgnray: ZeroDivisionError: by zero"
    assert now == "  now    please report it with this file; finished work is kept"
    path = where.removeprefix("  where  ")
    with open(path, encoding="utf-8") as file:
        story = file.read()
    os.unlink(path)
    assert "Traceback" in story
    assert "raise_it" in story


def test_a_bug_is_named_by_the_first_line_of_its_message(sgn_fails_with):
    done = sgn_fails_with(RuntimeError("it broke\nframe #30: <unknown function>"))
    first, where, _ = done.err.splitlines()
    os.unlink(where.removeprefix("  where  "))
    assert first == "error: this is a bug in sgnray: RuntimeError: it broke"


def _too_large():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    return caught.value


def _no_address_space():
    return ImportError("libtorch_cpu.so: failed to map segment from shared object")


def _no_room_for_a_table():
    return ImportError("x.so: cannot create shared object descriptor: Cannot allocate memory")


def _hidden():
    failure = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1 vs 2")
    failure.__context__ = MemoryError()
    return failure


@pytest.mark.parametrize(
    "failure", [MemoryError, _too_large, _no_address_space, _no_room_for_a_table, _hidden]
)
def test_memory_that_the_machine_lacks_is_not_reported_as_a_bug(sgn_fails_with, failure):
    done = sgn_fails_with(failure())
    assert done.code == 1
    assert done.err.startswith("error: the memory of this machine is not sufficient\n  where  ")
    assert len(done.err.splitlines()) == 3
    assert done.err.endswith(", or end other programs\n")


def test_a_limit_on_the_address_space_is_named(sgn_fails_with):
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**46, before[1]))  # far more than any process takes
    try:
        done = sgn_fails_with(MemoryError())
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert done.err.endswith(", or raise the limit (ulimit -v, ulimit -d)\n")


def test_a_package_that_is_missing_is_not_reported_as_a_bug(sgn_fails_with):
    done = sgn_fails_with(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert done.code == 1
    assert done.err.startswith("error: this needs the package torch, which is not installed\n")


@pytest.mark.parametrize("has_file", [True, False])
def test_the_report_of_a_bug_has_no_credentials(sgn_fails_with, monkeypatch, has_file):
    monkeypatch.setattr("sys.argv", ["sgn", "train", "--runs", "s3://key:secret@bucket/runs"])
    if not has_file:
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    done = sgn_fails_with(ZeroDivisionError("in 's3://key:secret@bucket/runs'"))
    shown = done.err
    if has_file:
        path = Path(done.err.splitlines()[1].removeprefix("  where  "))
        shown += path.read_text(encoding="utf-8")
        path.unlink()
        assert "sgn train --runs s3://bucket/runs\n" in shown
    assert "Traceback" in shown
    assert "in 's3://bucket/runs'" in shown
    assert "secret@" not in shown


def test_vv_shows_the_traceback_too(sgn_fails_with):
    done = sgn_fails_with(SgnError("it broke", where="here", now="mend it"), "-vv")
    assert "Traceback" in done.err
    assert done.err.endswith("error: it broke\n  where  here\n  now    mend it\n")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "check that the folder is readable and writable"),
        (errno.EACCES, "check that the folder is readable and writable"),
        (errno.ENOSPC, "free some space"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
    ],
)
def test_a_disk_error_is_not_reported_as_a_bug(sgn_fails_with, number, advice):
    done = sgn_fails_with(OSError(number, os.strerror(number), "runs/x"))
    assert done.code == 1
    assert done.err == (
        f"error: a file operation failed: {os.strerror(number)}\n"
        "  where  runs/x\n"
        f"  now    {advice}\n"
    )


def test_an_interruption_exits_130(sgn_fails_with):
    done = sgn_fails_with(KeyboardInterrupt())
    assert (done.code, done.out, done.err) == (130, "", "interrupted\n")


def test_an_interrupted_preparation_says_how_to_continue(sgn, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sgnray.prepare, "prepare_dataset", interrupt)
    done = sgn("prepare", "--raw", "x")
    assert done.code == 130
    assert done.err == "interrupted; rerun the same command to resume where it stopped\n"


def test_q_keeps_errors_and_silences_notes(sgn, sgn_fails_with):
    failure = SgnError("it broke", where="here", now="mend it")
    assert sgn_fails_with(failure, "-q").err.startswith("error: it broke")
    assert sgn_fails_with(KeyboardInterrupt(), "-q").err == ""


def test_problems_are_aligned(sgn, capsys):
    render.error(
        SgnError(
            "it has 2 problems",
            where="x.yaml",
            now="mend them",
            problems=[Problem("a.b", "is wrong"), Problem("a.bcd", "is [red]wrong[/red] too")],
        )
    )
    assert capsys.readouterr().err == (
        "error: it has 2 problems\n"
        "  a.b    is wrong\n"
        "  a.bcd  is [red]wrong[/red] too\n"
        "  where  x.yaml\n"
        "  now    mend them\n"
    )


def test_lines_of_a_name_cannot_pass_for_others_of_the_block(capsys):
    render.error(SgnError("it failed", where="a\n  now    b", now="c"))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  where  a",
        "           now    b",
        "  now    c",
    ]


def test_log_messages_follow_the_verbosity(sgn, monkeypatch):
    def talk(*_, **__):
        log = logging.getLogger("sgnray.prepare")
        log.debug("a detail")
        log.info("a note")
        log.warning("a doubt")
        raise SgnError("it broke", where="here", now="mend it")

    monkeypatch.setattr(sgnray.synth.generate, "synthesize", talk)
    block = "error: it broke\n  where  here\n  now    mend it\n"
    assert sgn("synth", "out").err == f"a note\nwarning: a doubt\n{block}"
    assert sgn("synth", "out", "-v").err == f"a detail\na note\nwarning: a doubt\n{block}"
    assert sgn("-v", "synth", "out").err == f"a detail\na note\nwarning: a doubt\n{block}"
    assert sgn("synth", "out", "-q").err == block


def test_a_dry_run_refuses_the_name_that_a_run_would_refuse(sgn):
    done = sgn("train", "--recipe", "ntu60-cs", "--name", "../x", "--dry-run")
    assert (done.code, done.out) == (2, "")


def test_exit_codes_reach_the_shell(sgn_process):
    assert sgn_process("--version").code == 0
    wrong = sgn_process("train", "--case", "cv")
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err.startswith("error: prepared dataset not found\n")


def print_a_recipe(redirected):
    """Run a command that prints to a stdout that a shell redirects."""
    return subprocess.run(
        f"{sys.executable} -m sgnray.cli train --recipe ntu60-cs --dry-run {redirected}",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_pipe_closed_early_prints_no_error():
    done = print_a_recipe("| head -c 1")
    assert done.returncode == 0
    assert (done.stdout, done.stderr) == ("f", "")


def test_a_closed_stdout_is_explained():
    """A shell closes it with >&-; sys.stdout is then None."""
    done = print_a_recipe(">&-")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the result cannot be printed: stdout is closed\n"
        "  where  stdout\n"
        "  now    leave stdout open, or redirect it to a file or to /dev/null\n"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's full device")
def test_a_full_disk_behind_stdout_is_explained():
    done = print_a_recipe("> /dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        "error: the result cannot be printed: No space left on device\n"
        "  where  stdout\n"
        "  now    redirect it to a disk with free space, or to /dev/null\n"
    )


def test_a_command_that_is_suggested_can_be_pasted(sgn):
    arguments = ("--classes", "2", "--subjects", "2", "--setups", "1", "--replications", "1")
    done = sgn("synth", "a b", *arguments)
    assert done.err.endswith("next: sgn prepare --raw 'a b'\n")
    done = sgn("data", "--data", "c d", "verify")
    assert done.err.endswith("now    write it last: sgn data verify --data 'c d'\n")


@pytest.mark.parametrize(
    "words", ["synth", "demo --out", "prepare --raw raw --out", "view raw --to gif --out"]
)
def test_an_output_at_a_uri_is_refused(sgn, tiny_raw, tmp_path, monkeypatch, words):
    """Written as a path, it would be a folder called s3:."""
    (tmp_path / "raw").mkdir()
    one = min(tiny_raw.glob("*.skeleton"))
    (tmp_path / "raw" / one.name).write_bytes(one.read_bytes())
    monkeypatch.chdir(tmp_path)
    done = sgn(*words.split(), "s3://bucket/x")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: this is only written to this machine, not to a URI\n")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


# Every option and argument that names a file or folder, last.
PATHS = [
    "synth",
    "demo --out",
    "prepare --raw raw --out",
    "prepare --raw",
    "data --data",
    "data verify --data",
    "data export --to npz --data",
    "data export --to npz --out",
    "bench --data",
    "train --data",
    "train --case cs --data DATA --runs",
    "tune --data",
    "eval --data",
    "eval --out",
    "eval --runs",
    "eval",
    "predict --checkpoint RUN",
    "predict a.skeleton --runs",
    "predict a.skeleton --checkpoint",
    "predict a.skeleton --out",
    "predict a.skeleton --classes",
    "export --out",
    "export RUN --clips",
    "view",
    "view a.skeleton --out",
]


@pytest.fixture
def fill_in(tiny_folder, tiny_run):
    """Split a command in which DATA and RUN stand for a dataset and a run."""
    paths = {"DATA": str(tiny_folder), "RUN": str(tiny_run)}
    return lambda words: [paths.get(word, word) for word in words.split()]


@pytest.mark.parametrize("words", PATHS)
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "error: the path is empty\n"),
        ("d\udcfc/ds", "error: this path cannot be used: it is not UTF-8\n"),
    ],
)
def test_paths_that_cannot_be_used(sgn, fill_in, tmp_path, words, path, message):
    os.makedirs(tmp_path / os.fsdecode(b"d\xfc/ds"))
    done = sgn(*fill_in(words), path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(message)
    assert [line.split()[0] for line in done.err.splitlines()] == ["error:", "where", "now"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "words",
    [
        words
        for words in PATHS
        if words.split()[-1]
        in ("--raw", "--data", "--runs", "--checkpoint", "eval", "RUN", "--clips", "view")
    ],
)
def test_a_uri_with_one_slash_is_refused(sgn, fill_in, tmp_path, words):
    """Taken as a path, it would be a folder called s3:."""
    done = sgn(*fill_in(words), "s3:/key:secret@bucket/x")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: this URI has one slash after its scheme instead of two\n"
        "  where  s3:/...\n"
        "  now    write s3://...\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("slashes", ["/", "//"])
def test_an_input_at_a_uri_is_refused_where_only_paths_are_read(sgn, slashes):
    done = sgn("predict", "a.skeleton", "--classes", f"s3:{slashes}key:secret@bucket/x")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: this is only read from this machine, not from a URI\n"
        "  where  --classes s3:/...\n"
        "  now    download it first, and name the path here\n"
    )


def test_a_bug_with_a_path_that_is_not_utf8_is_explained(sgn_fails_with):
    done = sgn_fails_with(ZeroDivisionError("d\udcfc"))
    assert done.err.startswith("error: this is a bug in sgnray: ZeroDivisionError: d")
    path = done.err.splitlines()[1].removeprefix("  where  ")
    with open(path, encoding="utf-8") as file:
        assert "ZeroDivisionError: d\\udcfc" in file.read()
    os.unlink(path)
