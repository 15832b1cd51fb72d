"""Convolutional networks learn images in machine code, and the interpreter takes the same steps."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim


def build_network(width: int = 16) -> nn.Sequential:
    """Convolutions with batch normalisation and pools, for digits of 8 x 8."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding="same"),
        nn.ReLU(),
        nn.AvgPool2d(3, 1, 1),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=4, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * width, 10),
    )


def compile_training(backend: str) -> tuple[cr.TrainingProgram, cr.Tensor]:
    cr.manual_seed(0)
    x = cr.input("x", ("batch", 1, 8, 8))
    y = cr.input("y", ("batch",), dtype="int64")
    logits = build_network()(x)
    loss = losses.sparse_categorical_crossentropy(logits, y, from_logits=True)
    train = cr.compile_train(loss, optim.Adam(0.01), {"logits": logits}, backend=backend, seed=0)
    return train, logits


def digits() -> tuple[np.ndarray, np.ndarray]:
    datasets = pytest.importorskip("sklearn.datasets", reason="its digits")
    images, labels = datasets.load_digits(return_X_y=True)
    return (images / 16).astype("f").reshape(-1, 1, 8, 8), labels.astype("int64")


def test_a_convolutional_network_learns_digits() -> None:
    images, labels = digits()
    train, logits = compile_training("native")
    train.fit((images[:1400], labels[:1400]), epochs=8, batch_size=70, verbose=0)
    predict = cr.compile(logits)
    found = predict(x=images[1400:]).argmax(1)
    assert (found == labels[1400:]).mean() > 0.92


def test_machine_code_and_interpreter_take_the_same_steps() -> None:
    images, labels = digits()
    programs = [compile_training(backend)[0] for backend in ("native", "numpy")]
    for start in (0, 16):
        batch = {"x": images[start : start + 16], "y": labels[start : start + 16]}
        ours, oracle = (train.step(**batch) for train in programs)
        np.testing.assert_allclose(ours["loss"], oracle["loss"], rtol=1e-4)
        np.testing.assert_allclose(ours["logits"], oracle["logits"], rtol=1e-3, atol=1e-4)
