"""What training minimises.

Legend: B clips, K classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def smoothed_cross_entropy(logits_BK: Tensor, labels_B: Tensor, *, smoothing: float) -> Tensor:
    """Mean cross-entropy against labels that give `smoothing` to the K-1 other classes.

    torch spreads its rate over all K classes, so the same loss needs the rate rescaled
    (reference's LabelSmoothingLoss; the rescaled rate is its loss exactly).
    """
    num_classes = logits_BK.shape[1]
    rate = smoothing * num_classes / max(1, num_classes - 1)
    return F.cross_entropy(logits_BK.float(), labels_B, label_smoothing=min(1.0, rate))
