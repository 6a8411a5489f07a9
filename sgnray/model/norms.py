"""Batch norm with fewer passes over all joints: folded into weights, or applied after the maximum.

Legend: B clips, T frames, V joints, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


def norm_relu(norm: nn.Module, features: Tensor) -> Tensor:
    """Batch-normalize the last axis over all others, then ReLU."""
    normed: Tensor = norm(features.flatten(0, -2))
    return F.relu_(normed).view(features.shape)


def fold(norm: _BatchNorm, bias_C: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and shift (C) with norm(x + bias) = scale * x + shift in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale_C = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale_C, norm.bias + (bias_C - norm.running_mean) * scale_C


def signs(norm: _BatchNorm) -> Tensor:
    """Return 1 or -1 (C): whether the norm's output grows or falls with its input."""
    return torch.ones_like(norm.weight).copysign(norm.weight.detach())


def peak_norm_relu(norm: _BatchNorm, signed_BTVC: Tensor, bias_C: Tensor) -> Tensor:
    """Return max over V of ReLU(norm(x + bias)) for signed = signs(norm) * x, (B, T, C).

    The result increases with every signed number, so the maximum can be taken first, and only the
    maxima are normalized. For a norm in training mode.
    """
    peak_BTC, mean_C, var_C = PeakAndMoments.apply(signed_BTVC)  # type: ignore[no-untyped-call]
    sign_C, count = signs(norm), signed_BTVC.numel() // signed_BTVC.shape[-1]
    # The bias cancels here, but not in the running mean; weight decay and DDP need its gradient.
    signed_bias_C = sign_C * bias_C
    peak_BTC, mean_C = peak_BTC + signed_bias_C, mean_C + signed_bias_C
    _track(norm, sign_C * mean_C.detach(), var_C.detach() * (count / (count - 1)))
    scale_C = sign_C * norm.weight * torch.rsqrt(var_C + norm.eps)
    return F.relu((peak_BTC - mean_C) * scale_C + norm.bias).to(norm.weight.dtype)


@torch.no_grad()
def _track(norm: _BatchNorm, mean_C: Tensor, unbiased_var_C: Tensor) -> None:
    """Update the running statistics, as the norm itself does in training mode."""
    assert norm.num_batches_tracked is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean_C.to(norm.running_mean), norm.momentum)
    norm.running_var.lerp_(unbiased_var_C.to(norm.running_var), norm.momentum)


class PeakAndMoments(torch.autograd.Function):
    """Maximum over V (B, T, C), and mean and biased variance over all but C, of features BTVC.

    Autograd would read the features six times in its backward pass. Here it is once: the gradient
    of the moments is an affine function of each feature, and the maxima add their own to it.
    """

    @staticmethod
    def forward(ctx: Any, features_BTVC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return maximum, mean and variance, the last two in float32 or better."""
        unused = features_BTVC.new_zeros(features_BTVC.shape[-1], dtype=precise(features_BTVC))
        mean_C, var_C = torch.batch_norm_update_stats(
            features_BTVC.flatten(0, 2), unused, unused.clone(), 0.0
        )
        peak_BTC, index_BTC = _max_over_joints(features_BTVC)
        ctx.save_for_backward(features_BTVC, peak_BTC, index_BTC, mean_C)
        return peak_BTC, mean_C, var_C

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_peak_BTC: Tensor, d_mean_C: Tensor, d_var_C: Tensor) -> Tensor:
        """Return the gradient of the features."""
        features_BTVC, peak_BTC, index_BTC, mean_C = ctx.saved_tensors
        slope_C = d_var_C * (2 * len(mean_C) / features_BTVC.numel())
        offset_C = d_mean_C * (len(mean_C) / features_BTVC.numel()) - slope_C * mean_C
        slope_C, offset_C = slope_C.to(features_BTVC.dtype), offset_C.to(features_BTVC.dtype)
        d_features_BTVC = torch.addcmul(offset_C, features_BTVC, slope_C)
        d_maxima_BTC = torch.addcmul(offset_C, peak_BTC, slope_C) + d_peak_BTC
        return d_features_BTVC.scatter_(2, index_BTC.unsqueeze(2), d_maxima_BTC.unsqueeze(2))


def precise(tensor: Tensor) -> torch.dtype:
    """Return the dtype for sums over a tensor: its own, but at least float32."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _max_over_joints(features_BTVC: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum over V and where it is, both (B, T, C)."""
    num_clips, num_frames, num_joints, num_channels = features_BTVC.shape
    # Images of V x 1 pixels, channels last: torch's only fast maximum with indices.
    images = features_BTVC.flatten(0, 1).unsqueeze(2).permute(0, 3, 1, 2)
    peak, index = F.max_pool2d(images, (num_joints, 1), return_indices=True)
    shape = (num_clips, num_frames, num_channels)
    return peak.reshape(shape), index.reshape(shape)
