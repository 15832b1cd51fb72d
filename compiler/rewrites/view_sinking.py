"""Let elementwise operators and reductions read a contraction's result as it lies in memory.

A contraction writes rows and columns; the reshape and the transpose that give its value the user's
shape would keep its consumers out of its kernel.  ``f(view(x), y) → view(f(x, y'))`` where ``y'``
is ``y`` with the view undone: a bias along the rows, a result under the same view, an array whose
elements come in the same order.
"""

from __future__ import annotations

from ..ir import ops
from ..ir.construct import reshape, transpose
from ..ir.dims import divide_exactly, product
from ..ir.graph import Node, make, scalar_value
from ..ir.scalars import COSTLY
from ..ir.types import Dim, Shape

VIEWS = (ops.Reshape, ops.Transpose)
_LEAVES = (ops.Input, ops.State, ops.Constant)
_INDEXED = (ops.Slice, ops.Pad, ops.Flip, ops.Concat, ops.Window, *VIEWS, ops.Broadcast)
_COUNTED = (ops.Extent, ops.Training, ops.Iota, ops.RandomBits)


class ViewSinking:
    """Moves views of results below their consumers; sees nodes after their inputs."""

    def __init__(self) -> None:
        self.carried: set[Node] = set()
        self._computed: dict[Node, bool] = {}

    def carry(self, result: Node) -> Node:
        """Note that the views on top of ``result`` may sink; return it."""
        view = result
        while isinstance(view.op, VIEWS):
            self.carried.add(view)
            (view,) = view.inputs
        return result

    def sink(self, node: Node) -> Node | None:
        """Return ``node`` with a view below it moved on top, None where it reads none."""
        match node.op:
            case ops.Map() | ops.Cast():
                for x in node.inputs:
                    if x in self.carried and x.shape == node.shape:
                        sunk = self._sink_elementwise(node, x)
                        if sunk is not None:
                            return sunk
            case ops.Reduce() if node.inputs[0] in self.carried:
                return self._sink_reduction(node)
            case ops.Reshape(shape) if node.inputs[0] in self.carried:
                return self.carry(reshape(node.inputs[0], shape))
            case ops.Transpose(permutation) if node.inputs[0] in self.carried:
                return self.carry(transpose(node.inputs[0], permutation))
        return None

    # -- elementwise ---------------------------------------------------------------------------

    def _sink_elementwise(self, node: Node, x: Node) -> Node | None:
        """Undo as many of the views on top of ``x`` as the other inputs allow."""
        inputs = list(node.inputs)
        undone: list[Node] = []
        view = x
        while view in self.carried:
            moved = [self._undo(y, view) for y in inputs]
            if any(y is None for y in moved):
                break
            inputs = [y for y in moved if y is not None]
            undone.append(view)
            (view,) = view.inputs
        if not undone:
            return None
        result = make(node.op, *inputs, source=node.source)
        for step in reversed(undone):
            result = make(step.op, result, source=node.source)
        return self.carry(result)

    def _undo(self, y: Node, view: Node, stored: bool = True) -> Node | None:
        """Return what broadcasts against the input of ``view`` as ``y`` does against ``view``.

        ``stored`` allows that ``y`` is stored for it as an array, as it may be anyway.
        """
        (source,) = view.inputs
        while isinstance(y.op, ops.Broadcast) and scalar_value(y) is None:
            (y,) = y.inputs
        if all(dim == 1 for dim in y.shape):
            return reshape(y, ())
        if y.op == view.op and y.inputs[0].shape == source.shape:
            return y.inputs[0]
        aligned = (1,) * (view.type.rank - y.type.rank) + y.shape
        if isinstance(view.op, ops.Transpose):
            if y.shape == view.shape:
                return self._undo_inside(y, view, stored)
            permutation = view.op.permutation
            back = [permutation.index(axis) for axis in range(len(permutation))]
            return transpose(reshape(y, aligned), back)
        if y.shape == view.shape:
            return self._undo_inside(y, view, stored)
        shape = _ungrouped(aligned, source.shape, view.shape)
        return None if shape is None else self._reshaped(y, shape, stored)

    def _undo_inside(self, y: Node, view: Node, stored: bool) -> Node | None:
        """Undo ``view`` for an operand of the same size.

        A value in memory is read as another shape; a transposed one is not, for that would cost
        more than the fusion gains.  What is cheap to compute is computed again.
        """
        if isinstance(y.op, (ops.Map, ops.Cast)) and y.op.name not in COSTLY:
            inside = stored and not self._is_computed(y)
            moved = [self._undo(x, view, inside) for x in y.inputs]
            if not any(x is None for x in moved):
                again = make(y.op, *(x for x in moved if x is not None), source=y.source)
                if again.shape == view.inputs[0].shape:
                    return again
        if not isinstance(view.op, ops.Reshape):
            return None
        shape = view.inputs[0].shape
        if isinstance(y.op, ops.RandomBits):
            return make(ops.RandomBits(shape, y.op.stream, y.op.word), *y.inputs, source=y.source)
        return self._reshaped(y, shape, stored)

    def _reshaped(self, y: Node, shape: Shape, stored: bool) -> Node | None:
        """Return ``y`` with ``shape`` where that copies nothing that is in no memory yet."""
        base = y
        while isinstance(base.op, ops.Reshape):
            (base,) = base.inputs
        wide = [[dim for dim in dims if dim != 1] for dims in (shape, base.shape)]
        in_memory = isinstance(base.op, _LEAVES) or (
            not isinstance(base.op, (*_INDEXED, *_COUNTED)) and self._is_computed(base)
        )
        return reshape(base, shape) if wide[0] == wide[1] or (stored and in_memory) else None

    def _is_computed(self, node: Node) -> bool:
        """Whether a kernel of its own computes ``node``: it is no cheap function of leaves."""
        if isinstance(node.op, (*_LEAVES, *_COUNTED)):
            return False
        if not isinstance(node.op, (ops.Map, ops.Cast, *_INDEXED)):
            return True
        if node not in self._computed:
            self._computed[node] = any(self._is_computed(x) for x in node.inputs)
        return self._computed[node]

    # -- reductions ----------------------------------------------------------------------------

    def _sink_reduction(self, node: Node) -> Node | None:
        """Reduce ``view(x)`` over axes that ``x`` has: transposed ones, or whole groups of them."""
        op, (view,) = node.op, node.inputs
        assert isinstance(op, ops.Reduce)
        (source,) = view.inputs
        match view.op:
            case ops.Transpose(permutation):
                axes = sorted(permutation[axis] for axis in op.axes)
                kept = [axis for axis in range(source.type.rank) if axis not in axes]
                order = [kept.index(a) for i, a in enumerate(permutation) if i not in op.axes]
                reduced = make(ops.Reduce(op.kind, tuple(axes)), source, source=node.source)
                return self.carry(transpose(self.sink(reduced) or reduced, order))
            case ops.Reshape() if not op.kind.startswith("arg"):
                marks = tuple(0 if axis in op.axes else 1 for axis in range(view.type.rank))
                whole = _grouped_axes(marks, source.shape, view.shape)
                if whole is None:
                    return None
                reduced = make(ops.Reduce(op.kind, whole), source, source=node.source)
                return self.carry(reshape(self.sink(reduced) or reduced, node.shape))
        return None


def _groups(inner: Shape, outer: Shape) -> list[tuple[list[int], list[int]]] | None:
    """Return which axes of ``inner`` become which of ``outer`` in a reshape, in order."""
    left = [axis for axis, dim in enumerate(inner) if dim != 1]
    right = [axis for axis, dim in enumerate(outer) if dim != 1]
    groups = []
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        while True:
            first = product(tuple(inner[axis] for axis in a))
            second = product(tuple(outer[axis] for axis in b))
            if first == second:
                break
            if left and divide_exactly(second, first) is not None:
                a.append(left.pop(0))
            elif right and divide_exactly(first, second) is not None:
                b.append(right.pop(0))
            else:
                return None
        groups.append((a, b))
    return None if left or right else groups


def _ungrouped(shape: Shape, inner: Shape, outer: Shape) -> Shape | None:
    """Return the shape before the reshape of ``shape``, where each group has all its axes or none.

    ``shape`` has the rank of ``outer``, and 1 where it broadcasts.
    """
    groups = _groups(inner, outer)
    if groups is None:
        return None
    result: list[Dim] = [1] * len(inner)
    for a, b in groups:
        if all(shape[axis] == outer[axis] for axis in b):
            for axis in a:
                result[axis] = inner[axis]
        elif any(shape[axis] != 1 for axis in b):
            return None
    return tuple(result)


def _grouped_axes(kept: Shape, inner: Shape, outer: Shape) -> tuple[int, ...] | None:
    """Return the axes of ``inner`` that make the axes of ``outer`` where ``kept`` is 0."""
    groups = _groups(inner, outer)
    if groups is None:
        return None
    axes: list[int] = []
    for a, b in groups:
        marks = {kept[axis] for axis in b}
        if len(marks) > 1:
            return None
        if marks == {0}:
            axes += a
    return tuple(axes) if axes else None
