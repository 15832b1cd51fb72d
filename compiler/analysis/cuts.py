"""Minimum cuts: which values to keep so that others can be computed from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from ..ir.graph import Node, topological

if TYPE_CHECKING:
    import networkx as nx


def cheapest_values(
    needed: Collection[Node],
    cost: Callable[[Node], int],
    fixed: Callable[[Node], bool],
    inside: Callable[[Node], bool],
) -> list[Node]:
    """Return the values of least total ``cost`` from which ``needed`` can be computed.

    Values that are ``fixed`` cannot be computed from others; those not ``inside`` are at hand.
    """
    import networkx as nx

    order = [node for node in topological(needed) if inside(node)]
    graph: nx.DiGraph = nx.DiGraph()
    start, end = object(), object()
    graph.add_nodes_from((start, end))
    for node in order:
        graph.add_edge((node, 0), (node, 1), capacity=cost(node))
        if fixed(node):
            graph.add_edge(start, (node, 0))
        else:
            graph.add_edges_from(((x, 1), (node, 0)) for x in _within(node.inputs, inside))
    for node in needed:
        if inside(node):
            graph.add_edge((node, 1), end)
    _, (before, _) = nx.minimum_cut(graph, start, end)
    return [node for node in order if (node, 0) in before and (node, 1) not in before]


def _within(nodes: Iterable[Node], inside: Callable[[Node], bool]) -> Iterable[Node]:
    return (node for node in nodes if inside(node))
