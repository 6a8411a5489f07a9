"""The optimizer and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from sgnray.config import OptimConfig

# `lr_scaling` counts from the batch of the paper's recipe.
PAPER_BATCH_SIZE = 64


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Adam:
    """Build Adam with L2 weight decay (added to the gradient, not decoupled), as the paper has it.

    The learning rate is set at the start of each epoch, from `learning_rate`.
    """
    return torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


def learning_rate(config: OptimConfig, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0: it decays after each milestone."""
    num_decays = sum(milestone <= epoch for milestone in config.milestones)
    return config.learning_rate * batch_factor(config) * config.decay**num_decays


def batch_factor(config: OptimConfig) -> float:
    """Return how much larger the steps are because the batch is larger than the paper's."""
    growth = config.batch_size / PAPER_BATCH_SIZE
    match config.lr_scaling:
        case "none":
            return 1.0
        case "linear":
            return growth
        case "sqrt":
            return math.sqrt(growth)
