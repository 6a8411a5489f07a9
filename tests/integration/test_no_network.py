"""Commands without Ray work without a network, and every attempt to use one is recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from sgnray.export.files import FORMATS

# Run at the start of each process: records every attempt to reach a host.
_WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        if event == "socket.connect" and isinstance(arguments[1], (str, bytes)):
            return  # a socket of this machine's own
        with open(os.environ["SGN_WATCHED"], "a") as file:
            file.write(f"{event} {arguments[1:]} in {sys.argv}\\n")
sys.addaudithook(watch)
"""


# One process runs all commands: importing torch is what takes long.
_RUN = """
import json, sys
from sgnray.cli.main import run
for words in json.loads(sys.argv[1]):
    try:
        run(words)
    except SystemExit as leaving:
        if leaving.code:
            sys.exit(f"sgn {words} exits with {leaving.code}")
"""


@pytest.fixture
def offline(tmp_path):
    """Run a program in a network namespace without any interface; return what it tried to reach."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    isolated = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        isolated = ["unshare", "--net"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs network namespaces")
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(_WATCH)
    watched = tmp_path / "watched.txt"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "watch"), "SGN_WATCHED": str(watched)}
    environment.pop("RAY_ADDRESS", None)

    def run(*command):
        done = subprocess.run(
            [*isolated, sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        tried = watched.read_text() if watched.exists() else ""
        return done, tried

    return run


def test_every_command_works_without_a_network(offline, tiny_raw, tiny_run, tmp_path):
    recording = str(min(tiny_raw.glob("*.skeleton")))
    run = str(tiny_run)
    commands = [
        ("synth", "raw", "--classes", "2", "--subjects", "3"),
        ("prepare", "--raw", str(tiny_raw)),
        ("data",),
        ("data", "verify"),
        ("data", "export", "--to", "npz", "--case", "cv"),
        ("train", "--case", "cv", "train.num_epochs=1", "optim.milestones=[]", "--name", "one"),
        ("eval",),
        # Two models of different shapes are one ensemble as well.
        ("eval", run, "one", "--data", "data/synth", "--out", "both"),
        ("predict", recording, "--checkpoint", run),
        *(("export", run, "--to", to) for to in FORMATS),
        ("view", recording, "--to", "html"),
        ("view", recording),
    ]
    done, tried = offline("-c", _RUN, json.dumps(commands))
    assert (done.returncode, tried) == (0, ""), done.stderr
    assert "2 models" in done.stdout
    assert (tmp_path / "both" / "report.json").exists()


def test_a_connection_attempt_is_recorded(offline):
    program = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done, tried = offline("-c", program)
    assert done.returncode == 1
    assert "192.0.2.1" in tried
