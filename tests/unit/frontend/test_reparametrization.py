"""Weight and spectral normalisation against PyTorch: names, values, gradients, power iteration."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler.errors import GraphError
from chainrule.frontend import nn
from chainrule.frontend.tensor import input as tensor_input

torch = pytest.importorskip("torch", reason="compares with PyTorch")
rng = np.random.default_rng(0)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

MODULES = [
    ("Linear", (4, 3), (5, 4)),
    ("Conv2d", (2, 3, 2), (2, 2, 4, 4)),
    ("ConvTranspose2d", (2, 3, 2), (2, 2, 3, 3)),
]


def pair(name: str, args: tuple, wrap: str, where: str, **kwargs: object) -> list:
    """Return our module and PyTorch's, both wrapped, of the same parameters."""
    ours = getattr(nn, name)(*args, dtype="float64")
    theirs = getattr(torch.nn, name)(*args).double()
    ours.load_state_dict(theirs.state_dict())
    spaces = [nn.utils, torch.nn.utils]
    if where:
        spaces = [getattr(space, where) for space in spaces]
    return [
        getattr(space, wrap)(module, **kwargs)
        for space, module in zip(spaces, (ours, theirs), strict=True)
    ]


def load(ours: nn.Module, theirs: torch.nn.Module) -> None:
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("where", ["", "parametrizations"])
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize(("name", "args", "shape"), MODULES)
def test_weight_norm(name, args, shape, dim, where, agrees) -> None:
    ours, theirs = pair(name, args, "weight_norm", where, dim=dim)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value, rtol=1e-12)
    for value in theirs.parameters():
        torch.nn.init.normal_(value)
    load(ours, theirs)
    names = [key for key, _ in ours.named_parameters()]
    named = dict(theirs.named_parameters())
    array = rng.normal(size=shape)
    x = tensor_input("x", ("n", *shape[1:]), "float64")
    loss = (ours(x) ** 2).sum()
    slopes = cr.grad(loss, [p for _, p in ours.named_parameters()])
    values = cr.compile([loss, *slopes], backend="numpy")(x=array)
    wanted = (theirs(torch.tensor(array)) ** 2).sum()
    wanted.backward()
    np.testing.assert_allclose(values[0], wanted.detach())
    for key, value in zip(names, values[1:], strict=True):
        np.testing.assert_allclose(value, named[key].grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("where", ["", "parametrizations"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("name", "args", "shape"), MODULES)
def test_spectral_norm(name, args, shape, steps, where) -> None:
    ours, theirs = pair(name, args, "spectral_norm", where, n_power_iterations=steps)
    load(ours, theirs)
    x = tensor_input("x", ("n", *shape[1:]), "float64")
    outcome = ours(x)
    rate = 0.1
    train = cr.compile_train(
        (outcome**2).sum(), cr.optim.SGD(rate), {"y": outcome}, backend="numpy"
    )
    optimizer = torch.optim.SGD(theirs.parameters(), rate)
    for _ in range(2):
        array = rng.normal(size=shape)
        wanted = theirs(torch.tensor(array))
        optimizer.zero_grad()
        (wanted**2).sum().backward()
        optimizer.step()
        found = train.step(x=array)
        np.testing.assert_allclose(found["y"], wanted.detach(), rtol=1e-9, atol=1e-12)
        for key, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[key], value, rtol=1e-8, atol=1e-11)
    theirs.eval()
    before = ours.state_dict()
    np.testing.assert_allclose(
        cr.evaluate(outcome, x=array), theirs(torch.tensor(array)).detach(), rtol=1e-8
    )
    assert all((value == before[key]).all() for key, value in ours.state_dict().items())


@pytest.mark.parametrize("kind", ["weight", "spectral"])
def test_normalisation_can_be_removed(kind, evaluate) -> None:
    layer = nn.Conv2d(2, 3, 2, dtype="float64")
    names = list(layer.state_dict())
    array = rng.normal(size=(1, 2, 4, 4))
    wrapped = getattr(nn.utils, f"{kind}_norm")(layer)
    assert wrapped is layer
    assert isinstance(layer, nn.Conv2d)
    assert "Conv2d(2, 3" in repr(layer)
    expected = evaluate(layer(array))
    twin = copy.deepcopy(layer)
    np.testing.assert_array_equal(evaluate(twin(array)), expected)
    for variable in twin.parameters():
        variable.assign(variable.value + 1.0)
    assert (evaluate(twin(array)) != expected).all()
    np.testing.assert_array_equal(evaluate(layer(array)), expected)
    getattr(nn.utils, f"remove_{kind}_norm")(layer)
    assert sorted(layer.state_dict()) == sorted(names)
    np.testing.assert_allclose(evaluate(layer(array)), expected, rtol=1e-12)
    with pytest.raises(GraphError, match="has no"):
        getattr(nn.utils, f"remove_{kind}_norm")(layer)
    with pytest.raises(GraphError, match="has no parameter 'kernel'; it has bias, weight"):
        getattr(nn.utils, f"{kind}_norm")(layer, "kernel")
