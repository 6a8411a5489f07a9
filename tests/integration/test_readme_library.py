"""The Python and the YAML of the README and of the guides, run as they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sgnray
from sgnray import load_recipe, prepare_dataset
from sgnray.tune.space_file import load_space

ROOT = Path(sgnray.__file__).parents[1]
README = ROOT / "README.md"
GUIDES = ROOT / ".github" / "docs"


def blocks_of(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.ray
def test_the_python_runs(tiny_raw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synth-raw").symlink_to(tiny_raw)
    shown = set()
    for page in (README, *sorted(GUIDES.glob("*.md"), reverse=True)):  # first what others continue
        names: dict[str, object] = {}
        for block in blocks_of(page, "python"):
            if page.name == "pose-estimators.md":  # they import the estimators
                ast.parse(block)
            else:
                exec(block, names)
        shown |= set(names)
        if page.name == "tuning.md":
            assert names["found"].best.num_epochs == 1
    assert set(sgnray.__all__) <= shown  # each public name has its example
    assert (tmp_path / "first.png").is_file()
    assert (tmp_path / "mine.safetensors").is_file()
    assert (tmp_path / "clips.parquet").is_file()
    assert capsys.readouterr().out.count(".skeleton ") == 27


def test_the_descriptions_of_custom_skeletons_prepare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(GUIDES / "data.md", "python"):
        exec(block, {})
    for page in (README, GUIDES / "data.md"):
        (description,) = blocks_of(page, "yaml")
        (tmp_path / "my-kinect.yaml").write_text(description)
        prepared = prepare_dataset(tmp_path / "my-kinect.yaml", out=tmp_path / page.stem)
        assert prepared.info.num_clips == 3


def test_the_search_spaces_load(tmp_path):
    blocks = blocks_of(GUIDES / "tuning.md", "yaml")
    assert len(blocks) == 2
    recipe = load_recipe("ntu60-cv")
    for block in blocks:
        path = tmp_path / "space.yaml"
        path.write_text(block)
        load_space(str(path), recipe)
