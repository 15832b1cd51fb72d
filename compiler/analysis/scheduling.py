"""Questions about the graph of kernel groups, asked of networkx."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import networkx as nx


def lexicographical_order(numbers: Iterable[int], edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return ``numbers`` in the topological order that prefers small numbers first."""
    graph = nx.DiGraph()
    graph.add_nodes_from(numbers)
    graph.add_edges_from((a, b) for a, b in edges if a != b)
    return list(nx.lexicographical_topological_sort(graph))


def generation_width(numbers: Iterable[int], edges: Iterable[tuple[int, int]]) -> int:
    """Return how many of ``numbers`` wait for nothing but earlier layers, at most."""
    graph = nx.DiGraph()
    graph.add_nodes_from(numbers)
    graph.add_edges_from((a, b) for a, b in edges if a != b)
    return max((len(layer) for layer in nx.topological_generations(graph)), default=0)


def critical_path(
    numbers: Iterable[int], edges: Iterable[tuple[int, int]], cost: Callable[[int], float]
) -> float:
    """Return the largest summed cost along any path."""
    graph = nx.DiGraph()
    graph.add_nodes_from(numbers)
    graph.add_edges_from((a, b) for a, b in edges if a != b)
    finish: dict[int, float] = {}
    for number in nx.topological_sort(graph):
        start = max((finish[p] for p in graph.predecessors(number)), default=0.0)
        finish[number] = start + cost(number)
    return max(finish.values(), default=0.0)
