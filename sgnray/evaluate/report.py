"""What an evaluation says: the figures, on what they rest, and how they were selected."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sgnray.evaluate.details import Details
from sgnray.evaluate.metrics import Tally
from sgnray.storage.atomic import write_text

FORMAT_VERSION = 1
_NUM_CONFUSED = 10

# How an epoch was chosen, in words.
SELECTION = {
    "last": "the last epoch",
    "validation": "the epoch that was best on the validation part",
    "test": "the epoch that was best ON THE TEST SET, so this score is too high",
}


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognized; `top1` is None where it has no test clip."""

    name: str
    num_clips: int
    top1: float | None


@dataclass(frozen=True)
class Confusion:
    """`count` clips of class `truth` taken for `predicted`, a `share` of the clips of `truth`."""

    truth: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class EvaluatedModel:
    """What was evaluated, and on what; `selection` tells how its epoch was chosen."""

    checkpoint: str
    dataset: str
    dataset_checksum: str
    case: str
    selection: str
    epoch: int | None
    num_views: int
    num_parameters: int


@dataclass(frozen=True)
class Report:
    """The result of an evaluation; accuracies are shares from 0 to 1, the loss is in nats.

    `details` are those of sgn eval; training's own report, of its last act, has none.
    """

    subject: EvaluatedModel
    num_clips: int
    num_correct: int
    top1: float
    top5: float
    loss: float
    per_class: tuple[ClassScore, ...]
    confused: tuple[Confusion, ...]
    details: Details | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as report.json holds it."""
        content = asdict(self)
        subject, details = content.pop("subject"), content.pop("details") or {}
        return {"format_version": FORMAT_VERSION, **subject, **content, **details}

    def write(self, path: Path) -> None:
        """Write report.json."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(path, text + "\n")


def make_report(
    subject: EvaluatedModel,
    tally: Tally,
    class_names: tuple[str, ...],
    details: Details | None = None,
) -> Report:
    """Turn a tally into a report."""
    return Report(
        subject=subject,
        num_clips=tally.num_clips,
        num_correct=tally.num_correct,
        top1=tally.top1,
        top5=tally.top5_share,
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
    wrong_KK = tally.confusion_KK.cpu().clone().fill_diagonal_(0)
    counts = wrong_KK.flatten().sort(descending=True, stable=True)
    num_clips = tally.confusion_KK.sum(dim=1).tolist()
    num_classes = len(class_names)
    return tuple(
        Confusion(
            truth=class_names[cell // num_classes],
            predicted=class_names[cell % num_classes],
            count=count,
            share=count / num_clips[cell // num_classes],
        )
        for count, cell in zip(
            counts.values[:_NUM_CONFUSED].tolist(),
            counts.indices[:_NUM_CONFUSED].tolist(),
            strict=True,
        )
        if count > 0
    )
