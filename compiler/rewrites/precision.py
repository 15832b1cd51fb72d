"""Compute a program in another floating-point type than it was written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..ir import construct, ops
from ..ir.graph import Node, Program, constant, make, topological
from ..ir.types import FLOATS, TensorType


def change_precision(program: Program, dtype: str) -> Program:
    """Return ``program`` with every float computed as ``dtype``.

    Inputs and outputs become ``dtype``.  States keep their type: they are converted when read, and
    what replaces them is converted back.

    Raises ValueError where ``dtype`` is no floating-point type.
    """
    if dtype not in FLOATS:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(sorted(FLOATS))}")

    bodies: dict[ops.Body, ops.Body] = {}

    def converted(roots: Sequence[Node]) -> list[Node]:
        done: dict[Node, Node] = {}
        for node in topological(roots):
            op, inputs = node.op, tuple(done[x] for x in node.inputs)
            if isinstance(op, ops.Nested):
                op = op.with_bodies(tuple(map(converted_body, op.bodies)))
                done[node] = make(op, *inputs, source=node.source)
            else:
                done[node] = _converted(node, inputs, dtype)
        return [done[root] for root in roots]

    # A body and the operands of its loop change together: neither fits the other's old types.
    def converted_body(body: ops.Body) -> ops.Body:
        if body not in bodies:
            ends = converted((*body.formals, *body.results))
            count = len(body.formals)
            bodies[body] = ops.Body(tuple(ends[:count]), tuple(ends[count:]))
        return bodies[body]

    required = [r.input for r in program.requirements if r.input in set(program.inputs())]
    roots = converted([*program.roots, *required])
    changed = program.with_roots(roots[: len(program.roots)])
    done = dict(zip(required, roots[len(program.roots) :], strict=True))
    updates = tuple(
        (state, construct.cast(value, state.dtype))
        for (state, _), (_, value) in zip(program.updates, changed.updates, strict=True)
    )
    requirements = tuple(
        replace(r, input=done[r.input]) for r in program.requirements if r.input in done
    )
    return replace(changed, updates=updates, requirements=requirements)


def _converted(node: Node, inputs: tuple[Node, ...], dtype: str) -> Node:
    op = node.op
    wanted = dtype if node.type.is_float else node.dtype
    match op:
        case ops.Input(label, kind) if kind.is_float:
            return make(ops.Input(label, TensorType(dtype, kind.shape)), source=node.source)
        case ops.State():
            return construct.cast(node, wanted)
        case ops.Constant(value) if node.type.is_float:
            return constant(value.array, dtype, node.source)
        case ops.Extent(dim, kind) if kind in FLOATS:
            return make(ops.Extent(dim, dtype), source=node.source)
        case ops.Iota(kind, axis) if kind.is_float:
            return make(ops.Iota(TensorType(dtype, kind.shape), axis), source=node.source)
        case ops.Cast():
            return construct.cast(inputs[0], wanted)
        case _:
            return make(op, *inputs, source=node.source)
