"""Canonical spelling: one way to write each thing, so that later rules have one thing to match.

Every rule here gives the same bits as before, for NaN and infinities too, except where it says
otherwise.  ``x - x → 0`` and ``x * 0 → 0`` are absent: they are wrong where x is NaN or infinite.
"""

from __future__ import annotations

import math

from ..ir import construct, ops
from ..ir.graph import Node, Program, apply, constant, make, scalar_value
from ..ir.infer import broadcast_shapes
from ..ir.rewrite import Bindings, OnFire, Rule, apply_rules
from ..ir.structure import structural_order
from ..ir.types import Dim
from .folding import RULES as FOLDING

_EXACT = "exact"
_ZERO_SIGN = "exact but for the sign of a zero"


def _power_of_two(bindings: Bindings) -> bool:
    value = scalar_value(bindings["c"])
    if not isinstance(value, float) or not value or not math.isfinite(value):
        return False
    mantissa, exponent = math.frexp(value)
    return abs(mantissa) == 0.5 and abs(exponent) < 100


ELEMENTWISE = (
    Rule("add_zero", "x + 0", "x", _ZERO_SIGN),
    Rule("subtract_zero", "sub(x, 0)", "x", _EXACT),
    Rule("subtract_from_zero", "0 - x", "-x", _ZERO_SIGN),
    Rule("multiply_by_one", "x * 1", "x", _EXACT),
    Rule("multiply_by_minus_one", "x * -1", "-x", _EXACT),
    Rule("divide_by_one", "x / 1", "x", _EXACT),
    Rule("divide_one_by", "div(1, x)", "reciprocal(x)", "the definition of reciprocal"),
    Rule("divide_by_power_of_two", "x / c", "x * reciprocal(c)", _EXACT, _power_of_two),
    Rule("subtract_constant", "x - c", "x + -c", _EXACT),
    Rule("negate_twice", "-(-x)", "x", _EXACT),
    Rule("negate_scaled", "-(x * c)", "x * -c", _EXACT),
    Rule("negate_difference", "-(a - b)", "b - a", _ZERO_SIGN),
    Rule("add_negative", "a + -b", "a - b", _EXACT),
    Rule("subtract_negative", "a - -b", "a + b", _EXACT),
    Rule("negative_minus", "-a - b", "-(a + b)", _ZERO_SIGN),
    Rule("negative_times_negative", "-a * -b", "a * b", _EXACT),
    Rule("negative_times", "-a * b", "-(a * b)", _EXACT),
    Rule("negative_over", "-a / b", "-(a / b)", _EXACT),
    Rule("over_negative", "a / -b", "-(a / b)", _EXACT),
    Rule("reciprocal_of_negative", "reciprocal(-x)", "-reciprocal(x)", _EXACT),
    Rule("times_reciprocal", "a * reciprocal(b)", "a / b", "one rounding instead of two"),
    Rule("reciprocal_of_quotient", "reciprocal(a / b)", "b / a", "one rounding instead of two"),
    Rule("negated_condition", "where(logical_not(p), a, b)", "where(p, b, a)", _EXACT),
    Rule("same_branches", "where(p, a, a)", "a", _EXACT),
    Rule("square_of_negative", "square(-x)", "square(x)", _EXACT),
    Rule("square_of_abs", "square(abs(x))", "square(x)", _EXACT),
    Rule("abs_of_negative", "abs(-x)", "abs(x)", _EXACT),
    Rule("abs_twice", "abs(abs(x))", "abs(x)", _EXACT),
    Rule("abs_of_square", "abs(square(x))", "square(x)", _EXACT),
    Rule("relu_twice", "relu(relu(x))", "relu(x)", _EXACT),
    Rule("cosine_of_negative", "cos(-x)", "cos(x)", "cosine is even"),
    Rule("stop_gradient_twice", "stop_gradient(stop_gradient(x))", "stop_gradient(x)", _EXACT),
)


# -- rules about other primitives -----------------------------------------------------------------


def _normalize_order(node: Node) -> Node | None:
    """Put a constant last, else order by structure, so that a*b and b*a are one node."""
    a, b = node.inputs
    constants = scalar_value(a) is not None, scalar_value(b) is not None
    if constants == (True, False) or (
        constants == (False, False) and structural_order(a) > structural_order(b)
    ):
        return apply(node.op.name, b, a)
    return None


def _choose_known(node: Node) -> Node | None:
    condition, a, b = node.inputs
    value = scalar_value(condition)
    if value is None:
        return None
    return construct.broadcast_to(a if value else b, node.shape)


def _slim_operands(node: Node) -> Node | None:
    """Drop broadcasts that the other operands imply."""
    if not any(isinstance(x.op, ops.Broadcast) for x in node.inputs):
        return None
    slim = list(node.inputs)
    for position, x in enumerate(slim):
        while isinstance(x.op, ops.Broadcast):
            x = x.inputs[0]
            others = slim[:position] + slim[position + 1 :]
            if broadcast_shapes(x.shape, *(y.shape for y in others)) != node.shape:
                break
            slim[position] = x
    if all(a is b for a, b in zip(slim, node.inputs, strict=True)):
        return None
    return make(node.op, *slim, source=node.source)


def _map_before_broadcast(node: Node) -> Node | None:
    """Compute on the small operands and broadcast the result."""
    if not any(isinstance(x.op, ops.Broadcast) for x in node.inputs):
        return None
    small = tuple(x.inputs[0] if isinstance(x.op, ops.Broadcast) else x for x in node.inputs)
    if broadcast_shapes(*(x.shape for x in small)) == node.shape:
        return None
    return construct.broadcast_to(make(node.op, *small, source=node.source), node.shape)


def _cast_before_broadcast(node: Node) -> Node | None:
    (x,) = node.inputs
    if not isinstance(x.op, ops.Broadcast):
        return None
    return construct.broadcast_to(construct.cast(x.inputs[0], node.dtype), node.shape)


def _same_dtype(node: Node) -> Node | None:
    (x,) = node.inputs
    return x if x.dtype == node.dtype else None


def _reshape(node: Node) -> Node | None:
    (x,) = node.inputs
    if x.shape == node.shape:
        return x
    if isinstance(x.op, ops.Reshape):
        return construct.reshape(x.inputs[0], node.shape)
    if isinstance(x.op, ops.Broadcast) and x.inputs[0].shape == ():
        return construct.broadcast_to(x.inputs[0], node.shape)
    return None


def _transpose(node: Node) -> Node | None:
    (x,) = node.inputs
    if isinstance(x.op, ops.Broadcast) and x.inputs[0].shape == ():
        return construct.broadcast_to(x.inputs[0], node.shape)
    simpler = construct.transpose(x, node.op.permutation)
    return None if simpler is node else simpler


def _broadcast(node: Node) -> Node | None:
    simpler = construct.broadcast_to(node.inputs[0], node.shape)
    return None if simpler is node else simpler


def _reduce_nothing(node: Node) -> Node | None:
    (x,) = node.inputs
    if node.op.kind in {"argmax", "argmin"}:
        return None
    if all(x.shape[axis] == 1 for axis in node.op.axes):
        return construct.reshape(x, node.shape)
    return None


def _slice_all(node: Node) -> Node | None:
    (x,) = node.inputs
    whole = all(start == 0 for start in node.op.starts) and node.shape == x.shape
    return x if whole and all(step == 1 for step in node.op.steps) else None


def _pad_nothing(node: Node) -> Node | None:
    op = node.op
    return None if any((*op.low, *op.high, *op.interior)) else node.inputs[0]


def _flip(node: Node) -> Node | None:
    (x,) = node.inputs
    axes = tuple(axis for axis in node.op.axes if x.shape[axis] != 1)
    if not axes:
        return x
    if isinstance(x.op, ops.Flip) and sorted(x.op.axes) == sorted(axes):
        return x.inputs[0]
    return None


def _concat_one(node: Node) -> Node | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _slice_of_concat(node: Node) -> Node | None:
    """Take the piece that a slice cuts out of joined pieces, where it is just one of them."""
    op, (x,) = node.op, node.inputs
    if not isinstance(x.op, ops.Concat) or any(step != 1 for step in op.steps):
        return None
    axis = x.op.axis
    others = [a for a in range(x.type.rank) if a != axis]
    if any(op.starts[a] != 0 or op.sizes[a] != x.shape[a] for a in others):
        return None
    start: Dim = 0
    for piece in x.inputs:
        if op.starts[axis] == start and op.sizes[axis] == piece.shape[axis]:
            return piece
        start = start + piece.shape[axis]
    return None


def _known_order(node: Node) -> Node | None:
    """Elements that are all equal, or just one, are in order."""
    (x,) = node.inputs
    if scalar_value(x) is None and x.shape[node.op.axis] not in (0, 1):
        return None
    return make(ops.Iota(node.type, node.op.axis), source=node.source)


def _extremum_of_one(node: Node) -> Node | None:
    (x,) = node.inputs
    return x if x.shape[node.op.axis] == 1 or scalar_value(x) is not None else None


def _recurrence_of_one(node: Node) -> Node | None:
    _, b = node.inputs
    return b if b.shape[node.op.axis] == 1 else None


def _known_extent(node: Node) -> Node | None:
    return constant(node.op.dim, node.op.dtype) if isinstance(node.op.dim, int) else None


def _structural(name: str, before: str, after: str, root: object, replace: object) -> Rule:
    return Rule(name, before, after, _EXACT, root=root, replace=replace)  # type: ignore[arg-type]


STRUCTURAL = (
    _structural("order_of_sum", "c + x", "x + c", "add", _normalize_order),
    _structural("order_of_product", "c * x", "x * c", "mul", _normalize_order),
    _structural("known_choice", "where(true, a, b)", "a", "where", _choose_known),
    _structural("drop_implied_broadcast", "f(broadcast(x), y)", "f(x, y)", ops.Map, _slim_operands),
    _structural(
        "map_before_broadcast", "f(broadcast(x))", "broadcast(f(x))", ops.Map, _map_before_broadcast
    ),
    _structural("cast_to_same", "cast(x)", "x", ops.Cast, _same_dtype),
    _structural(
        "cast_before_broadcast", "cast(broadcast(x))", "broadcast(cast(x))", ops.Cast,
        _cast_before_broadcast,
    ),
    _structural("reshape_of_reshape", "reshape(reshape(x))", "reshape(x)", ops.Reshape, _reshape),
    _structural(
        "transpose_of_transpose", "transpose(transpose(x))", "transpose(x)", ops.Transpose,
        _transpose,
    ),
    _structural(
        "broadcast_of_broadcast", "broadcast(broadcast(x))", "broadcast(x)", ops.Broadcast,
        _broadcast,
    ),
    _structural(
        "reduce_axes_of_size_one", "reduce(x)", "reshape(x)", ops.Reduce, _reduce_nothing
    ),
    _structural("slice_of_everything", "slice(x)", "x", ops.Slice, _slice_all),
    _structural("pad_by_nothing", "pad(x)", "x", ops.Pad, _pad_nothing),
    _structural("flip_of_flip", "flip(flip(x))", "x", ops.Flip, _flip),
    _structural("concat_of_one", "concat(x)", "x", ops.Concat, _concat_one),
    _structural(
        "slice_of_concat", "slice(concat(x, y))", "x", ops.Slice, _slice_of_concat
    ),
    _structural("sort_of_equals", "argsort(x)", "iota()", ops.ArgSort, _known_order),
    _structural(
        "extremum_of_one", "runningextremum(x)", "x", ops.RunningExtremum, _extremum_of_one
    ),
    _structural(
        "recurrence_of_one", "linearrecurrence(a, b)", "b", ops.LinearRecurrence,
        _recurrence_of_one,
    ),
    _structural("known_extent", "extent(3)", "3", ops.Extent, _known_extent),
)  # fmt: skip

RULES = (*FOLDING, *ELEMENTWISE, *STRUCTURAL)


def canonicalize(program: Program, on_fire: OnFire | None = None) -> Program:
    """Return ``program`` in canonical spelling."""
    return apply_rules(program, RULES, on_fire)
