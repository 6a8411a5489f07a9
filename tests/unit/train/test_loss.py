from __future__ import annotations

import torch

from sgnray.data.batches import Batch
from sgnray.train.step import batch_loss, smoothed_cross_entropy


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
        loss = smoothed_cross_entropy(logits, labels, smoothing=smoothing).mean()
        torch.testing.assert_close(
            loss.double(), plain_loss(logits, labels, smoothing), atol=1e-6, rtol=0
        )


def test_a_mixed_clip_counts_for_both_labels():
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    labels, others = torch.tensor([0, 3, 9, 9, 1, 5]), torch.tensor([1, 3, 0, 2, 2, 2])
    shares = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0, 0.3])
    batch = Batch(torch.empty(0), labels, 6, other_labels_B=others, shares_B=shares)
    expected = 0.0
    for row in range(6):
        one = slice(row, row + 1)
        own, other = (plain_loss(logits[one], side[one], 0.1) for side in (labels, others))
        expected += (shares[row] * own + (1 - shares[row]) * other) / 6
    loss = batch_loss(logits, batch, smoothing=0.1)
    torch.testing.assert_close(loss.double(), expected.double(), atol=1e-6, rtol=0)
