"""The public library: what it exports, and that importing it loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import sgnray
import sgnray.checkpoint
from sgnray import (
    evaluate_run,
    export_model,
    load_checkpoint,
    load_recipe,
    open_dataset,
    prepare_dataset,
    train_run,
    view_clip,
)


def test_every_public_name_is_exported():
    assert (
        sorted(sgnray.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
        == sgnray.__all__
    )
    assert set(sgnray.__all__) == set(sgnray._MODULES) == set(dir(sgnray))
    for name in sgnray.__all__:
        assert getattr(sgnray, name).__name__ == name


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(sgnray.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == sgnray._MODULES


def test_importing_it_loads_nothing_heavy():
    program = "import sys, sgnray; sgnray.load_recipe; print(*{'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_paths_may_be_strings(tiny_raw, tiny_recipe, tmp_path):
    """Every path that the library takes is a Path or a string, as in a notebook."""
    place = str(tmp_path)
    prepared = prepare_dataset(str(tiny_raw), out=f"{place}/data/synth")
    assert open_dataset(f"{place}/data/synth").info == prepared.info
    recipe = tiny_recipe.replacing({"train.num_epochs": 1, "optim.milestones": ()})
    settings = {"runs_dir": f"{place}/runs", "name": "one", "device": "cpu"}
    run = train_run(recipe, f"{place}/data/synth", **settings).folder
    assert load_recipe(run / "recipe.yaml") == load_recipe(str(run / "recipe.yaml"))
    checkpoint = f"{run}/checkpoints/epoch-0001/checkpoint.pt"
    assert load_checkpoint(checkpoint).epoch == 1
    evaluate_run(checkpoint, data_dir=f"{place}/data", device="cpu")
    evaluate_run(checkpoint, dataset_dir=f"{place}/data/synth", device="cpu")
    model = export_model(checkpoint, out=f"{place}/m.safetensors", clips=f"{place}/data/synth")
    assert model.path == tmp_path / "m.safetensors"
    recording = str(min(tiny_raw.glob("*.skeleton")))
    assert view_clip(recording, out=f"{place}/clip.png") == tmp_path / "clip.png"


def test_the_checkpoint_module_exports_load_reference():
    assert sgnray.checkpoint.load_reference is sgnray.load_reference
