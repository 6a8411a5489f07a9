"""The optimizer and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from sgnray.config import OptimConfig

# `lr_scaling` is relative to the batch size of the paper's recipe.
PAPER_BATCH_SIZE = 64

_KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Build Adam, whose weight decay is added to the gradient as in the paper, or AdamW.

    The learning rate is set at the start of each epoch, by `set_learning_rate`.
    """
    optimizer: torch.optim.Optimizer = _KINDS[config.optimizer](
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    sync_learning_rate(optimizer)
    return optimizer


def sync_learning_rate(optimizer: torch.optim.Optimizer) -> None:
    """Keep the learning rate where a captured step reads it: in a tensor on a GPU, else a number.

    Call this again after `load_state_dict`, which restores the form that was saved.
    """
    set_capturable(optimizer, False)
    for group in optimizer.param_groups:
        device, rate = group["params"][0].device, float(group["lr"])
        group["lr"] = torch.tensor(rate, device=device) if device.type == "cuda" else rate


def set_capturable(optimizer: torch.optim.Optimizer, is_capturable: bool) -> None:
    """Set whether a CUDA graph captures the optimizer's step; torch warns if that is wrong."""
    for group in optimizer.param_groups:
        group["capturable"] = is_capturable


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Change the learning rate in place, so that a captured step sees it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def learning_rate(config: OptimConfig, epoch: int, num_epochs: int) -> float:
    """Return the learning rate of an epoch, counted from 0."""
    full = config.learning_rate * batch_factor(config)
    if epoch < config.warmup_epochs:
        return full * (epoch + 1) / (config.warmup_epochs + 1)
    match config.schedule:
        case "steps":
            num_decays = sum(milestone <= epoch for milestone in config.milestones)
            return full * config.decay**num_decays
        case "cosine":
            done = (epoch - config.warmup_epochs) / max(1, num_epochs - config.warmup_epochs)
            return full * (1 + math.cos(math.pi * done)) / 2


def batch_factor(config: OptimConfig) -> float:
    """Return the factor of the learning rate for a batch size other than the paper's."""
    growth = config.batch_size / PAPER_BATCH_SIZE
    match config.lr_scaling:
        case "none":
            return 1.0
        case "linear":
            return growth
        case "sqrt":
            return math.sqrt(growth)
