"""How a node reads its inputs: through views, element by element or not.

A *pointwise* access reads, for each element of the reader, one element of the source whose axes
are axes of the reader (dropped, permuted or broadcast).  Such an edge can join two nodes in one
kernel.  Any other access (slice, pad, concat, gather, a real reshape) needs the source in memory.
"""

from __future__ import annotations

from ..ir import ops
from ..ir.graph import Node

#: Axis of a source -> axis of the reader, None where the source's axis has size 1.
AxisMap = tuple[int | None, ...]

LEAVES = (ops.Input, ops.State, ops.Constant)
#: Read element by element from whatever they are made of, wherever they are used.
FREE = (ops.Extent, ops.Iota, ops.RandomBits, ops.Slice, ops.Pad, ops.Flip, ops.Concat)
POINTWISE_VIEWS = (ops.Broadcast, ops.Transpose, ops.Reshape)


def is_trivial_reshape(node: Node) -> bool:
    """Whether a reshape only adds or drops axes of size 1."""
    kept = [dim for dim in node.shape if dim != 1]
    return kept == [dim for dim in node.inputs[0].shape if dim != 1]


def is_alias(node: Node) -> bool:
    """Whether the node is another shape of its input's memory."""
    return isinstance(node.op, ops.Reshape) and not is_trivial_reshape(node)


def is_small_constant(node: Node) -> bool:
    return isinstance(node.op, ops.Constant) and node.op.value.array.size == 1


def identity_axes(node: Node) -> AxisMap:
    return tuple(None if dim == 1 else axis for axis, dim in enumerate(node.shape))


def aligned_axes(source: Node, reader_rank: int) -> AxisMap:
    """Return the axis map of a broadcasting read of ``source`` by a node of ``reader_rank``."""
    shift = reader_rank - source.type.rank
    return tuple(None if dim == 1 else axis + shift for axis, dim in enumerate(source.shape))


def step_view(view: Node, axes: AxisMap) -> AxisMap:
    """Return the axis map of a pointwise view's input, given that of the view."""
    source = view.inputs[0]
    match view.op:
        case ops.Broadcast():
            shift = view.type.rank - source.type.rank
            return tuple(
                None if dim == 1 else axes[axis + shift] for axis, dim in enumerate(source.shape)
            )
        case ops.Transpose(permutation):
            result: list[int | None] = [None] * source.type.rank
            for axis, origin in enumerate(permutation):
                result[origin] = axes[axis]
            return tuple(result)
        case _:
            kept = iter([axes[axis] for axis, dim in enumerate(view.shape) if dim != 1])
            return tuple(None if dim == 1 else next(kept) for dim in source.shape)


def peel(node: Node, axes: AxisMap) -> tuple[Node, AxisMap]:
    """Follow pointwise views from ``node`` to their source; return it and its axis map."""
    while isinstance(node.op, POINTWISE_VIEWS) and not is_alias(node):
        axes = step_view(node, axes)
        node = node.inputs[0]
    return node, axes


def pointwise_reads(node: Node) -> list[tuple[Node, AxisMap]]:
    """Return the sources that ``node`` reads element by element, with their axis maps.

    A reduction reads its source over the source's own axes.
    """
    if isinstance(node.op, (ops.Map, ops.Cast)):
        rank = node.type.rank
        return [peel(x, aligned_axes(x, rank)) for x in node.inputs]
    if isinstance(node.op, ops.Reduce):
        (x,) = node.inputs
        return [peel(x, identity_axes(x))]
    if isinstance(node.op, POINTWISE_VIEWS) and not is_alias(node):
        return [peel(node, identity_axes(node))]
    return []


def memory_reads(node: Node) -> list[Node]:
    """Return the nodes whose values ``node`` needs in memory."""
    match node.op:
        case ops.Map() | ops.Cast() | ops.Reduce() | ops.Broadcast() | ops.Transpose():
            return []
        case ops.Reshape():
            return [node.inputs[0]] if is_alias(node) else []
        case _:
            return [peel(x, identity_axes(x))[0] for x in node.inputs]


def is_computed(node: Node, stored: frozenset[Node]) -> bool:
    """Whether a kernel computes the node into memory or registers (``stored``: see below)."""
    if isinstance(node.op, FREE):
        return node in stored
    return not isinstance(node.op, (*LEAVES, *POINTWISE_VIEWS))


def stored_free_nodes(nodes: list[Node]) -> frozenset[Node]:
    """Return the free nodes that some reader can only use as an array in memory."""
    readers = [
        n
        for n in nodes
        if isinstance(n.op, (ops.Contract, ops.ScatterAdd, ops.Gather)) or is_alias(n)
    ]
    sources = {source for node in readers for source in memory_reads(node)}
    return frozenset(node for node in sources if isinstance(node.op, FREE))


def kernel_sources(node: Node, stored: frozenset[Node]) -> dict[Node, bool]:
    """Return the kernel-computed nodes that ``node`` reads: True where only ever pointwise."""
    found: dict[Node, bool] = {}
    edges = [(source, True) for source, _ in pointwise_reads(node)]
    edges += [(source, False) for source in memory_reads(node)]
    while edges:
        source, direct = edges.pop()
        if source is not node and is_computed(source, stored):
            found[source] = found.get(source, True) and direct
        elif not isinstance(source.op, LEAVES):
            for x in source.inputs:
                edges.append((peel(x, identity_axes(x))[0], False))
    return found


def strip_aliases(node: Node) -> Node:
    """Return the node whose memory, in the same order, also holds ``node``."""
    while isinstance(node.op, ops.Reshape):
        node = node.inputs[0]
    return node
