"""Reverse accumulation: the chain rule over the hash-consed graph.

The result is a graph like any other, so that it can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..analysis.views import graph_view, reachable_between
from ..errors import GraphError, GraphTypeError, locate
from ..ir import construct, ops
from ..ir.bodies import families, family, merge_loops
from ..ir.dims import format_shape
from ..ir.graph import Node, constant, topological
from .adjoints import Cotangents, adjoint
from .loops import loop_adjoint


def gradient(
    outputs: Sequence[Node], wrt: Sequence[Node], cotangents: Sequence[Node] | None = None
) -> list[Node]:
    """Return the gradient of ``outputs`` with respect to each of ``wrt``.

    Parameters
    ----------
    outputs
        Floating-point nodes; 0-d each, unless ``cotangents`` are given.
    wrt
        Floating-point nodes, leaves or not.  Where nothing flows the gradient is constant zero.
    cotangents
        The vector of the vector-Jacobian product: one node for each output, of its type.

    Raises
    ------
    GraphTypeError
        For integer or bool ``outputs`` or ``wrt``.
    GraphError
        For an output that is no scalar and has no cotangent, or a cotangent of another type.
    """
    for what, nodes in (("gradient of", outputs), ("gradient with respect to", wrt)):
        for node in nodes:
            if not node.type.is_float:
                message = f"{what} {node.op.name}: needs floating-point elements, not {node.type}"
                raise GraphTypeError(locate(message, node.source))
    outputs, wrt = _merged(outputs, wrt)
    pending: dict[Node, Node] = {}
    for output, seed in zip(outputs, _seeds(outputs, cotangents), strict=True):
        _accumulate(pending, output, seed)
    order = topological(outputs)
    wanted = set(wrt)
    active = reachable_between(graph_view(outputs), wrt, outputs)
    found: dict[Node, Node] = {}
    loops = _Loops(order)
    for node in reversed(order):
        cotangent = pending.pop(node, None)
        if cotangent is not None and node in wanted:
            found[node] = cotangent
        flows = [x in active and x.type.is_float for x in node.inputs]
        if isinstance(node.op, ops.Nested):
            parts = loops.adjoint(node, cotangent if node in active else None, flows)
        elif cotangent is None or node not in active or not any(flows):
            continue
        else:
            parts = adjoint(node, cotangent, flows)
        for x, flow, part in zip(node.inputs, flows, parts, strict=True):
            if flow and part is not None:
                _accumulate(pending, x, part)
    return [found[x] if x in found else construct.full(0, x.type) for x in wrt]


class _Loops:
    """Waits for the cotangents of all outputs of a loop, so that its adjoint is one loop."""

    def __init__(self, order: Sequence[Node]) -> None:
        self.waiting = {key: len(nodes) for key, nodes in families(order).items()}
        self.cotangents: dict[object, dict[int, Node]] = {}

    def adjoint(self, node: Node, cotangent: Node | None, flows: Sequence[bool]) -> Cotangents:
        """Return the cotangents of the inputs at the last output that is seen, else nothing.

        All users of a loop's outputs come before that one in reversed order, all of the loop's
        inputs after it.
        """
        assert isinstance(node.op, ops.Nested)
        key = family(node)
        known = self.cotangents.setdefault(key, {})
        if cotangent is not None:
            known[node.op.output] = cotangent
        self.waiting[key] -= 1
        if self.waiting[key] or not known or not any(flows):
            return [None] * len(node.inputs)
        return loop_adjoint(node, known, flows, gradient)


def _merged(outputs: Sequence[Node], wrt: Sequence[Node]) -> tuple[Sequence[Node], Sequence[Node]]:
    """Unite loops that share their carries, as a loop and its own gradient's copy of it do."""
    merged = merge_loops([*outputs, *wrt])
    return merged[: len(outputs)], merged[len(outputs) :]


def _seeds(outputs: Sequence[Node], cotangents: Sequence[Node] | None) -> Sequence[Node]:
    if cotangents is None:
        for node in outputs:
            if node.shape != ():
                message = (
                    f"gradient of {node.op.name}: the output is no scalar but "
                    f"{format_shape(node.shape)}; sum it, or pass cotangents"
                )
                raise GraphError(locate(message, node.source))
        return [constant(1, node.dtype) for node in outputs]
    if len(cotangents) != len(outputs):
        raise GraphError(f"{len(cotangents)} cotangents do not fit {len(outputs)} outputs")
    for node, seed in zip(outputs, cotangents, strict=True):
        if node.type != seed.type:
            message = f"a cotangent of {seed.type} does not fit an output of {node.type}"
            raise GraphError(locate(message, node.source))
    return cotangents


def _accumulate(pending: dict[Node, Node], node: Node, part: Node) -> None:
    pending[node] = construct.add(pending[node], part) if node in pending else part


def hessian_vector_product(
    output: Node, wrt: Sequence[Node], vectors: Sequence[Node]
) -> list[Node]:
    """Return the Hessian of the scalar ``output`` times ``vectors``, one for each of ``wrt``.

    Reverse over reverse: the Hessian is symmetric, so the product is the vector-Jacobian product of
    the gradient.
    """
    return gradient(gradient([output], wrt), wrt, vectors)
