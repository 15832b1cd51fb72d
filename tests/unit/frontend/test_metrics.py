"""Metrics against scikit-learn, over any cut into batches."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError
from chainrule.compiler.ir.graph import Program
from chainrule.frontend import metrics
from chainrule.frontend.tensor import input
from chainrule.runtime.interpreter import Interpreter

GENERATOR = np.random.default_rng(11)
SCORES = GENERATOR.normal(size=(97, 4)).astype("float32")
LABELS = GENERATOR.integers(0, 4, 97)
LABELS[LABELS == 3] = 2  # class 3 never occurs but is predicted
PROBABILITIES = GENERATOR.uniform(size=97).astype("float32")
BITS = (GENERATOR.uniform(size=97) < PROBABILITIES).astype("int64")


def measure(metric, prediction, target, batch=17):
    """Return the metric over ``target``, computed in batches."""
    p = input("p", ("n", *prediction.shape[1:]), dtype=prediction.dtype)
    t = input("t", ("n", *target.shape[1:]), dtype=target.dtype)
    (bound,) = metrics.resolve_metrics([metric], (p.sum() + t.sum()), {"p": p})
    outputs = bound.outputs()
    run = Interpreter(Program(tuple((name, x.node) for name, x in outputs.items())))
    sums = dict.fromkeys(outputs, 0)
    for start in range(0, len(target), batch):
        cut = slice(start, start + batch)
        result, _ = run.run({"p": prediction[cut], "t": target[cut]}, {})
        sums = {name: sums[name] + result[name] for name in sums}
    return bound.value(sums)


def sklearn():
    return pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("batch", [1, 17, 97])
def test_accuracy(batch):
    expected = sklearn().accuracy_score(LABELS, SCORES.argmax(-1))
    assert measure("accuracy", SCORES, LABELS, batch) == pytest.approx(expected)
    assert measure("accuracy", SCORES, np.eye(4, dtype="float32")[LABELS]) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_binary_accuracy(shape):
    expected = sklearn().accuracy_score(BITS, PROBABILITIES > 0.5)
    p, t = PROBABILITIES.reshape(shape), BITS.reshape(shape)
    assert measure("accuracy", p, t) == pytest.approx(expected)
    assert measure(metrics.accuracy(threshold=0.0), p - 0.5, t) == pytest.approx(expected)
    assert measure("accuracy", p, t.astype("float32")) == pytest.approx(expected)


def test_accuracy_along_another_axis():
    scores = GENERATOR.normal(size=(6, 3, 5, 5)).astype("float32")
    labels = GENERATOR.integers(0, 3, (6, 5, 5))
    expected = (scores.argmax(1) == labels).mean()
    assert measure(metrics.accuracy(axis=1), scores, labels) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k(k):
    expected = sklearn().top_k_accuracy_score(LABELS, SCORES, k=k, labels=range(4))
    assert measure(metrics.top_k_accuracy(k), SCORES, LABELS) == pytest.approx(expected)


def test_a_score_that_is_nan_is_never_right():
    scores = np.full((3, 4), np.nan, "float32")
    assert measure(metrics.top_k_accuracy(2), scores, LABELS[:3]) == 0.0


@pytest.mark.parametrize(
    ("name", "function", "root"),
    [
        ("mae", "mean_absolute_error", False),
        ("mse", "mean_squared_error", False),
        ("rmse", "mean_squared_error", True),
        ("r2", "r2_score", False),
    ],
)
def test_regression(name, function, root):
    y = (100 + GENERATOR.normal(size=97)).astype("float32")
    guess = (y + 0.3 * GENERATOR.normal(size=97)).astype("float32")
    expected = getattr(sklearn(), function)(y, guess) ** (0.5 if root else 1)
    assert measure(name, guess, y) == pytest.approx(expected, rel=1e-5)
    assert measure(name, guess.reshape(-1, 1), y) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("average", ["macro", "micro"])
@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_scores_of_classes(name, average):
    function = getattr(sklearn(), f"{name}_score")
    expected = function(LABELS, SCORES.argmax(-1), average=average, zero_division=0)
    metric = getattr(metrics, name)(average=average)
    assert measure(metric, SCORES, LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_scores_of_the_positive_class(name):
    function = getattr(sklearn(), f"{name}_score")
    assert measure(name, PROBABILITIES, BITS) == pytest.approx(function(BITS, PROBABILITIES > 0.5))
    nothing = np.zeros(97, "float32")
    assert measure(name, nothing, BITS) == 0.0


def test_what_cannot_be_measured_is_refused():
    p, t, w = input("p", ("n", 3)), input("t", ("n",), dtype="int64"), input("w", ("n",))
    loss = p.sum() + t.sum() + w.sum()
    with pytest.raises(GraphError, match="needs a prediction"):
        metrics.resolve_metrics(["accuracy"], loss, {})
    with pytest.raises(GraphError, match="ambiguous"):
        metrics.resolve_metrics(["accuracy"], loss, {"p": p})
    with pytest.raises(GraphError, match="no metric is called"):
        metrics.resolve_metrics(["accuraccy"], loss, {"p": p})
    with pytest.raises(GraphError, match="must differ"):
        metrics.resolve_metrics([metrics.accuracy(p, t)] * 2, loss, {})
    with pytest.raises(GraphError, match="do not fit labels"):
        metrics.accuracy(p, w).outputs()
    with pytest.raises(GraphError, match="differ in size"):
        metrics.mean_squared_error(p, w).outputs()
    with pytest.raises(ValueError, match="average"):
        metrics.f1(average="most")
    (named,) = metrics.resolve_metrics({"mine": metrics.accuracy(p, t)}, loss, {})
    assert set(named.outputs()) == {"mine.right", "mine.count"}
