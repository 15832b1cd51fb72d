"""Modules against PyTorch: values, derivatives, names, state dictionaries, initial values."""

from __future__ import annotations

import copy
import types

import numpy as np
import pytest

from chainrule.compiler.autodiff.reverse import gradient
from chainrule.compiler.errors import CheckpointError, GraphError, GraphTypeError
from chainrule.compiler.ir.graph import Program
from chainrule.frontend import initializers, nn
from chainrule.frontend.random import manual_seed
from chainrule.frontend.state import Variable, effects_reaching, variable_of
from chainrule.frontend.tensor import Tensor, constant
from chainrule.frontend.tensor import input as tensor_input
from chainrule.runtime.interpreter import run_program

torch = pytest.importorskip("torch")
rng = np.random.default_rng(0)


def run_training(
    loss: Tensor, wrt: list[Tensor], inputs: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """Return the loss and gradients of one training step, and assign the updated states."""
    grads = gradient([loss.node], [x.node for x in wrt])
    effects = effects_reaching([loss.node])
    program = Program(
        tuple((str(i), n) for i, n in enumerate([loss.node, *grads])),
        tuple((state.node, new.node) for state, new in effects),
    )
    states = {node: variable_of(node).value for node in program.states()}
    outputs, updates = run_program(program, inputs, states, training=True)
    for node, value in updates.items():
        variable_of(node).assign(value)
    return list(outputs.values())


LAYERS = [
    ("Linear", (6, 3), {}, (5, 6)),
    ("Linear", (6, 3), {"bias": False}, (2, 5, 6)),
    ("LayerNorm", (6,), {}, (5, 6)),
    ("LayerNorm", ((5, 6),), {"eps": 1e-3, "bias": False}, (2, 5, 6)),
    ("LayerNorm", (6,), {"elementwise_affine": False}, (5, 6)),
    ("RMSNorm", (6,), {"eps": 1e-4}, (5, 6)),
    ("GroupNorm", (2, 6), {}, (3, 6, 4)),
    ("GroupNorm", (3, 6), {"affine": False}, (3, 6)),
    ("BatchNorm1d", (6,), {}, (5, 6)),
    ("BatchNorm1d", (6,), {"momentum": 0.3, "eps": 1e-3}, (5, 6, 4)),
    ("BatchNorm1d", (6,), {"momentum": None, "affine": False}, (5, 6)),
    ("BatchNorm1d", (6,), {"track_running_stats": False}, (5, 6)),
    ("BatchNorm2d", (6,), {}, (5, 6, 3, 2)),
    ("BatchNorm3d", (6,), {}, (5, 6, 3, 2, 2)),
    ("Flatten", (), {}, (2, 3, 4)),
    ("Flatten", (0, 1), {}, (2, 3, 4)),
    ("Unflatten", (1, (2, 3)), {}, (4, 6)),
    ("Identity", (), {}, (2, 3)),
]


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "shape"),
    LAYERS,
    ids=[f"{row[0]}-{i}" for i, row in enumerate(LAYERS)],
)
def test_layers_agree_with_torch(name, args, kwargs, shape, evaluate) -> None:
    typed = {"dtype": "float64"} if name not in {"Flatten", "Unflatten", "Identity"} else {}
    ours = getattr(nn, name)(*args, **kwargs, **typed)
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    for value in theirs.parameters():
        torch.nn.init.normal_(value)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = tensor_input("x", ("batch", *shape[1:]) if args != (0, 1) else shape, "float64")
    output = ours(x)
    cotangent = rng.normal(size=tuple(theirs(torch.tensor(np.ones(shape))).shape))
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    loss = (output * tensor_input("c", output.shape, "float64")).sum()
    array = np.zeros(shape)
    for scale in (1, 2, 3):
        array = rng.normal(size=shape) * scale
        values = run_training(loss, [x, *ours.parameters()], {"x": array, "c": cotangent})
        leaf = torch.tensor(array, requires_grad=True)
        torch_loss = (theirs(leaf) * torch.tensor(cotangent)).sum()
        grads = torch.autograd.grad(torch_loss, [leaf, *theirs.parameters()])
        for a, b in zip(values, [torch_loss.detach(), *grads], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)
        for key, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[key], value, rtol=1e-9, err_msg=key)
    theirs.eval()
    np.testing.assert_allclose(
        evaluate(output, x=array), theirs(torch.tensor(array)).detach(), rtol=1e-7, atol=1e-9
    )


def test_a_layer_applied_twice_chains_its_statistics() -> None:
    ours, theirs = nn.BatchNorm1d(3, dtype="float64"), torch.nn.BatchNorm1d(3).double()
    x = tensor_input("x", ("n", 3), "float64")
    array = rng.normal(size=(4, 3)) + 5
    run_training(ours(ours(x) * 2).sum(), [x], {"x": array})
    theirs(theirs(torch.tensor(array)) * 2)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value, rtol=1e-9, atol=1e-12)


def test_a_batch_of_one_does_not_spoil_the_statistics() -> None:
    layer = nn.BatchNorm1d(3)
    x = tensor_input("x", ("n", 3))
    run_training(layer(x).sum(), [x], {"x": np.ones((1, 3), "f")})
    assert np.isfinite(layer.state_dict()["running_var"]).all()


@pytest.mark.parametrize("padding", [None, 2, -1])
def test_embedding(padding: int | None) -> None:
    ours = nn.Embedding(5, 3, padding, dtype="float64")
    theirs = torch.nn.Embedding(5, 3, padding).double()
    if padding is not None:
        assert not ours.weight.value[padding].any()
    ours.load_state_dict(theirs.state_dict())
    at = np.array([[0, 2, 4], [2, 2, 4]])
    cotangent = rng.normal(size=(2, 3, 3))
    values = run_training((ours(constant(at)) * cotangent).sum(), [ours.weight], {})
    loss = (theirs(torch.tensor(at)) * torch.tensor(cotangent)).sum()
    loss.backward()
    np.testing.assert_allclose(values[0], loss.detach())
    np.testing.assert_allclose(values[1], theirs.weight.grad)
    with pytest.raises(GraphTypeError, match="integer"):
        ours(constant([1.0]))
    with pytest.raises(GraphError, match="padding_idx"):
        nn.Embedding(5, 3, 5)


def test_bilinear(evaluate) -> None:
    ours, theirs = nn.Bilinear(2, 3, 4), torch.nn.Bilinear(2, 3, 4)
    ours.load_state_dict(theirs.state_dict())
    a, b = rng.normal(size=(5, 2)).astype("f"), rng.normal(size=(5, 3)).astype("f")
    expected = theirs(torch.tensor(a), torch.tensor(b)).detach()
    np.testing.assert_allclose(evaluate(ours(a, b)), expected, rtol=1e-5, atol=1e-6)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        self.inner = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(width, 1), nn.Linear(width, 2)])
        self.scale = Variable([1.0], "scale")
        self.register_buffer("shift", np.zeros(width, np.float32))

    def forward(self, x):
        return [head((x + self.inner(x)) * self.scale + self.shift) for head in self.heads]


def test_modules_nest() -> None:
    model = Residual(4)
    names = [name for name, _ in model.named_parameters()]
    assert names == [
        "inner.0.weight",
        "inner.0.bias",
        "heads.0.weight",
        "heads.0.bias",
        "heads.1.weight",
        "heads.1.bias",
        "scale",
    ]
    assert len(model.parameters()) == 7
    assert [name for name, _ in model.named_buffers()] == ["shift"]
    assert [name for name, _ in model.named_modules()] == [
        "",
        "inner",
        "inner.0",
        "inner.1",
        "heads",
        "heads.0",
        "heads.1",
    ]
    assert [out.shape for out in model(tensor_input("x", ("n", 4)))][1][1] == 2
    model.requires_grad_(False)
    assert not any(p.trainable for p in model.parameters())
    assert "(0): Linear(4, 4, bias=True)" in repr(model)


def test_a_parameter_by_its_name_in_torch() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            self.factor = nn.Parameter(torch.full((3,), 2.0))
            self.fixed = nn.Parameter([1.0], requires_grad=False)

        def forward(self, x):
            return x * self.factor + self.fixed

    model = Scale()
    assert [n for n, _ in model.named_parameters()] == ["factor", "fixed"]
    assert [p.trainable for p in model.parameters()] == [True, False]
    assert model.factor.dtype == model.fixed.dtype == "float32"
    twin = copy.deepcopy(model)
    assert twin.factor.node is not model.factor.node and not twin.fixed.trainable


def test_lists_and_dictionaries_of_parameters() -> None:
    class Mixture(nn.Module):
        def __init__(self) -> None:
            self.means = nn.ParameterList([np.zeros(2, "f"), Variable(np.ones(3), "w")])
            self.scales = nn.ParameterDict({"a": np.ones(1, "f")})

    model = Mixture()
    model.means.append(np.ones(4, "f"))
    model.scales["b"] = np.zeros(2, "f")
    names = ["means.0", "means.1", "means.2", "scales.a", "scales.b"]
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()] == names
    assert [len(model.means), len(model.scales)] == [3, 2]
    assert len(model.means[1:]) == 2 and "a" in model.scales
    model.means[0] = np.full(2, 7.0)
    assert next(iter(model.means)).value[0] == 7
    assert [list(model.scales), list(model.scales.keys())] == [["a", "b"]] * 2
    assert [v for _, v in model.scales.items()] == list(model.scales.values())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("CosineSimilarity", {}),
        ("CosineSimilarity", {"dim": -1, "eps": 1e-2}),
        ("PairwiseDistance", {}),
        ("PairwiseDistance", {"p": 1, "keepdim": True}),
        ("PairwiseDistance", {"p": 3.5, "eps": 1e-3}),
    ],
)
def test_distances_agree_with_torch(name: str, arguments: dict) -> None:
    a, b = rng.normal(size=(2, 4, 3, 5))
    x, y = tensor_input("x", ("n", 3, 5), "float64"), tensor_input("y", ("n", 3, 5), "float64")
    leaves = [torch.tensor(array, requires_grad=True) for array in (a, b)]
    expected = getattr(torch.nn, name)(**arguments)(*leaves)
    gradients = torch.autograd.grad(expected.sum(), leaves)
    output = getattr(nn, name)(**arguments)(x, y)
    assert output.shape[1:] == tuple(expected.shape[1:])
    found = run_training(output.sum(), [x, y], {"x": a, "y": b})
    for mine, theirs in zip(found, [expected.sum().detach(), *gradients], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    assert len(model.parameters()) == 2
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_sequential() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    model.append(nn.Linear(4, 2))
    assert len(model) == 3
    assert isinstance(model[-1], nn.Linear)
    assert len(model[:2]) == 2
    assert model[:2][0] is model[0]
    model.insert(1, nn.Tanh())
    assert list(model.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    named = nn.Sequential({"first": nn.Linear(3, 4), "act": nn.ReLU()})
    assert list(named.state_dict()) == ["first.weight", "first.bias"]
    assert named.first is named[0]
    with pytest.raises(AttributeError, match="third"):
        _ = named.third
    with pytest.raises(GraphTypeError, match=r"nn\.Lambda"):
        nn.Sequential(lambda x: x)
    doubled = nn.Sequential(nn.Lambda(lambda x: x * 2))
    assert doubled(tensor_input("x", (3,))).shape == (3,)


def test_a_copied_model_has_its_own_parameters() -> None:
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.BatchNorm1d(3), layer)
    twin = copy.deepcopy(model)
    assert twin[0] is twin[2]
    assert twin[0].weight.node is not layer.weight.node
    before = model.state_dict()
    for variable in twin.parameters():
        variable.value[...] = 7
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert list(twin.state_dict()) == list(before)


def test_state_dict_is_a_copy() -> None:
    layer = nn.Linear(2, 2)
    state = layer.state_dict()
    layer.weight.assign(np.zeros((2, 2)))
    assert state["weight"].any()


def test_loading_is_all_or_nothing() -> None:
    layer = nn.Linear(2, 3)
    before = layer.state_dict()
    bad = {"weight": np.zeros((3, 2)), "bias": np.zeros(4)}
    with pytest.raises(CheckpointError, match=r"bias has shape \(4,\) .* \(3,\)"):
        layer.load_state_dict(bad)
    with pytest.raises(CheckpointError, match="missing: bias; unexpected: b"):
        layer.load_state_dict({"weight": np.zeros((3, 2)), "b": np.zeros(3)})
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    result = layer.load_state_dict({"weight": np.zeros((3, 2)), "b": 1}, strict=False)
    assert result == (["bias"], ["b"])
    assert not layer.weight.value.any()


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (nn.Linear(784, 10), ("n", 100), r"Linear: .*\(n, 100\).*must be 784"),
        (nn.LayerNorm(6), ("n", 5), r"layer_norm: .*\(n, 5\)"),
        (nn.BatchNorm1d(6), ("n", 5), "axis 1 must be 6"),
        (nn.BatchNorm1d(6), ("n", 6, 2, 2), "needs rank 2 or 3"),
    ],
)
def test_errors_name_the_line(layer: nn.Module, shape: tuple, words: str) -> None:
    with pytest.raises(GraphError, match=words) as caught:
        layer(tensor_input("x", shape))
    assert "test_modules.py:" in str(caught.value)


def test_default_initial_values_follow_torch() -> None:
    manual_seed(0)
    ours, theirs = nn.Linear(100, 2000), torch.nn.Linear(100, 2000)
    for a, b in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        b = b.detach().numpy()
        assert np.abs(a.value).max() <= 0.1
        assert abs(a.value.std() - b.std()) < 0.003
        assert abs(a.value.mean()) < 0.01
    assert abs(nn.Embedding(100, 100).weight.value.std() - 1) < 0.05


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("uniform_", {"a": -1.0, "b": 2.0}),
        ("normal_", {"mean": 1.0, "std": 0.5}),
        ("trunc_normal_", {"std": 0.5, "a": -0.5, "b": 1.0}),
        ("xavier_uniform_", {"gain": 2.0}),
        ("xavier_normal_", {}),
        ("kaiming_uniform_", {"nonlinearity": "relu"}),
        ("kaiming_uniform_", {"a": 0.3, "mode": "fan_out"}),
        ("kaiming_normal_", {}),
        ("orthogonal_", {"gain": 3.0}),
        ("constant_", {"val": 2.0}),
        ("zeros_", {}),
        ("ones_", {}),
    ],
)
def test_initialisers_follow_torch(name: str, arguments: dict) -> None:
    manual_seed(0)
    ours, theirs = Variable(np.zeros((300, 200)), "w"), torch.empty(300, 200)
    assert getattr(nn.init, name)(ours, **arguments) is ours
    getattr(torch.nn.init, name)(theirs, **arguments)
    array = theirs.numpy()
    assert abs(ours.value.mean() - array.mean()) < 0.02
    assert abs(ours.value.std() / max(array.std(), 1e-9) - (array.std() > 0)) < 0.02
    assert abs(np.abs(ours.value).max() - np.abs(array).max()) < 0.3 * np.abs(array).max() + 1e-9


def test_eye_and_gain() -> None:
    w = Variable(np.zeros((3, 4)), "w")
    np.testing.assert_array_equal(nn.init.eye_(w).value, np.eye(3, 4))
    for name in ("linear", "relu", "tanh", "selu", "leaky_relu", "sigmoid"):
        assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    with pytest.raises(ValueError, match="gain"):
        nn.init.calculate_gain("softmax")
    with pytest.raises(ValueError, match="two or more axes"):
        initializers.xavier_uniform((3,))


def test_public_names_are_not_hidden_by_the_files_they_come_from():
    hidden = [name for name in nn.__all__ if isinstance(getattr(nn, name), types.ModuleType)]
    assert hidden == ["functional", "init", "regularization", "utils"]
