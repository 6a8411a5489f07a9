"""What training minimises.

Legend: B clips, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def smoothed_cross_entropy(logits_BK: Tensor, labels_B: Tensor, *, smoothing: float) -> Tensor:
    """Mean cross-entropy against labels that give `smoothing` to the K-1 other classes.

    torch spreads its rate over all K classes, so the same loss needs the rate rescaled
    (reference's LabelSmoothingLoss; the rescaled rate is its loss exactly). `smoothing` is at most
    one half, so that the rate is at most 1 for two classes. Computed in float32 or better.
    """
    num_classes = logits_BK.shape[1]
    rate = smoothing * num_classes / max(1, num_classes - 1)
    precise_BK = logits_BK if logits_BK.dtype == torch.float64 else logits_BK.float()
    return F.cross_entropy(precise_BK, labels_B, label_smoothing=rate)
