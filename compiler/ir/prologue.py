"""Prologues: cheap functions of one array that a contraction applies while it packs an operand."""

from __future__ import annotations

from . import ops
from .graph import Node, scalar_value

#: Functions of the operand alone, and functions of it and a number (the number second).
UNARY = frozenset({"neg", "abs", "sign", "square", "relu"})
WITH_NUMBER = frozenset({"add", "sub", "mul", "minimum", "maximum"})
COMMUTATIVE = frozenset({"add", "mul", "minimum", "maximum"})


def prologue_step(node: Node) -> tuple[Node, str, float | None] | None:
    """Return ``(x, function, number)`` where ``node`` is that function of ``x``, else None.

    ``number`` is the second argument, None for a unary function.  ``x`` has the node's shape.
    """
    if not isinstance(node.op, ops.Map) or not node.type.is_float:
        return None
    function = node.op.function
    if function in UNARY:
        return node.inputs[0], str(function), None
    if function not in WITH_NUMBER:
        return None
    x, second = node.inputs
    if scalar_value(second) is None and function in COMMUTATIVE:
        x, second = second, x
    number = scalar_value(second)
    if number is None or x.shape != node.shape:
        return None
    return x, str(function), float(number)


def prologue_base(node: Node) -> Node:
    """Return the array that ``node`` is a chain of prologue steps of: itself, for none."""
    while (step := prologue_step(node)) is not None:
        node = step[0]
    return node
