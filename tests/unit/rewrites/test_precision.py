"""A program computed in another floating-point type: loops and branches with it."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn

X = np.random.default_rng(0).normal(size=(6, 3))


def run(tensor, **arrays):
    return cr.compile(tensor, backend="numpy", dtype="float64")(**arrays)


def test_a_loop_its_items_and_its_carries_change_together():
    x = cr.input("x", ("time", 3))
    last, running = cr.scan(lambda s, row: (s * 0.5 + row, cr.exp(s)), cr.zeros((3,)), x)
    expected, state = [], np.zeros(3)
    for row in X:
        expected.append(np.exp(state))
        state = state * 0.5 + row
    found = run([last, running], x=X)
    assert found[0].dtype == found[1].dtype == np.float64
    np.testing.assert_allclose(found[0], state, rtol=1e-14)
    np.testing.assert_allclose(found[1], expected, rtol=1e-14)


def test_a_loop_in_a_loop_and_its_gradient():
    x = cr.input("x", (3,))
    w = cr.parameter([0.3, -0.2, 0.7], "w", dtype="float32")

    def outer(h, _):
        inner, _ = cr.scan(lambda s, _: (cr.tanh(s * w + x), None), h, length=2)
        return inner, inner.sum()

    _, sums = cr.scan(outer, cr.zeros((3,)), length=3)
    (slope,) = cr.grad(sums.sum(), [w])

    def loss(weights):
        h, total = np.zeros(3), 0.0
        for _ in range(3):
            for _ in range(2):
                h = np.tanh(h * weights + X[0])
            total += h.sum()
        return total

    start = w.value.astype("f8")
    numeric = [(loss(start + 1e-6 * e) - loss(start - 1e-6 * e)) / 2e-6 for e in np.eye(3)]
    np.testing.assert_allclose(run(slope, x=X[0]), numeric, rtol=1e-7)


@pytest.mark.parametrize("value", [2.0, -2.0])
def test_a_branch(value):
    x = cr.input("x", ())
    chosen = cr.cond(x > 0, lambda v: cr.sqrt(v), lambda v: v * 3.0, x)
    expected = np.sqrt(value) if value > 0 else value * 3.0
    assert run(chosen, x=value) == pytest.approx(expected, rel=1e-15)


def test_a_loop_that_ends_by_itself():
    x = cr.input("x", ())
    halved = cr.while_loop(lambda v: v > 1.0, lambda v: v / 3.0, x)
    assert run(halved, x=100.0) == pytest.approx(100 / 3**5, rel=1e-15)


def test_a_recurrent_layer():
    cr.manual_seed(0)
    layer = nn.GRU(3, 4)
    x = cr.input("x", (6, 3))
    states, _ = layer(x)
    single = cr.compile(states, backend="numpy")(x=X)
    double = run(states, x=X)
    assert double.dtype == np.float64
    np.testing.assert_allclose(double, single, rtol=1e-5, atol=1e-6)
