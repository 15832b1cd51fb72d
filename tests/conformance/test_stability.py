"""Naive formulas, computed in float32, against mpmath: value, first and second derivative.

Every formula is written both with tensors and as a formula string, and at every point the float32
result must agree with the exact one wherever the exact one is representable.
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from mpmath import mpf

import chainrule.frontend.functional as F
from chainrule.compiler.autodiff.expand import expand_formulas
from chainrule.compiler.autodiff.reverse import gradient
from chainrule.compiler.ir.graph import Program
from chainrule.compiler.rewrites.algebraic import simplify_algebra
from chainrule.compiler.rewrites.stability import stabilize
from chainrule.frontend.formula import formula
from chainrule.frontend.tensor import Tensor, input
from chainrule.runtime.interpreter import run_program

POINTS = [0.0] + [s * v for v in (1e-30, 1e-8, 1.0, 30.0, 90.0, 1e4) for s in (1, -1)]
EPS = 1e-6
TOLERANCE = [6e-7, 3e-6, 2e-5]
LARGEST = float(np.finfo(np.float32).max)
TINY = 2.0**-126

# name: with tensors, as a string, in mpmath
FORMULAS = {
    "softplus": (
        lambda x: F.log(1 + F.exp(x)),
        "log(1 + exp(x))",
        lambda x: mpmath.log1p(mpmath.exp(x)),
    ),
    "log sigmoid": (
        lambda x: F.log(1 / (1 + F.exp(-x))),
        "log(1/(1 + exp(-x)))",
        lambda x: -mpmath.log1p(mpmath.exp(-x)),
    ),
    "mish": (
        lambda x: x * F.tanh(F.log(1 + F.exp(x))),
        "x*tanh(log(1 + exp(x)))",
        lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))),
    ),
    "minus log of one minus sigmoid": (
        lambda x: -F.log(1 - F.sigmoid(x)),
        "-log(1 - sigmoid(x))",
        lambda x: mpmath.log1p(mpmath.exp(x)),
    ),
    "expm1 over x": (
        lambda x: (F.exp(x) - 1) / x,
        "(exp(x) - 1)/x",
        lambda x: mpmath.expm1(x) / x,
    ),
    "log1p over x": (
        lambda x: F.log(1 + x) / x,
        "log(1 + x)/x",
        lambda x: mpmath.log1p(x) / x,
    ),
    "root of square": (
        lambda x: F.sqrt(x**2 + EPS),
        "sqrt(x**2 + 1e-6)",
        lambda x: mpmath.sqrt(x * x + mpf(float(np.float32(EPS)))),
    ),
    "sinc": (lambda x: F.sin(x) / x, "sin(x)/x", lambda x: mpmath.sin(x) / x),
    "swish": (
        lambda x: x / (1 + F.exp(-x)),
        "x/(1 + exp(-x))",
        lambda x: x / (1 + mpmath.exp(-x)),
    ),
    "sigmoid": (
        lambda x: F.exp(x) / (1 + F.exp(x)),
        "exp(x)/(1 + exp(x))",
        lambda x: 1 / (1 + mpmath.exp(-x)),
    ),
    "x over expm1": (
        lambda x: x / (F.exp(x) - 1),
        "x/(exp(x) - 1)",
        lambda x: x / mpmath.expm1(x),
    ),
    "tanh over x": (lambda x: F.tanh(x) / x, "tanh(x)/x", lambda x: mpmath.tanh(x) / x),
}
UNDEFINED = {"log1p over x": -1.0}  # at and below: what mathematics says, not a number of ours


def lower(nodes):
    """What the pipeline does to a graph after differentiation."""
    program = Program(tuple((f"o{i}", node) for i, node in enumerate(nodes)))
    return simplify_algebra(expand_formulas(stabilize(program)))


def stable(node):
    ((_, node),) = stabilize(Program((("o", node),))).outputs
    return node


def derivatives(x, y):
    """Return the program of y, dy/dx and d²y/dx², differentiated as `grad` does it."""
    levels = [stable(y.node)]
    for _ in range(2):
        total = stable(Tensor(levels[-1]).sum().node)
        levels.append(stable(gradient([total], [x.node])[0]))
    return lower(levels)


def exact(function, x, order):
    with mpmath.workdps(400):
        at = mpf(x) if x else mpf(10) ** -100
        return mpmath.diff(function, at, order) if order else function(at)


def agrees(got, true, tolerance):
    if mpmath.isnan(true) or isinstance(true, mpmath.mpc):
        return np.isnan(got)
    if abs(true) > LARGEST:
        return got == (np.inf if true > 0 else -np.inf)
    return abs(mpf(float(got)) - true) <= tolerance * abs(true) + TINY


@pytest.mark.parametrize("spelling", ["tensors", "string"])
@pytest.mark.parametrize("name", FORMULAS)
def test_scalar_formulas(name, spelling):
    with_tensors, text, reference = FORMULAS[name]
    x = input("x", (len(POINTS),))
    y = with_tensors(x) if spelling == "tensors" else formula(text)(x)
    points = np.array(POINTS, np.float32)
    outputs, _ = run_program(derivatives(x, y), {"x": points})
    wrong = []
    for order in range(3):
        for at, got in zip(points, outputs[f"o{order}"], strict=True):
            if float(at) <= UNDEFINED.get(name, -np.inf):
                continue
            true = exact(reference, float(at), order)
            if not agrees(got, true, TOLERANCE[order]):
                wrong.append(f"order {order} at {at}: {got} is not {mpmath.nstr(true, 9)}")
    assert not wrong, "\n".join(wrong)


# -- sums of exponentials -------------------------------------------------------------------------

LOG_SUM_EXP = {
    "plain": lambda z: F.log(F.sum(F.exp(z), axis=1)),
    "kept": lambda z: F.log(F.sum(F.exp(z), axis=1, keepdims=True)).reshape(z.shape[0]),
    "shifted": lambda z: (
        F.log(F.sum(F.exp(z - z.max(axis=1, keepdims=True)), axis=1)) + z.max(axis=1)
    ),
    "mean": lambda z: F.log(F.mean(F.exp(z), axis=1)) + float(np.log(4)),
}
LOG_SOFTMAX = {
    "plain": lambda z: F.log(F.exp(z) / F.sum(F.exp(z), axis=1, keepdims=True)),
    "shifted": lambda z: F.log(
        F.exp(z - z.max(axis=1, keepdims=True))
        / F.sum(F.exp(z - z.max(axis=1, keepdims=True)), axis=1, keepdims=True)
    ),
    "function": lambda z: F.log(F.softmax(z, axis=1)),
    "reciprocal": lambda z: F.log(F.exp(z) * (1 / F.sum(F.exp(z), axis=1, keepdims=True))),
}
ROWS = np.array(
    [[0, 0, 0, 0], [1e4, 0, -1e4, 90], [-1e4, -1e4, -9990, -9990], [90, 91, 30, -30], [1, 2, 3, 4]],
    np.float32,
)


def softmax(z):
    shifted = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def log_sum_exp(z):
    largest = z.max(axis=1).astype(np.float64)
    return largest + np.log(np.exp(z.astype(np.float64) - largest[:, None]).sum(axis=1))


@pytest.mark.parametrize("spelling", LOG_SUM_EXP)
def test_log_sum_exp(spelling):
    z = input("z", ROWS.shape)
    y = LOG_SUM_EXP[spelling](z)
    total = stable(y.sum().node)
    (slope,) = gradient([total], [z.node])
    (curve,) = gradient([stable(Tensor(slope)[:, 0].sum().node)], [z.node])
    outputs, _ = run_program(lower([y.node, slope, curve]), {"z": ROWS})
    np.testing.assert_allclose(outputs["o0"], log_sum_exp(ROWS), rtol=1e-6, atol=1e-6)
    p = softmax(ROWS)
    np.testing.assert_allclose(outputs["o1"], p, rtol=2e-6, atol=1e-37)
    exact_curve = p[:, :1] * (np.eye(4)[0] - p)
    np.testing.assert_allclose(outputs["o2"], exact_curve, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spelling", LOG_SOFTMAX)
def test_log_softmax(spelling):
    z = input("z", ROWS.shape)
    y = LOG_SOFTMAX[spelling](z)
    (slope,) = gradient([stable(y[:, 1].sum().node)], [z.node])
    outputs, _ = run_program(lower([y.node, slope]), {"z": ROWS})
    expected = ROWS - log_sum_exp(ROWS)[:, None]
    np.testing.assert_allclose(outputs["o0"], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(outputs["o1"], np.eye(4)[1] - softmax(ROWS), rtol=1e-5, atol=1e-6)


def test_log_sum_exp_of_infinities():
    z = input("z", (3, 2))
    rows = np.array([[-np.inf, -np.inf], [np.inf, 0], [-np.inf, 5]], np.float32)
    outputs, _ = run_program(lower([F.log(F.sum(F.exp(z), axis=1)).node]), {"z": rows})
    assert outputs["o0"].tolist() == [-np.inf, np.inf, 5]


def test_softmax_and_indexed_log_softmax():
    z = input("z", ROWS.shape)
    plain = F.exp(z) / F.sum(F.exp(z), axis=1, keepdims=True)
    outputs, _ = run_program(lower([plain.node, F.log(plain[:, 2]).node]), {"z": ROWS})
    np.testing.assert_allclose(outputs["o0"], softmax(ROWS), rtol=1e-6, atol=1e-37)
    expected = ROWS[:, 2] - log_sum_exp(ROWS)
    np.testing.assert_allclose(outputs["o1"], expected, rtol=1e-6, atol=1e-6)
