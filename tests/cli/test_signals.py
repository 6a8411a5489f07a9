"""The first Ctrl-C, SIGTERM or SIGHUP ends a command, whatever it does at that moment."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from sgnray.cli.signals import interruptible

from ..conftest import TINY
from ..processes import maps_file

# The signal's first exception is swallowed; a timer raises it again in a process that continues.
SWALLOWED = """
import signal, sys, time
from sgnray.cli.signals import interruptible

def lose(number):
    try:
        signal.raise_signal(number)
    except BaseException:
        print("lost", flush=True)

with interruptible() as ending:
    try:
        lose(getattr(signal, sys.argv[1]))
        time.sleep(60)
    except KeyboardInterrupt:
        begin = time.monotonic()
        while time.monotonic() - begin < 1:  # cleaning up is not disturbed
            time.sleep(0.01)
        print("clean", flush=True)
sys.exit(128 + ending.signal)
"""
# Imitates an import of torch, whose C++ code an exception would abort.
IMPORTING = """
import signal, time
from sgnray.cli.signals import interruptible
module = {"__name__": "torch.distributed", "signal": signal, "time": time}
code = "signal.raise_signal(signal.SIGINT); time.sleep(1); print('imported', flush=True)"
with interruptible():
    exec(compile(code, "torch", "exec"), module)
    time.sleep(600)
"""
# Some library catches the exception of the signal, and then fails for want of what it cut short.
BROKEN = """
import signal
from sgnray.cli.main import run
from sgnray.cli import data

def fail(path):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        pass
    raise AttributeError("partially initialized module")

data.choose_dataset = fail
run(["data", "verify"])
"""
# The exception of the signal passes through a C library that runs Python.
THROUGH_C = """
import ctypes, signal, sys
from sgnray.cli import data

PY_FILE_INPUT = 257
CODE = f"signal.raise_signal(signal.{sys.argv.pop()})".encode()

def fail(path):
    run, names = ctypes.pythonapi.PyRun_String, ctypes.py_object({"signal": signal})
    run.restype = ctypes.py_object
    run(CODE, PY_FILE_INPUT, names, names)

data.choose_dataset = fail
from sgnray.cli import __main__
"""
# A second signal is taken for the first one again until a line arrives.
STUBBORN = """
import sys, time
from {module} import {context}
from sgnray.cli import signals
signals._SAME_SIGNAL_S = 600.0
with signals.interruptible(), {context}():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        sys.stdin.readline()
        signals._SAME_SIGNAL_S = 0.0
        print("later", flush=True)
        time.sleep(60)
"""
# Ctrl-C comes in the middle of an import of the commands; `-m` and the console script start it.
EARLY = """
import signal, sys

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "sgnray.cli.main":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
{start}
"""
# Python itself handles signals while it starts, so the clock begins after that.
BENCH = """
import sys
print("up", flush=True)
from sgnray.cli.main import run
run(["bench", "--recipe", "synth-cv", "--seconds", "600", *sys.argv[1:]])
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_was_swallowed_is_raised_again(name):
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED, name],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout.split() == ["lost", "clean"], done.stderr
    assert done.returncode == 128 + getattr(signal, name)


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_fails_after_a_signal_is_an_interruption_and_no_bug():
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr == "interrupted\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_exit_code_of_python_m_is_ours(name, tmp_path):
    (tmp_path / "through_c.py").write_text(THROUGH_C)
    done = subprocess.run(
        [sys.executable, "-m", "through_c", "data", "verify", name],
        capture_output=True,
        cwd=tmp_path,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == "interrupted\n"
    assert done.returncode == 128 + getattr(signal, name)


@pytest.mark.parametrize(
    ("module", "context", "first"),
    [
        ("contextlib", "nullcontext", signal.SIGTERM),
        ("sgnray.tune.ray.launch", "_interruptible", signal.SIGINT),
    ],
)
def test_a_second_signal_ends_at_once(module, context, first):
    script = STUBBORN.format(module=module, context=context)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        assert process.stdout.readline() == "cleaning\n"
        # The same signal again, as if it was forwarded twice: the cleanup continues.
        process.send_signal(first)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "later\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 128 + signal.SIGINT


STAGES = {
    "Python runs": lambda process, folder: True,
    "torch is imported": lambda process, folder: maps_file(process.pid, "libtorch_cpu"),
    "its folder exists": lambda process, folder: any(folder.glob("sgn-bench-*")),
    "the poses are written": lambda process, folder: any(folder.glob("sgn-bench-*/noise/*")),
    "the measurement": lambda process, folder: maps_file(process.pid, "clips.arrow"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_bench_ends_at_any_stage_and_leaves_no_folder(stage, tmp_path):
    """Two at a time, so that they disturb each other."""
    endings = (signal.SIGTERM, signal.SIGINT)
    processes = {ending: start_bench(tmp_path / ending.name) for ending in endings}
    try:
        for ending, process in processes.items():
            deadline = time.monotonic() + 300
            while not STAGES[stage](process, tmp_path / ending.name):
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline, f"this does not happen: {stage}"
                time.sleep(0.01)
            if stage == "the measurement":
                time.sleep(1)  # it begins a moment after the file was opened
            process.send_signal(ending)
        for ending, process in processes.items():
            _, output = process.communicate(timeout=300)
            # Before the handler is there, the signal itself ends the process.
            assert process.returncode in (128 + ending, -ending), output
            left = [path.name for path in (tmp_path / ending.name).iterdir()]
            # torch keeps a cache of its own in the temporary folder.
            assert [name for name in left if not name.startswith("torchinductor_")] == []
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def start_bench(folder):
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", BENCH, *TINY],
        env={**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_an_import_of_torch_is_not_interrupted():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "imported\n"
    assert done.stderr.endswith("KeyboardInterrupt\n")


# What is registered first runs last in Python's exit, which then resets the handlers.
LATE = """
import atexit, signal
from contextlib import suppress
from sgnray.cli.signals import interruptible

atexit.register(lambda: print(signal.getsignal(signal.SIGINT).name))
with suppress(KeyboardInterrupt), interruptible():
    signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("is_script", [False, True])
def test_ctrl_c_during_the_import_of_the_commands_is_silent(is_script):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module = project["scripts"]["sgn"].removesuffix(":run")
    start = f"from {module} import run; run()" if is_script else "import sgnray.cli.__main__"
    done = subprocess.run(
        [sys.executable, "-c", EARLY.format(start=start)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_second_ctrl_c_at_the_end_of_pythons_exit_is_ignored():
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout == "SIG_IGN\n", done.stderr
