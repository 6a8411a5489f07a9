"""The public library: what it exports, and that asking for it loads no more than it needs."""

from __future__ import annotations

import subprocess
import sys

import sgnray


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
