"""Tables of offsets: how far apart in flat memory the elements lie that several indices reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir import ops
from ..ir.construct import broadcast_to, extent, reshape
from ..ir.dims import product
from ..ir.graph import Node, apply, constant, make
from ..ir.types import Dim, TensorType

#: Tables with more entries than this are computed at each call and not kept as constants.
LARGEST_CONSTANT = 1 << 16


def row_major_steps(shape: Sequence[Dim]) -> list[Dim]:
    """Return the distance in elements between neighbours along each axis."""
    steps: list[Dim] = []
    step: Dim = 1
    for dim in reversed(shape):
        steps.insert(0, step)
        step = dim * step
    return steps


def common_step(sizes: Sequence[Dim], steps: Sequence[Dim]) -> Dim | None:
    """Return the one step that walks several indices in order, None where there are gaps."""
    if not steps:
        return 1
    for outer, size, inner in zip(steps, sizes[1:], steps[1:], strict=False):
        if size * inner != outer:
            return None
    return steps[-1]


def offset_table(sizes: Sequence[Dim], steps: Sequence[Dim]) -> Node:
    """Return the int64 offsets of all values of several indices, the last one fastest."""
    count = product(tuple(sizes))
    known = all(isinstance(x, int) for x in (*sizes, *steps))
    if known and isinstance(count, int) and count <= LARGEST_CONSTANT:
        table = np.zeros([1] * len(sizes), np.int64)
        for axis, (size, step) in enumerate(zip(sizes, steps, strict=True)):
            along = [-1 if a == axis else 1 for a in range(len(sizes))]
            table = table + (np.arange(size) * step).reshape(along)  # type: ignore[arg-type]
        return constant(table.reshape(-1), "int64")
    total = constant(0, "int64")
    for axis, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        numbers = make(ops.Iota(TensorType("int64", (size,)), 0))
        distances = numbers if step == 1 else apply("mul", numbers, extent(step, "int64"))
        shape = tuple(size if a == axis else 1 for a in range(len(sizes)))
        distances = reshape(distances, shape)
        total = distances if axis == 0 else apply("add", total, distances)
    return reshape(broadcast_to(total, tuple(sizes)), (count,))
