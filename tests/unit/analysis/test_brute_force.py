"""The analyses that ask networkx, against definitions written out over small random graphs."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.compiler.analysis import scheduling
from chainrule.compiler.analysis.liveness import interference_graph, live_intervals
from chainrule.compiler.analysis.views import (
    critical_path,
    dominators,
    graph_view,
    is_convex,
    reachable_between,
    topological_generations,
)
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Node, make
from chainrule.compiler.ir.types import TensorType

COUNT = 7
edges = st.sets(
    st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)).filter(lambda e: e[0] < e[1]),
    max_size=14,
)


def paths(links: set[tuple[int, int]], start: int) -> list[tuple[int, ...]]:
    """Return every path from ``start``, its prefixes included."""
    found = [(start,)]
    for a, b in sorted(links):
        if a == start:
            found += [(start, *rest) for rest in paths(links, b)]
    return found


def reaches(links: set[tuple[int, int]], a: int, b: int) -> bool:
    return any(path[-1] == b for path in paths(links, a))


def nodes_of(links: set[tuple[int, int]]) -> list[Node]:
    """Return nodes whose edges are ``links``: concatenations, which take any number of inputs."""
    found: list[Node] = []
    for number in range(COUNT):
        sources = [found[a] for a, b in sorted(links) if b == number]
        leaf = make(ops.Input(f"x{number}", TensorType("float32", (1,))))
        found.append(make(ops.Concat(0), leaf, *sources) if sources else leaf)
    return found


def inner(links: set[tuple[int, int]], found: list[Node]):
    """Return the view of the graph without the leaves that only make nodes distinct."""
    view = graph_view(found)
    return view.subgraph(found)


@settings(max_examples=80, deadline=None)
@given(edges)
def test_order_takes_the_smallest_that_is_ready(links):
    order = scheduling.lexicographical_order(range(COUNT), links)
    done: list[int] = []
    while len(done) < COUNT:
        ready = [
            n for n in range(COUNT) if n not in done and all(a in done for a, b in links if b == n)
        ]
        done.append(min(ready))
    assert order == done


@settings(max_examples=80, deadline=None)
@given(edges, st.lists(st.integers(1, 9), min_size=COUNT, max_size=COUNT))
def test_critical_paths(links, costs):
    every = [path for start in range(COUNT) for path in paths(links, start)]
    expected = max(sum(costs[n] for n in path) for path in every)
    assert scheduling.critical_path(range(COUNT), links, lambda n: costs[n]) == expected
    found = nodes_of(links)
    price = {node: cost for node, cost in zip(found, costs, strict=True)}
    total, path = critical_path(inner(links, found), price.__getitem__)
    assert total == expected == sum(price[node] for node in path)
    numbers = [found.index(node) for node in path]
    assert all(pair in links for pair in itertools.pairwise(numbers))


@settings(max_examples=80, deadline=None)
@given(edges, st.sets(st.integers(0, COUNT - 1)))
def test_convexity(links, group):
    expected = not any(
        reaches(links, a, out) and reaches(links, out, b)
        for a in group
        for b in group
        for out in set(range(COUNT)) - group
    )
    found = nodes_of(links)
    assert is_convex(graph_view(found), [found[n] for n in group]) == expected


@settings(max_examples=80, deadline=None)
@given(edges, st.sets(st.integers(0, COUNT - 1)), st.sets(st.integers(0, COUNT - 1)))
def test_reachability(links, sources, targets):
    found = nodes_of(links)
    between = reachable_between(
        graph_view(found), [found[n] for n in sources], [found[n] for n in targets]
    )
    expected = {
        found[n]
        for n in range(COUNT)
        if any(reaches(links, a, n) for a in sources) and any(reaches(links, n, b) for b in targets)
    }
    assert between == expected


@settings(max_examples=80, deadline=None)
@given(edges)
def test_generations_are_longest_distances(links):
    found = nodes_of(links)
    layers = topological_generations(inner(links, found))
    depth = {
        n: max(len(p) for s in range(COUNT) for p in paths(links, s) if p[-1] == n)
        for n in range(COUNT)
    }
    assert [{found.index(node) for node in layer} for layer in layers] == [
        {n for n in range(COUNT) if depth[n] == d} for d in range(1, max(depth.values()) + 1)
    ]


@settings(max_examples=80, deadline=None)
@given(edges)
def test_dominators(links):
    """The nearest node, other than itself, on every path from a node to any sink."""
    found = nodes_of(links)
    nearest = dominators(inner(links, found))
    sinks = {n for n in range(COUNT) if not any(a == n for a, _ in links)}
    for n in range(COUNT):
        whole = [set(p) - {n} for p in paths(links, n) if p[-1] in sinks]
        common = set.intersection(*whole)
        found_node = nearest[found[n]]
        if not common:
            assert found_node is None
        else:
            # Common nodes lie on one chain; the nearest reaches all the others.
            (closest,) = [c for c in common if all(reaches(links, c, other) for other in common)]
            assert found_node is found[closest]


uses = st.lists(
    st.tuples(st.integers(0, 8), st.lists(st.sampled_from("abcdef"), max_size=3)), max_size=10
)


@settings(max_examples=120, deadline=None)
@given(uses)
def test_liveness_and_interference(events):
    intervals = live_intervals(events)
    times: dict[str, list[int]] = {}
    for time, names in events:
        for name in names:
            times.setdefault(name, []).append(time)
    assert intervals == {name: (min(at), max(at)) for name, at in times.items()}
    graph = interference_graph(intervals)
    assert set(graph) == set(intervals)
    for a, b in itertools.combinations(sorted(intervals), 2):
        together = intervals[a][0] <= intervals[b][1] and intervals[b][0] <= intervals[a][1]
        assert graph.has_edge(a, b) == together
