"""What training minimizes.

Legend: B clips, K classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sgnray.data.batches import Batch


def batch_loss(logits_BK: Tensor, batch: Batch, *, smoothing: float) -> Tensor:
    """Mean loss of a batch; a mixed clip counts for both labels, by their shares."""
    losses_B = smoothed_cross_entropy(logits_BK, batch.labels_B, smoothing=smoothing)
    if batch.other_labels_B is not None and batch.shares_B is not None:
        others_B = smoothed_cross_entropy(logits_BK, batch.other_labels_B, smoothing=smoothing)
        losses_B = others_B.lerp(losses_B, batch.shares_B)
    return losses_B.mean()


def smoothed_cross_entropy(logits_BK: Tensor, labels_B: Tensor, *, smoothing: float) -> Tensor:
    """Cross-entropy (B,) against labels that give `smoothing` to the K-1 other classes.

    torch spreads its rate over all K classes, so the same loss needs the rate rescaled
    (reference's LabelSmoothingLoss; the rescaled rate is its loss exactly). `smoothing` is at most
    one half, so that the rate is at most 1 for two classes. Computed in float32 or better.
    """
    num_classes = logits_BK.shape[1]
    rate = smoothing * num_classes / max(1, num_classes - 1)
    precise_BK = logits_BK.float() if logits_BK.itemsize < 4 else logits_BK
    return F.cross_entropy(precise_BK, labels_B, label_smoothing=rate, reduction="none")
