"""Reverse accumulation: the chain rule over the hash-consed graph.

The result is a graph like any other, so that it can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..analysis.views import graph_view, reachable_between
from ..errors import GraphError, GraphTypeError, locate
from ..ir import construct
from ..ir.dims import format_shape
from ..ir.graph import Node, constant, topological
from .adjoints import adjoint


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
    pending: dict[Node, Node] = {}
    for output, seed in zip(outputs, _seeds(outputs, cotangents), strict=True):
        _accumulate(pending, output, seed)
    order = topological(outputs)
    wanted = set(wrt)
    active = reachable_between(graph_view(outputs), wrt, outputs)
    found: dict[Node, Node] = {}
    for node in reversed(order):
        cotangent = pending.pop(node, None)
        if cotangent is None or node not in active:
            continue
        if node in wanted:
            found[node] = cotangent
        flows = [x in active and x.type.is_float for x in node.inputs]
        if any(flows):
            for x, flow, part in zip(
                node.inputs, flows, adjoint(node, cotangent, flows), strict=True
            ):
                if flow and part is not None:
                    _accumulate(pending, x, part)
    return [found[x] if x in found else construct.full(0, x.type) for x in wrt]


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
