"""Verification passes what is right, fails what is wrong, and does not judge what has no answer."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn
from chainrule.frontend import verification
from chainrule.frontend.verification import VerificationReport, verify


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_kind(report: VerificationReport, quantity: str, against: str) -> list:
    return [c for c in report.checks if (c.quantity, c.against) == (quantity, against)]


def test_a_classifier_is_verified_on_both_backends():
    x, y = cr.input("x", ("batch", 4)), cr.input("y", ("batch",), "int64")
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    loss = losses.sparse_categorical_crossentropy(model(x), y, from_logits=True)
    report = verify(loss, {"x": floats(5, 4), "y": np.array([0, 1, 2, 1, 0])})
    assert report.ok
    assert report.raise_if_failed() is report
    names = ["x", "weight#1", "bias#1", "weight#2", "bias#2"]
    for against in ("numpy", "native", "differences"):
        assert [c.name for c in by_kind(report, "gradient", against)] == names
        assert [c.name for c in by_kind(report, "Hessian-vector product", against)] == names
    assert all(c.judged for c in report.checks)
    assert str(report).splitlines()[-1] == "32 checks, 0 failed"


def test_parameters_are_left_as_they_are():
    layer = nn.BatchNorm1d(3)
    before = [v.numpy() for v in (layer.weight, layer.running_mean)]
    report = verify(layer(cr.input("x", ("n", 3))), {"x": floats(4, 3)}, training=True)
    assert report.ok, report
    for variable, value in zip((layer.weight, layer.running_mean), before, strict=True):
        np.testing.assert_array_equal(variable.value, value)


def test_several_outputs_among_them_integers():
    x = cr.input("x", ("n", 3))
    report = verify({"soft": cr.softmax(x), "best": x.argmax(-1)}, {"x": floats(4, 3)}, order=1)
    assert report.ok
    assert {c.name for c in by_kind(report, "value", "native")} == {"soft", "best"}


@pytest.mark.parametrize("order", [0, 1])
def test_the_order_bounds_the_derivatives(order):
    x = cr.input("x", (3,))
    found = {c.quantity for c in verify(cr.exp(x).sum(), {"x": floats(3)}, order=order).checks}
    assert found == {"value", "gradient"} if order else found == {"value"}


@pytest.mark.parametrize("order", [1, 2])
def test_a_wrong_derivative_fails(monkeypatch, order):
    right = verification.grad
    monkeypatch.setattr(verification, "grad", lambda *a: [g * 1.0001 for g in right(*a)])
    x = cr.input("x", (5,))
    report = verify(cr.exp(x).sum(), {"x": floats(5)}, order=order, backends=("numpy",))
    assert not report.ok
    assert {c.against for c in report.failures} == {"differences"}
    with pytest.raises(cr.VerificationError, match="FAILED"):
        report.raise_if_failed()


def test_wrong_machine_code_fails(monkeypatch):
    right = verification.build_executable

    def wrong(*arguments):
        run = right(*arguments)
        return lambda arrays: {name: a * np.float32(1.001) for name, a in run(arrays).items()}

    monkeypatch.setattr(verification, "build_executable", wrong)
    x = cr.input("x", (5,))
    report = verify(cr.exp(x), {"x": floats(5)}, order=0)
    assert [c.against for c in report.failures] == ["native"]


def test_a_kink_is_reported_and_not_judged():
    x = cr.input("x", (3,))
    report = verify(nn.ReLU()(x).sum(), {"x": np.array([0.0, 1.0, -1.0], np.float32)})
    assert report.ok
    (check,) = by_kind(report, "gradient", "differences")
    assert not check.judged
    assert "kink" in check.note


def test_away_from_the_kink_it_is_judged():
    x = cr.input("x", (3,))
    report = verify(nn.ReLU()(x).sum(), {"x": np.array([0.5, 1.0, -1.0], np.float32)})
    assert report.ok
    assert all(c.judged for c in report.checks)


def test_what_is_stopped_does_not_move():
    x = cr.input("x", (3,))
    straight_through = x + cr.stop_gradient(cr.round(x) - x)
    report = verify(cr.square(straight_through).sum(), {"x": np.array([0.3, 1.2, -0.8], "f")})
    assert report.ok, report
    assert all(c.judged for c in report.checks)


def test_a_formula_that_overflows_as_written_is_compared_with_its_stable_form():
    x = cr.input("x", (3,))
    report = verify(cr.log(1.0 + cr.exp(x)).sum(), {"x": np.array([-900.0, 0.5, 900.0], "f")})
    assert report.ok, report
    (native,) = by_kind(report, "value", "native")
    assert "stable form" in native.note
    assert native.error < 1e-6


def test_double_precision_is_held_to_its_own_tolerance():
    x = cr.input("x", (3,), dtype="float64")
    report = verify(cr.tanh(x).sum(), {"x": np.array([0.1, 0.2, 0.3])})
    assert report.ok
    assert all(c.tolerance < 1e-12 for c in by_kind(report, "value", "native"))


def test_what_cannot_be_verified_is_refused():
    x, n = cr.input("x", (3,)), cr.input("n", (3,), "int64")
    with pytest.raises(cr.InputError, match="no output depends on z"):
        verify(x.sum(), {"x": floats(3), "z": floats(1)})
    with pytest.raises(cr.GraphError, match="not of a float type"):
        verify((x * n).sum(), {"x": floats(3), "n": np.arange(3)}, wrt=[n])
    with pytest.raises(cr.GraphError, match="no input or variable"):
        verify(x.sum(), {"x": floats(3)}, wrt=[cr.input("other", (3,))])
    with pytest.raises(ValueError, match="order"):
        verify(x.sum(), {"x": floats(3)}, order=3)


def test_a_terminal_gets_colours(monkeypatch):
    report = verify(cr.input("x", (2,)).sum(), {"x": floats(2)}, order=0)
    assert "\x1b[" not in str(report)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "\x1b[" in str(report)
