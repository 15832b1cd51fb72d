"""Bring a contraction into a form that kernels are made of.

- ``[batch…, m, k] x [batch…, k, n] -> [batch…, m, n]`` where transposes and reshapes, which move
  nothing in memory, lead there.
- Else, if there are rows, columns and depth, the same product of elements found through offsets
  (`ops.FlatContract`): convolutions and their gradients read their operands where they lie.
- Else a product of windows, summed: depthwise convolutions, pools, products without a sum.
- What has no normal form (a diagonal of the output) is gathered and scattered point by point.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir import ops
from ..ir.construct import broadcast_to, extent, mul, reshape, transpose
from ..ir.dims import product
from ..ir.graph import Node, apply, constant, make
from ..ir.ops import Affine
from ..ir.types import Dim, TensorType
from ..ir.views import is_trivial_reshape
from .contraction_form import (
    ContractionForm,
    Term,
    arrange_output,
    normalize_contraction,
)
from .offset_tables import common_step, offset_table, row_major_steps
from .reductions import split_reduction

_FLOATS = frozenset({"float32", "float64"})


def legalize_contract(node: Node) -> Node:
    """Return an equal value computed by a matrix product, or by a product and a sum."""
    op = node.op
    assert isinstance(op, ops.Contract)
    if is_matmul(node):
        return node
    if 0 in op.sizes:
        return broadcast_to(constant(0, node.dtype), node.shape)
    form = normalize_contraction(node)
    if form is None:
        return _contract_by_points(node)
    return _FormLowering(form, node).lower()


def is_matmul(node: Node) -> bool:
    """Whether a contraction has the form ``[batch…, m, k] x [batch…, k, n] -> [batch…, m, n]``.

    Its operands can then be read where they are: through views, and through no copy.
    """
    op = node.op
    assert isinstance(op, ops.Contract)
    rank = len(op.output_shape)
    if rank < 2 or len(op.sizes) != rank + 1 or node.dtype not in _FLOATS:
        return False
    batch, m, n, k = list(range(rank - 2)), rank - 2, rank - 1, rank
    maps = [_plain_indices(index_map) for index_map in (*op.maps, op.output_map)]
    if op.sizes[m] == 1 or op.sizes[n] == 1:
        return False
    return (
        maps == [[*batch, m, k], [*batch, k, n], [*batch, m, n]]
        and all(
            x.shape == tuple(op.sizes[i] for i in (indices or []))
            for x, indices in zip(node.inputs, maps[:2], strict=True)
        )
        and node.shape == tuple(op.sizes[:rank])
    )


def _plain_indices(index_map: ops.IndexMap) -> list[int] | None:
    """Return the index of each axis where the map only picks indices, each once, else None."""
    indices: list[int] = []
    for affine in index_map:
        if affine.offset or len(affine.terms) != 1 or affine.terms[0][1] != 1:
            return None
        indices.append(affine.terms[0][0])
    return indices if len(set(indices)) == len(indices) else None


def matmul(left: Node, right: Node, source: object = None) -> Node:
    """Return the batched matrix product of ``[…, m, k]`` and ``[…, k, n]``."""
    *lead, m, k = left.shape
    n = right.shape[-1]
    rank = len(lead) + 2
    batch = [ops.Affine(((axis, 1),)) for axis in range(len(lead))]
    row, column, depth = (ops.Affine(((axis, 1),)) for axis in (rank - 2, rank - 1, rank))
    op = ops.Contract(
        (*lead, m, n, k),
        ((*batch, row, depth), (*batch, depth, column)),
        (*batch, row, column),
        (*lead, m, n),
    )
    return make(op, left, right, source=source)  # type: ignore[arg-type]


class _FormLowering:
    """Lowers one contraction in normal form."""

    def __init__(self, form: ContractionForm, node: Node) -> None:
        self.form = form
        self.node = node
        self.sizes = form.sizes

    def extents(self, indices: Sequence[int]) -> tuple[Dim, ...]:
        return tuple(self.sizes[i] for i in indices)

    def lower(self) -> Node:
        left, right = self.form.terms
        output = self.form.output
        absent = [
            dim
            for i, dim in enumerate(self.sizes)
            if dim != 1 and i not in output and not left.uses(i) and not right.uses(i)
        ]
        left = self.sum_out(left, right)
        right = self.sum_out(right, left)
        in_left, in_right = (
            [i for i in range(len(self.sizes)) if term.uses(i)] for term in (left, right)
        )
        held = [i for i in output if i in in_left or i in in_right]
        batch = [i for i in held if i in in_left and i in in_right]
        rows = [i for i in held if i not in in_right]
        columns = [i for i in held if i not in in_left]
        depth = [i for i in range(len(self.sizes)) if i not in output]
        depth = [i for i in depth if i in in_left or i in in_right]
        shared = any(i in in_left and i in in_right for i in depth)
        vector = any(product(self.extents(part)) == 1 for part in (rows, columns))
        if vector or not shared or self.node.dtype not in _FLOATS:
            order = self.along_memory(held, (left, right))
            result = self.product_and_sum((left, right), order, depth)
        else:
            depth = self.along_memory(depth, (left, right))
            if self.prefers_columns(rows, columns, held[-1]):
                left, right, rows, columns = right, left, columns, rows
            order = [*batch, *rows, *columns]
            result = self.matrix_product(left, right, batch, rows, columns, depth)
        if absent:
            result = apply("mul", result, extent(product(tuple(absent)), self.node.dtype))
        free = [i for i in output if i not in held]
        if free:
            shape = (*(1 for _ in free), *result.shape)
            result = broadcast_to(reshape(result, shape), (*self.extents(free), *result.shape))
            order = [*free, *order]
        return arrange_output(result, order, self.form, self.node.shape)

    def prefers_columns(self, rows: list[int], columns: list[int], last: int) -> bool:
        """Whether ``rows`` should be the columns, which lie next to each other in memory.

        That is the output's order, unless the output is a copy anyway, as it is where both parts
        meet in an axis: then the larger part.
        """
        meet = any(
            any(i in rows for i in axis.indices) and any(i in columns for i in axis.indices)
            for axis in self.form.axes
        )
        if not meet:
            return last in rows
        first, second = (product(self.extents(part)) for part in (rows, columns))
        if isinstance(first, int) and isinstance(second, int):
            return first > second
        return not isinstance(first, int)

    def sum_out(self, term: Term, other: Term) -> Term:
        """Sum an operand over whole axes that nothing else mentions."""
        output = self.form.output
        axes = []
        for axis, (affine, dim) in enumerate(zip(term.map, term.node.shape, strict=True)):
            if len(affine.terms) != 1:
                continue
            ((index, _),) = affine.terms
            alone = sum(index in [i for i, _ in a.terms] for a in term.map) == 1
            whole = affine == Affine(((index, 1),)) and self.sizes[index] == dim
            if alone and whole and index not in output and not other.uses(index):
                axes.append(axis)
        if not axes:
            return term
        summed = make(ops.Reduce("sum", tuple(axes)), term.node, source=self.node.source)
        kept = tuple(affine for axis, affine in enumerate(term.map) if axis not in axes)
        return Term(split_reduction(summed), kept)

    def along_memory(self, indices: list[int], terms: Sequence[Term]) -> list[int]:
        """Return ``indices`` in the order of the axes of the operand that has most of them."""

        def places(term: Term) -> dict[int, int]:
            found: dict[int, int] = {}
            for axis, affine in enumerate(term.map):
                for i, _ in affine.terms:
                    found.setdefault(i, axis)
            return found

        def rank(term: Term) -> tuple[int, int]:
            among = [i for i in indices if term.uses(i)]
            return len(among), sum(term.has_plain(i) for i in among)

        where = places(max(terms, key=rank))
        return sorted(indices, key=lambda i: (where.get(i, -1), i))

    # -- products with offsets -----------------------------------------------------------------

    def matrix_product(
        self,
        left: Term,
        right: Term,
        batch: list[int],
        rows: list[int],
        columns: list[int],
        depth: list[int],
    ) -> Node:
        """Return ``[batch…, rows…, columns…]`` as one batched matrix product."""
        m, n, k = (product(self.extents(part)) for part in (rows, columns, depth))
        lead = self.extents(batch)
        matrices = (
            self.as_matrix(left, batch, rows, depth),
            self.as_matrix(right, batch, depth, columns),
        )
        if matrices[0] is not None and matrices[1] is not None:
            result = matmul(matrices[0], matrices[1], source=self.node.source)
        else:
            x, left_steps, left_tables = self.as_memory(left, batch, rows, depth)
            y, right_steps, right_tables = self.as_memory(right, batch, depth, columns)
            op = ops.FlatContract((*lead, m, n, k), left_steps, right_steps)
            operands = (x, y, *left_tables, *right_tables)
            result = make(op, *operands, source=self.node.source)
        return reshape(result, (*lead, *self.extents(rows), *self.extents(columns)))

    def as_matrix(
        self, term: Term, batch: list[int], first: list[int], second: list[int]
    ) -> Node | None:
        """Return an operand as ``[batch…, first, second]`` where views lead there, else None."""
        node = term.node
        indices = _plain_indices(term.map)
        order = [*batch, *first, *second]
        if indices is None or set(indices) != set(order):
            return None
        if node.shape != self.extents(indices):
            return None
        moved = transpose(node, [indices.index(i) for i in order])
        shape = (
            *self.extents(batch),
            product(self.extents(first)),
            product(self.extents(second)),
        )
        result = reshape(moved, shape)
        copies = isinstance(moved.op, ops.Transpose) and not is_trivial_reshape(result)
        return None if isinstance(result.op, ops.Reshape) and copies else result

    def as_memory(
        self, term: Term, batch: list[int], first: list[int], second: list[int]
    ) -> tuple[Node, tuple[Dim, ...], list[Node]]:
        """Return an operand's array, its offset and steps, and the tables that replace two steps.

        See `ops.FlatContract`.
        """
        offset: Dim = 0
        steps: dict[int, Dim] = {}
        for affine, step in zip(term.map, row_major_steps(term.node.shape), strict=True):
            offset = step * affine.offset + offset
            for index, coefficient in affine.terms:
                steps[index] = step * coefficient + steps.get(index, 0)

        def along(indices: list[int]) -> tuple[tuple[Dim, ...], list[Dim]]:
            return self.extents(indices), [steps.get(i, 0) for i in indices]

        lead = (offset, *along(batch)[1])
        pair = [along(part) for part in (first, second)]
        common = [common_step(*part) for part in pair]
        if common[0] is not None and common[1] is not None:
            return term.node, (*lead, common[0], common[1]), []
        return term.node, lead, [offset_table(*part) for part in pair]

    # -- products of windows -------------------------------------------------------------------

    def product_and_sum(self, terms: tuple[Term, Term], held: list[int], depth: list[int]) -> Node:
        """Return ``[held…]`` as an elementwise product summed over ``depth``."""
        order = [*held, *depth]
        left, right = (self.spread(term, order) for term in terms)
        result = broadcast_to(mul(left, right), self.extents(order))
        if depth:
            axes = tuple(range(len(held), len(order)))
            result = split_reduction(make(ops.Reduce("sum", axes), result, source=self.node.source))
        return result

    def spread(self, term: Term, order: list[int]) -> Node:
        """Return an operand with an axis for each index in ``order``, of size 1 where absent."""
        used = [i for i in order if term.uses(i)]
        sizes = self.extents(used)
        plain = _plain_indices(term.map)
        if plain is not None and term.node.shape == self.extents(plain):
            x = transpose(term.node, [plain.index(i) for i in used])
        else:
            index_map = tuple(
                Affine(tuple((used.index(i), c) for i, c in a.terms), a.offset) for a in term.map
            )
            x = make(ops.Window(sizes, index_map), term.node, source=self.node.source)
        return reshape(x, tuple(self.sizes[i] if i in used else 1 for i in order))


# -- point by point -------------------------------------------------------------------------------


def _contract_by_points(node: Node) -> Node:
    """Return a general affine contraction as gathers, a product, and a scatter of every point.

    Right for any maps (convolutions, diagonals); not meant to be fast.
    """
    op = node.op
    assert isinstance(op, ops.Contract)
    inside = None
    values: list[Node] = []
    for x, index_map in zip(node.inputs, op.maps, strict=True):
        flat, valid = _point_offsets(index_map, x.shape, op.sizes)
        table = reshape(x, (x.type.size,))
        values.append(make(ops.Gather(0), table, flat, source=node.source))
        inside = valid if inside is None else apply("logical_and", inside, valid)
    target, reached = _point_offsets(op.output_map, op.output_shape, op.sizes)
    inside = reached if inside is None else apply("logical_and", inside, reached)
    points = apply("mul", *values)
    points = apply("where", inside, points, constant(0, node.dtype))
    size = product(op.output_shape)
    count = product(op.sizes)
    summed = make(
        ops.ScatterAdd(0, size),
        reshape(points, (count,)),
        reshape(broadcast_to(target, op.sizes), (count,)),
        source=node.source,
    )
    return reshape(summed, op.output_shape)


def _point_offsets(
    index_map: ops.IndexMap, shape: tuple[Dim, ...], sizes: tuple[Dim, ...]
) -> tuple[Node, Node]:
    """Return every point's clamped flat offset, and whether the point is inside."""
    space = TensorType("int64", sizes)
    offset = broadcast_to(constant(0, "int64"), sizes)
    inside = broadcast_to(constant(True, "bool"), sizes)
    stride: Dim = 1
    for affine, dim in reversed(list(zip(index_map, shape, strict=True))):
        position = broadcast_to(constant(affine.offset, "int64"), sizes)
        for index, coefficient in affine.terms:
            step = apply("mul", make(ops.Iota(space, index)), constant(coefficient, "int64"))
            position = apply("add", position, step)
        size = extent(dim, "int64")
        valid = apply(
            "logical_and",
            apply("ge", position, constant(0, "int64")),
            apply("lt", position, size),
        )
        inside = apply("logical_and", inside, valid)
        offset = apply("add", offset, apply("mul", position, extent(stride, "int64")))
        stride = dim * stride
    return apply("where", inside, offset, constant(0, "int64")), inside
