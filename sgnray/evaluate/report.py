"""The result of an evaluation: scores, what was evaluated, and how its epoch was selected."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from sgnray.checkpoints.model_card import describe_unfinished
from sgnray.config.schema import Selection
from sgnray.errors import count_of
from sgnray.evaluate.metrics import Tally
from sgnray.storage.atomic import write_text

FORMAT_VERSION = 1
_NUM_CONFUSED = 10

# How an epoch was selected, for the console and the page.
SELECTION: dict[Selection, str] = {
    "last": "the last epoch",
    "validation": "the epoch that was best on the validation part",
    "test": "the epoch that was best ON THE TEST SET, so this score is too high",
}


@dataclass(frozen=True)
class ClassScore:
    """The accuracy on one class; `top1` is None if it has no test clip."""

    name: str
    num_clips: int
    top1: float | None


@dataclass(frozen=True)
class Confusion:
    """`count` clips of class `truth` classified as `predicted`, a `share` of all of `truth`."""

    truth: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class EvaluatedModel:
    """What was evaluated, and on what; `selection` says how its epoch was chosen.

    `num_trained` of the `num_epochs` of its recipe were trained, in the least trained of several
    models; both are None if unknown.
    The views of a clip are turned by up to `turn_rad`; it is 0 for a single view.
    """

    checkpoint: str
    dataset: str
    dataset_checksum: str
    case: str
    selection: Selection
    epoch: int | None
    num_views: int
    turn_rad: float
    num_parameters: int
    num_trained: int | None = None
    num_epochs: int | None = None

    def __post_init__(self) -> None:
        if self.num_views == 1:  # the first view is never turned
            object.__setattr__(self, "turn_rad", 0.0)

    def describe_views(self) -> str:
        """Describe the views of a clip, for a table."""
        turned = f"turned by up to {self.turn_rad:g} rad, " if self.turn_rad else ""
        return f"{self.num_views} per clip, {turned}logits averaged"


@dataclass(frozen=True)
class Member:
    """The score of one checkpoint alone; `seed` is None if it is unknown."""

    checkpoint: str
    selection: Selection
    epoch: int | None
    seed: int | None
    num_correct: int
    top1: float
    num_trained: int | None = None
    num_epochs: int | None = None


@dataclass(frozen=True)
class ConfidenceBin:
    """Clips whose likeliest class has a probability in [low, high).

    `confidence` is the mean of these probabilities, `top1` the share of clips for which the class
    is correct; both are None for an empty bin.
    """

    low: float
    high: float
    num_clips: int
    confidence: float | None
    top1: float | None


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from accuracies: the mean gap over equal bins (ECE)."""

    ece: float
    bins: tuple[ConfidenceBin, ...]


@dataclass(frozen=True)
class GroupScore:
    """The accuracy on one group of clips, which is never empty."""

    name: str
    num_clips: int
    num_correct: int
    top1: float


@dataclass(frozen=True)
class Cost:
    """The cost of recognizing one clip: operations of all views and models, and seconds.

    `latency_s` is the median over repeated forward passes of one clip with all its views.
    """

    flops: int
    latency_s: float
    device: str
    num_threads: int

    def __str__(self) -> str:
        threads = count_of(self.num_threads, "thread")
        latency_ms = self.latency_s * 1e3
        return f"{self.flops / 1e6:,.0f} MFLOP, {latency_ms:.1f} ms on {self.device}, {threads}"


@dataclass(frozen=True)
class Mistake:
    """A misclassified clip; `row` is its row in the dataset."""

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
    """What `sgn eval` adds to the report that training writes at its end.

    `mean_top1` and `std_top1` are over the members (sample standard deviation, None for one
    member); `groups` are by people, length, camera and setup, where these are known;
    `top1_by_views` is the accuracy with 1, 2, ... views; `confusion_KK` counts clips by (true
    class, likeliest class); `mistakes` has all misclassified clips, the most confident first;
    `num_seen` counts test clips that a member was trained on, None if that is unknown.
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


@dataclass(frozen=True)
class Report:
    """The result of an evaluation; accuracies are shares from 0 to 1, the loss is in nats.

    `details` are those of `sgn eval`; the report that training writes at its end has none.
    """

    evaluated: EvaluatedModel
    num_clips: int
    num_correct: int
    top1: float
    top5: float
    loss: float
    per_class: tuple[ClassScore, ...]
    confused: tuple[Confusion, ...]
    details: Details | None = None

    @property
    def class_mean_top1(self) -> float:
        """Mean accuracy of the classes that have test clips: each counts the same."""
        return fmean(score.top1 for score in self.per_class if score.top1 is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as report.json holds it."""
        content = asdict(self) | {"class_mean_top1": self.class_mean_top1}
        evaluated, details = content.pop("evaluated"), content.pop("details") or {}
        return {"format_version": FORMAT_VERSION, **evaluated, **content, **details}

    def write(self, path: Path) -> None:
        """Write report.json."""
        write_text(path, self.to_json())

    def to_json(self) -> str:
        """Return the text of report.json."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        return text + "\n"


def describe_selection(scored: EvaluatedModel | Member) -> str:
    """Say how an epoch was selected and how far a model was trained, for console and page."""
    unfinished = describe_unfinished(scored.num_trained, scored.num_epochs)
    if unfinished is None:
        return SELECTION[scored.selection]
    if scored.selection == "last":
        return unfinished
    return f"{SELECTION[scored.selection]}; {unfinished}"


def make_report(
    evaluated: EvaluatedModel,
    tally: Tally,
    class_names: tuple[str, ...],
    details: Details | None = None,
) -> Report:
    """Turn a tally into a report."""
    return Report(
        evaluated=evaluated,
        num_clips=tally.num_clips,
        num_correct=tally.num_correct,
        top1=tally.top1,
        top5=tally.top5,
        loss=tally.loss,
        per_class=_per_class(tally, class_names),
        confused=_most_confused(tally, class_names),
        details=details,
    )


def _per_class(tally: Tally, class_names: tuple[str, ...]) -> tuple[ClassScore, ...]:
    correct = tally.confusion_KK.diagonal().tolist()
    counts = tally.confusion_KK.sum(dim=1).tolist()
    return tuple(
        ClassScore(name, count, right / count if count else None)
        for name, count, right in zip(class_names, counts, correct, strict=True)
    )


def _most_confused(tally: Tally, class_names: tuple[str, ...]) -> tuple[Confusion, ...]:
    rows = tally.confusion_KK.tolist()
    pairs = [
        Confusion(class_names[truth], class_names[predicted], count, count / sum(row))
        for truth, row in enumerate(rows)
        for predicted, count in enumerate(row)
        if count > 0 and predicted != truth
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.count)[:_NUM_CONFUSED])
