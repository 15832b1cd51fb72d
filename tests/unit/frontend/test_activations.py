"""Activations against PyTorch: values, first and second derivatives, kinks and far tails."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError
from chainrule.frontend import activations, nn
from chainrule.frontend.activations import ACTIVATIONS, activation
from chainrule.frontend.state import Variable
from chainrule.frontend.tensor import constant

torch = pytest.importorskip("torch")

#: Module name -> arguments.
CASES = [
    ("ReLU", {}),
    ("LeakyReLU", {}),
    ("LeakyReLU", {"negative_slope": 0.2}),
    ("ReLU6", {}),
    ("ELU", {"alpha": 1.3}),
    ("CELU", {"alpha": 0.5}),
    ("SELU", {}),
    ("GELU", {}),
    ("GELU", {"approximate": "tanh"}),
    ("SiLU", {}),
    ("Mish", {}),
    ("Sigmoid", {}),
    ("LogSigmoid", {}),
    ("Tanh", {}),
    ("Tanhshrink", {}),
    ("Softplus", {}),
    ("Softplus", {"beta": 2.5, "threshold": 3.0}),
    ("Softsign", {}),
    ("Hardtanh", {}),
    ("Hardtanh", {"min_val": -0.5, "max_val": 2.0}),
    ("Hardsigmoid", {}),
    ("Hardswish", {}),
    ("Hardshrink", {}),
    ("Softshrink", {"lambd": 0.3}),
    ("Threshold", {"threshold": 0.1, "value": -2.0}),
    ("GLU", {}),
    ("GLU", {"dim": 0}),
    ("Softmax", {"dim": 0}),
    ("Softmax", {"dim": -1}),
    ("LogSoftmax", {"dim": 0}),
    ("LogSoftmax", {"dim": 1}),
    ("Softmin", {"dim": 1}),
    ("PReLU", {}),
    ("PReLU", {"num_parameters": 6, "init": 0.1}),
]
KINKS = np.array([[-3.0, -1.0, -0.5, 0.0, 0.5, 1.0], [2.0, 3.0, 6.0, 0.3, 0.1, -0.3]])
RANDOM = np.random.default_rng(0).normal(size=(4, 6)) * 3


def torch_derivatives(function, x: np.ndarray, cotangent: np.ndarray, second: np.ndarray):
    leaf = torch.tensor(x, requires_grad=True)
    value = function(leaf)
    (first,) = torch.autograd.grad(value, leaf, torch.tensor(cotangent), create_graph=True)
    if not first.requires_grad or "Hardsigmoid" in repr(function):  # has no second derivative
        return value, first, np.zeros(x.shape)
    (again,) = torch.autograd.grad(first, leaf, torch.tensor(second), allow_unused=True)
    again = torch.zeros_like(leaf) if again is None else again
    return value, first, again.numpy(force=True)


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=lambda case: str(case))
@pytest.mark.parametrize("x", [RANDOM, KINKS], ids=["random", "kinks"])
def test_modules_agree_with_torch(name: str, arguments: dict, x: np.ndarray, differentiate) -> None:
    ours, theirs = getattr(nn, name)(**arguments), getattr(torch.nn, name)(**arguments).double()
    leaf = Variable(x)
    output = ours(leaf)
    rng = np.random.default_rng(1)
    cotangent, second = rng.normal(size=output.shape), rng.normal(size=x.shape)
    value, (first,), (again,) = differentiate(output, [leaf], cotangent, [second])
    expected = torch_derivatives(theirs, x, cotangent, second)
    rtol = 1e-7 if name == "Hardsigmoid" else 1e-9  # PyTorch's sixth is a float32
    np.testing.assert_allclose(value, expected[0].detach(), rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(first, expected[1].detach(), rtol=rtol, atol=1e-12)
    if x is RANDOM or name in SMOOTH:
        np.testing.assert_allclose(again, expected[2], rtol=1e-8, atol=1e-10)


SMOOTH = {"GELU", "SiLU", "Mish", "Sigmoid", "LogSigmoid", "Tanh", "Tanhshrink", "GLU", "Softmax"}


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=lambda case: str(case))
def test_nothing_overflows_in_the_tails(name: str, arguments: dict, differentiate) -> None:
    x = np.array([[-1e4, -200.0, -90.0, 90.0, 200.0, 1e4]] * 2, np.float32)
    leaf = Variable(x)
    output = getattr(nn, name)(**arguments)(leaf)
    ones = np.ones(output.shape, np.float32)
    value, (first,), (again,) = differentiate(output, [leaf], ones, [np.ones_like(x)])
    theirs = getattr(torch.nn, name)(**arguments)
    expected = torch_derivatives(theirs, x, ones, np.ones_like(x))
    np.testing.assert_allclose(value, expected[0].detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first, expected[1].detach(), rtol=1e-5, atol=1e-6)
    assert np.isfinite(again).all()


def test_prelu_learns_one_slope_a_channel(differentiate) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    layer, theirs = nn.PReLU(4, dtype="float64"), torch.nn.PReLU(4).double()
    leaf = Variable(x)
    output = layer(leaf)
    ones = np.ones(x.shape)
    value, first, _ = differentiate(output, [leaf, layer.weight], ones, [ones, np.ones(4)])
    expected = theirs(torch.tensor(x))
    expected.sum().backward()
    np.testing.assert_allclose(value, expected.detach())
    np.testing.assert_allclose(first[1], theirs.weight.grad)


def test_temperature(evaluate) -> None:
    x = RANDOM
    np.testing.assert_allclose(
        evaluate(nn.Softmax(dim=0, temperature=2.0)(constant(x))),
        torch.softmax(torch.tensor(x) / 2, 0),
        rtol=1e-12,
    )


def test_names() -> None:
    assert activation("relu") is activations.relu
    assert activation(activations.gelu) is activations.gelu
    assert {"swish", "mish", "softmax", "linear"} <= ACTIVATIONS.keys()
    with pytest.raises(GraphError, match=r"test_activations\.py:\d+: .*'rleu'.*relu"):
        activation("rleu")
    with pytest.raises(TypeError, match="ELU"):
        nn.ELU(beta=2.0)
    nn.ReLU(inplace=True)
    with pytest.raises(GraphError, match="glu: axis -1 of size 3"):
        activations.glu(constant([1.0, 2.0, 3.0]))


def test_softmax_of_channels(evaluate) -> None:
    for shape in ((2, 3, 4, 5), (3, 4, 5)):
        x = np.random.default_rng(0).normal(size=shape)
        expected = torch.nn.Softmax2d()(torch.tensor(x))
        np.testing.assert_allclose(evaluate(nn.Softmax2d()(constant(x))), expected, rtol=1e-12)
    with pytest.raises(GraphError, match="rank 3 or 4"):
        nn.Softmax2d()(constant([1.0]))


def test_random_leaky_relu(evaluate) -> None:
    layer = nn.RReLU(0.2, 0.6)
    x = np.linspace(-2, 2, 1001).astype("f")
    expected = torch.nn.RReLU(0.2, 0.6).eval()(torch.tensor(x))
    output = layer(constant(x))
    np.testing.assert_allclose(evaluate(output), expected, rtol=1e-6)
    drawn = evaluate(output, training=True)
    np.testing.assert_array_equal(drawn[x >= 0], x[x >= 0])
    slopes = (drawn / np.where(x == 0, 1, x))[x < 0]
    assert slopes.min() >= 0.2 and slopes.max() < 0.6 and abs(slopes.mean() - 0.4) < 0.02
    with pytest.raises(GraphError, match="lower <= upper"):
        activations.rrelu(x, 0.5, 0.2)
