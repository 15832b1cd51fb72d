"""Undoing a maximum pool: its maxima back at their places, zeros elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.dims import format_shape, product
from ..compiler.ir.types import INTEGERS, Dim
from .checks import register_range_check
from .creation import iota, ones_like
from .elementwise import maximum, stop_gradient, where
from .tensor import Tensor, as_tensor
from .tracing import build, fail
from .windows import PerAxis, batched, per_axis


def _unpooled(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    output_size: Sequence[int] | None,
    what: str,
) -> tuple[Dim, ...]:
    """Return the spatial sizes of the result."""
    rank = len(kernel)
    sizes = tuple(
        (n - 1) * s + (k - 2 * p)
        for n, k, s, p in zip(x.shape[2:], kernel, stride, padding, strict=True)
    )
    if output_size is None:
        return sizes
    given = tuple(output_size)
    if len(given) not in (rank, rank + 1, rank + 2):
        fail(f"{what}: output_size {given} does not fit; {rank} sizes would")
    given = given[-rank:]
    for size, wanted, s in zip(sizes, given, stride, strict=True):
        if isinstance(size, int) and not size - s < wanted < size + s:
            fail(
                f"{what}: output_size {given} does not fit an input of shape "
                f"{format_shape(x.shape)}; sizes less than {tuple(stride)} from {sizes} would"
            )
    return given


def _max_unpool(
    x: object,
    indices: object,
    kernel_size: PerAxis,
    stride: PerAxis | None,
    padding: PerAxis,
    output_size: Sequence[int] | None,
    rank: int,
) -> Tensor:
    what = f"max_unpool{rank}d"
    values, single = batched(as_tensor(x), rank, what)
    places = as_tensor(indices)
    if places.dtype not in INTEGERS:
        fail(f"{what}: needs integer indices, not {places.dtype}", GraphTypeError)
    kernel = per_axis(kernel_size, rank, "kernel_size", what)
    strides = kernel if stride is None else per_axis(stride, rank, "stride", what)
    pads = per_axis(padding, rank, "padding", what, least=0)
    if single:
        places = places.expand_dims(0)
    if places.shape != values.shape:
        fail(
            f"{what}: indices of shape {format_shape(places.shape)} do not fit an input of shape "
            f"{format_shape(values.shape)}; they must be equal"
        )
    sizes = _unpooled(values, kernel, strides, pads, output_size, what)
    if any(isinstance(n, int) and n < 1 for n in sizes):
        fail(f"{what}: the result would have sizes {format_shape(sizes)}")
    plane = product(sizes)
    lead = values.shape[:2]
    rows = product(lead)
    row = iota((rows, 1), 0)
    flat = (places.astype("int64").reshape((rows, -1)) + row * plane).ravel()
    register_range_check(places.node, 0, plane, message=f"{what}: index", anchor=flat.node)

    def put(updates: Tensor) -> Tensor:
        op = ops.ScatterAdd(0, rows * plane)
        return Tensor(build(op, updates.ravel().node, flat.node))

    # Of overlapping windows with one maximum, each brings it; it counts once, and its cotangent
    # goes to each of them, as in PyTorch.
    total = put(values)
    count = put(ones_like(values))
    surplus = where(count > 1, total - total / maximum(count, 1), 0)
    result = (total - stop_gradient(surplus)).reshape((*lead, *sizes))
    return result.squeeze(0) if single else result


def max_unpool1d(
    x: object,
    indices: object,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Return the values of ``x`` at the places ``indices`` of a longer axis, 0 elsewhere.

    Parameters
    ----------
    x, indices
        (batch, channels, length), or without the batch: what `max_pool1d` returned.
    kernel_size, stride, padding
        Those of the pool.
    output_size
        The spatial size of the result, where the pool's input has left a remainder.

    Raises
    ------
    GraphError
        Shapes differ, or ``output_size`` is no size that the pool leads from.
    IndexRangeError
        An index leaves the result (at run time).
    """
    return _max_unpool(x, indices, kernel_size, stride, padding, output_size, 1)


def max_unpool2d(
    x: object,
    indices: object,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Return the values of ``x`` (batch, channels, height, width) at the places ``indices``.

    Arguments as in `max_unpool1d`.
    """
    return _max_unpool(x, indices, kernel_size, stride, padding, output_size, 2)


def max_unpool3d(
    x: object,
    indices: object,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Return the values of ``x`` (batch, channels, depth, height, width) at the places ``indices``.

    Arguments as in `max_unpool1d`.
    """
    return _max_unpool(x, indices, kernel_size, stride, padding, output_size, 3)


__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]
