"""Random graphs compute the same before and after every phase."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.compiler.autodiff.expand import expand_formulas
from chainrule.compiler.ir import construct, ops
from chainrule.compiler.ir.graph import Program, apply, constant, make
from chainrule.compiler.ir.types import TensorType
from chainrule.compiler.rewrites.algebraic import simplify_algebra
from chainrule.compiler.rewrites.canonicalize import canonicalize
from chainrule.compiler.rewrites.folding import fold_constants
from chainrule.compiler.rewrites.stability import stabilize
from chainrule.runtime.interpreter import run_program

UNARY = ["neg", "abs", "square", "relu", "sin", "cos", "tanh", "sigmoid", "softplus", "erf", "atan"]
BINARY = ["add", "sub", "mul", "maximum", "minimum"]


@st.composite
def graphs(draw):
    """A float64 graph over x (2, 3) and y (3,), and its number of reductions at most two."""
    pool = [
        make(ops.Input("x", TensorType("float64", (2, 3)))),
        make(ops.Input("y", TensorType("float64", (3,)))),
        *(constant(v, "float64") for v in (0, 1, -1, 2, 0.5, -3)),
    ]
    for _ in range(draw(st.integers(1, 14))):
        a, b = (draw(st.sampled_from(pool)) for _ in range(2))
        kind = draw(
            st.sampled_from(["unary"] * 3 + ["binary"] * 5 + ["exp", "div", "view", "reduce"])
        )
        if kind == "unary":
            node = apply(draw(st.sampled_from(UNARY)), a)
        elif kind == "exp":
            node = apply("exp", apply("minimum", a, constant(3, "float64")))
        elif kind == "div":
            node = apply(
                "div", a, apply("add", apply("exp", apply("tanh", b)), constant(1, "float64"))
            )
        elif kind == "view" and a.type.rank == 2:
            node = construct.transpose(construct.transpose(a, (1, 0)), (1, 0))
            node = make(ops.Reshape((3, 2)), node)
            node = make(ops.Reshape((2, 3)), make(ops.Reshape((6,)), node))
        elif kind == "view":
            node = make(ops.Broadcast((2, 3)), a) if a.shape != (2, 3) else a
        elif kind == "reduce" and a.type.rank == 2:
            name = draw(st.sampled_from(["sum", "max", "min", "prod"]))
            summed = make(ops.Reduce(name, (draw(st.sampled_from([0, 1])),)), a)
            node = (
                make(ops.Broadcast((2, 3)), make(ops.Reshape((2, 1)), summed))
                if summed.shape == (2,)
                else summed
            )
        else:
            node = apply(draw(st.sampled_from(BINARY)), a, b)
        pool.append(node)
    return pool[-1]


PHASES = {
    "canonicalize": canonicalize,
    "fold": fold_constants,
    "algebra": simplify_algebra,
    "stabilize": stabilize,
    "all": lambda p: simplify_algebra(expand_formulas(stabilize(p))),
}


@pytest.mark.parametrize("phase", PHASES)
@settings(max_examples=150, deadline=None)
@given(node=graphs())
def test_phases_keep_the_value(phase, node):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((2, 3)), "y": rng.standard_normal(3)}
    results = []
    for program in (before := Program((("o", node),)), PHASES[phase](before)):
        used = {n.op.label for n in program.inputs()}
        outputs, _ = run_program(program, {k: v for k, v in arrays.items() if k in used})
        results.append(outputs["o"])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-7, atol=1e-9)
    assert results[0].shape == results[1].shape


@settings(max_examples=50, deadline=None)
@given(node=graphs())
def test_phases_are_idempotent(node):
    once = stabilize(Program((("o", node),)))
    assert stabilize(once).roots == once.roots
