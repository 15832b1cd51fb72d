"""Bring a graph into the forms that the scheduler lowers.

A contraction becomes ``[batch…, m, k] x [batch…, k, n] -> [batch…, m, n]``, reached by transposes
(views) and reshapes (aliases), or, where an operand has no index of its own or the elements are
integers, a product followed by a sum.  A sum over everything becomes one over the last axes, which
threads share, and one over what is left.
"""

from __future__ import annotations

from ..ir import ops
from ..ir.construct import broadcast_to, extent, reshape, transpose
from ..ir.dims import product
from ..ir.graph import Node, Program, apply, constant, make
from ..ir.rewrite import replace_nodes
from ..ir.types import Dim, TensorType


def legalize(program: Program) -> Program:
    """Return ``program`` with every contraction and reduction in a form that can be lowered."""

    def legal(node: Node) -> Node | None:
        if isinstance(node.op, ops.Contract):
            return legalize_contract(node)
        return split_reduction(node) if isinstance(node.op, ops.Reduce) else None

    return program.with_roots(replace_nodes(program.roots, legal))


def _plain_indices(index_map: ops.IndexMap) -> list[int] | None:
    """Return the index of each axis where the map only picks indices, each once, else None."""
    indices: list[int] = []
    for affine in index_map:
        if affine.offset or len(affine.terms) != 1 or affine.terms[0][1] != 1:
            return None
        indices.append(affine.terms[0][0])
    return indices if len(set(indices)) == len(indices) else None


def is_matmul(node: Node) -> bool:
    """Whether a contraction has the form ``[batch…, m, k] x [batch…, k, n] -> [batch…, m, n]``."""
    op = node.op
    assert isinstance(op, ops.Contract)
    rank = len(op.output_shape)
    if rank < 2 or len(op.sizes) != rank + 1 or node.dtype not in {"float32", "float64"}:
        return False
    batch, m, n, k = list(range(rank - 2)), rank - 2, rank - 1, rank
    maps = [_plain_indices(index_map) for index_map in (*op.maps, op.output_map)]
    if op.sizes[m] == 1 or op.sizes[n] == 1:
        return False
    return maps == [[*batch, m, k], [*batch, k, n], [*batch, m, n]] and all(
        x.shape == tuple(op.sizes[i] for i in (indices or []))
        for x, indices in zip(node.inputs, maps[:2], strict=True)
    )


def legalize_contract(node: Node) -> Node:
    """Return an equal value computed by a matrix product, or by a product and a sum."""
    op = node.op
    assert isinstance(op, ops.Contract)
    if is_matmul(node):
        return node
    plain = [_plain_indices(index_map) for index_map in (*op.maps, op.output_map)]
    sizes_fit = (
        all(
            indices is not None and x.shape == tuple(op.sizes[i] for i in indices)
            for x, indices in zip(node.inputs, plain[:2], strict=True)
        )
        and plain[2] is not None
        and op.output_shape == tuple(op.sizes[i] for i in plain[2])
    )
    if not sizes_fit:
        return _contract_by_points(node)
    used = {i for indices in plain for i in indices or ()}
    repeated = [dim for i, dim in enumerate(op.sizes) if i not in used]
    if repeated:
        kept = sorted(used)
        renamed = [
            tuple(ops.Affine(((kept.index(i), 1),)) for i in indices or ()) for indices in plain
        ]
        once = make(
            ops.Contract(
                tuple(op.sizes[i] for i in kept),
                (renamed[0], renamed[1]),
                renamed[2],
                op.output_shape,
            ),
            *node.inputs,
            source=node.source,
        )
        times = extent(product(tuple(repeated)), node.dtype)
        return apply("mul", legalize_contract(once), times)
    left_indices, right_indices, output = (list(p or []) for p in plain)
    left, left_indices = _sum_out(node.inputs[0], left_indices, {*right_indices, *output})
    right, right_indices = _sum_out(node.inputs[1], right_indices, {*left_indices, *output})
    in_left, in_right, in_out = set(left_indices), set(right_indices), set(output)
    batch = [i for i in output if i in in_left and i in in_right]
    rows = [i for i in output if i in in_left and i not in in_right]
    columns = [i for i in output if i in in_right and i not in in_left]
    free = [i for i in output if i not in in_left and i not in in_right]
    depth = [i for i in left_indices if i in in_right and i not in in_out]
    vector = any(product(tuple(op.sizes[i] for i in part)) == 1 for part in (rows, columns))
    if vector or not depth or node.dtype not in {"float32", "float64"}:
        return _product_and_sum(op, left, left_indices, right, right_indices, output)
    if output and output[-1] in rows:
        left, right = right, left
        left_indices, right_indices = right_indices, left_indices
        rows, columns = columns, rows

    def sizes(indices: list[int]) -> tuple[Dim, ...]:
        return tuple(op.sizes[i] for i in indices)

    lead = sizes(batch)
    m, n, k = (product(sizes(indices)) for indices in (rows, columns, depth))
    left = _permuted(left, left_indices, [*batch, *rows, *depth])
    right = _permuted(right, right_indices, [*batch, *depth, *columns])
    result = matmul(reshape(left, (*lead, m, k)), reshape(right, (*lead, k, n)), source=node.source)
    result = reshape(result, (*lead, *sizes(rows), *sizes(columns)))
    order = [*batch, *rows, *columns]
    if free:
        result = broadcast_to(
            reshape(result, (*(1 for _ in free), *result.shape)),
            (*sizes(free), *result.shape),
        )
        order = [*free, *order]
    return transpose(result, [order.index(i) for i in output])


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


def _sum_out(x: Node, indices: list[int], kept: set[int]) -> tuple[Node, list[int]]:
    """Sum away the indices that nothing else mentions."""
    axes = tuple(axis for axis, i in enumerate(indices) if i not in kept)
    if not axes:
        return x, indices
    summed = make(ops.Reduce("sum", axes), x, source=x.source)
    return summed, [i for i in indices if i in kept]


def _permuted(x: Node, indices: list[int], order: list[int]) -> Node:
    return transpose(x, [indices.index(i) for i in order])


def _product_and_sum(
    op: ops.Contract,
    left: Node,
    left_indices: list[int],
    right: Node,
    right_indices: list[int],
    output: list[int],
) -> Node:
    """Return the contraction as an elementwise product summed over what the output lacks."""
    depth = [i for i in left_indices if i in right_indices and i not in output]
    order = [*output, *depth]

    def spread(x: Node, indices: list[int]) -> Node:
        ordered = [i for i in order if i in indices]
        x = _permuted(x, indices, ordered)
        return reshape(x, tuple(op.sizes[i] if i in indices else 1 for i in order))

    result = apply("mul", spread(left, left_indices), spread(right, right_indices))
    result = broadcast_to(result, tuple(op.sizes[i] for i in order))
    if depth:
        axes = tuple(range(len(output), len(order)))
        result = split_reduction(make(ops.Reduce("sum", axes), result, source=result.source))
    return result


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
