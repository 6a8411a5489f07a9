"""The model against the reference's own numbers, in float64, within 1e-11."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from sgnray.checkpoints.checkpoint import load_reference
from sgnray.data.epoch_draws import rotation_matrices
from sgnray.model.reference import from_reference, model_from_reference, reference_keys
from sgnray.model.sgn import SGN
from sgnray.train.step import smoothed_cross_entropy

from ..numerics.sgn_twin import Twin

GOLDEN = json.loads((Path(__file__).parent / "formula.json").read_text())
TOLERANCE = 1e-11
ZERO_BY_ALGEBRA = {
    "compute_g1.g2.cnn.bias",
    "gcn1.w1.cnn.bias",
    "gcn2.w1.cnn.bias",
    "gcn3.w1.cnn.bias",
    "cnn.cnn1.bias",
    "cnn.cnn2.bias",
}


def wave(index: int, shape: tuple[int, ...]) -> torch.Tensor:
    """The closed formula of the file, for entry `index`."""
    j = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.1 + 1.7 * index + 0.37 * j + 0.0013 * (j % 997) ** 2).view(shape)


def reference_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes as the reference stores them: convolutions have four axes."""
    model = SGN(GOLDEN["num_classes"])
    shapes = {}
    for ours, key in reference_keys(model).items():
        shape = tuple(model.state_dict()[ours].shape)
        if key == "cnn.cnn1.weight":
            shape = (shape[0], shape[1] // 3, 1, 3)
        elif key.endswith(("cnn.weight", "cnn2.weight")):
            shape = (*shape, 1, 1)
        shapes[key] = shape
    return shapes


def golden_state() -> dict[str, torch.Tensor]:
    shapes, state = reference_shapes(), {}
    for i, key in enumerate(GOLDEN["keys"]):
        shape = shapes[key]
        value = wave(i, shape)
        is_norm = ".bn" in key
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
        elif key.endswith("running_var"):
            state[key] = 1 + 0.3 * value.abs()
        elif key.endswith("running_mean") or (is_norm and key.endswith("bias")):
            state[key] = 0.1 * value
        elif is_norm:
            state[key] = 1 + 0.2 * value
        elif key == "fc.weight" or key.endswith("bias"):
            state[key] = 0.05 * value
        else:
            state[key] = math.sqrt(2 / (shape[0] * math.prod(shape[2:]))) * value
    return state


@pytest.fixture
def model() -> SGN:
    model = model_from_reference(golden_state()).double()
    # Loading goes through float32 parameters; the golden numbers are float64 throughout.
    state = golden_state()
    keys = reference_keys(model)
    model.load_state_dict({ours: from_reference(ours, state[keys[ours]], model) for ours in keys})
    model.frame_level.dropout.p = 0.0
    return model


@pytest.fixture
def joints() -> torch.Tensor:
    shape = (GOLDEN["batch"], GOLDEN["num_frames"], GOLDEN["num_joints"] * 3)
    return (0.5 * wave(1000, shape)).view(*shape[:2], GOLDEN["num_joints"], 3)


def test_every_key_of_the_reference_has_its_place():
    assert set(reference_keys(SGN(60)).values()) == set(GOLDEN["keys"])


def test_logits_in_eval_mode(model, joints):
    expected = torch.tensor(GOLDEN["eval_logits"], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(joints), expected, atol=TOLERANCE, rtol=0)


def test_the_twin_of_other_tests_gives_the_same(model, joints):
    expected = torch.tensor(GOLDEN["eval_logits"], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(Twin(model).eval()(joints), expected, atol=TOLERANCE, rtol=0)


def test_loss_gradients_and_running_statistics(model, joints):
    labels = torch.tensor(GOLDEN["labels"])
    logits = model.train()(joints)
    num_classes = GOLDEN["num_classes"]
    loss = torch.nn.functional.cross_entropy(
        logits, labels, label_smoothing=0.1 * num_classes / (num_classes - 1)
    )
    assert loss.item() == pytest.approx(GOLDEN["train_loss"], abs=TOLERANCE)
    # The loss of the loop computes in float32, whatever the model's precision.
    ours = smoothed_cross_entropy(logits, labels, smoothing=0.1).mean()
    assert ours.item() == pytest.approx(GOLDEN["train_loss"], abs=2e-6)

    loss.backward()
    keys = reference_keys(model)
    for ours_key, parameter in model.named_parameters():
        key = keys[ours_key]
        if key in ZERO_BY_ALGEBRA:
            assert parameter.grad.norm() < TOLERANCE, key
            continue
        total, absolute, first = GOLDEN["gradients"][key]
        gradient = in_reference_layout(ours_key, parameter.grad, model, reference_shapes()[key])
        assert gradient.sum().item() == pytest.approx(total, abs=TOLERANCE), key
        assert gradient.abs().sum().item() == pytest.approx(absolute, abs=1e-10), key
        torch.testing.assert_close(
            gradient[:4], torch.tensor(first, dtype=torch.float64), atol=TOLERANCE, rtol=0
        )
    for ours_key, buffer in model.named_buffers():
        if ours_key.endswith("num_batches_tracked"):
            continue
        total, absolute = GOLDEN["running_after_one_forward"][keys[ours_key]]
        assert buffer.sum().item() == pytest.approx(total, abs=TOLERANCE)
        assert buffer.abs().sum().item() == pytest.approx(absolute, abs=1e-10)


def in_reference_layout(key, ours, model, shape) -> torch.Tensor:
    """Flat values in the reference's order: their indices are converted as weights are."""
    order = from_reference(key, torch.arange(ours.numel()).view(shape), model)
    flat = torch.empty(ours.numel(), dtype=ours.dtype)
    flat[order.flatten()] = ours.flatten()
    return flat


def test_an_official_checkpoint_loads(tmp_path, joints):
    state = {f"module.{key}": value.float() for key, value in golden_state().items()}
    path = tmp_path / "0_best.pth"
    content = {"epoch": 3, "state_dict": state, "best": torch.tensor(12.5), "monitor": "val_acc"}
    torch.save(content, path)
    expected = torch.tensor(GOLDEN["eval_logits"], dtype=torch.float32)
    with torch.no_grad():
        logits = load_reference(path)(joints.float())
    torch.testing.assert_close(logits, expected, atol=2e-6, rtol=0)


def test_rotation_matrices():
    golden = json.loads((Path(__file__).parent / "rotation.json").read_text())
    matrices = rotation_matrices(torch.tensor(golden["angles"]))
    torch.testing.assert_close(matrices, torch.tensor(golden["matrices"]), atol=1e-6, rtol=0)
