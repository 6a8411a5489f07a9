"""Metrics as sums and counts; ratios are computed only at the end.

Legend: B clips, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sgnray.distributed.world import World


@dataclass(frozen=True)
class Tally:
    """Counts and sums over scored clips, which can be added.

    `confusion_KK` counts clips by (true class, likeliest class); `num_in_top5` those whose class is
    among the five likeliest; `loss_sum` adds the plain cross-entropy.
    """

    confusion_KK: Tensor
    num_in_top5: Tensor
    loss_sum: Tensor

    @classmethod
    def empty(cls, num_classes: int, device: torch.device) -> Tally:
        """Start with no clip scored."""
        return cls(
            confusion_KK=torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device),
            num_in_top5=torch.zeros((), dtype=torch.int64, device=device),
            loss_sum=torch.zeros((), dtype=torch.float64, device=device),
        )

    @classmethod
    def of(cls, logits_BK: Tensor, labels_B: Tensor) -> Tally:
        """Score a batch."""
        num_classes = logits_BK.shape[1]
        cells = labels_B * num_classes + logits_BK.argmax(dim=1)
        likeliest_B5 = logits_BK.topk(min(5, num_classes), dim=1).indices
        # bincount would wait for a GPU.
        counts = cells.new_zeros(num_classes**2).index_add_(0, cells, torch.ones_like(cells))
        return cls(
            confusion_KK=counts.view(num_classes, num_classes),
            num_in_top5=(likeliest_B5 == labels_B[:, None]).sum(),
            loss_sum=F.cross_entropy(logits_BK.double(), labels_B, reduction="sum"),
        )

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            confusion_KK=self.confusion_KK + other.confusion_KK,
            num_in_top5=self.num_in_top5 + other.num_in_top5,
            loss_sum=self.loss_sum + other.loss_sum,
        )

    def gathered(self, world: World) -> Tally:
        """Add the tallies of all ranks. Collective: every rank must call this."""
        return self._map(lambda tensor: world.sum(tensor.clone()))

    def to(self, device: torch.device) -> Tally:
        """Move to a device."""
        return self._map(lambda tensor: tensor.to(device))

    @property
    def num_clips(self) -> int:
        """Number of clips scored."""
        return int(self.confusion_KK.sum())

    @property
    def num_correct(self) -> int:
        """Number of clips whose likeliest class is the true one."""
        return int(self.confusion_KK.diagonal().sum())

    @property
    def top1(self) -> float:
        """Share of clips whose likeliest class is the true one."""
        return self.num_correct / max(1, self.num_clips)

    @property
    def top5(self) -> float:
        """Share of clips whose class is among the five likeliest."""
        return int(self.num_in_top5) / max(1, self.num_clips)

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return float(self.loss_sum) / max(1, self.num_clips)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Tally:
        return Tally(change(self.confusion_KK), change(self.num_in_top5), change(self.loss_sum))
