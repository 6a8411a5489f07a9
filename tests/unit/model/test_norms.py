"""Our shortcuts for batch norm against torch's batch norm."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sgnray.model.norms import PeakAndMoments, fold, peak_norm_relu, signs


@pytest.fixture
def features() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.fixture
def norm() -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(6).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, -0.1, 3.0, -1.0]))
        norm.bias.copy_(torch.linspace(-1, 1, 6))
    return norm


def test_gradients_are_those_of_finite_differences(features):
    assert torch.autograd.gradcheck(PeakAndMoments.apply, features)


def test_peaks_and_statistics_are_those_of_the_norm(norm, features):
    own, bias = copy.deepcopy(norm), torch.linspace(2, 3, 6).double().requires_grad_()
    plain = norm((features + bias).flatten(0, 2)).view(features.shape).relu().amax(dim=2)
    peak = peak_norm_relu(own, features * signs(own), bias)
    torch.testing.assert_close(peak, plain, atol=1e-12, rtol=0)
    for (name, expected), found in zip(norm.named_buffers(), own.buffers(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0, msg=name)
    goal = torch.randn_like(peak)
    expected = torch.autograd.grad((plain * goal).sum(), [features, norm.weight, norm.bias])
    found = torch.autograd.grad((peak * goal).sum(), [features, own.weight, own.bias, bias])
    torch.testing.assert_close(found[:3], expected, atol=1e-11, rtol=0)
    assert found[3].norm() < 1e-11  # it cancels, but it is there


def test_the_folded_norm_equals_batch_norm_in_eval_mode(norm, features):
    bias = torch.linspace(2, 3, 6).double()
    norm(features.flatten(0, 2))
    scale, shift = fold(norm, bias)
    expected = norm.eval()(features.flatten(0, 2) + bias)
    torch.testing.assert_close(features.flatten(0, 2) * scale + shift, expected)


def test_moments_of_bf16_are_kept_in_float32(features):
    peak, mean, var = PeakAndMoments.apply(features.bfloat16())
    assert (peak.dtype, mean.dtype, var.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    expected = features.bfloat16().double().flatten(0, 2).var(dim=0, unbiased=False)
    torch.testing.assert_close(var.double(), expected, atol=1e-6, rtol=0)
