from __future__ import annotations

import torch

from sgnray.train.objective import smoothed_cross_entropy


def plain_loss(logits, labels, smoothing):
    """The reference's loss in words: 1 - s on the true class, s spread over the K-1 others."""
    num_classes = logits.shape[1]
    total = 0.0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        log_p = row - row.exp().sum().log()
        for k in range(num_classes):
            weight = 1 - smoothing if k == label else smoothing / (num_classes - 1)
            total -= weight * log_p[k]
    return total / len(labels)


def test_smoothing_spreads_over_the_other_classes():
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 9, 9, 1, 5])
    for smoothing in (0.0, 0.1, 0.4):
        loss = smoothed_cross_entropy(logits, labels, smoothing=smoothing)
        torch.testing.assert_close(
            loss.double(), plain_loss(logits, labels, smoothing), atol=1e-6, rtol=0
        )
