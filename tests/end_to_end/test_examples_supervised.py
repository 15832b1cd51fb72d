"""Examples that learn from labels or ratings reach what their docstrings state."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the data sets come with scikit-learn")


def test_perceptron(example):
    m = example("perceptron").train(verbose=0)
    assert m["rosenblatt"] >= 0.93
    assert m["logistic"] >= 0.95


def test_the_perceptron_rule_is_the_one_by_hand(example):
    """One pass over samples, in order, against Rosenblatt's loop in NumPy."""
    import chainrule as cr

    perceptron = example("perceptron")
    (x, y), _ = perceptron.make_data()
    x, y = x[:60], y[:60]
    cr.manual_seed(0)
    net = perceptron.build()
    w, b = net.linear.weight.numpy()[0].astype("f8"), float(net.linear.bias.value[0])
    learn = cr.compile(net.mistakes, updates=net.updates)
    for i in range(len(x)):
        wrong = y[i] * (x[i] @ w + b) <= 0
        assert learn(x=x[i : i + 1], y=y[i : i + 1]) == wrong
        if wrong:
            w, b = w + y[i] * x[i], b + y[i]
    np.testing.assert_allclose(net.linear.weight.value[0], w, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(net.linear.bias.value[0], b, rtol=1e-5)


def test_mlp(example):
    assert example("mlp").train(epochs=12, verbose=0)["accuracy"] >= 0.96


def test_siamese(example):
    m = example("siamese").train(epochs=8, verbose=0)
    assert min(m["contrastive"], m["triplet"]) >= 0.92
    assert m["components"] <= 0.8


def test_graph_convolution(example):
    m = example("graph_convolution").train(epochs=6, verbose=0)
    assert m["accuracy"] >= 0.95
    assert m["accuracy_without_edges"] <= 0.75


def test_recommender(example):
    m = example("recommender").train(epochs=12, verbose=0)
    assert m["noise"] < m["deep"] <= 0.42
    assert m["deep"] + 0.05 < m["factorisation"] <= 0.56
    assert m["biases"] >= 1.0


def test_curvature_penalty(example):
    m = example("curvature_penalty").train(epochs=100, verbose=0)
    assert m["smooth_accuracy"] >= max(0.95, m["plain_accuracy"] - 0.015)
    assert m["smooth_curvature"] <= 0.5 * m["plain_curvature"]
    assert m["smooth_slope"] <= 0.7 * m["plain_slope"]


def test_the_penalised_curvature_is_that_of_finite_differences(example):
    """E ‖H v‖² over unit v in the plane is ‖H‖² / 2, here with H by differences of the logit."""
    import chainrule as cr

    cr.manual_seed(3)
    net = example("curvature_penalty").build()
    values = cr.compile([net.logit, net.curvature2], dtype="float64", seed=4)
    point, h = np.array([0.3, -0.2]), 1e-3

    def logit(*offset):
        return float(values(x=[point + h * np.array(offset)])[0][0])

    xx = (logit(1, 0) - 2 * logit(0, 0) + logit(-1, 0)) / h**2
    yy = (logit(0, 1) - 2 * logit(0, 0) + logit(0, -1)) / h**2
    xy = (logit(1, 1) - logit(1, -1) - logit(-1, 1) + logit(-1, -1)) / (4 * h**2)
    expected = (xx**2 + yy**2 + 2 * xy**2) / 2
    many = values(x=np.tile(point, (4000, 1)))[1]
    assert float(many) == pytest.approx(expected, rel=0.05)
