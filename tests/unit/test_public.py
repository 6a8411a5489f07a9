"""The public library: what it exports, and that asking for it loads no more than it needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import sgnray

ROOT = Path(sgnray.__file__).parents[1]


def test_every_name_is_there():
    assert (
        sorted(sgnray.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
        == sgnray.__all__
    )
    assert set(sgnray.__all__) == set(sgnray._HOMES) == set(dir(sgnray))
    for name in sgnray.__all__:
        assert getattr(sgnray, name).__name__ == name


def test_importing_it_loads_nothing_heavy():
    program = "import sys, sgnray; sgnray.load_recipe; print(*{'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_the_readme_lists_every_file_with_its_own_words():
    listed = dict(re.findall(r"^(\S+\.py) +(.+)$", (ROOT / "README.md").read_text(), re.MULTILINE))
    files = [*ROOT.glob("sgnray/**/*.py"), *ROOT.glob("cli/*.py")]
    expected = {
        str(path.relative_to(ROOT)): first_line(path)
        for path in files
        if path.name not in ("__init__.py", "__main__.py")
    }
    assert listed == expected


def first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    return docstring.split("\n", maxsplit=1)[0].removesuffix(".")
