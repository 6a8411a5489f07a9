"""Imports run one way and do no work; ray, torch, typer and others are imported where allowed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sgnray

ROOT = Path(sgnray.__file__).parent.parent


@pytest.fixture
def installed(tmp_path):
    """Copy the package as a wheel installs it: sgnray.cli and sgnray.conf inside sgnray."""
    only_python = shutil.ignore_patterns("__pycache__", "*.csv", "*.txt", "*.yaml")
    for source, target in (("sgnray", "sgnray"), ("cli", "sgnray/cli"), ("conf", "sgnray/conf")):
        shutil.copytree(ROOT / source, tmp_path / target, ignore=only_python)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder):
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )


def test_the_contracts_hold(installed):
    done = lint(installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: 5 kept, 0 broken." in done.stdout


def test_broken_contracts_are_seen(installed):
    lines = {
        "seeding": ("from sgnray.config import Recipe", "sgnray.seeding -> sgnray.config ("),
        "data/store": ("import torch", "sgnray.data.store -> torch ("),
        "train/loop": ("import ray", "sgnray.train.loop -> ray ("),
        "checkpoints/run_folder": ("import yaml", "sgnray.checkpoints.run_folder -> yaml ("),
        "prepare/plan": ("from rich.table import Table", "sgnray.prepare.plan -> rich ("),
        "cli/train": ("import torch", "sgnray.cli.train -> torch ("),
        "unplaced": ("", "The following modules are not listed as layers:\n\n- sgnray.unplaced\n"),
    }
    for module, (line, _) in lines.items():
        with (installed / "sgnray" / f"{module}.py").open("a") as file:
            file.write(f"\n{line}\n")
    done = lint(installed)
    assert done.returncode == 1
    assert "Contracts: 0 kept, 5 broken." in done.stdout
    assert [said for _, said in lines.values() if said not in done.stdout] == []


# As in ray._private.services, ray.data._internal, from ray import _raylet, torch._internal.
PRIVATE = re.compile(
    r"\b\w+\._(?:private|internal)\b|\bray(?:\.\w+)*\._(?!_)\w|\bfrom ray[\w.]* import .*\b_"
)


@pytest.mark.parametrize("folder", ["sgnray", "cli"])
def test_only_public_parts_of_libraries_are_used(folder):
    found = [path for path in (ROOT / folder).rglob("*.py") if PRIVATE.search(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import ray._private.services",
        "from ray._private import services",
        "from ray import init, _private",
        "from ray.train.v2._internal.execution import controller",
        "ray._raylet.check_health(address)",
        "import torch._internal",
    ],
)
def test_a_private_part_is_seen(line):
    assert PRIVATE.search(f"import os\n    {line}\n")


# Prints the files that an import of the modules opens.
WATCHED = """
import importlib, os, sys
opened = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        opened.append(os.path.abspath(arguments[0]))
sys.addaudithook(watch)
for module in sys.argv[1:]:
    importlib.import_module(module)
print(*dict.fromkeys(opened), sep="\\n")
"""
# Files that other packages may read: their own, and the system's.
OF_OTHERS = [*filter(None, sys.path), sys.prefix, sys.base_prefix]
OF_OTHERS += ["/dev", "/etc", "/proc", "/sys", "/usr"]


def read_by_imports(folder, *modules):
    """Return the files, other than code, that an import of modules in a folder opens."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED, *modules],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert any(path.is_relative_to(folder) for path in paths)
    return [
        path
        for path in paths
        if path.suffix not in (".py", ".pyc", ".so")
        and not any(path.is_relative_to(other) for other in OF_OTHERS)
    ]


def test_imports_read_no_files(installed):
    files = (path.relative_to(installed).with_suffix("") for path in installed.rglob("*.py"))
    modules = [".".join(file.parts).removesuffix(".__init__") for file in files]
    modules = sorted({module for module in modules if not module.endswith("__main__")})
    assert {"sgnray", "sgnray.cli.main", "sgnray.train.loop"} <= set(modules)
    assert read_by_imports(installed, *modules) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pathlib; pathlib.Path('pyproject.toml').read_text()",
        "from importlib.resources import files; (files('sgnray') / 'py.typed').read_text()",
    ],
)
def test_a_file_that_an_import_reads_is_seen(installed, line):
    path = installed / "sgnray" / "seeding.py"
    path.write_text(f"{path.read_text()}\n{line}\n")
    (file,) = read_by_imports(installed, "sgnray.seeding")
    assert file.is_relative_to(installed)
