"""Real trainings: the accuracy they reach, batches of every size, restarts to the bit, backends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.frontend.data import load_digits, spirals

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def classifier(
    features, hidden, classes, optimizer, backend="native", seed=0, dropout=0.0, **compiling
):
    cr.manual_seed(seed)
    x = cr.input("x", ("batch", features))
    y = cr.input("y", ("batch",), dtype="int64")
    layers = [nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    if dropout:
        layers[2:2] = [nn.BatchNorm1d(hidden), nn.Dropout(dropout)]
    logits = nn.Sequential(*layers)(x)
    loss = losses.sparse_categorical_crossentropy(logits, y, from_logits=True)
    outputs = {"logits": logits}
    return cr.compile_train(
        loss, optimizer, outputs, metrics=["accuracy"], backend=backend, seed=seed, **compiling
    )


def parameters(train):
    return [v.value.copy() for v in train.parameters]


# -- accuracy -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.mark.parametrize(
    ("optimizer", "dropout"),
    [(lambda: optim.Adam(2e-3), 0.0), (lambda: optim.SGD(0.1, momentum=0.9), 0.2)],
    ids=["adam", "sgd-batchnorm-dropout"],
)
def test_digits_are_learned(digits, optimizer, dropout):
    (x, y), held_out = digits
    train = classifier(64, 64, 10, optimizer(), dropout=dropout)
    untrained = train.evaluate(held_out)
    history = train.fit((x, y), epochs=20, batch_size=32, validation_data=held_out, verbose=0)
    measured = train.evaluate(held_out)
    assert untrained["accuracy"] < 0.3
    assert measured["accuracy"] >= 0.95
    assert measured["accuracy"] == history["val_accuracy"][-1]
    assert history["loss"][-1] < history["loss"][0] / 4
    guesses = train.predict(held_out[0]).argmax(1)
    assert (guesses == held_out[1]).mean() == pytest.approx(measured["accuracy"])


# -- batches --------------------------------------------------------------------------------------


class NumpyNetwork:
    """The same network and plain gradient descent, by hand and in float64."""

    def __init__(self, train, rate):
        self.parts = [p.astype("f8") for p in parameters(train)]
        self.rate = rate

    def step(self, x, y):
        w1, b1, w2, b2 = self.parts
        x = x.astype("f8")
        hidden = np.maximum(x @ w1.T + b1, 0)
        logits = hidden @ w2.T + b2
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = -np.log(p[np.arange(len(y)), y]).mean()
        slope = (p - np.eye(p.shape[1])[y]) / len(y)
        back = (slope @ w2) * (hidden > 0)
        gradients = [back.T @ x, back.sum(0), slope.T @ hidden, slope.sum(0)]
        self.parts = [w - self.rate * g for w, g in zip(self.parts, gradients, strict=True)]
        return loss


@pytest.mark.parametrize("backend", ["native", "numpy"])
@pytest.mark.parametrize("size", [60, 16, 1], ids=["full", "mini", "one-by-one"])
def test_gradient_descent_with_batches_of_any_size(backend, size):
    """60 samples in order, two epochs; with 16 the last batch is smaller."""
    x, y = spirals(60, classes=3, seed=1)
    train = classifier(2, 12, 3, optim.SGD(0.05), backend)
    reference = NumpyNetwork(train, 0.05)
    history = train.fit((x, y), epochs=2, batch_size=size, shuffle=False, verbose=0)
    for epoch in range(2):
        total = sum(
            reference.step(x[i : i + size], y[i : i + size]) * len(y[i : i + size])
            for i in range(0, 60, size)
        )
        np.testing.assert_allclose(history["loss"][epoch], total / 60, rtol=1e-5)
    assert train.steps == 2 * -(-60 // size)
    for found, expected in zip(parameters(train), reference.parts, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# -- a restart ------------------------------------------------------------------------------------

EPOCHS = 4


def bits_of(train):
    return [v.value.tobytes().hex() for v in train.states]


def resumable():
    """A training with every kind of state: random numbers, statistics, slots, a schedule."""
    optimizer = optim.Adam(cr.schedules.StepLR(1e-2, 7, 0.7, interval="step"))
    return classifier(2, 24, 3, optimizer, seed=11, dropout=0.3), spirals(150, classes=3, seed=2)


def run_part(path, epochs, load):
    """Train up to so many epochs, perhaps from a checkpoint; leave another one."""
    train, data = resumable()
    if load:
        train.load(path)
    train.fit(data, total_epochs=epochs, batch_size=16, verbose=0)
    train.save(path)
    return train


def in_a_new_process(path, epochs, load, **environment):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import test_training\ntest_training.run_part({str(path)!r}, {epochs}, {load})"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CHAINRULE_VERIFY": "0", **environment},
        check=True,
        timeout=120,
    )


def test_a_training_in_three_processes_has_the_bits_of_one(tmp_path):
    path = tmp_path / "training"
    in_a_new_process(path, 1, load=False, CHAINRULE_THREADS="2")
    in_a_new_process(path, 3, load=True, CHAINRULE_THREADS="1")
    resumed = run_part(path, EPOCHS, load=True)
    whole = run_part(tmp_path / "whole", EPOCHS, load=False)
    assert (resumed.epoch, resumed.steps) == (whole.epoch, whole.steps) == (EPOCHS, 40)
    assert bits_of(resumed) == bits_of(whole)
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


# -- backends -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "options", "tolerance"),
    [
        (lambda: optim.SGD(0.1, momentum=0.9), {"dropout": 0.25}, 1e-3),
        (lambda: optim.AdamW(1e-2), {}, 1e-3),
        (lambda: optim.RMSprop(1e-3), {}, 1e-3),
        (lambda: optim.AdamW(1e-2), {"dropout": 0.25, "dtype": "float64"}, 1e-6),
        (lambda: optim.RMSprop(1e-3), {"dropout": 0.25, "dtype": "float64"}, 1e-6),
    ],
    ids=["sgd", "adamw", "rmsprop", "adamw-float64", "rmsprop-float64"],
)
def test_backends_agree_for_twenty_steps(optimizer, options, tolerance):
    """Dropout included: its numbers are the same on both.

    Before batch normalisation some gradients are zero but for rounding, and adaptive optimizers
    make steps of full size of that, so those two meet in float64 only.
    """
    x, y = spirals(200, classes=3, seed=4)

    def run(backend):
        train = classifier(2, 20, 3, optimizer(), backend, seed=5, **options)
        steps = [slice(10 * number, 10 * number + 7 + number % 4) for number in range(20)]
        return train, [train.step(x=x[rows], y=y[rows]) for rows in steps]

    (native, found), (oracle, expected) = run("native"), run("numpy")
    near = {"rtol": tolerance, "atol": tolerance}
    for step, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(step["loss"], reference["loss"], rtol=tolerance)
        np.testing.assert_allclose(step["logits"], reference["logits"], **near)
        assert step["accuracy"] == reference["accuracy"]
    for variable, reference in zip(native.states, oracle.states, strict=True):
        np.testing.assert_allclose(variable.value, reference.value, **near)
