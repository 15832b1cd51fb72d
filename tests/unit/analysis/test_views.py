"""Questions to a graph of nodes, on a diamond with a tail."""

from __future__ import annotations

import pytest

from chainrule.compiler.analysis.views import (
    critical_path,
    dominators,
    graph_view,
    is_convex,
    reachable_between,
    topological_generations,
    width,
)
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import apply, make
from chainrule.compiler.ir.types import TensorType


@pytest.fixture
def diamond():
    x = make(ops.Input("x", TensorType("float32", ())))
    a = apply("exp", x)
    left, right = apply("sin", a), apply("cos", a)
    joined = apply("mul", left, right)
    return {"x": x, "a": a, "left": left, "right": right, "joined": joined}


def test_order_and_width(diamond):
    view = graph_view([diamond["joined"]])
    layers = topological_generations(view)
    assert layers == [[diamond["x"]], [diamond["a"]], [diamond["left"], diamond["right"]],
                      [diamond["joined"]]]  # fmt: skip
    assert width(view) == 2


def test_reachability(diamond):
    view = graph_view([diamond["joined"]])
    between = reachable_between(view, [diamond["left"]], [diamond["joined"]])
    assert between == {diamond["left"], diamond["joined"]}


def test_dominators(diamond):
    view = graph_view([diamond["joined"]])
    after = dominators(view)
    assert after[diamond["a"]] is diamond["joined"]
    assert after[diamond["joined"]] is None
    before = dominators(view, towards="inputs")
    assert before[diamond["joined"]] is diamond["a"]


def test_convexity(diamond):
    view = graph_view([diamond["joined"]])
    assert is_convex(view, [diamond["a"], diamond["left"], diamond["right"], diamond["joined"]])
    assert not is_convex(view, [diamond["a"], diamond["left"], diamond["joined"]])


def test_critical_path(diamond):
    view = graph_view([diamond["joined"]])
    total, path = critical_path(view, lambda n: 5 if n is diamond["right"] else 1)
    assert total == 8
    assert path == [diamond["x"], diamond["a"], diamond["right"], diamond["joined"]]
