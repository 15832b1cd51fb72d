"""Constructors that leave out what need not be there: a product with one, a reshape to itself.

Differentiation and the rewrite rules build with these, so that their graphs are lean from the
start.  Each gives exactly the value of the plain operator.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import dims, ops
from .graph import Node, apply, constant, make, scalar_value
from .infer import broadcast_shapes
from .types import Shape, TensorType


def full(value: float, kind: TensorType) -> Node:
    """Return ``value`` at every element of ``kind``."""
    return broadcast_to(constant(value, kind.dtype), kind.shape)


def is_number(node: Node, value: float) -> bool:
    """Return whether every element of ``node`` is known to be ``value``."""
    return scalar_value(node) == value


def broadcast_to(x: Node, shape: Shape) -> Node:
    """Return ``x`` broadcast to ``shape``; ``x`` itself where it has that shape."""
    while isinstance(x.op, ops.Broadcast) and x.shape != shape:
        x = x.inputs[0]
    return x if x.shape == shape else make(ops.Broadcast(shape), x, source=x.source)


def reshape(x: Node, shape: Shape) -> Node:
    """Return ``x`` with ``shape``; chains of reshapes become one, and one number a broadcast."""
    while isinstance(x.op, ops.Reshape) and x.shape != shape:
        x = x.inputs[0]
    if isinstance(x.op, ops.Broadcast) and x.inputs[0].shape == () and x.shape != shape:
        return broadcast_to(x.inputs[0], shape)
    return x if x.shape == shape else make(ops.Reshape(shape), x, source=x.source)


def transpose(x: Node, permutation: Sequence[int]) -> Node:
    """Return ``x`` with its axes permuted; two transposes become one."""
    permutation = tuple(permutation)
    if isinstance(x.op, ops.Transpose):
        inner = x.op.permutation
        return transpose(x.inputs[0], [inner[axis] for axis in permutation])
    if permutation == tuple(range(len(permutation))):
        return x
    return make(ops.Transpose(permutation), x, source=x.source)


def shift(x: Node, axis: int, by: int) -> Node:
    """Return ``x`` moved along ``axis`` by ``by`` (1 or -1) places, zero where nothing arrives."""
    low = tuple(by if a == axis else 0 for a in range(x.type.rank))
    high = tuple(-size for size in low)
    return make(ops.Pad(low, high, (0,) * x.type.rank), x, source=x.source)


def cast(x: Node, dtype: str) -> Node:
    """Return ``x`` as ``dtype``; ``x`` itself where it is of that type."""
    return x if x.dtype == dtype else make(ops.Cast(dtype), x, source=x.source)


def extent(dim: dims.SymbolicDim | int, dtype: str) -> Node:
    """Return a size as a 0-d value: a constant where it is known now."""
    return constant(dim, dtype) if isinstance(dim, int) else make(ops.Extent(dim, dtype))


def elementwise(function: str, *inputs: Node) -> Node:
    """Return ``Map(function)``; an input need not be broadcast where the other inputs are large."""
    shape = broadcast_shapes(*(x.shape for x in inputs))
    slim = list(inputs)
    for position, x in enumerate(slim):
        while isinstance(x.op, ops.Broadcast):
            x = x.inputs[0]
            others = slim[:position] + slim[position + 1 :]
            if broadcast_shapes(x.shape, *(y.shape for y in others)) != shape:
                break
            slim[position] = x
    return apply(function, *slim)


def add(a: Node, b: Node) -> Node:
    """Return ``a + b``."""
    return elementwise("add", a, b)


def neg(x: Node) -> Node:
    """Return ``-x``; ``x`` for ``-(-x)``."""
    if isinstance(x.op, ops.Map) and x.op.function == "neg":
        return x.inputs[0]
    return apply("neg", x)


def mul(a: Node, b: Node) -> Node:
    """Return ``a * b``, of the shape that both broadcast to; no product with 1 or -1 is built."""
    shape = broadcast_shapes(a.shape, b.shape)
    for one, other in ((a, b), (b, a)):
        factor = scalar_value(one)
        if factor == 1:
            return broadcast_to(other, shape)
        if factor == -1:
            return broadcast_to(neg(other), shape)
    return elementwise("mul", a, b)


def div(a: Node, b: Node) -> Node:
    """Return ``a / b``; ``1 / b`` is a reciprocal."""
    shape = broadcast_shapes(a.shape, b.shape)
    if is_number(b, 1):
        return broadcast_to(a, shape)
    if is_number(a, 1):
        return broadcast_to(apply("reciprocal", b), shape)
    return elementwise("div", a, b)


def where(condition: Node, a: Node, b: Node) -> Node:
    """Return ``a`` where ``condition``, else ``b``."""
    if a is b:
        return broadcast_to(a, broadcast_shapes(condition.shape, a.shape))
    return elementwise("where", condition, a, b)


def keep_axes(x: Node, axes: Sequence[int], shape: Shape) -> Node:
    """Return a reduced ``x`` with the ``axes`` of ``shape`` that it lost put back with size 1."""
    return reshape(x, tuple(1 if axis in axes else dim for axis, dim in enumerate(shape)))


def reduce_sum(x: Node, axes: Sequence[int]) -> Node:
    """Return the sum of ``x`` over ``axes``; over an axis that is a broadcast, a product.

    An axis of size 1 is dropped by a reshape.
    """
    axes = tuple(sorted(axes))
    if not axes:
        return x
    kept = tuple(dim for axis, dim in enumerate(x.shape) if axis not in axes)
    if all(x.shape[axis] == 1 for axis in axes):
        return reshape(x, kept)
    if isinstance(x.op, ops.Broadcast):
        (source,) = x.inputs
        lead = x.type.rank - source.type.rank
        repeated = [
            axis
            for axis in axes
            if x.shape[axis] != 1 and (axis < lead or source.shape[axis - lead] == 1)
        ]
        if repeated:
            times = dims.product(tuple(x.shape[axis] for axis in repeated))
            summed = tuple(axis for axis in axes if axis not in repeated and axis >= lead)
            rest = reduce_sum(source, [axis - lead for axis in summed])
            shape = tuple(
                1 if axis in repeated else dim
                for axis, dim in enumerate(x.shape)
                if axis not in summed
            )
            dropped = [
                position
                for position, axis in enumerate(a for a in range(x.type.rank) if a not in summed)
                if axis in axes
            ]
            rest = broadcast_to(rest, shape)
            rest = reshape(rest, tuple(d for i, d in enumerate(shape) if i not in dropped))
            return mul(rest, extent(times, x.dtype))
    return make(ops.Reduce("sum", axes), x, source=x.source)


def unbroadcast(x: Node, shape: Shape) -> Node:
    """Sum ``x`` over the axes along which a value of ``shape`` was broadcast to it."""
    if x.shape == shape:
        return x
    lead = x.type.rank - len(shape)
    axes = [
        axis
        for axis, dim in enumerate(x.shape)
        if axis < lead or (shape[axis - lead] == 1 and dim != 1)
    ]
    return reshape(reduce_sum(x, axes), shape)
