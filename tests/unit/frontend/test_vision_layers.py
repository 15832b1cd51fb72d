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
    ("MaxPool1d", (2,), {}, (2, 3, 8)),
    ("MaxPool2d", (3, 2, 1), {"ceil_mode": True}, (2, 3, 8, 7)),
    ("MaxPool3d", (2,), {}, (2, 3, 4, 4, 4)),
    ("AvgPool1d", (2,), {"padding": 1, "count_include_pad": False}, (2, 3, 8)),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "divisor_override": 4}, (2, 3, 8, 7)),
    ("AvgPool3d", (2,), {}, (2, 3, 4, 4, 4)),
    ("LPPool1d", (2, 3), {"stride": 2}, (2, 3, 8)),
    ("LPPool2d", (1, (2, 3)), {"ceil_mode": True}, (2, 3, 8, 8)),
    ("LPPool3d", (2, 2), {}, (2, 3, 4, 4, 4)),
    ("AdaptiveAvgPool1d", (3,), {}, (2, 3, 8)),
    ("AdaptiveAvgPool2d", ((None, 2),), {}, (2, 3, 8, 7)),
    ("AdaptiveAvgPool3d", (1,), {}, (2, 3, 4, 4, 4)),
    ("AdaptiveMaxPool1d", (3,), {}, (2, 3, 8)),
    ("AdaptiveMaxPool2d", (2,), {}, (3, 8, 7)),
    ("AdaptiveMaxPool3d", ((2, 1, None),), {}, (2, 3, 4, 4, 4)),
    ("Upsample", (), {"scale_factor": 2}, (2, 3, 4, 4)),
    ("Upsample", ((5, 6), None, "bilinear"), {}, (2, 3, 4, 4)),
    ("Upsample", (), {"scale_factor": 1.5, "mode": "bicubic", "align_corners": True}, (2, 3, 4, 4)),
    ("UpsamplingNearest2d", (7,), {}, (2, 3, 4, 4)),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, (2, 3, 4, 4)),
    ("PixelShuffle", (2,), {}, (2, 8, 3, 3)),
    ("PixelUnshuffle", (2,), {}, (2, 2, 4, 6)),
    ("ChannelShuffle", (2,), {}, (2, 4, 3, 3)),
    ("LocalResponseNorm", (5,), {"alpha": 0.3, "k": 2.0}, (2, 7, 3, 4)),
    ("LocalResponseNorm", (2,), {"alpha": 0.3, "beta": 1.5}, (2, 3, 4)),
    ("LocalResponseNorm", (30,), {"alpha": 0.3}, (2, 40, 2)),
    ("InstanceNorm1d", (3,), {}, (2, 3, 8)),
    ("InstanceNorm1d", (3,), {"affine": True}, (3, 8)),
    ("InstanceNorm2d", (3,), {"affine": True, "eps": 1e-3}, (2, 3, 4, 5)),
    ("InstanceNorm3d", (3,), {"track_running_stats": True}, (2, 3, 2, 2, 5)),
    ("Fold", ((4, 5), (2, 2)), {}, (2, 12, 12)),
]


def names_of(rows):
    return [f"{row[0]}-{i}" for i, row in enumerate(rows)]


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), LAYERS, ids=names_of(LAYERS))
def test_layers_agree_with_torch(name, args, kwargs, shape) -> None:
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    typed = {"dtype": "float64"} if list(theirs.state_dict()) else {}
    theirs.eval()
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


@pytest.mark.parametrize("momentum", [0.1, 0.3])
def test_instance_norm_tracks_statistics(momentum) -> None:
    ours = nn.InstanceNorm2d(3, momentum=momentum, track_running_stats=True, dtype="float64")
    theirs = torch.nn.InstanceNorm2d(3, momentum=momentum, track_running_stats=True).double()
    x = tensor_input("x", ("n", 3, 4, 5), "float64")
    outcome = ours(x)
    train = cr.compile_train(
        (outcome * 2).sum() + cr.parameter((1,)).sum(), cr.optim.SGD(0.1), {"y": outcome},
        backend="numpy",
    )  # fmt: skip
    for _ in range(2):
        array = rng.normal(1.0, 2.0, size=(4, 3, 4, 5))
        wanted = theirs(torch.tensor(array))
        np.testing.assert_allclose(train.step(x=array)["y"], wanted, rtol=1e-10, atol=1e-12)
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(ours.state_dict()[name], theirs.state_dict()[name], rtol=1e-10)
    theirs.eval()
    np.testing.assert_allclose(
        cr.evaluate(outcome, x=array), theirs(torch.tensor(array)), rtol=1e-10
    )


def test_first_values_have_the_range_of_torch() -> None:
    cr.manual_seed(0)
    torch.manual_seed(0)
    for name, groups in (("Conv2d", 1), ("Conv2d", 4), ("ConvTranspose2d", 1)):
        ours, theirs = (getattr(m, name)(16, 32, 3, groups=groups) for m in (nn, torch.nn))
        for key, value in ours.state_dict().items():
            other = theirs.state_dict()[key].numpy()
            assert value.dtype == other.dtype
            assert np.isclose(np.abs(value).max(), np.abs(other).max(), rtol=0.2)
            assert np.isclose(value.std(), other.std(), rtol=0.3)


def test_unpooling_layers(evaluate) -> None:
    array = rng.normal(size=(2, 3, 7, 7))
    pooled = nn.MaxPool2d(3, 2, return_indices=True)(array)
    ours = nn.MaxUnpool2d(3, 2)
    theirs = torch.nn.MaxUnpool2d(3, 2)
    other = torch.nn.MaxPool2d(3, 2, return_indices=True)(torch.tensor(array))
    for arguments in ({}, {"output_size": (8, 7)}):
        found = evaluate(ours(*pooled, **arguments))
        np.testing.assert_allclose(found, theirs(*other, **arguments), rtol=1e-14)


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
