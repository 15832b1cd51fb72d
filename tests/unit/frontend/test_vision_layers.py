"""Layers for images against PyTorch: values, gradients, names and first values."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler.autodiff.reverse import gradient
from chainrule.compiler.errors import GraphError
from chainrule.compiler.ir.graph import Program
from chainrule.frontend import nn
from chainrule.frontend.state import variable_of
from chainrule.frontend.tensor import input as tensor_input
from chainrule.runtime.interpreter import run_program

torch = pytest.importorskip("torch", reason="compares with PyTorch")
rng = np.random.default_rng(0)

# name, arguments, keywords, input shape
LAYERS = [
    ("Conv1d", (3, 4, 3), {}, (2, 3, 8)),
    ("Conv1d", (4, 6, 2), {"groups": 2, "padding": "same", "bias": False}, (2, 4, 8)),
    ("Conv1d", (3, 4, 3), {"padding": 2, "padding_mode": "circular"}, (3, 8)),
    ("Conv2d", (3, 4, 3), {"padding": 1, "stride": 2}, (2, 3, 6, 5)),
    ("Conv2d", (3, 4, (3, 2)), {"padding": (1, 2), "padding_mode": "reflect"}, (2, 3, 6, 5)),
    ("Conv2d", (3, 4, (3, 2)), {"padding": "same", "padding_mode": "replicate"}, (2, 3, 6, 5)),
    ("Conv2d", (4, 8, 3), {"groups": 4, "dilation": 2}, (4, 6, 5)),
    ("Conv3d", (2, 3, 2), {"padding": 1}, (2, 2, 3, 4, 3)),
    ("Conv3d", (2, 3, 2), {"padding": "same", "padding_mode": "circular"}, (2, 2, 3, 4, 3)),
    ("ConvTranspose1d", (3, 4, 3), {"stride": 2, "output_padding": 1}, (2, 3, 4)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, (2, 4, 3, 4)),
    ("ConvTranspose2d", (4, 6, 3), {"dilation": 2, "bias": False}, (4, 3, 4)),
    ("ConvTranspose3d", (2, 3, 2), {"stride": (1, 2, 1)}, (2, 2, 2, 3, 2)),
    ("Unfold", (2,), {"padding": 1}, (2, 3, 4, 4)),
    ("Fold", ((4, 5), (2, 2)), {}, (2, 12, 12)),
]


def names_of(rows):
    return [f"{row[0]}-{i}" for i, row in enumerate(rows)]


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), LAYERS, ids=names_of(LAYERS))
def test_layers_agree_with_torch(name, args, kwargs, shape) -> None:
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    typed = {"dtype": "float64"} if list(theirs.state_dict()) else {}
    ours = getattr(nn, name)(*args, **kwargs, **typed)
    for value in theirs.parameters():
        torch.nn.init.normal_(value)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    array = rng.normal(size=shape)
    leaf = torch.tensor(array, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = theirs(leaf)
    cotangent = rng.normal(size=tuple(expected.shape))
    expected.backward(torch.tensor(cotangent))
    x = tensor_input("x", shape, "float64")
    outcome = ours(x)
    wrt = [x, *ours.parameters()]
    slopes = gradient([(outcome * cotangent).sum().node], [v.node for v in wrt])
    program = Program(tuple((str(i), n) for i, n in enumerate([outcome.node, *slopes])))
    states = {node: variable_of(node).value for node in program.states()}
    values, _ = run_program(program, {"x": array}, states)
    wanted = [expected, leaf.grad, *(p.grad for p in theirs.parameters())]
    for value, other in zip(values.values(), wanted, strict=True):
        np.testing.assert_allclose(value, other.detach(), rtol=1e-10, atol=1e-11)


def test_first_values_have_the_range_of_torch() -> None:
    cr.manual_seed(0)
    for ours, theirs in (
        (nn.Conv2d(8, 16, 3), torch.nn.Conv2d(8, 16, 3)),
        (nn.Conv2d(8, 16, 3, groups=4), torch.nn.Conv2d(8, 16, 3, groups=4)),
        (nn.ConvTranspose2d(8, 16, 3), torch.nn.ConvTranspose2d(8, 16, 3)),
    ):
        for name, value in ours.state_dict().items():
            other = theirs.state_dict()[name].numpy()
            assert value.dtype == other.dtype
            assert abs(np.abs(value).max() / np.abs(other).max() - 1) < 0.2
            assert abs(value.std() / other.std() - 1) < 0.4


def test_output_size_of_a_transposed_convolution(evaluate) -> None:
    ours = nn.ConvTranspose2d(2, 3, 3, stride=(2, 3), padding=1)
    theirs = torch.nn.ConvTranspose2d(2, 3, 3, stride=(2, 3), padding=1)
    ours.load_state_dict(theirs.state_dict())
    array = rng.normal(size=(2, 2, 4, 4)).astype("f")
    for size in ((7, 10), (8, 12), (2, 3, 8, 11)):
        wanted = theirs(torch.tensor(array), output_size=size).detach()
        np.testing.assert_allclose(evaluate(ours(array, output_size=size)), wanted, atol=1e-5)
    with pytest.raises(GraphError, match=r"\(7, 10\) to \(8, 12\) would"):
        ours(array, output_size=(9, 10))
    with pytest.raises(GraphError, match="2 or 4 sizes would"):
        ours(array, output_size=(1, 2, 3))


def test_what_layers_refuse() -> None:
    for text, make in (
        ("groups=2 do not divide in_channels=3", lambda: nn.Conv2d(3, 4, 3, groups=2)),
        ("groups=3 do not divide out_channels=4", lambda: nn.Conv2d(3, 4, 3, groups=3)),
        ("'same' goes with stride 1", lambda: nn.Conv2d(3, 4, 3, 2, "same")),
        ("padding_mode 'edge' is not one of", lambda: nn.Conv2d(3, 4, 3, padding_mode="edge")),
        ("only 'zeros' does", lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect")),
        ("kernel_size must be at least 1", lambda: nn.Conv2d(3, 4, 0)),
        (r"Conv2d: .*\(channels, height, width\)", lambda: nn.Conv2d(3, 4, 1)(np.zeros((3, 4)))),
    ):
        with pytest.raises(GraphError, match=text):
            make()
