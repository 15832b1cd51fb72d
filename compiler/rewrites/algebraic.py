"""Algebra: fewer and cheaper operators for the same value.

Sums are not reassociated and no product is distributed; a rule may save a rounding, never add a
cancellation.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import construct, ops
from ..ir.graph import Node, Program, apply, make, scalar_value
from ..ir.rewrite import Bindings, OnFire, Rule, apply_rules
from .canonicalize import RULES as CANONICAL

_POWERS: dict[float, tuple[str, ...]] = {
    1.0: (),
    2.0: ("square",),
    4.0: ("square", "square"),
    0.5: ("sqrt",),
    -0.5: ("rsqrt",),
    -1.0: ("reciprocal",),
    -2.0: ("reciprocal", "square"),
}


def _fixed_power(node: Node) -> Node | None:
    """``x ** c`` for the exponents that have a function of their own."""
    x, exponent = node.inputs
    value = scalar_value(exponent)
    if value == 0:
        return construct.full(1, node.type)
    if value == 3:
        return construct.mul(apply("square", x), x)
    if value not in _POWERS:
        return None
    for function in _POWERS[value]:
        x = apply(function, x)
    return construct.broadcast_to(x, node.shape)


def _finite_product(bindings: Bindings) -> bool:
    a, b = (scalar_value(bindings[name]) for name in ("c", "c2"))
    return isinstance(a, float) and isinstance(b, float) and 1e-30 < abs(a * b) < 1e30


ELEMENTWISE = (
    Rule("product_with_itself_to_square", "x * x", "square(x)", "the same product"),
    Rule("sum_with_itself", "x + x", "x * 2", "exact"),
    Rule(
        "scale_twice", "x * c * c2", "x * (c * c2)", "one rounding less; the factor is in range",
        _finite_product,
    ),
    Rule(
        "fixed_power", "pow(x, 2)", "square(x)", "as PyTorch: integer and half-integer powers",
        root="pow", replace=_fixed_power,
    ),
    Rule("reciprocal_root", "reciprocal(sqrt(x))", "rsqrt(x)", "the definition of rsqrt"),
)  # fmt: skip


# -- reductions -----------------------------------------------------------------------------------


def _reduce_broadcast(node: Node) -> Node | None:
    (x,) = node.inputs
    if not isinstance(x.op, ops.Broadcast):
        return None
    if node.op.kind == "sum":
        simpler = construct.reduce_sum(x, node.op.axes)
        return None if simpler is node else simpler
    if node.op.kind not in {"max", "min"}:
        return None
    (source,) = x.inputs
    lead = x.type.rank - source.type.rank
    axes, inner, kept_shape = [], [], []
    for axis, dim in enumerate(x.shape):
        repeated = axis < lead or (source.shape[axis - lead] == 1 and dim != 1)
        if axis not in node.op.axes:
            kept_shape.append(dim)
        elif not repeated:
            inner.append(axis - lead)
        else:
            axes.append(axis)
    if not axes or any(not isinstance(x.shape[a], int) or x.shape[a] == 0 for a in axes):
        return None  # an empty axis has no maximum, and a symbolic one may be empty
    reduced = source
    if inner:
        reduced = make(ops.Reduce(node.op.kind, tuple(inner)), source, source=node.source)
        reduced = construct.keep_axes(reduced, inner, source.shape)
    keep = [axis - lead for axis in range(lead, x.type.rank) if axis not in node.op.axes]
    reduced = construct.reshape(reduced, tuple(reduced.shape[axis] for axis in keep))
    return construct.broadcast_to(reduced, tuple(kept_shape))


def _reduce_twice(node: Node) -> Node | None:
    (x,) = node.inputs
    if not isinstance(x.op, ops.Reduce) or x.op.kind != node.op.kind:
        return None
    if node.op.kind not in {"sum", "prod", "max", "min"}:
        return None
    (source,) = x.inputs
    left = [axis for axis in range(source.type.rank) if axis not in x.op.axes]
    axes = sorted((*x.op.axes, *(left[axis] for axis in node.op.axes)))
    return make(ops.Reduce(node.op.kind, tuple(axes)), source, source=node.source)


def _reduce_transpose(node: Node) -> Node | None:
    (x,) = node.inputs
    if not isinstance(x.op, ops.Transpose) or node.op.kind.startswith("arg"):
        return None
    permutation = x.op.permutation
    axes = sorted(permutation[axis] for axis in node.op.axes)
    kept = [axis for axis in range(x.type.rank) if axis not in axes]
    wanted = [permutation[axis] for axis in range(x.type.rank) if axis not in node.op.axes]
    reduced = make(ops.Reduce(node.op.kind, tuple(axes)), x.inputs[0], source=node.source)
    return construct.transpose(reduced, [kept.index(axis) for axis in wanted])


def _sum_of_scaled(node: Node) -> Node | None:
    """``sum(x * c) → sum(x) * c``, and ``sum(-x) → -sum(x)``.

    ``c`` is one number along the axes that are summed: a normaliser of rows in the gradient of a
    softmax leaves the sum over the row, and the division is made once a row.
    """
    (x,) = node.inputs
    if node.op.kind != "sum" or not isinstance(x.op, ops.Map) or not x.type.is_float:
        return None
    if x.op.function == "neg":
        return construct.neg(construct.reduce_sum(x.inputs[0], node.op.axes))
    if x.op.function not in {"mul", "div"}:
        return None
    for place in (1, 0) if x.op.function == "mul" else (1,):
        value, factor = x.inputs[1 - place], x.inputs[place]
        if value.shape == x.shape and _is_constant_along(factor, node.op.axes, x.type.rank):
            total = construct.reduce_sum(value, node.op.axes)
            kept = [axis for axis in range(x.type.rank) if axis not in node.op.axes]
            lead = x.type.rank - factor.type.rank
            shape = [factor.shape[axis - lead] if axis >= lead else 1 for axis in kept]
            return apply(x.op.function, total, construct.reshape(factor, tuple(shape)))
    return None


def _is_constant_along(factor: Node, axes: tuple[int, ...], rank: int) -> bool:
    """Whether ``factor``, broadcast to ``rank`` axes, is one number along each of ``axes``."""
    lead = rank - factor.type.rank
    return all(axis < lead or factor.shape[axis - lead] == 1 for axis in axes)


# -- transposes -----------------------------------------------------------------------------------


def _transpose_into_contract(node: Node) -> Node | None:
    """An operand's transpose becomes a permutation of its index map."""
    if not any(isinstance(x.op, ops.Transpose) for x in node.inputs):
        return None
    maps, inputs = [], []
    for x, index_map in zip(node.inputs, node.op.maps, strict=True):
        if isinstance(x.op, ops.Transpose):
            permutation = x.op.permutation
            index_map = tuple(index_map[permutation.index(a)] for a in range(x.type.rank))
            x = x.inputs[0]
        maps.append(index_map)
        inputs.append(x)
    return make(replace(node.op, maps=tuple(maps)), *inputs, source=node.source)


STRUCTURAL = (
    Rule("reduce_broadcast", "sum(broadcast(x))", "x * size", "one product for size - 1 sums",
         root=ops.Reduce, replace=_reduce_broadcast),
    Rule("reduce_twice", "sum(sum(x))", "sum(x)", "sums are of unspecified order",
         root=ops.Reduce, replace=_reduce_twice),
    Rule("reduce_transpose", "sum(transpose(x))", "transpose(sum(x))",
         "sums are of unspecified order", root=ops.Reduce, replace=_reduce_transpose),
    Rule("sum_of_scaled", "sum(x * c)", "sum(x) * c", "fewer roundings",
         root=ops.Reduce, replace=_sum_of_scaled),
    Rule("transpose_into_contract", "contract(transpose(x), y)", "contract(x, y)", "exact",
         root=ops.Contract, replace=_transpose_into_contract),
)  # fmt: skip

RULES = (*CANONICAL, *ELEMENTWISE, *STRUCTURAL)


def simplify_algebra(program: Program, on_fire: OnFire | None = None) -> Program:
    """Return ``program`` in canonical spelling with fewer and cheaper operators."""
    return apply_rules(program, RULES, on_fire)
