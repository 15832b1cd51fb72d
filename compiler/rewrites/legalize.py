"""Bring a graph into the forms that the scheduler lowers.

Contractions become matrix products, or products and sums (`contractions`); what reads their results
reads them as they lie (`view_sinking`); a sum over everything becomes one over the last axes, which
threads share, and one over what is left (`reductions`).
"""

from __future__ import annotations

from ..ir import ops
from ..ir.graph import Node, Program
from ..ir.rewrite import replace_nodes
from .contractions import legalize_contract
from .reductions import split_reduction
from .view_sinking import ViewSinking


def legalize(program: Program) -> Program:
    """Return ``program`` with every contraction and reduction in a form that can be lowered."""
    views = ViewSinking()

    def legal(node: Node) -> Node | None:
        if isinstance(node.op, ops.Contract):
            return views.carry(legalize_contract(node))
        node = views.sink(node) or node
        return split_reduction(node) if isinstance(node.op, ops.Reduce) else node

    return program.with_roots(replace_nodes(program.roots, legal))
