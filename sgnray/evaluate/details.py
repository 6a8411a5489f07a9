"""What sgn eval adds to a report: where the model is right and wrong, how sure, at which cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """One of the checkpoints that were scored, alone; `seed` is None where nobody knows it."""

    checkpoint: str
    selection: str
    epoch: int | None
    seed: int | None
    num_correct: int
    top1: float


@dataclass(frozen=True)
class ConfidenceBin:
    """Clips whose likeliest class has a probability in [low, high): how often it is the true one.

    `confidence` is the mean of these probabilities; both shares are None where there is no clip.
    """

    low: float
    high: float
    num_clips: int
    confidence: float | None
    top1: float | None


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from frequencies: the mean gap over equal bins (ECE)."""

    ece: float
    bins: tuple[ConfidenceBin, ...]


@dataclass(frozen=True)
class GroupScore:
    """How well one group of clips is recognized; never an empty one."""

    name: str
    num_clips: int
    num_correct: int
    top1: float


@dataclass(frozen=True)
class Cost:
    """What recognizing one clip takes: operations of all views and models, and seconds.

    `latency_s` is the median over repeated forward passes of one clip with all its views.
    """

    flops: int
    latency_s: float
    device: str
    num_threads: int


@dataclass(frozen=True)
class Mistake:
    """A clip that was taken for another class; `row` is its row in the dataset."""

    clip: str
    row: int
    truth: str
    truth_label: int
    predicted: str
    predicted_label: int
    probability: float
    truth_probability: float


@dataclass(frozen=True)
class Details:
    """All that goes beyond the figures of training's own report.

    `mean_top1` and `std_top1` are over the members, the sample's standard deviation (None for
    one member); `groups` are by people, length, camera and setup, where these are known;
    `top1_by_views` is the accuracy with 1, 2, ... views; `confusion_KK` counts clips by (true
    class, likeliest class); `mistakes` has all clips that were taken for another class, the
    surest first; `num_seen` counts test clips that a member was trained on, None where it
    cannot be known.
    """

    dataset_dir: str
    members: tuple[Member, ...]
    mean_top1: float
    std_top1: float | None
    num_seen: int | None
    calibration: Calibration
    groups: dict[str, tuple[GroupScore, ...]]
    top1_by_views: tuple[float, ...]
    cost: Cost
    confusion_KK: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]
