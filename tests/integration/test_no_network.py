"""No command but Ray's own touches a network: run where there is none, and where it is noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

# Run at the start of each process: notes every attempt to reach a host.
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


@pytest.fixture
def offline(tmp_path):
    """Run a program in a network namespace without any interface; tells what it tried to reach."""
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
    recording = min(tiny_raw.glob("*.skeleton"))
    for command in (
        ("synth", "raw", "--classes", "2", "--subjects", "3"),
        ("prepare", "--raw", str(tiny_raw)),
        ("data",),
        ("data", "verify"),
        ("data", "export", "--to", "npz", "--case", "cv"),
        ("train", "--case", "cv", "train.num_epochs=1", "optim.milestones=[]", "--name", "one"),
        ("eval",),
        ("eval", str(tiny_run), "one", "--data", "data/synth", "--out", "both"),
        ("predict", str(recording), "--checkpoint", str(tiny_run)),
        ("export", str(tiny_run)),
        ("export", str(tiny_run), "--to", "torch"),
        ("export", str(tiny_run), "--to", "safetensors"),
        ("view", str(recording), "--to", "html"),
        ("view", str(recording)),
    ):
        done, tried = offline("-m", "sgnray.cli", *command)
        if command[0] == "eval" and "one" in command:
            # Two models of different shapes are one ensemble as well.
            assert "2 models" in done.stdout
        assert (done.returncode, tried) == (0, ""), f"{command}\n{done.stderr}"


def test_the_watch_notices(offline):
    program = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done, tried = offline("-c", program)
    assert done.returncode == 1
    assert "192.0.2.1" in tried
