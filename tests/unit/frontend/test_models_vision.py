"""Image models against PyTorch: names, sizes, values and gradients, in both modes and backends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import chainrule as cr
from chainrule import models
from chainrule.compiler.autodiff.reverse import gradient
from chainrule.compiler.errors import GraphError
from chainrule.compiler.ir.graph import Program
from chainrule.frontend.state import variable_of
from chainrule.runtime.interpreter import run_program

torch = pytest.importorskip("torch", reason="the reference is PyTorch")
from . import image_models_by_hand as by_hand  # noqa: E402

rng = np.random.default_rng(0)
FEW_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (3, 32, 1, 1))
#: Those that have no dropout, and are small.
TRAINED = ("resnet_cifar", "densenet", "lenet", "unet", "unet_bilinear")
SMALL_VGG = (8, None, 16, 16, None, 512, None)

# model, the same by hand, shape of the image
CASES: dict[str, tuple[Callable, Callable, tuple[int, ...]]] = {
    "alexnet": (
        lambda: models.AlexNet(7, hidden=16),
        by_hand.alexnet,
        (2, 3, 70, 65),
    ),
    "vgg": (
        lambda: models.VGG(SMALL_VGG, 7, hidden=16),
        lambda p, x: by_hand.vgg(p, x, SMALL_VGG, False),
        (2, 3, 17, 16),
    ),
    "vgg_bn": (
        lambda: models.VGG(SMALL_VGG, 7, hidden=16, batch_norm=True),
        lambda p, x: by_hand.vgg(p, x, SMALL_VGG, True),
        (2, 3, 17, 16),
    ),
    "resnet": (
        lambda: models.ResNet(models.BasicBlock, (1, 2, 1, 1), 7),
        lambda p, x: by_hand.resnet(p, x, (1, 2, 1, 1), False),
        (2, 3, 40, 37),
    ),
    "resnet_cifar": (
        lambda: models.ResNet(models.BasicBlock, (1, 1, 1, 1), 7, stem="cifar"),
        lambda p, x: by_hand.resnet(p, x, (1, 1, 1, 1), False, True),
        (2, 3, 12, 12),
    ),
    "resnext": (
        lambda: models.ResNet(models.Bottleneck, (1, 1, 1, 1), 7, groups=4, width_per_group=8),
        lambda p, x: by_hand.resnet(p, x, (1, 1, 1, 1), True, groups=4),
        (2, 3, 40, 37),
    ),
    "densenet": (
        lambda: models.DenseNet(8, (2, 3, 2), 16, num_classes=7),
        lambda p, x: by_hand.densenet(p, x, (2, 3, 2)),
        (2, 3, 36, 33),
    ),
    "googlenet": (lambda: models.googlenet(7), by_hand.googlenet, (2, 3, 36, 33)),
    "mobilenet": (
        lambda: models.MobileNetV2(7, 0.5, FEW_BLOCKS),
        lambda p, x: by_hand.mobilenet(p, x, FEW_BLOCKS),
        (2, 3, 40, 33),
    ),
    "squeezenet1_0": (
        lambda: models.squeezenet1_0(7),
        lambda p, x: by_hand.squeezenet(p, x, (2, 6, 11), 12),
        (2, 3, 33, 40),
    ),
    "squeezenet1_1": (
        lambda: models.squeezenet1_1(7),
        lambda p, x: by_hand.squeezenet(p, x, (2, 5, 8), 12),
        (2, 3, 33, 40),
    ),
    "lenet": (
        lambda: models.lenet5(),
        lambda p, x: by_hand.lenet(p, x, 2),
        (2, 1, 28, 28),
    ),
    "unet": (
        lambda: models.unet(3, 2, width=4, depth=2),
        lambda p, x: by_hand.unet(p, x, 2, False),
        (2, 3, 12, 8),
    ),
    "unet_bilinear": (
        lambda: models.unet(3, 2, width=4, depth=2, bilinear=True),
        lambda p, x: by_hand.unet(p, x, 2, True),
        (2, 3, 12, 8),
    ),
}


def scrambled(model: cr.nn.Module) -> dict[str, np.ndarray]:
    """Give normalisations statistics and scales that matter; return all arrays in float64."""
    for name, variable in model.named_variables():
        if name.endswith("running_var"):
            variable.assign(rng.uniform(0.5, 2.0, size=variable.value.shape))
        elif variable.value.ndim == 1:
            offset = 1.0 if name.endswith("weight") else 0.0
            variable.assign(offset + 0.1 * rng.normal(size=variable.value.shape))
    return {name: v.astype("float64") for name, v in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "training"), [*((name, False) for name in CASES), *((name, True) for name in TRAINED)]
)
def test_values_and_gradients(name: str, training: bool) -> None:
    make, reference, shape = CASES[name]
    cr.manual_seed(0)
    model = make()
    arrays = scrambled(model)
    leaves = {
        key: torch.tensor(value, requires_grad="running" not in key and "tracked" not in key)
        for key, value in arrays.items()
    }
    parameters = by_hand.Parameters(leaves, training)
    image = rng.normal(size=shape)
    expected = reference(parameters, torch.tensor(image))
    assert parameters.read == set(arrays), "every name is read, and there is no other"

    x = cr.input("x", ("n", *shape[1:]))
    outputs = model.forward_with_auxiliary(x) if name == "googlenet" else (model(x),)
    expected = expected if isinstance(expected, tuple) else (expected,)
    cotangents = [rng.normal(size=tuple(e.shape)) for e in expected]
    named = model.named_parameters()
    seeds = [cr.input(f"g{i}", y.shape) for i, y in enumerate(outputs)]
    slopes = gradient(
        [y.node for y in outputs], [v.node for _, v in named], [g.node for g in seeds]
    )
    nodes = [*(y.node for y in outputs), *slopes]
    program = Program(tuple((str(i), node) for i, node in enumerate(nodes)))
    states = {node: variable_of(node).value for node in program.states()}
    feed = {"x": image} | {f"g{i}": c for i, c in enumerate(cotangents)}
    found, _ = run_program(program, feed, states, promote=True, training=training)
    seeded = [torch.tensor(c) for c in cotangents]
    wanted = [*expected, *torch.autograd.grad(expected, [leaves[key] for key, _ in named], seeded)]
    for value, other in zip(found.values(), wanted, strict=True):
        other = other.detach().numpy()
        room = 1e-9 * np.abs(other).max()
        np.testing.assert_allclose(value, other, rtol=1e-7, atol=room)


@pytest.mark.parametrize("name", ["resnet_cifar", "squeezenet1_1", "unet"])
def test_machine_code(name: str) -> None:
    make, _, shape = CASES[name]
    cr.manual_seed(0)
    model = make()
    scrambled(model)
    image = rng.normal(size=shape).astype("f")
    x = cr.input("x", ("n", *shape[1:]))
    y = model(x)
    slopes = cr.grad((y * y).sum(), model.parameters()[:2])
    found, wanted = (
        cr.compile([y, *slopes], backend=backend)(x=image) for backend in ("native", "numpy")
    )
    for value, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())


#: The numbers of parameters that torchvision publishes for its models.
SIZES = {
    "densenet121": 7978856,
    "densenet169": 14149480,
    "densenet201": 20013928,
    "googlenet": 13004888,
    "mobilenet_v2": 3504872,
    "resnet18": 11689512,
    "squeezenet1_0": 1248424,
    "squeezenet1_1": 1235496,
}
LARGE = {
    "alexnet": 61100840,
    "resnet34": 21797672,
    "resnet50": 25557032,
    "resnet101": 44549160,
    "resnet152": 60192808,
    "resnext50_32x4d": 25028904,
    "vgg11": 132863336,
    "vgg11_bn": 132868840,
    "vgg13": 133047848,
    "vgg13_bn": 133053736,
    "vgg16": 138357544,
    "vgg16_bn": 138365992,
    "vgg19": 143667240,
    "vgg19_bn": 143678248,
    "wide_resnet50_2": 68883240,
}


def count(name: str) -> int:
    return sum(p.value.size for p in getattr(models, name)().parameters())


@pytest.mark.parametrize("name", SIZES)
def test_numbers_of_parameters(name: str) -> None:
    assert count(name) == SIZES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_numbers_of_parameters_of_large_models(name: str) -> None:
    assert count(name) == LARGE[name]


VGG_STAGES = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
RESNET_STAGES = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


def forward_by_hand(name: str, p: by_hand.Parameters, x: torch.Tensor) -> torch.Tensor:
    if name in RESNET_STAGES:
        bottleneck = name not in {"resnet18", "resnet34"}
        return by_hand.resnet(p, x, RESNET_STAGES[name], bottleneck)
    if name in VGG_STAGES:
        widths: list[int | None] = []
        for width, convolutions in zip((64, 128, 256, 512, 512), VGG_STAGES[name], strict=True):
            widths += [*[width] * convolutions, None]
        return by_hand.vgg(p, x, widths, False)
    return by_hand.alexnet(p, x)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in {"alexnet", "resnet50"} else pytest.mark.slow)
        for name in ("alexnet", *VGG_STAGES, *RESNET_STAGES)
    ],
)
def test_full_size(name: str) -> None:
    """Images of 224 x 224, in machine code."""
    cr.manual_seed(0)
    model = getattr(models, name)()
    scrambled(model)
    arrays = {key: torch.tensor(value) for key, value in model.state_dict().items()}
    image = rng.normal(size=(2, 3, 224, 224)).astype("f")
    wanted = forward_by_hand(name, by_hand.Parameters(arrays, False), torch.tensor(image)).numpy()
    x = cr.input("x", ("n", 3, 224, 224))
    found = cr.compile(model(x))(x=image)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_what_models_refuse() -> None:
    for text, make in (
        ("multiples of 16 would fit", lambda: models.unet()(cr.input("x", ("n", 3, 40, 32)))),
        ("neither 'imagenet' nor 'cifar'", lambda: models.resnet18(stem="tiny")),
        ("for bottleneck blocks", lambda: models.resnet18(groups=2)),
        ("neither '1_0' nor '1_1'", lambda: models.SqueezeNet("2")),
        ("28 or 32 pixels", lambda: models.lenet5(image_size=30)),
        ("no such classifiers", lambda: models.googlenet(7, aux_logits=False)
            .forward_with_auxiliary(cr.input("x", ("n", 3, 64, 64)))),
        ("larger than the axis", lambda: models.AlexNet(7, hidden=8)(
            cr.input("x", ("n", 3, 32, 32)))),
    ):  # fmt: skip
        with pytest.raises(GraphError, match=text):
            make()
