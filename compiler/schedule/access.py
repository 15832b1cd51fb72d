"""How a node reads its inputs: through views, element by element or not.

A *pointwise* access reads, for each element of the reader, one element of the source whose axes
are axes of the reader (dropped, permuted or broadcast).  Such an edge can join two nodes in one
kernel.  Any other access (slice, pad, concat, gather, a real reshape) needs the source in memory.
"""

from __future__ import annotations

from ..ir import ops
from ..ir.graph import Node, Program
from ..ir.prologue import prologue_base
from ..ir.scalars import COSTLY
from ..ir.views import is_trivial_reshape, through_view

#: Axis of a source -> axis of the reader, None where the source's axis has size 1.
AxisMap = tuple[int | None, ...]

LEAVES = (ops.Input, ops.State, ops.Constant)
#: Read element by element from whatever they are made of, wherever they are used.
FREE = (
    ops.Extent,
    ops.Iota,
    ops.RandomBits,
    ops.Slice,
    ops.Pad,
    ops.Flip,
    ops.Window,
    ops.Concat,
)
#: Read their inputs again and again, at indices of their own.
READERS = (*ops.CONTRACTIONS, ops.ScatterAdd, ops.Gather, ops.Window, ops.Nested)
#: A function of leaves with more operations than this gets a kernel of its own.
FREE_LIMIT = 8
POINTWISE_VIEWS = (ops.Broadcast, ops.Transpose, ops.Reshape)


def is_alias(node: Node) -> bool:
    """Whether the node is another shape of its input's memory."""
    return isinstance(node.op, ops.Reshape) and not is_trivial_reshape(node)


def is_small_constant(node: Node) -> bool:
    """Whether the node is one number."""
    return isinstance(node.op, ops.Constant) and node.op.value.array.size == 1


def identity_axes(node: Node) -> AxisMap:
    """Return the axis map of a node that is read at its own index."""
    return tuple(None if dim == 1 else axis for axis, dim in enumerate(node.shape))


def aligned_axes(source: Node, reader_rank: int) -> AxisMap:
    """Return the axis map of a broadcasting read of ``source`` by a node of ``reader_rank``."""
    shift = reader_rank - source.type.rank
    return tuple(None if dim == 1 else axis + shift for axis, dim in enumerate(source.shape))


def peel(node: Node, axes: AxisMap, stored: frozenset[Node] = frozenset()) -> tuple[Node, AxisMap]:
    """Follow pointwise views from ``node`` to their source; return it and its axis map.

    A view that is ``stored`` in memory is a source itself.
    """
    while isinstance(node.op, POINTWISE_VIEWS) and not is_alias(node) and node not in stored:
        axes = through_view(node, axes, None)
        node = node.inputs[0]
    return node, axes


class Access:
    """What the nodes of one program read, and which of them are computed by kernels.

    *Free* nodes are computed wherever they are used, from what they are made of: index arithmetic,
    views that only move an index, and cheap elementwise functions of leaves (a label's comparison,
    a moment times its decay).  ``stored`` are the free nodes that some reader needs as an array.
    """

    def __init__(self, program: Program) -> None:
        self.nodes = program.nodes()
        self.roots = program.roots
        self.free = self._find_free()
        self.stored = self._find_stored()

    def _find_free(self) -> frozenset[Node]:
        weight: dict[Node, int] = {}
        for node in self.nodes:
            if isinstance(node.op, FREE):
                weight[node] = 0
            elif isinstance(node.op, (ops.Map, ops.Cast)) and node.op.name not in COSTLY:
                total = 1
                for x in node.inputs:
                    source, _ = peel(x, identity_axes(x))
                    if source in weight:
                        total += weight[source]
                    elif leaf_behind(source) is None:
                        total = FREE_LIMIT + 1
                if total <= FREE_LIMIT:
                    weight[node] = total
        return frozenset(weight)

    def _find_stored(self) -> frozenset[Node]:
        readers = [n for n in self.nodes if isinstance(n.op, READERS) or is_alias(n)]
        sources = {
            source
            for node in readers
            for source in memory_reads(node)
            if not (isinstance(node.op, ops.CONTRACTIONS) and self._is_prologue(source))
        }
        sources |= {strip_aliases(root) for root in self.roots}
        return frozenset(
            node
            for node in sources
            if node in self.free or (isinstance(node.op, POINTWISE_VIEWS) and not is_alias(node))
        )

    def _is_prologue(self, source: Node) -> bool:
        """Whether a contraction can compute this free operand while packing it from a leaf."""
        base = prologue_base(source)
        return base is not source and source in self.free and isinstance(base.op, LEAVES)

    def is_computed(self, node: Node) -> bool:
        """Whether a kernel computes the node (it is no leaf, view or free node)."""
        if node in self.stored:
            return True
        return node not in self.free and not isinstance(node.op, (*LEAVES, *POINTWISE_VIEWS))

    def pointwise_reads(self, node: Node) -> list[tuple[Node, AxisMap]]:
        """Return the sources that ``node`` reads element by element, with their axis maps.

        Cheap functions of leaves are looked through, to the leaves.  A reduction reads its source
        over the source's own axes.
        """
        found: list[tuple[Node, AxisMap]] = []
        pending = direct_reads(node, self.stored)
        while pending:
            source, axes = pending.pop(0)
            through = source in self.free and source not in self.stored
            if through and isinstance(source.op, (ops.Map, ops.Cast)):
                for inner, mapping in direct_reads(source, self.stored):
                    composed = tuple(None if a is None else axes[a] for a in mapping)
                    pending.append((inner, composed))
            else:
                found.append((source, axes))
        return found

    def _sources(self, node: Node) -> list[tuple[Node, bool]]:
        """Return every kernel-computed node or leaf that ``node`` reads, and whether pointwise."""
        found: list[tuple[Node, bool]] = []
        edges = [(source, True) for source, _ in self.pointwise_reads(node)]
        edges += [(source, False) for source in memory_reads(node, self.stored)]
        while edges:
            source, direct = edges.pop()
            leaf = leaf_behind(source)
            if leaf is not None:
                found.append((leaf, direct))
            elif source is not node and self.is_computed(source):
                found.append((source, direct))
            elif is_alias(source):
                edges.append((strip_aliases(source), False))
            else:
                edges += [(peel(x, identity_axes(x), self.stored)[0], False) for x in source.inputs]
        return found

    def kernel_sources(self, node: Node) -> dict[Node, bool]:
        """Return the kernel-computed nodes that ``node`` reads: True where only ever pointwise."""
        found: dict[Node, bool] = {}
        for source, direct in self._sources(node):
            if not isinstance(source.op, LEAVES):
                found[source] = found.get(source, True) and direct
        return found

    def leaf_reads(self, node: Node) -> dict[Node, bool]:
        """Return the leaves that computing ``node`` reads: True where only ever pointwise.

        A leaf's memory read as another shape counts as the leaf.
        """
        found = {node: True} if isinstance(node.op, LEAVES) else {}
        for source, direct in self._sources(node):
            if isinstance(source.op, LEAVES):
                found[source] = found.get(source, True) and direct
        return found


def direct_reads(node: Node, stored: frozenset[Node] = frozenset()) -> list[tuple[Node, AxisMap]]:
    """Return the sources behind the pointwise views that ``node`` reads element by element."""
    if isinstance(node.op, (ops.Map, ops.Cast)):
        rank = node.type.rank
        return [peel(x, aligned_axes(x, rank), stored) for x in node.inputs]
    if isinstance(node.op, ops.Reduce):
        (x,) = node.inputs
        return [peel(x, identity_axes(x), stored)]
    if isinstance(node.op, POINTWISE_VIEWS) and not is_alias(node):
        return [peel(node.inputs[0], through_view(node, identity_axes(node), None), stored)]
    return []


def memory_reads(node: Node, stored: frozenset[Node] = frozenset()) -> list[Node]:
    """Return the nodes whose values ``node`` needs in memory."""
    match node.op:
        case ops.Map() | ops.Cast() | ops.Reduce() | ops.Broadcast() | ops.Transpose():
            return []
        case ops.Reshape():
            return [strip_aliases(node)] if is_alias(node) else []
        case ops.Nested():
            return [strip_aliases(x) for x in node.inputs]
        case _:
            return [peel(x, identity_axes(x), stored)[0] for x in node.inputs]


def strip_aliases(node: Node) -> Node:
    """Return the node whose memory, in the same order, also holds ``node``."""
    while isinstance(node.op, ops.Reshape):
        node = node.inputs[0]
    return node


def leaf_behind(node: Node) -> Node | None:
    """Return the leaf whose memory ``node`` is, as it is or as another shape, else None."""
    source = strip_aliases(node)
    return source if isinstance(source.op, LEAVES) else None
