"""Reductions of nodes, with NumPy's arguments and PyTorch's element types."""

from __future__ import annotations

from ..compiler.ir import ops
from ..compiler.ir.dims import format_shape, product
from ..compiler.ir.graph import Node
from ..compiler.ir.types import FLOATS, Dim
from .promotion import constant_node, convert
from .shaping import Axes, normalize_axes, normalize_axis, reshape
from .tracing import build, fail


def restore_axes(reduced: Node, like: Node, axes: tuple[int, ...]) -> Node:
    """Return ``reduced`` with ``axes`` of ``like`` back in place, of size 1."""
    return reshape(
        reduced, tuple(1 if axis in axes else dim for axis, dim in enumerate(like.shape))
    )


def reduce(kind: str, x: Node, axis: Axes, keepdims: bool) -> Node:
    """Return the reduction ``kind`` of ``x`` over ``axis`` (None: all).

    Sums and products of bools and integers are ``int64``.
    """
    axes = normalize_axes(axis, x.type.rank, kind)
    if kind in {"sum", "prod"} and x.dtype not in FLOATS:
        x = convert(x, "int64")
    elif x.dtype == "bool":
        return convert(reduce(kind, convert(x, "int32"), axis, keepdims), "bool")
    result = build(ops.Reduce(kind, axes), x) if axes else x
    return restore_axes(result, x, axes) if keepdims else result


def arg_reduce(kind: str, x: Node, axis: int | None, keepdims: bool) -> Node:
    """Return the int64 index of the extreme element; the first of equals, NaN before all."""
    rank = x.type.rank
    if x.dtype == "bool":
        x = convert(x, "int32")
    if axis is None or (rank == 0 and axis in (0, -1)):
        flat = build(ops.Reduce(kind, (0,)), reshape(x, (x.type.size,)))
        return restore_axes(flat, x, tuple(range(rank))) if keepdims else flat
    place = normalize_axis(axis, rank, kind)
    result = build(ops.Reduce(kind, (place,)), x)
    return restore_axes(result, x, (place,)) if keepdims else result


def count(x: Node, axes: tuple[int, ...], what: str) -> Dim:
    """Return the number of elements over ``axes``; raises GraphError where it is surely none."""
    size = product(tuple(x.shape[axis] for axis in axes))
    if size == 0:
        fail(f"{what}: {format_shape(x.shape)} has no elements over axes {axes}")
    return size


def number_of(dim: Dim, dtype: str) -> Node:
    """Return a dimension as a 0-d value of ``dtype``."""
    return constant_node(dim, dtype) if isinstance(dim, int) else build(ops.Extent(dim, dtype))


def mean(x: Node, axis: Axes, keepdims: bool) -> Node:
    """Return the arithmetic mean over ``axis``; integers give float32."""
    if x.dtype not in FLOATS:
        x = convert(x, "float32")
    size = count(x, normalize_axes(axis, x.type.rank, "mean"), "mean")
    total = reduce("sum", x, axis, keepdims)
    return total if size == 1 else build(ops.Map("div"), total, number_of(size, x.dtype))


def var(x: Node, axis: Axes, ddof: float, keepdims: bool) -> Node:
    """Return the variance over ``axis``, in two passes, dividing by the count minus ``ddof``."""
    if x.dtype not in FLOATS:
        x = convert(x, "float32")
    axes = normalize_axes(axis, x.type.rank, "var")
    size = count(x, axes, "var")
    if ddof != int(ddof):
        if isinstance(size, int) and size > ddof:
            over = constant_node(size - ddof, x.dtype)
        else:
            over = build(
                ops.Map("sub"), number_of(size, x.dtype), constant_node(float(ddof), x.dtype)
            )
        centred = build(ops.Map("sub"), x, mean(x, axes, True))
        total = reduce("sum", build(ops.Map("square"), centred), axes, keepdims)
        return build(ops.Map("div"), total, over)
    divisor = size - int(ddof)
    if isinstance(divisor, int) and divisor <= 0:
        fail(f"var: {format_shape(x.shape)} has too few elements over axes {axes} for ddof={ddof}")
    centred = build(ops.Map("sub"), x, mean(x, axes, True))
    total = reduce("sum", build(ops.Map("square"), centred), axes, keepdims)
    return total if divisor == 1 else build(ops.Map("div"), total, number_of(divisor, x.dtype))
