"""The focal loss, with the arguments and numerics of torchvision."""

from __future__ import annotations

from ...compiler.ir.dims import format_shape
from ..tensor import Tensor, apply, as_tensor, floating
from ..tracing import fail
from .boxes import reduced


def sigmoid_focal_loss(
    inputs: object,
    targets: object,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
) -> Tensor:
    """Return -α_t (1 - p_t)^γ log p_t, the cross-entropy with easy examples weighted down.

    ``inputs``: logits of any shape; ``targets`` of that shape, in [0, 1].  ``alpha`` weights the
    positives, 1 - ``alpha`` the negatives; below 0 there is no weight.  (Lin et al., "Focal loss
    for dense object detection", ICCV 2017, equation 5.)
    """
    what = "sigmoid_focal_loss"
    x = floating(inputs)
    y = as_tensor(targets, dtype=x.dtype)
    if x.shape != y.shape:
        fail(
            f"{what}: inputs of shape {format_shape(x.shape)} and targets of shape "
            f"{format_shape(y.shape)}; the shapes must be equal"
        )
    if alpha > 1:
        fail(f"{what}: alpha is a share in [0, 1], or negative for none; not {alpha}")
    if gamma < 0:
        fail(f"{what}: gamma must not be negative, but is {gamma}")
    p, q = x.sigmoid(), (-x).sigmoid()
    entropy = y * apply("softplus", -x) + (1.0 - y) * apply("softplus", x)
    missed = p * (1.0 - y) + q * y  # 1 - p_t, without a difference of nearly equal numbers
    loss = entropy * (missed**gamma if gamma else 1.0)
    if alpha >= 0:
        loss = loss * (alpha * y + (1.0 - alpha) * (1.0 - y))
    return reduced(loss, reduction, what)
