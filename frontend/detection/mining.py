"""Which of the many background anchors count: the hardest, as many as there are objects for."""

from __future__ import annotations

from ...compiler.errors import GraphTypeError
from ...compiler.ir.dims import format_shape
from ..elementwise import stop_gradient, where
from ..sorting import argsort
from ..tensor import Tensor, as_tensor, floating
from ..tracing import fail


def hard_negatives(
    loss: object, positive: object, negative: object = None, ratio: float = 3.0
) -> Tensor:
    """Return the negatives of the largest loss, ``ratio`` for each positive; bools (..., n).

    ``loss`` (..., n), ``positive`` bool (..., n), ``negative`` bool (..., n), by default all that
    are not positive.  Each leading index, such as an image, is on its own; of equal losses the
    first count.  No gradient flows.  (Hard negative mining: Liu et al., "SSD", ECCV 2016,
    section 2.2.)
    """
    what = "hard_negatives"
    values, found = stop_gradient(floating(loss)), as_tensor(positive)
    others = found == 0 if negative is None else as_tensor(negative)
    for name, mask in (("positive", found), ("negative", others)):
        if mask.dtype != "bool":
            fail(f"{what}: {name} is bool, not {mask.dtype}", GraphTypeError)
        if mask.shape != values.shape:
            fail(
                f"{what}: {name} of shape {format_shape(mask.shape)} does not fit the loss of "
                f"shape {format_shape(values.shape)}"
            )
    if not ratio >= 0:
        fail(f"{what}: ratio must not be negative, but is {ratio}")
    # The order of the order is each one's rank.
    rank = argsort(argsort(where(others, values, -float("inf")), descending=True))
    wanted = found.astype("float32").sum(-1, keepdims=True) * ratio
    return others & (rank.astype("float32") < wanted)
