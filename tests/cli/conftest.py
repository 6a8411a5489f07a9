"""`sgn` in an empty folder."""

import os
import signal
import subprocess
import sys

import pytest

from ..conftest import Outcome


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def hangups():
    """A closed terminal reaches the processes of a test, also where nohup started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def sgn_process(tmp_path):
    """Run `sgn ARGUMENTS` in a process of its own, as a shell does."""

    def run(*arguments, **options):
        environment = {**os.environ, **options.pop("env", {})}
        done = subprocess.run(
            [sys.executable, "-m", "sgnray.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
            check=False,
            **options,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
