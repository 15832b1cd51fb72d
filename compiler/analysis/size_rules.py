"""What symbolic sizes must satisfy for a program to make sense, as data to check at call time."""

from __future__ import annotations

from ..artifact import SizeRule
from ..errors import locate
from ..ir import ops
from ..ir.dims import SymbolicDim, product
from ..ir.graph import Node, Program, with_bodies


def find_size_rules(program: Program) -> tuple[SizeRule, ...]:
    """Return the rules of every node: divisors of means, axes of max and min, bounds of slices."""
    rules: list[SizeRule] = []
    for node in with_bodies(program.roots):
        rules += [
            SizeRule(value, locate(message, node.source), unless)
            for value, message, unless in _rules_of(node)
            if any(isinstance(dim, SymbolicDim) for dim in (value, unless))
        ]
    return tuple(dict.fromkeys(rules))


def _rules_of(node: Node) -> list[tuple[int | SymbolicDim, str, int | SymbolicDim]]:
    match node.op:
        case ops.Map(function) if function in {"div", "reciprocal"}:
            divisor = node.inputs[-1]
            while isinstance(divisor.op, (ops.Cast, ops.Broadcast, ops.Reshape)):
                divisor = divisor.inputs[0]
            if isinstance(divisor.op, ops.Extent):
                size = divisor.op.dim
                return [(size, f"mean over an axis of size 0: {size} divides by zero", 1)]
        case ops.Reduce(kind, axes) if kind not in {"sum", "prod"}:
            size = product(tuple(node.inputs[0].shape[axis] for axis in axes))
            return [(size, f"{kind} over an axis of size 0 has no value", 1)]
        case ops.Slice(starts, sizes, steps):
            (x,) = node.inputs
            found = []
            for axis, (dim, start, size, step) in enumerate(
                zip(x.shape, starts, sizes, steps, strict=True)
            ):
                room = dim - (start + (size - 1) * step)
                text = (
                    f"slice: {size} elements from {start} in steps of {step} leave "
                    f"axis {axis} of size {dim}"
                )
                found += [(room, text, size), (start + 1, text, size), (size + 1, text, 1)]
            return found
    return []
