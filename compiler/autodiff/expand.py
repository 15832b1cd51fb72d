"""Lower composite formulas to elementary functions, stably; the last stage that knows formulas."""

from __future__ import annotations

from ..ir import construct, ops
from ..ir.graph import Node, Program
from ..ir.rewrite import replace_nodes
from ..ir.scalars import Formula
from ..ir.terms import inline_term
from .symbolic import stable_term


def expand_formulas(program: Program) -> Program:
    """Return ``program`` with every `Map` of a `Formula` replaced by maps of elementary functions.

    Run it after differentiation; `stabilize` would make formulas again, so follow it by
    ``simplify_algebra`` only.
    """

    def substitute(node: Node) -> Node | None:
        if not isinstance(node.op, ops.Map) or not isinstance(node.op.function, Formula):
            return None
        formula, dtype = node.op.function, node.inputs[0].dtype
        bindings = dict(zip(formula.params, node.inputs, strict=True))
        value = inline_term(stable_term(formula, dtype), bindings, dtype)
        return construct.broadcast_to(value, node.shape)

    return program.with_roots(replace_nodes(program.roots, substitute))
