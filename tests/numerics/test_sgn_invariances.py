"""What must not change the model's output, and what must."""

from __future__ import annotations

import pytest
import torch

from sgnray.model import sgn
from sgnray.model.inputs import INPUTS, velocities
from sgnray.model.sgn import SGN, count_parameters

WIDTHS = {"embedding_width": 8, "affinity_width": 8, "graph_widths": (8, 8, 8)}
BONES = ((1, 0), (2, 1), (3, 2), (4, 1), (5, 4))


@pytest.fixture
def model() -> SGN:
    return make_model()


def make_model(**inputs) -> SGN:
    torch.manual_seed(0)
    model = SGN(5, 6, 8, **inputs, **WIDTHS).double()
    for layer in model.graph_layers:
        torch.nn.init.normal_(layer.neighbours.weight, std=0.3)  # they start at zero
    return model.eval()


@pytest.fixture
def joints() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 8, 6, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("num_classes", "expected"), [(60, 691_048), (120, 721_828)])
def test_parameter_counts_of_the_paper(num_classes, expected):
    assert count_parameters(SGN(num_classes)) == expected


@pytest.mark.parametrize("inputs", [INPUTS[:2], INPUTS])
def test_relabeling_joints_and_their_parameters_gives_the_same_output(inputs, joints):
    order = [3, 0, 5, 1, 4, 2]
    bones = [(order.index(child), order.index(parent)) for child, parent in BONES]
    model = make_model(inputs=inputs, bones=BONES)
    relabeled = make_model(inputs=inputs, bones=bones)
    with torch.no_grad():
        for name in inputs:
            norm, own = getattr(model, name).norm, getattr(relabeled, name).norm
            for key in ("weight", "bias", "running_mean", "running_var"):
                value = getattr(norm, key).uniform_(0.5, 1.5)
                getattr(own, key).copy_(value.view(6, 3)[order].flatten())
        relabeled.joint_type.inner.weight.copy_(model.joint_type.inner.weight[:, order])
    expected = model(joints)
    torch.testing.assert_close(relabeled(joints[:, :, order]), expected, atol=1e-12, rtol=0)
    assert not torch.allclose(relabeled(joints), expected)


def test_clips_are_independent_in_eval_mode(model, joints):
    joints = torch.cat((joints, joints.flip(2), joints.flip(1)))  # more than go in one part
    apart = torch.cat([model(clip[None]) for clip in joints])
    torch.testing.assert_close(model(joints), apart, atol=1e-12, rtol=0)


def test_one_thread_splits_the_batch_and_gives_the_same_output(model, joints):
    joints = joints.repeat(3, 1, 1, 1)
    num_threads, answers = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            answers.append(model(joints))
    finally:
        torch.set_num_threads(num_threads)
    torch.testing.assert_close(*answers, atol=1e-12, rtol=0)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("only_norms", [False, True])
def test_training_uses_the_statistics_of_the_whole_batch(joints, monkeypatch, only_norms):
    """On one thread too, where evaluation splits the batch into chunks."""
    joints = joints.repeat(6, 1, 1, 1)[:40] * torch.linspace(0.5, 2, 40)[:, None, None, None]
    assert len(joints) > sgn._CLIPS_IN_CACHE
    model, whole = (make_model(dropout=0.0) for _ in range(2))
    for each in (model, whole):
        parts = each.modules() if only_norms else [each]
        for part in parts:
            part.train(not only_norms or isinstance(part, torch.nn.BatchNorm1d))
    logits = model(joints)
    monkeypatch.setattr(sgn, "_CLIPS_IN_CACHE", 1000)
    torch.testing.assert_close(logits, whole(joints), atol=1e-12, rtol=0)
    for name, buffer in whole.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer, atol=1e-12, rtol=0, msg=name)


def test_bf16_output_is_close_to_float32(model, joints):
    model, joints = model.float(), joints.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(joints)
    torch.testing.assert_close(rounded.float(), model(joints), atol=0.05, rtol=0.05)


def test_the_order_of_the_frames_matters(model, joints):
    assert not torch.allclose(model(joints), model(joints.flip(1)))


def test_velocity_is_the_step_from_the_frame_before(joints):
    velocity = velocities(joints)
    assert not velocity[:, 0].any()
    torch.testing.assert_close(velocity[:, 3], joints[:, 3] - joints[:, 2])


@pytest.mark.parametrize("shape", [(2, 1, 6, 3), (2, 9, 6, 3), (2, 8, 5, 3), (2, 8, 6, 2)])
def test_clips_of_another_shape_are_refused(model, shape):
    with pytest.raises(ValueError, match="clips have shape"):
        model(torch.zeros(shape, dtype=torch.float64))


def test_norms_in_eval_mode_use_their_running_statistics_inside_a_training_model(model, joints):
    """As when gradients of several workers are compared with those of one."""
    expected, state = model(joints), {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    model.frame_level.dropout.p = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
    torch.testing.assert_close(model(joints), expected, atol=1e-12, rtol=0)
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, state[name], atol=0, rtol=0)


def test_no_clips_give_no_logits(model, joints):
    assert model(joints[:0]).shape == (0, 5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_converted_as_a_whole_can_be_trained(model, joints, dtype):
    model.to(dtype).train()
    model(joints.to(dtype)).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())
    assert all(buffer.isfinite().all() for buffer in model.buffers())


@pytest.mark.usefixtures("one_thread")
def test_compiled_in_one_graph_it_gives_the_same_output(model, joints):
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(joints), model(joints), atol=1e-12, rtol=0)


def test_every_parameter_gets_a_gradient(model, joints):
    # DDP would wait for one that does not; phi's bias has a gradient of zero.
    model.train()(joints).sum().backward()
    missing = [name for name, value in model.named_parameters() if value.grad is None]
    assert not missing


def test_dropout_drops_whole_channels_of_a_clip(model, joints):
    model.train()
    model.frame_level.dropout.p = 0.5
    level = model.frame_level
    seen = []
    level.pointwise.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(joints)
    dropped = (seen[0] == 0).all(dim=1)  # (B, C): zero in all frames of the clip
    assert 0.2 < dropped.double().mean() < 0.95
    model.frame_level.dropout.p = 0.0
    model(joints)
    assert (seen[1] == 0).all(dim=1).double().mean() < dropped.double().mean()


def test_initial_weights_follow_the_reference():
    """Its convolutions are normal with variance 2 / (kernel * out channels), W is zero."""
    torch.manual_seed(0)
    model = SGN(60)
    zero = [layer.neighbours for layer in model.graph_layers]
    convolutions = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module not in (*zero, model.classifier)
    }
    assert len(convolutions) == 15
    for name, module in convolutions.items():
        kernel = 3 if name == "frame_level.temporal" else 1
        std, count = (2 / (kernel * module.out_features)) ** 0.5, module.weight.numel()
        error = 4 / count**0.5  # of the mean: four standard errors
        assert module.weight.mean().item() == pytest.approx(0, abs=error * std), name
        assert module.weight.std().item() == pytest.approx(std, rel=error / 2**0.5), name
        limit = (1 / module.in_features) ** 0.5
        assert 0.8 * limit < module.bias.abs().max().item() <= limit, name
    assert not any(layer.weight.any() for layer in zero)
    assert model.classifier.weight.abs().max().item() == pytest.approx((1 / 512) ** 0.5, rel=0.05)
