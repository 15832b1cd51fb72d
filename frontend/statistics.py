"""Reductions beyond sums and extrema: counts, moments together, and what leaves NaN out."""

from __future__ import annotations

import math

from ..compiler.ir.dims import format_shape
from ..compiler.ir.types import FLOATS
from .elementwise import isnan, where
from .products import matmul
from .shaping import Axes
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


__all__ = [
    "aminmax",
    "corrcoef",
    "count_nonzero",
    "cov",
    "nanmean",
    "nansum",
    "std_mean",
    "var_mean",
]
