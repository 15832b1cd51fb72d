"""Tensors made of nothing but a shape; shapes may be symbolic."""

from __future__ import annotations

import math

import numpy as np

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.dims import SymbolicDim
from ..compiler.ir.types import INTEGERS, Dim, TensorType
from . import shaping
from .checks import register_range_check
from .elementwise import where
from .promotion import canonical_dtype
from .tensor import Tensor, as_tensor, constant
from .tracing import build, fail


def full(shape: object, value: object, dtype: object = None) -> Tensor:
    """Return ``value`` at every element of ``shape``; the type is that of ``value`` by default."""
    sizes = shaping.nonnegative_shape(shape, "full")
    return as_tensor(value, dtype=dtype).broadcast_to(sizes)


def zeros(shape: object, dtype: object = "float32") -> Tensor:
    """Return zeros of ``shape``."""
    return full(shape, 0, dtype)


def ones(shape: object, dtype: object = "float32") -> Tensor:
    """Return ones of ``shape``."""
    return full(shape, 1, dtype)


def full_like(x: object, value: object, dtype: object = None) -> Tensor:
    """Return ``value`` in the shape, and by default the element type, of ``x``."""
    like = as_tensor(x)
    return full(like.shape, value, dtype or like.dtype)


def zeros_like(x: object, dtype: object = None) -> Tensor:
    """Return zeros in the shape, and by default the element type, of ``x``."""
    return full_like(x, 0, dtype)


def ones_like(x: object, dtype: object = None) -> Tensor:
    """Return ones in the shape, and by default the element type, of ``x``."""
    return full_like(x, 1, dtype)


def iota(shape: object, axis: int, dtype: object = "int64") -> Tensor:
    """Return the index along ``axis`` at every element of ``shape``."""
    sizes = shaping.nonnegative_shape(shape, "iota")
    place = shaping.normalize_axis(axis, len(sizes), "iota")
    return Tensor(build(ops.Iota(TensorType(canonical_dtype(dtype), sizes), place)))


def arange(
    start: float | Dim, stop: float | Dim | None = None, step: float = 1, dtype: object = None
) -> Tensor:
    """Return ``start, start + step, ...`` below ``stop``; ``arange(n)`` counts from 0.

    The type is int64, or float32 where an argument is a float.  Symbolic bounds take step 1.
    """
    if stop is None:
        start, stop = 0, start
    if step == 0:
        fail("arange: the step is 0")
    if isinstance(start, SymbolicDim) or isinstance(stop, SymbolicDim):
        if step != 1 or isinstance(start, float) or isinstance(stop, float):
            fail("arange: symbolic bounds take integers and step 1")
        count: Dim = stop - start
    else:
        count = max(0, math.ceil((stop - start) / step))
    floating = any(isinstance(value, float) for value in (start, stop, step))
    result = iota((count,), 0, dtype or ("float32" if floating else "int64"))
    if step != 1:
        result = result * step
    return result if isinstance(start, (int, float)) and start == 0 else result + start


def linspace(
    start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: object = "float32"
) -> Tensor:
    """Return ``num`` evenly spaced numbers from ``start`` to ``stop``, as a constant."""
    return constant(np.linspace(start, stop, num, endpoint=endpoint), dtype)


def tri(rows: Dim, columns: Dim | None = None, k: int = 0, dtype: object = "float32") -> Tensor:
    """Return ones at and below diagonal ``k``, zeros above; (rows, columns)."""
    shape = (rows, rows if columns is None else columns)
    return (iota(shape, 0) + k >= iota(shape, 1)).astype(dtype)


def eye(rows: Dim, columns: Dim | None = None, k: int = 0, dtype: object = "float32") -> Tensor:
    """Return ones on diagonal ``k``, zeros elsewhere; (rows, columns)."""
    shape = (rows, rows if columns is None else columns)
    return (iota(shape, 0) + k == iota(shape, 1)).astype(dtype)


def tril(x: object, k: int = 0) -> Tensor:
    """Return ``x`` (..., n, m) with the elements above diagonal ``k`` set to zero."""
    tensor = as_tensor(x)
    return where(tri(tensor.shape[-2], tensor.shape[-1], k, "bool"), tensor, 0)


def triu(x: object, k: int = 0) -> Tensor:
    """Return ``x`` (..., n, m) with the elements below diagonal ``k`` set to zero."""
    tensor = as_tensor(x)
    return where(tri(tensor.shape[-2], tensor.shape[-1], k - 1, "bool"), 0, tensor)


def diag(x: object, k: int = 0) -> Tensor:
    """Return diagonal ``k`` of a matrix, or the square matrix with a vector on diagonal ``k``."""
    tensor = as_tensor(x)
    if tensor.ndim == 1:
        n = tensor.shape[0] + abs(k)
        before, after = max(-k, 0), max(k, 0)
        padded = Tensor(build(ops.Pad((before,), (after,), (0,)), tensor.node))
        return where(eye(n, n, k, "bool"), padded.expand_dims(1), 0)
    if tensor.ndim != 2:
        fail(f"diag: takes a vector or a matrix, not rank {tensor.ndim}")
    tensor = tensor[:, k:] if k > 0 else tensor[-k:]
    rows, columns = tensor.shape
    chosen = where(eye(rows, columns, 0, "bool"), tensor, 0)
    # the longer axis is summed, so that no zeros are left over
    taller = isinstance(rows, int) and isinstance(columns, int) and rows > columns
    return chosen.sum(0 if taller else 1)


def one_hot(indices: object, num_classes: Dim, dtype: object = "float32") -> Tensor:
    """Return 1 at ``[..., indices[...]]`` and 0 elsewhere; (..., num_classes).

    ``indices``: integers in ``[0, num_classes)``; others raise IndexRangeError at run time.
    """
    labels = as_tensor(indices)
    if labels.dtype not in INTEGERS:
        fail(f"one_hot: needs integer indices, not {labels.dtype}", GraphTypeError)
    chosen = equals_index(labels, num_classes)
    register_range_check(labels.node, 0, num_classes, message="one_hot: index", anchor=chosen.node)
    return chosen.astype(dtype)


def equals_index(labels: Tensor, size: Dim, axis: int = -1) -> Tensor:
    """Return whether the index along a new ``axis`` of ``size`` equals the label there."""
    wide, index = _labels_and_index(labels, size, axis)
    return wide == index


def differs_from_index(labels: Tensor, size: Dim, axis: int = -1) -> Tensor:
    """Return the opposite of `equals_index`."""
    wide, index = _labels_and_index(labels, size, axis)
    return wide != index


def _labels_and_index(labels: Tensor, size: Dim, axis: int) -> tuple[Tensor, Tensor]:
    place = shaping.normalize_axis(axis, labels.ndim + 1, "one_hot")
    wide = labels.astype("int64").expand_dims(place)
    shape = (*wide.shape[:place], size, *wide.shape[place + 1 :])
    return wide, iota(shape, place)
