"""`sgn --help`: what it says, how fast, and what it must not load."""

import inspect
import os
import resource
import subprocess
import sys

import pytest

from sgnray.version import __version__

COMMANDS = (
    *("demo", "synth", "prepare", "data", "bench", "train", "tune"),
    *("eval", "predict", "export", "view"),
)
HEAVY = ("torch", "ray", "pyarrow", "yaml", "numpy", "h5py")

REPORT_MODULES = """
import sys
from sgnray.cli.main import run
try:
    run(sys.argv[1:])
except SystemExit as leaving:
    assert leaving.code == 0, leaving.code
    print("MODULES", *sys.modules)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("train", "--help"),
        ("data", "--help"),
        ("bench", "--help"),
        ("--version",),
        (),
    ],
)
def test_help_loads_nothing_heavy(arguments):
    # typer itself imports pydantic to convert the options before a command.
    heavy = (*HEAVY, "pydantic") if arguments == ("--help",) else HEAVY
    done = subprocess.run(
        [sys.executable, "-c", REPORT_MODULES, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = done.stdout.rpartition("MODULES")[2].split()
    assert "typer" in modules
    assert [name for name in heavy if name in modules] == []


def test_help_costs_little_more_than_its_libraries():
    """Processor time, best of three in turn: a slow or busy machine does not change the ratio."""
    libraries = "import typer, rich.console, rich.live, rich.progress, rich.table"
    costs = {"-c": [], "-m": []}
    for _ in range(3):
        for how, what in (("-c", (libraries,)), ("-m", ("sgnray.cli", "--help"))):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, how, *what], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            costs[how].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(costs["-m"]) < 2.5 * min(costs["-c"]), costs


@pytest.mark.parametrize("command", [*COMMANDS, "data verify", "data export"])
def test_every_command_shows_an_example_within_80_columns(sgn, command):
    done = sgn(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert f"\n  Examples:\n    sgn {command}" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    for option in ("--verbose", "--quiet", "--json", "--help"):
        assert option in done.out


@pytest.mark.parametrize(
    ("command", "default"), [("train", "a share of the free CPUs"), ("eval", "1"), ("predict", "1")]
)
def test_only_training_divides_the_free_cpus_by_default(sgn, command, default):
    words = " ".join(sgn(command, "--help").out.split())
    assert f"CPUs and threads of each worker. Default: {default}" in words


def test_help_lists_every_command_in_the_order_of_the_work(sgn):
    done = sgn("--help")
    listed = done.out.partition("Commands:\n")[2].partition("\n\n")[0]
    assert tuple(line.split()[0] for line in listed.splitlines()) == COMMANDS
    assert "..." not in listed
    assert max(map(len, done.out.splitlines())) <= 80


def test_sgn_alone_is_help(sgn):
    assert sgn().out == sgn("--help").out


def test_version(sgn):
    done = sgn("--version")
    assert (done.code, done.out, done.err) == (0, f"sgn {__version__}\n", "")
    assert sgn("--version", "train").out == f"sgn {__version__}\n"


def test_defaults_are_the_librarys():
    """`sgn synth` names the library's defaults in its help, so it repeats them."""
    from sgnray.cli.synth import synth
    from sgnray.synth.generate import synthesize

    library = inspect.signature(synthesize).parameters
    command = inspect.signature(synth).parameters
    for name in ("classes", "subjects", "setups", "replications"):
        assert command[name].default == library[f"num_{name}"].default, name
    assert command["seed"].default == library["seed"].default


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("tr", ["train"]),
        ("train --dr", ["--dry-run"]),
        ("export --to saf", ["safetensors"]),
        ("train --recipe nwucla-cv-b", ["nwucla-cv-best"]),
    ],
)
def test_a_shell_completes_commands_options_choices_and_recipes(sgn_process, words, offered):
    ask = {"COMP_WORDS": f"sgn {words}", "COMP_CWORD": str(len(words.split()))}
    done = sgn_process(env={"_SGN_COMPLETE": "complete_bash", **ask})
    assert (done.code, done.err) == (0, "")
    assert done.out.split() == offered


def test_completion_is_installed_for_the_shell_that_asks(tmp_path):
    sgn = f"{sys.executable} -m sgnray.cli --install-completion"
    environment = os.environ | {"HOME": str(tmp_path)}
    subprocess.run(["bash", "-c", f"{sgn} || exit $?"], env=environment, check=True)
    (installed,) = (tmp_path / ".bash_completions").iterdir()
    assert str(installed) in (tmp_path / ".bashrc").read_text()
