"""SGN, Semantics-Guided Neural Networks (CVPR 2020)."""

from sgnray.model.sgn import SGN, count_parameters

__all__ = ["SGN", "count_parameters"]
