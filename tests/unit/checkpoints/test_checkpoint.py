"""Checkpoints: complete, strict, safe, and never confused with other files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from sgnray.checkpoints.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    Selected,
    build_model,
    load_checkpoint,
    load_reference,
    save_checkpoint,
)
from sgnray.checkpoints.trained_model import load_trained_model
from sgnray.config import to_dict
from sgnray.data.skeleton import NTU25, Skeleton
from sgnray.errors import CheckpointError, OutputError


@pytest.fixture
def checkpoint(tiny_recipe) -> Checkpoint:
    model = build_model(tiny_recipe, NTU25, 3)
    return Checkpoint(
        recipe=to_dict(tiny_recipe),
        skeleton=NTU25,
        class_names=["a", "b", "c"],
        epoch=2,
        weights=model.state_dict(),
        averaged=None,
        optimizer=torch.optim.Adam(model.parameters()).state_dict(),
        history=[{"train/loss": 1.0}, {"train/loss": 0.5}],
        selected=None,
    )


def edited(path: Path, **changes) -> Path:
    """Change entries of the file without our code."""
    content = torch.load(path, weights_only=True)
    content.update(changes)
    torch.save(content, path)
    return path


def test_a_checkpoint_round_trips(checkpoint, tiny_recipe, tmp_path):
    path = tmp_path / "deep" / "checkpoint.pt"
    save_checkpoint(path, checkpoint)
    loaded = load_checkpoint(path)
    assert loaded.parse_recipe() == tiny_recipe
    assert (loaded.epoch, loaded.history) == (2, checkpoint.history)
    for key, value in checkpoint.weights.items():
        assert torch.equal(loaded.weights[key], value)
    assert [item.name for item in path.parent.iterdir()] == ["checkpoint.pt"]


def test_the_selected_weights_are_the_ones_to_evaluate(checkpoint, tmp_path):
    weights = {key: value + 1 for key, value in checkpoint.weights.items()}
    selected = Selected(epoch=1, top1=0.5, weights=weights)
    save_checkpoint(tmp_path / "c.pt", Checkpoint(**{**vars(checkpoint), "selected": selected}))
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded.evaluated_epoch == 1
    assert torch.equal(
        loaded.build_model().state_dict()["classifier.bias"], weights["classifier.bias"]
    )


@pytest.mark.parametrize("size", [0, 10, 3000, -1])
def test_a_truncated_file_is_refused(checkpoint, tmp_path, size):
    path = tmp_path / "c.pt"
    save_checkpoint(path, checkpoint)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="corrupt"):
        load_checkpoint(path)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    with (tmp_path / "evil.pth").open("wb") as file:
        pickle.dump({"state_dict": Evil()}, file)
    torch.save({"format_version": 1, "weights": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        for load in (load_checkpoint, load_reference):
            with pytest.raises(CheckpointError):
                load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "format version 4, this sgnray reads up to 3"),
        ({"format_version": "new"}, "it is not a checkpoint of sgnray"),
        ({"format_version": True}, "it is not a checkpoint of sgnray"),
        ({"format_version": 0}, "it is not a checkpoint of sgnray"),
        ({"surprise": 1}, "its content is invalid"),
        ({"weights": {}}, "its content is invalid: Error.* Missing key"),
        ({"class_names": ["a", "b"]}, "its content is invalid: .* size mismatch"),
        ({"recipe": {"optim": {"lr": 1}}}, "its content is invalid"),
        ({"skeleton": "ntu25"}, "its content is invalid: is not a description"),
        ({"skeleton": NTU25.to_dict() | {"origin": 25}}, "is invalid: origin is not a joint"),
        ({"format_version": 1}, "its content is invalid: 'layout'"),
        ({"recipe": []}, "recipe has the wrong type"),
        ({"class_names": ("a", "b", "c")}, "class_names has the wrong type"),
        ({"class_names": ["a", "b", 3]}, "class_names has the wrong type"),
        ({"epoch": True}, "epoch has the wrong type"),
        ({"epoch": -1}, "epoch has the wrong type"),
        ({"epoch": "2"}, "epoch has the wrong type"),
        ({"weights": [1]}, "weights has the wrong type"),
        ({"weights": {"classifier.bias": 0.5}}, "weights has the wrong type"),
        ({"optimizer": None}, "optimizer has the wrong type"),
        ({"history": [{"train/loss": "low"}]}, "history has the wrong type"),
        ({"history": {}}, "history has the wrong type"),
        ({"selected": {"epoch": 1}}, "selected has the wrong type"),
        ({"selected": {"epoch": 1, "top1": None, "weights": {}}}, "selected has the wrong type"),
        ({"selected": []}, "selected has the wrong type"),
    ],
)
def test_invalid_content_is_refused(checkpoint, tmp_path, changes, message):
    save_checkpoint(tmp_path / "c.pt", checkpoint)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(edited(tmp_path / "c.pt", **changes))


def test_averaged_weights_are_required_exactly_if_the_recipe_keeps_them(
    checkpoint, tiny_recipe, tmp_path
):
    path = tmp_path / "c.pt"
    recipe = to_dict(tiny_recipe.replacing({"train.ema_decay": 0.9}))
    save_checkpoint(path, checkpoint)
    with pytest.raises(CheckpointError, match="averaged is missing, but its recipe keeps"):
        load_checkpoint(edited(path, recipe=recipe))
    load_checkpoint(edited(path, averaged=checkpoint.weights))
    with pytest.raises(CheckpointError, match="but its recipe keeps no mean"):
        load_checkpoint(edited(path, recipe=checkpoint.recipe))


def test_version_1_has_only_the_name_of_its_skeleton(checkpoint, tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, checkpoint)
    content = torch.load(path, weights_only=True)
    del content["skeleton"]
    torch.save(content | {"format_version": 1, "layout": "ntu25"}, path)
    loaded = load_checkpoint(path)
    assert loaded.skeleton == NTU25
    save_checkpoint(path, loaded)
    assert torch.load(path, weights_only=True)["format_version"] == FORMAT_VERSION
    torch.save(content | {"format_version": 1, "layout": "octopus"}, path)
    with pytest.raises(CheckpointError, match="the skeleton layout 'octopus' is unknown"):
        load_checkpoint(path)


def test_a_checkpoint_describes_any_skeleton(tiny_recipe, checkpoint, tmp_path):
    dog = Skeleton("dog", ("nose", "back", "tail"), ((0, 1), (2, 1)), None, 2)
    model = build_model(tiny_recipe, dog, 3)
    own = {"skeleton": dog, "weights": model.state_dict()}
    save_checkpoint(tmp_path / "c.pt", Checkpoint(**{**vars(checkpoint), **own}))
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded.skeleton == dog
    assert loaded.build_model()(torch.zeros(2, 8, 3, 2)).shape == (2, 3)


@pytest.mark.parametrize("content", [b"root:x:0:0:root", b"\x80\x04K\x01.", b"hello"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "passwd").write_bytes(content)
    for load in (load_checkpoint, load_reference):
        with pytest.raises(CheckpointError, match="corrupt, or not a checkpoint"):
            load(tmp_path / "passwd")


def test_neither_kind_is_taken_for_the_other(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "c.pt", checkpoint)
    with pytest.raises(CheckpointError, match="not a checkpoint of the reference"):
        load_reference(tmp_path / "c.pt")
    torch.save({"state_dict": {"compute_g1.g1.cnn.weight": torch.zeros(1)}}, tmp_path / "r.pth")
    with pytest.raises(CheckpointError, match="its content is invalid"):
        load_reference(tmp_path / "r.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint of sgnray"):
        load_checkpoint(tmp_path / "r.pth")


def test_an_official_checkpoint_of_another_skeleton_is_refused(save_like_the_reference, tmp_path):
    save_like_the_reference(tmp_path / "25.pth", num_classes=10)
    save_like_the_reference(tmp_path / "20.pth", num_classes=10, num_joints=20)
    assert load_trained_model(tmp_path / "25.pth").card.skeleton == NTU25
    with pytest.raises(CheckpointError, match="does not name the skeleton of its 20 joints"):
        load_trained_model(tmp_path / "20.pth")


def test_a_missing_file_is_called_missing(tmp_path):
    with pytest.raises(CheckpointError, match="checkpoint not found"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_folder_that_cannot_be_made_is_an_output_error(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_checkpoint(tmp_path / "file" / "c.pt", checkpoint)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_full_disk_leaves_the_checkpoint_before_it(checkpoint, tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()
    path.with_name(f"c.pt.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="could not be written"):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
