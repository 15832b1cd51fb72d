"""Rules in place of derivatives: on both backends, inside loops, of second order."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import F

BACKENDS = ["numpy", "native"]
X = np.array([-1.6, -0.4, 0.3, 2.5])


def values_of(tensors, backend, **arrays):
    return cr.compile(tensors, backend=backend)(**arrays)


@pytest.mark.parametrize("backend", BACKENDS)
def test_straight_through(backend):
    @cr.custom_gradient
    def rounded(x):
        return F.round(x), lambda cotangent: cotangent

    x = cr.input("x", (4,), "float64")
    y = rounded(x)
    value, slope = values_of([y, cr.grad((y * y).sum(), [x])[0]], backend, x=X)
    np.testing.assert_array_equal(value, np.round(X))
    np.testing.assert_array_equal(slope, 2 * np.round(X))


@pytest.mark.parametrize("backend", BACKENDS)
def test_reversal_and_clipping_of_gradients(backend):
    @cr.custom_gradient
    def reversed_gradient(x, strength=1.0):
        return x, lambda cotangent: -strength * cotangent

    @cr.custom_gradient
    def clipped_gradient(x):
        return x, lambda cotangent: F.clip(cotangent, -1, 1)

    x = cr.input("x", (4,), "float64")
    (back,) = cr.grad(F.sin(reversed_gradient(x, strength=0.5)).sum(), [x])
    (short,) = cr.grad((clipped_gradient(x) ** 2).sum(), [x])
    found = values_of([back, short], backend, x=X)
    np.testing.assert_allclose(found[0], -0.5 * np.cos(X))
    np.testing.assert_allclose(found[1], np.clip(2 * X, -1, 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_outputs_and_arguments(backend):
    """What the forward pass computed is there for the rule; an unused output has cotangent 0."""

    @cr.custom_gradient
    def both(a, b, label):
        product = a * b

        def backward(first, second):
            return first * b + second, first.sum() * product, None

        return (product, a + b), backward

    a, b = cr.input("a", (3,), "float64"), cr.input("b", (3,), "float64")
    product, total = both(a, b, 3)
    whole = cr.grad((product * 2 + total * 5).sum(), [a, b])
    (alone,) = cr.grad(product.sum(), [b])
    u, v = np.array([1.0, 2, 3]), np.array([4.0, 5, 6])
    found = values_of([product, total, *whole, alone], backend, a=u, b=v)
    for result, expected in zip(
        found, (u * v, u + v, 2 * v + 5, 6 * u * v, 3 * u * v), strict=True
    ):
        np.testing.assert_allclose(result, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_order_differentiates_the_rule(backend):
    @cr.custom_gradient
    def odd(x):
        return F.exp(x), lambda cotangent: cotangent * x * x * x

    x = cr.input("x", (4,), "float64")
    (first,) = cr.grad(odd(x).sum(), [x])
    (second,) = cr.grad(first.sum(), [x])
    found = values_of([first, second], backend, x=X)
    np.testing.assert_allclose(found[0], X**3)
    np.testing.assert_allclose(found[1], 3 * X**2)


def test_nothing_is_left_of_a_rule_in_a_compiled_program():
    @cr.custom_gradient
    def same(x):
        return x, lambda cotangent: cotangent

    x = cr.input("x", (64,))
    run = cr.compile(F.exp(same(x)), backend="native")
    assert len(run.executable.artifact.loops.kernels) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rule_inside_a_loop(backend):
    @cr.custom_gradient
    def leaky(x):
        return F.tanh(x), lambda cotangent: cotangent * 0.5

    x, h = cr.input("x", (5, 3), "float64"), cr.input("h", (3,), "float64")
    last, _ = cr.scan(lambda carry, item: (leaky(carry + item), None), h, x)
    slopes = cr.grad(last.sum(), [h, x])
    found = values_of(slopes, backend)
    np.testing.assert_allclose(found[0], np.full(3, 0.5**5))
    np.testing.assert_allclose(found[1], np.outer(0.5 ** np.arange(5, 0, -1), np.ones(3)))


def test_a_rule_trains():
    """A binary layer learns through its straight-through rule."""

    @cr.custom_gradient
    def signs(w):
        return F.where(w >= 0, 1.0, -1.0), lambda cotangent: cotangent

    cr.manual_seed(0)
    x, y = cr.input("x", ("batch", 8)), cr.input("y", ("batch",))
    w = cr.parameter(np.full(8, 0.1, np.float32), "w")
    loss = ((x @ signs(w) - y) ** 2).mean()
    train = cr.compile_train(loss, cr.optim.SGD(0.01))
    rng = np.random.default_rng(0)
    hidden = np.array([1, -1, -1, 1, 1, -1, 1, -1], np.float32)
    for _ in range(60):
        batch = rng.standard_normal((32, 8)).astype(np.float32)
        result = train.step(x=batch, y=batch @ hidden)
    assert result["loss"] < 1e-8


def test_what_does_not_fit_is_named():
    x = cr.input("x", (3,))

    @cr.custom_gradient
    def alone(x):
        return x

    @cr.custom_gradient
    def short(x, y):
        return x + y, lambda cotangent: cotangent

    @cr.custom_gradient
    def wide(x):
        return x, lambda cotangent: F.concatenate([cotangent, cotangent])

    with pytest.raises(cr.GraphTypeError, match=r"alone: must return \(y, backward\)"):
        alone(x)
    with pytest.raises(cr.GraphError, match="short: backward returns 1 cotangents for 2 arguments"):
        short(x, x)
    with pytest.raises(cr.GraphError, match=r"wide: the cotangent of argument 0 has shape \(6,\)"):
        wide(x)
