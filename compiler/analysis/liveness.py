"""When buffers are alive, and which of them may not share memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import networkx as nx


def live_intervals(
    uses: Iterable[tuple[int, Iterable[str]]],
) -> dict[str, tuple[int, int]]:
    """Return the first and last time at which each name is used; ``uses`` is (time, names)."""
    intervals: dict[str, tuple[int, int]] = {}
    for time, names in uses:
        for name in names:
            first, last = intervals.get(name, (time, time))
            intervals[name] = (min(first, time), max(last, time))
    return intervals


def interference_graph(intervals: Mapping[str, tuple[int, int]]) -> nx.Graph:
    """Return the graph whose edges join names that are alive at one time."""
    graph = nx.Graph()
    graph.add_nodes_from(intervals)
    alive: list[str] = []
    for name in sorted(intervals, key=lambda n: intervals[n]):
        first = intervals[name][0]
        alive = [other for other in alive if intervals[other][1] >= first]
        graph.add_edges_from((name, other) for other in alive)
        alive.append(name)
    return graph
