"""Draws made of uniform ones: their distributions, shapes, bounds; classes and permutations."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import random

N = 60_000


@pytest.fixture(autouse=True)
def _seeded():
    cr.manual_seed(3)


def draw(tensor, backend="native", **arrays):
    return cr.compile(tensor, backend=backend)(**arrays)


def assert_moments(x, mean, variance):
    assert np.isfinite(x).all()
    assert abs(x.mean() - mean) < 6 * math.sqrt(variance / x.size)
    assert abs(x.var() / variance - 1) < 0.06


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments(dtype):
    gamma = 0.5772156649
    assert_moments(draw(random.exponential((N,), 2.0, dtype)), 0.5, 0.25)
    assert_moments(draw(random.gumbel((N,), 1.0, 2.0, dtype)), 1 + 2 * gamma, 4 * math.pi**2 / 6)
    assert_moments(draw(random.laplace((N,), -1.0, 0.5, dtype)), -1.0, 0.5)
    assert draw(random.exponential((4,), dtype=dtype)).dtype == dtype


def test_parameters_give_the_shape():
    rate = np.array([1.0, 10.0], np.float32)
    x = draw(random.exponential((N, 2), rate))
    np.testing.assert_allclose(x.mean(0), 1 / rate, rtol=0.03)
    assert random.exponential(rate=cr.input("r", ("n", 3))).shape[1:] == (3,)


@pytest.mark.parametrize(("low", "high"), [(-2.0, 2.0), (-0.5, 3.0), (2.0, 2.5), (6.0, 40.0)])
def test_truncated_normal(low, high):
    x = draw(random.truncated_normal((N,), low, high, dtype="float64"))
    assert x.min() >= low
    assert x.max() <= high
    grid = np.linspace(low, min(high, 12.0), 200_001)
    density = np.exp(-(grid**2 - low**2) / 2 if low > 0 else -(grid**2) / 2)
    density /= density.sum()
    mean = (grid * density).sum()
    assert_moments(x, mean, ((grid - mean) ** 2 * density).sum())


def test_truncated_normal_in_single_precision():
    x = draw(random.truncated_normal((N,), mean=5.0, std=0.1))
    assert x.dtype == np.float32
    assert abs(x - 5).max() <= 0.2001
    assert_moments(x, 5.0, 0.01 * 0.7737)
    with pytest.raises(
        cr.GraphError, match=r"low=1\.0, high=1\.0 are no numbers in increasing order"
    ):
        random.truncated_normal((3,), 1.0, 1.0)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_categorical(backend):
    shares = np.array([[0.5, 0.2, 0.0, 0.3], [0.1, 0.1, 0.7, 0.1]], np.float32)
    with np.errstate(divide="ignore"):
        logits = np.log(shares)
    x = cr.input("x", (2, 4))
    found = draw(random.categorical(x, shape=(N, 2)), backend, x=logits)
    assert found.dtype == np.int64
    for row in range(2):
        counts = np.bincount(found[:, row], minlength=4) / N
        np.testing.assert_allclose(counts, shares[row], atol=0.01)
    assert (np.bincount(found[:, 0], minlength=4)[2]) == 0
    assert draw(random.categorical(x, 0), backend, x=logits).shape == (4,)
    with pytest.raises(cr.GraphError, match=r"draws of shape \(2, 3\) do not fit"):
        random.categorical(x, shape=(2, 3))


def test_multinomial():
    shares = np.array([0.1, 0.2, 0.7], np.float32)
    with_repeats = draw(random.multinomial(cr.constant(shares), N, replacement=True))
    np.testing.assert_allclose(np.bincount(with_repeats) / N, shares, atol=0.01)
    rows = np.broadcast_to(shares, (4000, 3))
    pairs = draw(random.multinomial(cr.constant(rows), 2))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    np.testing.assert_allclose(np.bincount(pairs[:, 0]) / 4000, shares, atol=0.03)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_permutations(backend):
    x = cr.input("x", ("n", 3))
    run = cr.compile([random.permutation(x.shape[0]), random.shuffle(x)], backend=backend)
    seen = set()
    for n in (1, 6, 6, 6, 50):
        rows = np.arange(3.0 * n, dtype=np.float32).reshape(n, 3)
        order, mixed = run(x=rows)
        assert sorted(order) == list(range(n))
        np.testing.assert_array_equal(np.sort(mixed, 0), rows)
        np.testing.assert_array_equal(mixed[:, 1] - mixed[:, 0], np.ones(n))
        seen.add(tuple(order))
    assert len(seen) == 5
    places = np.concatenate([run(x=np.zeros((4, 3), np.float32))[0] == k for k in range(4)])
    assert 0 < places.mean() < 1


@pytest.mark.parametrize("name", ["gumbel", "laplace", "truncated_normal", "permutation"])
def test_both_backends_draw_the_same(name):
    tensor = getattr(random, name)(40)
    found = []
    for backend in ("numpy", "native"):
        cr.manual_seed(11)
        found.append(draw(tensor, backend))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
