"""Cut a reduction to a single value into one that threads can share and a short one."""

from __future__ import annotations

from ..ir import ops
from ..ir.dims import product
from ..ir.graph import Node, make

#: Sums over fewer elements than this stay in one piece, on one thread.
WHOLE_REDUCTION = 2048


def split_reduction(node: Node) -> Node:
    """Split a reduction over all axes, so that its larger part has rows for threads to share."""
    op, (x,) = node.op, node.inputs
    assert isinstance(op, ops.Reduce)
    wide = [axis for axis, dim in enumerate(x.shape) if dim != 1]
    total = product(x.shape)
    small = isinstance(total, int) and total < WHOLE_REDUCTION
    if op.kind.startswith("arg") or len(wide) < 2 or not set(wide) <= set(op.axes) or small:
        return node
    first = wide[0]
    tail = tuple(axis for axis in op.axes if axis > first)
    rows = make(ops.Reduce(op.kind, tail), x, source=node.source)
    head = tuple(axis for axis in op.axes if axis <= first)
    return make(ops.Reduce(op.kind, head), rows, source=node.source)
