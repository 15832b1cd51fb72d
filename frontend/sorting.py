"""Sorting and what follows from an order: the greatest k, medians, quantiles, places in an order.

NaN counts as greater than every number, as in NumPy and PyTorch.
"""

from __future__ import annotations

import math

import numpy as np

from ..compiler.ir import ops
from ..compiler.ir.dims import format_shape
from .elementwise import ceil, floor, isnan, round, where
from .manipulation import moveaxis, take, take_along_axis
from .promotion import common_dtype
from .shaping import axis_of_elements
from .tensor import Tensor, as_tensor, constant, floating, operand_of
from .tracing import build, fail


def argsort(x: object, axis: int | None = -1, descending: bool = False) -> Tensor:
    """Return the int64 positions along ``axis`` (None: flattened) that sort ``x``.

    Equal elements keep their order, in both directions.
    """
    tensor = as_tensor(x)
    if axis is None:
        tensor, axis = tensor.ravel(), 0
    place = axis_of_elements(axis, tensor.ndim, "argsort")
    if tensor.ndim == 0:
        return constant(0)
    return Tensor(build(ops.ArgSort(place, bool(descending)), tensor.node))


def sort(x: object, axis: int | None = -1, descending: bool = False) -> Tensor:
    """Return ``x`` sorted along ``axis`` (None: flattened); the gradient follows the elements."""
    tensor = as_tensor(x)
    if axis is None:
        tensor, axis = tensor.ravel(), 0
    order = argsort(tensor, axis, descending)
    return tensor if tensor.ndim == 0 else take_along_axis(tensor, order, axis)


def topk(
    x: object, k: int, axis: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the ``k`` greatest (or least) elements along ``axis`` and their int64 positions.

    They come in order; ``sorted`` is there because PyTorch has it.  Of equal elements the first are
    taken.  Raises GraphError where ``k`` exceeds the axis.
    """
    tensor = as_tensor(x)
    place = axis_of_elements(axis, tensor.ndim, "topk")
    size = tensor.shape[place] if tensor.ndim else 1
    if k < 0 or (isinstance(size, int) and k > size):
        fail(f"topk: k={k} does not fit axis {axis} of size {size}; 0 to {size} would fit")
    if tensor.ndim == 0:
        one = tensor.reshape(1)[:k]
        return (tensor, constant(0)) if k else (one, one.astype("int64"))
    order = argsort(tensor, place, largest)[*(slice(None),) * place, :k]
    return take_along_axis(tensor, order, place), order


def kthvalue(x: object, k: int, axis: int = -1, keepdims: bool = False) -> tuple[Tensor, Tensor]:
    """Return the ``k``-th least element along ``axis``, k = 1 the least, and its position."""
    tensor = as_tensor(x)
    place = axis_of_elements(axis, tensor.ndim, "kthvalue")
    size = tensor.shape[place] if tensor.ndim else 1
    if k < 1 or (isinstance(size, int) and k > size):
        fail(f"kthvalue: k={k} does not fit axis {axis} of size {size}; 1 to {size} would fit")
    if tensor.ndim == 0:
        return tensor, constant(0)
    order = argsort(tensor, place)[*(slice(None),) * place, k - 1 : k]
    values = take_along_axis(tensor, order, place)
    return (values, order) if keepdims else (values.squeeze(place), order.squeeze(place))


def median(x: object, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the median over ``axis`` (None: all): of an even count, the mean of the middle two.

    NaN where any element is NaN.  PyTorch's median, the lower of the two, is
    ``kthvalue(x, (n + 1) // 2)``.
    """
    return quantile(x, 0.5, axis, keepdims)


_INTERPOLATIONS = ("linear", "lower", "higher", "nearest", "midpoint")


def quantile(
    x: object,
    q: object,
    axis: int | None = None,
    keepdims: bool = False,
    interpolation: str = "linear",
) -> Tensor:
    """Return the quantiles ``q``, in [0, 1], over ``axis`` (None: all).

    ``q``: a number, or several in one axis, which the result has in front.  Between two elements
    it interpolates as ``interpolation`` says: linear, lower, higher, nearest or midpoint.  NaN
    where any element is NaN.  Raises GraphError for a ``q`` outside [0, 1].
    """
    if interpolation not in _INTERPOLATIONS:
        fail(f"quantile: interpolation {interpolation!r} is none of {', '.join(_INTERPOLATIONS)}")
    tensor = floating(x)
    rank = tensor.ndim
    if axis is None:
        kept: tuple = (1,) * rank
        rows = tensor.ravel()
    else:
        place = axis_of_elements(axis, rank, "quantile")
        rows = moveaxis(tensor, place, -1) if rank else tensor.reshape(1)
        kept = tuple(1 if a == place else dim for a, dim in enumerate(tensor.shape))
    size = rows.shape[-1]
    if size == 0:
        fail(f"quantile: {format_shape(tensor.shape)} has no elements over axis {axis}")
    share = as_tensor(q, dtype=tensor.dtype)
    if share.ndim > 1:
        fail(f"quantile: q has one axis at most, not {share.ndim}")
    if not isinstance(q, Tensor):
        given = np.asarray(q, float)
        if not ((given >= 0) & (given <= 1)).all():
            fail(f"quantile: q must lie in [0, 1], not {q!r}")
    ordered = sort(rows, -1)
    at: Tensor | np.ndarray
    if isinstance(size, int) and not isinstance(q, Tensor):
        at = np.asarray(q, np.float64) * (size - 1)
        lower, upper = np.floor(at).astype(np.int64), np.ceil(at).astype(np.int64)
        weight = constant(at - np.floor(at), tensor.dtype)
    else:
        at = share * (as_tensor(size, share) - 1)
        lower, upper = floor(at).astype("int64"), ceil(at).astype("int64")
        weight = at - floor(at)
    if interpolation == "nearest":
        lower = round(at).astype("int64") if isinstance(at, Tensor) else np.rint(at).astype(int)
    below, above = take(ordered, lower, -1), take(ordered, upper, -1)
    result = _between(below, above, weight, interpolation)
    last = ordered[..., -1:]
    result = where(isnan(last if share.ndim else last.squeeze(-1)), math.nan, result)
    if share.ndim:
        result = moveaxis(result, -1, 0)
    if keepdims:
        result = result.reshape((*share.shape, *kept))
    return result


def _between(below: Tensor, above: Tensor, weight: Tensor, interpolation: str) -> Tensor:
    """Return what lies ``weight`` of the way between two elements; the first where that is 0."""
    match interpolation:
        case "lower" | "nearest":
            return below
        case "higher":
            return above
        case "midpoint":
            return where(weight == 0, below, (below + above) * 0.5)
    inner = below + (above - below) * weight
    return where(weight == 0, below, inner)


def searchsorted(
    sorted_sequence: object, values: object, side: str = "left", right: bool = False
) -> Tensor:
    """Return where ``values`` would stand in ``sorted_sequence``: before their equals, or behind.

    ``sorted_sequence`` (n,) with values of any shape, or (..., n) with values (..., m).  ``side``:
    left or right; ``right=True`` says the same.  Counted by comparing with every element.
    """
    if side not in {"left", "right"}:
        fail(f"searchsorted: side is left or right, not {side!r}")
    behind = right or side == "right"
    dtype = common_dtype((operand_of(sorted_sequence), operand_of(values)))
    line, probes = as_tensor(sorted_sequence, dtype=dtype), as_tensor(values, dtype=dtype)
    if line.ndim == 0 or (line.ndim > 1 and line.shape[:-1] != probes.shape[:-1]):
        fail(
            f"searchsorted: a sequence of shape {format_shape(line.shape)} does not fit values of "
            f"shape {format_shape(probes.shape)}: one axis, or equal leading axes, would fit"
        )
    if line.ndim > 1:
        line = line.expand_dims(-2)
    wide = probes.expand_dims(-1)
    counted = line <= wide if behind else line < wide
    if line.node.type.is_float:
        counted = counted | (isnan(wide) & (True if behind else ~isnan(line)))
    return counted.sum(-1)


def bucketize(values: object, boundaries: object, right: bool = False) -> Tensor:
    """Return the number of the bucket of each value between the sorted ``boundaries`` (n,).

    Bucket i holds ``boundaries[i-1] < value <= boundaries[i]``, with ``right`` the equality on the
    other side.
    """
    return searchsorted(boundaries, values, right=right)


__all__ = [
    "argsort",
    "bucketize",
    "kthvalue",
    "median",
    "quantile",
    "searchsorted",
    "sort",
    "topk",
]
