"""What was measured, as plain data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Rate:
    """The median of what several rounds gave, and the quartiles around it."""

    median: float
    low: float
    high: float
    num_rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Rate:
        """Sum up what was measured, one value at least."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, as a share of the median."""
        return (self.high - self.low) / 2 / abs(self.median) if self.median else 0.0


@dataclass(frozen=True)
class Subject:
    """What was measured and where; `has_dataset` is False where noise stood in for its poses.

    FLOPs are those of one clip, a multiply-add as 2; see model/flops.py for what is counted.
    """

    dataset: str
    case: str
    has_dataset: bool
    num_train: int
    num_validation: int
    num_test: int
    batch_size: int
    num_epochs: int
    num_views: int
    precision: str
    device: str
    num_threads: int
    num_parameters: int
    forward_flops: int
    step_flops: int


@dataclass(frozen=True)
class Product:
    """The plain product of two square matrices of `size`, the best of all rounds."""

    precision: str
    size: int
    flops_per_s: float


@dataclass(frozen=True)
class Speed:
    """A training step on a ready batch, or forward alone, and its share of the plain product."""

    what: str
    precision: str
    clips_per_s: Rate
    flops_per_s: float
    share_of_product: float


@dataclass(frozen=True)
class Epoch:
    """A whole epoch, and the share of its time outside of forward, backward and the step."""

    num_batches: int
    clips_per_s: Rate
    outside: Rate


@dataclass(frozen=True)
class WorkersSpeed:
    """What so many workers of Ray give together.

    `per_thread` is the clips/s of one of their threads against those of the first row;
    `against_alone` is None where as many processes could not be run side by side, without Ray,
    with a worker's threads and a worker's share of the batch each.
    """

    num_workers: int
    threads_per_worker: int
    clips_per_s: Rate
    per_thread: float
    alone_clips_per_s: float | None
    against_alone: float | None


@dataclass(frozen=True)
class Estimate:
    """How long the recipe takes here, without starting: 0 workers is this process."""

    num_workers: int
    training_s: float
    evaluation_s: float

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.training_s + self.evaluation_s


@dataclass(frozen=True)
class BenchResult:
    """All that `sgn bench` measured."""

    subject: Subject
    data_clips_per_s: Rate
    products: tuple[Product, ...]
    speeds: tuple[Speed, ...]
    epoch: Epoch
    workers: tuple[WorkersSpeed, ...]
    estimates: tuple[Estimate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data that JSON can hold."""
        estimates = [asdict(row) | {"total_s": row.total_s} for row in self.estimates]
        return {"format_version": FORMAT_VERSION, **asdict(self), "estimates": estimates}
