"""The shipped table is what SymPy says, and built-in operators never import SymPy."""

from __future__ import annotations

import json
import subprocess
import sys

import mpmath
import numpy as np
import pytest

from chainrule.compiler.autodiff import symbolic
from chainrule.compiler.errors import GraphError
from chainrule.compiler.ir.graph import Program, apply, make
from chainrule.compiler.ir.ops import Input
from chainrule.compiler.ir.scalars import Formula, parse_term
from chainrule.compiler.ir.types import TensorType
from chainrule.compiler.rewrites.stability import RULES
from chainrule.runtime.interpreter import run_program


def test_the_shipped_derivatives_are_those_of_sympy():
    shipped = json.loads(symbolic.TABLE.read_text(encoding="utf-8"))["elementary"]
    assert shipped == {name: symbolic.elementary_derivatives(name) for name in shipped}


@pytest.mark.slow
def test_the_shipped_expansions_are_those_of_sympy():
    assert json.loads(symbolic.TABLE.read_text(encoding="utf-8")) == symbolic.regenerate()


def test_every_formula_that_a_rule_makes_is_shipped():
    shipped = json.loads(symbolic.TABLE.read_text(encoding="utf-8"))["formulas"]
    for rule in RULES:
        if rule.whole:
            from chainrule.compiler.ir.rewrite import term_of

            before, after = rule._match
            names = ("x", "c") if "c" in str(before) and "'c'" in str(before) else ("x",)
            assert str(Formula("f", names, term_of(after))) in shipped, rule.name


def test_built_in_operators_need_no_sympy():
    code = """
import sys
from chainrule.compiler.autodiff.expand import expand_formulas
from chainrule.compiler.autodiff.reverse import gradient
from chainrule.compiler.ir.construct import reduce_sum
from chainrule.compiler.ir.graph import Program, apply, make
from chainrule.compiler.ir.ops import Input
from chainrule.compiler.ir.types import TensorType
from chainrule.compiler.rewrites.stability import stabilize_nodes
x = make(Input("x", TensorType("float32", (3,))))
for name in ("tanh", "sigmoid", "erf"):
    y = apply("mul", apply("div", apply("expm1", x), x), apply(name, x))
    (y,) = stabilize_nodes([reduce_sum(y, (0,))])
    (g,) = stabilize_nodes(gradient([y], [x]))
    expand_formulas(Program((("g", g),)))
assert "sympy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_beyond_the_elementary_vocabulary():
    with pytest.raises(GraphError, match="trigamma has no derivative"):
        symbolic.derivative("trigamma", 0)
    with pytest.raises(GraphError, match="bit_and has no derivative"):
        symbolic.derivative("bit_and", 0)


def test_formulas_are_differentiated_once():
    formula = Formula("f", ("x",), parse_term("mul(sin(x), exp(mul(2, x)))"))
    assert symbolic.derivative(formula, 0) is symbolic.derivative(formula, 0)


@pytest.mark.parametrize(
    "body",
    ["div(expm1(x), x)", "div(sin(x), x)", "div(x, sinh(x))", "div(tanh(x), x)", "div(erf(x), x)"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_expansions_hold_between_the_branches(body, dtype):
    """No step where the polynomial meets the closed form, to the third derivative."""
    formula = Formula("f", ("x",), parse_term(body))
    points = np.concatenate([np.linspace(-3, 3, 61), [1e-9, -1e-9, 0.5, 0.25, 1.0, 2.0, -2.0]])
    points = points.astype(dtype)
    x = make(Input("x", TensorType(dtype, points.shape)))
    plain = {
        "expm1": mpmath.expm1, "sin": mpmath.sin, "sinh": mpmath.sinh, "tanh": mpmath.tanh,
        "erf": mpmath.erf, "div": lambda a, b: a / b,
    }  # fmt: skip
    for order in range(4):
        term = symbolic.stable_term(formula, dtype)
        node = apply(Formula("g", ("x",), term), x)
        got, _ = run_program(Program((("o", node),)), {"x": points})
        with mpmath.workdps(200):
            # body strings read as Python calls of mpmath functions
            def exact(v, order=order):
                at = mpmath.mpf(float(v)) or mpmath.mpf(10) ** -50
                names = dict(plain)
                return mpmath.diff(lambda t: eval(body, names, {"x": t}), at, order)

            expected = np.array([float(exact(v)) for v in points])
        eps = np.finfo(dtype).eps
        scale = np.abs(expected) + np.abs(expected).max() * 1e-3
        worst = np.max(np.abs(got["o"] - expected) / scale)
        assert worst < 60 * 6**order * eps, (order, worst / eps)
        formula = Formula("g", ("x",), symbolic.derivative(formula, 0))
