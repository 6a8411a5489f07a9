"""The number of operations of SGN, computed from its shapes.

Only matrix products are counted, a multiply-add as 2, in the cheapest form of the equations: the
affinity as one bilinear form, the codes of joints and frames once instead of per clip (so not at
all here). Norms, activations, the softmax and the maxima are not counted, because the machine's
speed, which this is compared with, is measured on a matrix product.

Legend: T frames, V joints, C coordinates.
"""

from __future__ import annotations

from sgnray.config import ModelConfig
from sgnray.model.sgn import SGN

# The cost of a training step in forward passes: the gradient of a product takes two products of
# the same size, for its input and for its weights.
STEP_FACTOR = 3


def forward_flops(config: ModelConfig, model: SGN) -> int:
    """Count the floating-point operations of the forward pass of one clip."""
    num_frames, num_joints, num_coordinates = model.clip_shape
    width = config.embedding_width
    joint_width = 2 * width if config.joint_type else width
    first_width, *later_widths = config.graph_widths
    per_joint = len(config.inputs) * width * (num_coordinates + width)
    if config.affinity == "learned":
        per_joint += width * joint_width + joint_width * num_joints  # the form, then all pairs
    per_joint += first_width * (2 * width + num_joints)  # here W(Gx) is taken as G(Wx)
    in_width = first_width
    for out_width in later_widths:
        per_joint += in_width * (num_joints + 2 * out_width)
        in_width = out_width
    per_frame = num_joints * per_joint + in_width * (3 * in_width + config.frame_width)
    return 2 * (num_frames * per_frame + config.frame_width * model.num_classes)
