"""Calibration, accuracy by group and by views, and mistakes from logits; the cost of a clip.

Legend: N clips, W views, K classes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sgnray.checkpoints.trained_model import TrainedModel
from sgnray.data.protocols import IntArray
from sgnray.data.store import SkeletonDataset
from sgnray.distributed.device import describe_device
from sgnray.errors import count_of
from sgnray.evaluate.report import Calibration, ConfidenceBin, Cost, GroupScore, Mistake
from sgnray.model.flops import forward_flops

_NUM_BINS = 15  # as Guo et al. 2017 and most papers since
_NUM_LENGTHS = 4
_WARM_UP, _MAX_TIMED, _BUDGET_S = 3, 50, 1.0


def calibrate(logits_NK: Tensor, labels_N: Tensor) -> Calibration:
    """Compare the probability of the likeliest class with how often it is the true one."""
    probability_N, predicted_N = logits_NK.double().softmax(dim=1).max(dim=1)
    is_right_N = (predicted_N == labels_N).double()
    bin_N = (probability_N * _NUM_BINS).long().clamp_max(_NUM_BINS - 1)
    bins, gap = [], 0.0
    for number in range(_NUM_BINS):
        inside_N = bin_N == number
        count = int(inside_N.sum())
        confidence = top1 = None
        if count:
            confidence = float(probability_N[inside_N].mean())
            top1 = float(is_right_N[inside_N].mean())
            gap += count * abs(confidence - top1)
        low, high = number / _NUM_BINS, (number + 1) / _NUM_BINS
        bins.append(ConfidenceBin(low, high, count, confidence, top1))
    return Calibration(gap / len(labels_N), tuple(bins))


def top1_by_views(logits_NWK: Tensor, labels_N: Tensor) -> tuple[float, ...]:
    """Return the accuracy with the first view alone, with the mean of the first two, and so on."""
    running_NWK = logits_NWK.double().cumsum(dim=1)
    right_W = (running_NWK.argmax(dim=2) == labels_N[:, None]).double().mean(dim=0)
    return tuple(right_W.tolist())


def score_groups(
    is_right_N: Tensor, dataset: SkeletonDataset, rows: IntArray
) -> dict[str, tuple[GroupScore, ...]]:
    """Score clips by number of people, length, camera and setup, where these are known."""
    clips = dataset.clips
    right = is_right_N.numpy()
    people = dataset.count_bodies()[rows].clip(min=1)  # at least one, even without a pose
    groups = {
        "people": _by_value(right, people, lambda n: f"{n} {'person' if n == 1 else 'people'}"),
        "length": _by_length(right, clips.num_frames[rows]),
        "camera": _by_value(right, clips.cameras[rows], lambda n: f"camera {n}"),
        "setup": _by_value(right, clips.setups[rows], lambda n: f"setup {n}"),
    }
    return {name: scores for name, scores in groups.items() if scores}


def find_mistakes(
    logits_NK: Tensor, labels_N: Tensor, dataset: SkeletonDataset, rows: IntArray
) -> tuple[Mistake, ...]:
    """List the misclassified clips, the most confident first."""
    probabilities_NK = logits_NK.double().softmax(dim=1)
    probability_N, predicted_N = probabilities_NK.max(dim=1)
    wrong = torch.nonzero(predicted_N != labels_N).flatten().tolist()
    names = dataset.info.class_names
    mistakes = [
        Mistake(
            clip=dataset.clips.names[rows[index]],
            row=int(rows[index]),
            truth=names[int(labels_N[index])],
            truth_label=int(labels_N[index]),
            predicted=names[int(predicted_N[index])],
            predicted_label=int(predicted_N[index]),
            probability=float(probability_N[index]),
            truth_probability=float(probabilities_NK[index, labels_N[index]]),
        )
        for index in wrong
    ]
    return tuple(sorted(mistakes, key=lambda mistake: (-mistake.probability, mistake.clip)))


def measure_cost(models: Sequence[TrainedModel], num_views: int, device: torch.device) -> Cost:
    """Count and time the forward pass of one clip: all its views, all models in sequence."""
    flops = sum(forward_flops(each.card.config, each.require_sgn()) for each in models)
    return Cost(
        flops=num_views * flops,
        latency_s=_latency_s(models, num_views, device),
        device=describe_device(device),
        num_threads=torch.get_num_threads(),
    )


def _by_value(
    right: np.ndarray, values: IntArray, name: Callable[[int], str]
) -> tuple[GroupScore, ...]:
    known = [value for value in np.unique(values) if value >= 0]
    return tuple(_group(name(int(value)), right[values == value]) for value in known)


def _by_length(right: np.ndarray, lengths: IntArray) -> tuple[GroupScore, ...]:
    """Split the clips into four groups of about equal size by their number of frames."""
    edges = np.quantile(lengths, np.linspace(0, 1, _NUM_LENGTHS + 1)[1:-1], method="nearest")
    quarter = np.searchsorted(np.unique(edges), lengths)
    return tuple(
        _group(_range(lengths[quarter == number]), right[quarter == number])
        for number in np.unique(quarter)
    )


def _range(lengths: IntArray) -> str:
    low, high = int(lengths.min()), int(lengths.max())
    return count_of(low, "frame") if low == high else f"{low} to {high} frames"


def _group(name: str, right: np.ndarray) -> GroupScore:
    num_correct = int(right.sum())
    return GroupScore(name, len(right), num_correct, num_correct / len(right))


@torch.no_grad()
def _latency_s(models: Sequence[TrainedModel], num_views: int, device: torch.device) -> float:
    networks = [each.require_sgn().to(device).eval() for each in models]
    clips = [torch.zeros(num_views, *model.clip_shape, device=device) for model in networks]
    durations_s: list[float] = []
    started = time.perf_counter()
    while len(durations_s) < _WARM_UP + _MAX_TIMED:
        before = time.perf_counter()
        for model, clip_WTVC in zip(networks, clips, strict=True):
            model(clip_WTVC).sum().item()  # item() waits for a GPU
        durations_s.append(time.perf_counter() - before)
        if len(durations_s) > _WARM_UP and time.perf_counter() - started > _BUDGET_S:
            break
    return statistics.median(durations_s[_WARM_UP:])
