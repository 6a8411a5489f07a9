"""What recognizing one clip takes: arithmetic, counted; time, measured here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from sgnray.checkpoints.trained_model import TrainedModel
from sgnray.distributed.device import describe_device
from sgnray.evaluate.details import Cost
from sgnray.model.flops import forward_flops

_WARM_UP, _MOST, _BUDGET_S = 3, 50, 1.0


def measure_cost(models: Sequence[TrainedModel], num_views: int, device: torch.device) -> Cost:
    """Measure one clip with all its views, through all models one after the other."""
    flops = num_views * sum(map(_flops, models))
    return Cost(
        flops=flops,
        latency_s=_latency_s(models, num_views, device),
        device=describe_device(device),
        num_threads=torch.get_num_threads(),
    )


def _flops(trained_model: TrainedModel) -> int:
    model = trained_model.model
    return forward_flops(
        trained_model.card.config,
        num_frames=model.num_frames,
        num_joints=model.num_joints,
        num_coordinates=model.num_coordinates,
        num_classes=model.num_classes,
    )


@torch.no_grad()
def _latency_s(models: Sequence[TrainedModel], num_views: int, device: torch.device) -> float:
    networks = [each.model.to(device).eval() for each in models]
    clips = [
        torch.zeros(
            num_views, model.num_frames, model.num_joints, model.num_coordinates, device=device
        )
        for model in networks
    ]
    durations_s: list[float] = []
    started = time.perf_counter()
    while len(durations_s) < _WARM_UP + _MOST:
        before = time.perf_counter()
        for model, clip_WTVC in zip(networks, clips, strict=True):
            model(clip_WTVC).sum().item()  # which waits for a GPU
        durations_s.append(time.perf_counter() - before)
        if len(durations_s) > _WARM_UP and time.perf_counter() - started > _BUDGET_S:
            break
    return statistics.median(durations_s[_WARM_UP:])
