"""The Python of the README, run as it stands, one block after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sgnray

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

README = (Path(sgnray.__file__).parents[1] / "README.md").read_text()


def test_the_examples_run(tiny_raw, tmp_path, monkeypatch, capsys):
    chapter = README.partition("## As a library\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", chapter, flags=re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path").symlink_to(tiny_raw)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert set(sgnray.__all__) <= set(names)  # each public name has its example
    assert (tmp_path / "first.png").is_file()
    assert (tmp_path / "mine.safetensors").is_file()
    assert names["found"].best.num_epochs == 1
    assert capsys.readouterr().out.count(".skeleton ") == 27
