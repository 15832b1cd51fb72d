"""Initialisers: PyTorch's where they are deterministic, their distributions where they are not."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.frontend.initializers import INITIALIZERS, initial_values


def variable(*shape):
    return cr.Variable(np.zeros(shape), "w")


@pytest.fixture(autouse=True)
def seed():
    cr.manual_seed(12)


SHAPE = (120, 40, 3, 3)
FAN_IN, FAN_OUT = 40 * 9, 120 * 9


@pytest.mark.parametrize(
    ("fill", "std", "uniform"),
    [
        (nn.init.xavier_uniform_, np.sqrt(2 / (FAN_IN + FAN_OUT)), True),
        (nn.init.xavier_normal_, np.sqrt(2 / (FAN_IN + FAN_OUT)), False),
        (nn.init.kaiming_uniform_, np.sqrt(2 / FAN_IN), True),
        (lambda w: nn.init.kaiming_normal_(w, mode="fan_out"), np.sqrt(2 / FAN_OUT), False),
        (
            lambda w: nn.init.kaiming_normal_(w, nonlinearity="tanh"),
            5 / 3 / np.sqrt(FAN_IN),
            False,
        ),
        (lambda w: nn.init.kaiming_uniform_(w, a=0.5), np.sqrt(2 / 1.25 / FAN_IN), True),
        (lambda w: nn.init.xavier_normal_(w, gain=3.0), 3 * np.sqrt(2 / (FAN_IN + FAN_OUT)), False),
    ],
)
def test_spread(fill, std, uniform):
    w = fill(variable(*SHAPE)).value
    assert w.std() == pytest.approx(std, rel=0.02)
    assert abs(w.mean()) < 4 * std / np.sqrt(w.size)
    bound = np.sqrt(3) * std
    assert (np.abs(w).max() <= bound) is np.bool_(uniform)
    if uniform:
        assert np.abs(w).max() > 0.99 * bound


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 2, 3)])
def test_orthogonal(shape):
    w = nn.init.orthogonal_(variable(*shape), gain=2.0).value.reshape(shape[0], -1)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(gram, 4 * np.eye(min(w.shape)), atol=1e-12)


def test_trunc_normal():
    w = nn.init.trunc_normal_(variable(200, 200), 1.0, 2.0, 0.0, 2.0).value
    assert w.min() >= 0 and w.max() <= 2 and w.mean() == pytest.approx(1.0, abs=0.02)
    assert w.std() == pytest.approx(0.5666, abs=0.01)  # of N(1, 2²) on [0, 2]


def test_sparse():
    w = nn.init.sparse_(variable(10, 300), sparsity=0.25, std=0.5).value
    assert ((w == 0).sum(0) == 3).all()
    assert (w == 0).any(1).all()  # in every row somewhere: the zeros are not in one place
    assert w[w != 0].std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("shape", [(6, 4, 3), (4, 6, 3, 5), (4, 2, 1, 2, 3)])
def test_dirac_is_pytorchs(shape, groups):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    expected = torch.nn.init.dirac_(torch.empty(shape), groups).numpy()
    np.testing.assert_array_equal(nn.init.dirac_(variable(*shape), groups).value, expected)


def test_names_and_numbers():
    for name in INITIALIZERS:
        shape = (6, 4, 3) if name == "dirac" else (6, 4)
        assert np.shape(initial_values(shape, name)) == shape
    np.testing.assert_array_equal(nn.init.constant_(variable(2, 3), 7.0).value, np.full((2, 3), 7))
    w = cr.parameter((3, 5), init="eye")
    np.testing.assert_array_equal(w.value, np.eye(3, 5))
    cr.manual_seed(4)
    first = initial_values((5, 5), "he_normal")
    cr.manual_seed(4)
    np.testing.assert_array_equal(first, initial_values((5, 5), "kaiming_normal"))


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda: nn.init.sparse_(variable(3), 0.5), "two axes"),
        (lambda: nn.init.sparse_(variable(3, 3), 1.5), "sparsity"),
        (lambda: nn.init.dirac_(variable(3, 3)), "three to five"),
        (lambda: nn.init.dirac_(variable(5, 3, 3), groups=2), "do not divide"),
        (lambda: nn.init.eye_(variable(3)), "two axes"),
        (lambda: nn.init.xavier_normal_(variable(3)), "two or more axes"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(fill, message):
    with pytest.raises(ValueError, match=message):
        fill()
