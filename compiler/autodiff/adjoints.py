"""The adjoint of every primitive: from the cotangent of a result to those of its inputs.

One rule each, in one table.  A rule takes a node, the cotangent of its value and which inputs are
wanted, and returns a cotangent for each input, None where nothing flows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import GraphError, locate
from ..ir import construct, dims, ops
from ..ir.construct import broadcast_to, keep_axes, reduce_sum, reshape, shift, unbroadcast
from ..ir.graph import Node, apply, constant, make, scalar_value
from ..ir.scalars import Formula, Term, param
from ..ir.terms import inline_term, parameters
from ..ir.types import Shape, TensorType
from .symbolic import derivative

Cotangents = list[Node | None]
Rule = Callable[[Node, Node, Sequence[bool]], Cotangents]


def adjoint(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    """Return the cotangents of the inputs of ``node``; only those ``wanted`` are built."""
    return _RULES[type(node.op)](node, cotangent, wanted)


# -- elementwise ----------------------------------------------------------------------------------


def _map(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    result: Cotangents = []
    for index, (x, needed) in enumerate(zip(node.inputs, wanted, strict=True)):
        product = None
        if needed:
            try:
                product = _times_partial(node, index, cotangent)
            except GraphError as error:
                raise GraphError(locate(str(error), node.source)) from None
        result.append(None if product is None else unbroadcast(product, x.shape))
    return result


def _times_partial(node: Node, index: int, cotangent: Node) -> Node | None:
    function = node.op.function
    partial = derivative(function, index)
    if isinstance(function, Formula):
        bindings = dict(zip(function.params, node.inputs, strict=True))
        if partial.op not in {"number", "param"}:
            used = tuple(name for name in function.params if name in parameters(partial))
            order = f"{function.name}_{function.params[index]}"
            slope = apply(Formula(order, used, partial), *(bindings[name] for name in used))
            return _times(cotangent, param("slope"), {"slope": slope})
    else:
        bindings = {f"p{i}": x for i, x in enumerate(node.inputs)}
    return _times(cotangent, partial, bindings)


def _times(cotangent: Node, partial: Term, bindings: dict[str, Node]) -> Node | None:
    """Return ``cotangent * partial`` of the cotangent's shape, None for zero.

    The product goes inside choices and quotients, and a choice in the cotangent stays outermost:
    no ``0 * inf`` from the branch not taken, and one rounding less.
    """
    dtype = cotangent.dtype
    if partial.op not in {"number", "neg"} and _is_mask(cotangent):
        condition, taken, zero = cotangent.inputs
        inner = _times(broadcast_to(taken, cotangent.shape), partial, bindings)
        return None if inner is None else _choose(condition, inner, zero, cotangent.shape)
    if partial.op == "number":
        if partial.value == 0:
            return None
        return construct.mul(cotangent, constant(partial.value, dtype))
    if partial.op == "neg":
        inner = _times(cotangent, partial.args[0], bindings)
        return None if inner is None else construct.neg(inner)
    if partial.op == "where":
        condition = inline_term(partial.args[0], bindings, dtype)
        taken, other = (_times(cotangent, branch, bindings) for branch in partial.args[1:])
        if taken is None and other is None:
            return None
        zero = constant(0, dtype)
        branches = (zero if taken is None else taken, zero if other is None else other)
        return _choose(condition, *branches, cotangent.shape)
    if partial.op == "reciprocal":
        return construct.div(cotangent, inline_term(partial.args[0], bindings, dtype))
    if partial.op == "div":
        top = _times(cotangent, partial.args[0], bindings)
        assert top is not None, "a quotient with numerator zero is zero"
        return construct.div(top, inline_term(partial.args[1], bindings, dtype))
    return construct.mul(cotangent, inline_term(partial, bindings, dtype))


def _is_mask(node: Node) -> bool:
    """Return whether ``node`` is ``where(condition, x, 0)``."""
    is_choice = isinstance(node.op, ops.Map) and node.op.function == "where"
    return is_choice and construct.is_number(node.inputs[2], 0)


def _choose(condition: Node, a: Node, b: Node, shape: Shape) -> Node:
    return broadcast_to(construct.where(condition, a, b), shape)


def _cast(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    (x,) = node.inputs
    return [construct.cast(cotangent, x.dtype) if x.type.is_float else None]


# -- contraction ----------------------------------------------------------------------------------


def _contract(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    op, (left, right) = node.op, node.inputs
    result: Cotangents = [None, None]
    if wanted[0]:
        swapped = ops.Contract(op.sizes, (op.output_map, op.maps[1]), op.maps[0], left.shape)
        result[0] = make(swapped, cotangent, right, source=node.source)
    if wanted[1]:
        swapped = ops.Contract(op.sizes, (op.maps[0], op.output_map), op.maps[1], right.shape)
        result[1] = make(swapped, left, cotangent, source=node.source)
    return result


# -- reductions -----------------------------------------------------------------------------------


def _reduce(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    return [_REDUCTIONS[node.op.kind](node, cotangent)]


def _sum(node: Node, cotangent: Node) -> Node:
    shape = node.inputs[0].shape
    return broadcast_to(keep_axes(cotangent, node.op.axes, shape), shape)


def _extremum(node: Node, cotangent: Node) -> Node:
    """Split equally among ties, as ``torch.amax`` does."""
    (x,), axes = node.inputs, node.op.axes
    chosen = apply("eq", x, keep_axes(node, axes, x.shape))
    ties = reduce_sum(construct.cast(chosen, x.dtype), axes)
    share = keep_axes(construct.div(cotangent, ties), axes, x.shape)
    return construct.where(chosen, share, constant(0, x.dtype))


def _product(node: Node, cotangent: Node) -> Node:
    """Multiply by the product of the *other* factors, which is right where factors are zero.

    That is the product of all factors before times that of all factors after, two recurrences.
    """
    (x,), axes = node.inputs, node.op.axes
    kept = [axis for axis in range(x.type.rank) if axis not in axes]
    order = [*kept, *axes]
    lead = tuple(x.shape[axis] for axis in kept)
    count = dims.product(tuple(x.shape[axis] for axis in axes))
    flat = reshape(construct.transpose(x, order), (*lead, count))
    position = make(ops.Iota(TensorType("int64", (count,)), 0))
    others = constant(1, x.dtype)
    for reverse, first in (
        (False, constant(0, "int64")),
        (True, construct.extent(count - 1, "int64")),
    ):
        start = construct.where(
            apply("eq", position, first), constant(1, x.dtype), constant(0, x.dtype)
        )
        factors = shift(flat, len(lead), -1 if reverse else 1)
        op = ops.LinearRecurrence(len(lead), reverse)
        beside = make(op, factors, broadcast_to(start, flat.shape), source=node.source)
        others = construct.mul(others, beside)
    slope = construct.mul(reshape(cotangent, (*lead, 1)), others)
    unflat = reshape(slope, tuple(x.shape[axis] for axis in order))
    return construct.transpose(unflat, [order.index(axis) for axis in range(x.type.rank)])


_REDUCTIONS: dict[str, Callable[[Node, Node], Node | None]] = {
    "sum": _sum,
    "prod": _product,
    "max": _extremum,
    "min": _extremum,
    "argmax": lambda node, cotangent: None,
    "argmin": lambda node, cotangent: None,
}


# -- views ----------------------------------------------------------------------------------------


def _reshape(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    return [reshape(cotangent, node.inputs[0].shape)]


def _transpose(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    permutation = node.op.permutation
    inverse = [permutation.index(axis) for axis in range(len(permutation))]
    return [construct.transpose(cotangent, inverse)]


def _broadcast(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    return [unbroadcast(cotangent, node.inputs[0].shape)]


def _slice(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    op, (x,) = node.op, node.inputs
    if any(size == 0 for size in op.sizes):
        return [None]
    high = tuple(
        dim - (start + (size - 1) * step + 1)
        for dim, start, size, step in zip(x.shape, op.starts, op.sizes, op.steps, strict=True)
    )
    interior = tuple(step - 1 for step in op.steps)
    return [make(ops.Pad(op.starts, high, interior), cotangent, source=node.source)]


def _pad(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    op, (x,) = node.op, node.inputs
    steps = tuple(interior + 1 for interior in op.interior)
    low, high = map(_cropped, (op.low, op.high))
    if any(low) or any(high):  # what negative padding cropped gets zero
        grow = ops.Pad(low, high, (0,) * x.type.rank)
        cotangent = make(grow, cotangent, source=node.source)
    starts = tuple(a + b for a, b in zip(op.low, low, strict=True))
    return [make(ops.Slice(starts, x.shape, steps), cotangent, source=node.source)]


def _cropped(padding: Shape) -> tuple[int, ...]:
    return tuple(-p if isinstance(p, int) and p < 0 else 0 for p in padding)


def _flip(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    return [make(node.op, cotangent, source=node.source)]


def _concat(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    result: Cotangents = []
    start: dims.SymbolicDim | int = 0
    for x, needed in zip(node.inputs, wanted, strict=True):
        part = None
        if needed:
            starts: Shape = tuple(
                start if axis == node.op.axis else 0 for axis in range(x.type.rank)
            )
            op = ops.Slice(starts, x.shape, (1,) * x.type.rank)
            part = make(op, cotangent, source=node.source)
        result.append(part)
        start = start + x.shape[node.op.axis]
    return result


# -- indexing -------------------------------------------------------------------------------------


def _gather(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    x, indices = node.inputs
    op = ops.ScatterAdd(node.op.axis, x.shape[node.op.axis])
    return [make(op, cotangent, indices, source=node.source), None]


def _scatter_add(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    _, indices = node.inputs
    return [make(ops.Gather(node.op.axis), cotangent, indices, source=node.source), None]


def _made_later(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    message = f"{node.op.name} is a form for kernels, made after differentiation"
    raise GraphError(locate(message, node.source))


# -- running values -------------------------------------------------------------------------------


def _linear_recurrence(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    """``s[i] = g[i] + a[i+1] s[i+1]`` is the cotangent of ``b``; times ``y[i-1]``, that of ``a``.

    No element is divided by, so it holds where factors are zero.
    """
    (a, _), axis, reverse = node.inputs, node.op.axis, node.op.reverse
    following = a if scalar_value(a) is not None else shift(a, axis, 1 if reverse else -1)
    op = ops.LinearRecurrence(axis, not reverse)
    total = make(op, following, cotangent, source=node.source)
    if not wanted[0]:
        return [None, total]
    return [construct.mul(total, shift(node, axis, -1 if reverse else 1)), total]


def _running_extremum(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    """Each element that takes the lead gets the cotangents until the next one does.

    Of equals the last one leads, as in ``torch.cummax``.
    """
    (x,), axis, reverse = node.inputs, node.op.axis, node.op.reverse
    leads = apply("logical_or", apply("eq", x, node), apply("isnan", x))
    keeps = construct.where(leads, constant(0, x.dtype), constant(1, x.dtype))
    following = shift(keeps, axis, 1 if reverse else -1)
    op = ops.LinearRecurrence(axis, not reverse)
    total = make(op, following, cotangent, source=node.source)
    return [construct.where(leads, total, constant(0, x.dtype))]


def _nothing(node: Node, cotangent: Node, wanted: Sequence[bool]) -> Cotangents:
    return [None] * len(node.inputs)


_RULES: dict[type, Rule] = {
    ops.Input: _nothing,
    ops.State: _nothing,
    ops.Constant: _nothing,
    ops.Extent: _nothing,
    ops.Training: _nothing,
    ops.Iota: _nothing,
    ops.RandomBits: _nothing,
    ops.Map: _map,
    ops.Cast: _cast,
    ops.Contract: _contract,
    ops.FlatContract: _made_later,
    ops.Reduce: _reduce,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Broadcast: _broadcast,
    ops.Slice: _slice,
    ops.Pad: _pad,
    ops.Flip: _flip,
    ops.Window: _made_later,
    ops.Concat: _concat,
    ops.Gather: _gather,
    ops.ScatterAdd: _scatter_add,
    ops.ArgSort: _nothing,
    ops.LinearRecurrence: _linear_recurrence,
    ops.RunningExtremum: _running_extremum,
}
