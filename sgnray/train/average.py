"""The running mean of a model's weights, which is scored instead of the weights themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def move_towards(mean: nn.Module, model: nn.Module, *, kept: float) -> None:
    """Set each number of `mean`, batch-norm statistics too, to kept * mean + (1 - kept) * model."""
    torch._foreach_lerp_(_numbers(mean), _numbers(model), 1.0 - kept)


def _numbers(model: nn.Module) -> list[Tensor]:
    return [value for value in model.state_dict().values() if value.is_floating_point()]
