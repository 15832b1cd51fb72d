"""Metrics against scikit-learn, over any cut into batches."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.compiler.errors import GraphError
from chainrule.compiler.ir.graph import Program
from chainrule.frontend import metrics
from chainrule.frontend.epoch_sums import EpochSums
from chainrule.frontend.tensor import input
from chainrule.runtime.interpreter import Interpreter

GENERATOR = np.random.default_rng(11)
SCORES = GENERATOR.normal(size=(97, 4)).astype("float32")
LABELS = GENERATOR.integers(0, 4, 97)
LABELS[LABELS == 3] = 2  # class 3 never occurs but is predicted
PROBABILITIES = GENERATOR.uniform(size=97).astype("float32")
BITS = (GENERATOR.uniform(size=97) < PROBABILITIES).astype("int64")


def measure(metric, prediction, target, batch=17, resume=False):
    """Return the metric over ``target``, computed in batches."""
    p = input("p", ("n", *prediction.shape[1:]), dtype=prediction.dtype)
    t = input("t", ("n", *target.shape[1:]), dtype=target.dtype)
    (bound,) = metrics.resolve_metrics([metric], (p.sum() + t.sum()), {"p": p})
    outputs = bound.outputs()
    run = Interpreter(Program(tuple((name, x.node) for name, x in outputs.items())))
    sums = EpochSums([bound])
    for start in range(0, len(target), batch):
        cut = slice(start, start + batch)
        result, _ = run.run({"p": prediction[cut], "t": target[cut]}, {})
        sums.add(result, 0.0, len(target[cut]), 1.0)
        if resume:  # as a checkpoint between batches would
            numbers, arrays = sums.state_dict()
            sums = EpochSums([bound])
            sums.load_state_dict(numbers, arrays)
    return sums.measured()[bound.name]


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


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("batch", [1, 17, 97])
def test_areas_are_exact_over_any_batches(batch, resume):
    coarse = (PROBABILITIES * 8).round() / 8  # with ties
    for scores in (PROBABILITIES, coarse, PROBABILITIES.reshape(-1, 1)):
        target = BITS.reshape(scores.shape)
        expected = sklearn().roc_auc_score(BITS, scores.ravel())
        assert measure("auc", scores, target, batch, resume) == pytest.approx(expected, rel=1e-12)
        expected = sklearn().average_precision_score(BITS, scores.ravel())
        found = measure("average_precision", scores, target, batch, resume)
        assert found == pytest.approx(expected, rel=1e-12)


def test_areas_of_several_classes():
    shares = np.exp(SCORES[:, :3]) / np.exp(SCORES[:, :3]).sum(1, keepdims=True)
    expected = sklearn().roc_auc_score(LABELS, shares, multi_class="ovr", average="macro")
    one_hot = np.eye(3)[LABELS].astype("float32")
    for target in (LABELS, one_hot):
        assert measure("auc", shares, target) == pytest.approx(expected, rel=1e-12)
    expected = sklearn().average_precision_score(one_hot, shares, average="macro")
    assert measure("average_precision", shares, LABELS) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(measure("auc", PROBABILITIES, np.ones(97, "int64")))
    assert np.isnan(measure("auc", np.full(97, np.nan, "float32"), BITS))


def test_an_area_by_thresholds_is_near_the_exact_one():
    exact = measure("auc", PROBABILITIES, BITS)
    near = measure(metrics.auc(thresholds=500), PROBABILITIES, BITS)
    assert near == pytest.approx(exact, abs=2e-3) and near != exact
    binned = np.minimum((PROBABILITIES * 8).astype("int64"), 7)
    expected = sklearn().roc_auc_score(BITS, binned)
    assert measure(metrics.auc(thresholds=8), PROBABILITIES, BITS) == pytest.approx(expected)


@pytest.mark.parametrize("batch", [1, 17, 97])
def test_a_confusion_matrix_and_what_it_tells(batch):
    said = SCORES.argmax(-1)
    s = sklearn()
    found = measure("confusion_matrix", SCORES, LABELS, batch)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, s.confusion_matrix(LABELS, said, labels=range(4)))
    cases = {
        "balanced_accuracy": None,
        "matthews": s.matthews_corrcoef(LABELS, said),
        "cohen_kappa": s.cohen_kappa_score(LABELS, said),
    }
    recalls = s.recall_score(LABELS, said, average=None, labels=[0, 1, 2])
    cases["balanced_accuracy"] = recalls.mean()
    for name, expected in cases.items():
        assert measure(name, SCORES, LABELS, batch) == pytest.approx(expected, rel=1e-12), name
    for weights in ("linear", "quadratic"):
        expected = s.cohen_kappa_score(LABELS, said, weights=weights, labels=range(4))
        found = measure(metrics.cohen_kappa(weights=weights), SCORES, LABELS, batch)
        assert found == pytest.approx(expected, rel=1e-12)


def test_two_classes_by_one_score():
    said, s = PROBABILITIES > 0.5, sklearn()
    np.testing.assert_array_equal(
        measure("confusion_matrix", PROBABILITIES, BITS), s.confusion_matrix(BITS, said)
    )
    assert measure("matthews", PROBABILITIES, BITS) == pytest.approx(
        s.matthews_corrcoef(BITS, said)
    )
    assert measure("balanced_accuracy", PROBABILITIES, BITS) == pytest.approx(
        s.balanced_accuracy_score(BITS, said)
    )
    assert measure("specificity", PROBABILITIES, BITS) == pytest.approx(
        s.recall_score(BITS, said, pos_label=0)
    )
    assert measure("matthews", np.ones(97, "float32"), BITS) == 0.0


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_averages_of_scores(name):
    function = getattr(sklearn(), f"{name}_score")
    said = SCORES.argmax(-1)
    metric = getattr(metrics, name)
    expected = function(LABELS, said, average="weighted", zero_division=0)
    assert measure(metric(average="weighted"), SCORES, LABELS) == pytest.approx(expected)
    expected = function(LABELS, said, average=None, labels=range(4), zero_division=0)
    np.testing.assert_allclose(measure(metric(average="none"), SCORES, LABELS), expected)
    two = np.stack([1 - PROBABILITIES, PROBABILITIES], 1)
    expected = function(BITS, PROBABILITIES > 0.5)
    assert measure(metric(average="binary"), two, BITS) == pytest.approx(expected)


def test_f_of_any_weight():
    expected = sklearn().fbeta_score(LABELS, SCORES.argmax(-1), beta=2.0, average="macro")
    assert measure(metrics.fbeta(2.0), SCORES, LABELS) == pytest.approx(expected)
    assert metrics.fbeta(0.5).name == "f0.5"


@pytest.mark.parametrize("batch", [1, 17, 97])
def test_perplexity_is_of_the_epoch(batch):
    shares = np.exp(SCORES.astype("f8"))
    shares /= shares.sum(1, keepdims=True)
    nats = -np.log(shares[np.arange(97), LABELS])
    assert measure("cross_entropy", SCORES, LABELS, batch) == pytest.approx(nats.mean(), rel=1e-6)
    found = measure("perplexity", SCORES, LABELS, batch)
    assert found == pytest.approx(np.exp(nats.mean()), rel=1e-6)
    found = measure(metrics.perplexity(from_logits=False), shares, LABELS, batch)
    assert found == pytest.approx(np.exp(nats.mean()), rel=1e-6)
    ignored = np.where(np.arange(97) % 3 == 0, -100, LABELS)
    found = measure(metrics.perplexity(ignore_index=-100), SCORES, ignored, batch)
    assert found == pytest.approx(np.exp(nats[ignored >= 0].mean()), rel=1e-6)


def test_labels_by_the_dozen():
    scores = GENERATOR.uniform(size=(97, 3)).astype("float32")
    marks = GENERATOR.integers(0, 2, (97, 3))
    expected = ((scores > 0.3) == marks.astype(bool)).mean()
    assert measure(metrics.binary_accuracy(threshold=0.3), scores, marks) == pytest.approx(expected)


def test_metrics_in_a_training_of_both_backends(tmp_path):
    wanted = ["accuracy", "auc", "confusion_matrix", metrics.f1(average="none"), "matthews"]
    histories = []
    for backend in ("numpy", "native"):
        cr.manual_seed(0)
        x = cr.input("x", ("batch", 4))
        y = cr.input("y", ("batch",), dtype="int64")
        logits = nn.Linear(4, 4)(x)
        loss = losses.cross_entropy(logits, y)
        train = cr.compile_train(
            loss, optim.SGD(0.1), {"logits": logits}, metrics=wanted, backend=backend, seed=0
        )
        log = tmp_path / f"{backend}.csv"
        history = train.fit(
            (SCORES, LABELS),
            epochs=2,
            batch_size=20,
            validation_data=(SCORES, LABELS),
            callbacks=[cr.callbacks.CSVLogger(log)],
        )
        measured = train.evaluate((SCORES, LABELS))
        np.testing.assert_array_equal(
            measured["confusion_matrix"], history["val_confusion_matrix"][-1]
        )
        assert measured["confusion_matrix"].sum() == 97
        said = train.predict(SCORES).argmax(-1)
        assert measured["matthews"] == pytest.approx(sklearn().matthews_corrcoef(LABELS, said))
        assert "matrix" not in log.read_text() and "val_auc" in log.read_text()
        assert train.step(x=SCORES, y=LABELS)["f1"].shape == (4,)
        train.save(tmp_path / "run")
        train.load(tmp_path / "run")
        np.testing.assert_array_equal(
            train.history["confusion_matrix"][0], history["confusion_matrix"][0]
        )
        assert "accuracy" in repr(history)
        histories.append(history)
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], rtol=1e-4, atol=1e-6)


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
    for make, message in (
        (lambda: metrics.f1(average="most"), "average"),
        (lambda: metrics.fbeta(0.0), "beta"),
        (lambda: metrics.cohen_kappa(weights="cubic"), "weights"),
        (lambda: metrics.auc(thresholds=1), "thresholds"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(GraphError, match="do not fit labels"):
        metrics.auc(p, w).outputs()
    with pytest.raises(GraphError, match="do not fit scores"):
        metrics.perplexity(p, p).outputs()
    (named,) = metrics.resolve_metrics({"mine": metrics.accuracy(p, t)}, loss, {})
    assert set(named.outputs()) == {"mine.right", "mine.count"}
