"""`sgn` in this process, in an empty folder, with what it printed."""

import logging
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from sgnray.cli import main, render


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sgn(capsys):
    """Run `sgn ARGUMENTS` and give exit code, stdout and stderr."""
    logger = logging.getLogger("sgnray")
    before = (logger.level, logger.propagate, list(logger.handlers))

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main.run(arguments)
        printed = capsys.readouterr()
        return Outcome(caught.value.code, printed.out, printed.err)

    yield run
    render.set_verbosity(0)  # -q and -v of one test are not those of the next
    logging.captureWarnings(False)
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1:]


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
