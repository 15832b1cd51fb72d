"""Reductions beyond sums and extrema: counts, moments together, and what leaves NaN out."""

from __future__ import annotations

import math

from ..compiler.ir.dims import format_shape
from ..compiler.ir.types import FLOATS
from .elementwise import ceil, floor, isnan, maximum, where
from .manipulation import moveaxis, take_along_axis
from .products import matmul
from .shaping import Axes, axis_of_elements
from .sorting import sort
from .tensor import Tensor, as_tensor, floating
from .tracing import fail


def var_mean(
    x: object, axis: Axes = None, ddof: float = 0, keepdims: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the variance and the mean over ``axis``; see `var`."""
    tensor = floating(x)
    return tensor.var(axis, ddof, keepdims), tensor.mean(axis, keepdims)


def std_mean(
    x: object, axis: Axes = None, ddof: float = 0, keepdims: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the standard deviation and the mean over ``axis``; see `std`."""
    tensor = floating(x)
    return tensor.std(axis, ddof, keepdims), tensor.mean(axis, keepdims)


def aminmax(x: object, axis: Axes = None, keepdims: bool = False) -> tuple[Tensor, Tensor]:
    """Return the minimum and the maximum over ``axis``."""
    tensor = as_tensor(x)
    return tensor.min(axis, keepdims), tensor.max(axis, keepdims)


def count_nonzero(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return how many elements over ``axis`` are not zero; NaN is not."""
    return (as_tensor(x) != 0).sum(axis, keepdims)


def _present(x: object) -> tuple[Tensor, Tensor]:
    """Return ``x`` with zeros for NaN, and which elements are none."""
    tensor = as_tensor(x)
    if tensor.dtype not in FLOATS:
        return tensor, tensor == tensor
    missing = isnan(tensor)
    return where(missing, 0, tensor), ~missing


def nansum(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the sum over ``axis`` of the elements that are not NaN."""
    return _present(x)[0].sum(axis, keepdims)


def nanmean(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the mean over ``axis`` of the elements that are not NaN; NaN where all are."""
    filled, present = _present(floating(x))
    total = filled.sum(axis, keepdims)
    count = present.sum(axis, keepdims)
    return where(count == 0, math.nan, total / where(count == 0, 1, count))


def cov(x: object, ddof: int = 1) -> Tensor:
    """Return the covariance of the rows of ``x`` (variables, observations), or variance of one."""
    tensor = floating(x)
    if tensor.ndim > 2:
        fail(f"cov: takes two axes at most, not {format_shape(tensor.shape)}")
    rows = tensor.reshape((1, -1)) if tensor.ndim < 2 else tensor
    count = rows.shape[1] - ddof
    if isinstance(count, int) and count <= 0:
        fail(f"cov: {rows.shape[1]} observations are too few for ddof={ddof}")
    centred = rows - rows.mean(1, keepdims=True)
    result = matmul(centred, centred.T) / count
    return result.reshape(()) if rows.shape[0] == 1 else result


def corrcoef(x: object) -> Tensor:
    """Return the correlation coefficients of the rows of ``x`` (variables, observations)."""
    covariance = cov(x)
    if covariance.ndim == 0:
        return covariance / covariance
    # the diagonal without a gather: variances of the rows
    deviation = floating(x).std(1, ddof=1)
    scaled = covariance / deviation.expand_dims(1) / deviation.expand_dims(0)
    return scaled.clip(-1, 1)


def amax(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the maximum over ``axis``; equal ones share the gradient."""
    return as_tensor(x).max(axis, keepdims)


def amin(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the minimum over ``axis``; equal ones share the gradient."""
    return as_tensor(x).min(axis, keepdims)


def nanquantile(x: object, q: object, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the quantiles ``q`` over ``axis`` of the elements that are not NaN; NaN of none.

    Between two elements it interpolates linearly; see `quantile`.
    """
    tensor = floating(x)
    if axis is None:
        rows, kept = tensor.ravel(), (1,) * tensor.ndim
    else:
        place = axis_of_elements(axis, tensor.ndim, "nanquantile")
        rows = moveaxis(tensor, place, -1) if tensor.ndim else tensor.reshape(1)
        kept = tuple(1 if a == place else dim for a, dim in enumerate(tensor.shape))
    if rows.shape[-1] == 0:
        fail(f"nanquantile: {format_shape(tensor.shape)} has no elements over axis {axis}")
    share = as_tensor(q, dtype=tensor.dtype)
    if share.ndim > 1:
        fail(f"nanquantile: q has one axis at most, not {share.ndim}")
    count = (~isnan(rows)).sum(-1, keepdims=True)
    at = share.ravel() * maximum(count - 1, 0).astype(tensor.dtype)  # (..., quantiles)
    ordered = where(isnan(rows), math.inf, rows)
    ordered = sort(ordered, -1)
    lower, upper = floor(at).astype("int64"), ceil(at).astype("int64")
    below, above = (take_along_axis(ordered, place, -1) for place in (lower, upper))
    weight = at - floor(at)
    result = where(weight == 0, below, below + (above - below) * weight)
    result = where(count == 0, math.nan, result)
    result = moveaxis(result, -1, 0) if share.ndim else result.squeeze(-1)
    return result.reshape((*share.shape, *kept)) if keepdims else result


def nanmedian(x: object, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the median over ``axis`` of the elements that are not NaN; see `median`."""
    return nanquantile(x, 0.5, axis, keepdims)


__all__ = [
    "amax",
    "amin",
    "aminmax",
    "corrcoef",
    "count_nonzero",
    "cov",
    "nanmean",
    "nanmedian",
    "nanquantile",
    "nansum",
    "std_mean",
    "var_mean",
]
