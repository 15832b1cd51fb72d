"""Pooling against PyTorch: values, places, gradients at ties, geometry, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler.errors import GraphError
from chainrule.frontend import adaptive_pooling, pooling, unpooling
from chainrule.frontend.tensor import constant
from chainrule.frontend.tensor import input as tensor_input

torch = pytest.importorskip("torch", reason="compares with PyTorch")
TF = torch.nn.functional
rng = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


def tied(*shape: int) -> np.ndarray:
    """Return few distinct values, so that most windows have ties."""
    return rng.integers(0, 3, size=shape).astype(float)


# rank, shape, arguments
MAXIMA = [
    (1, (2, 3, 8), {"kernel_size": 2}),
    (1, (3, 9), {"kernel_size": 3, "stride": 2, "padding": 1}),
    (1, (2, 3, 11), {"kernel_size": 3, "dilation": 3, "padding": 1, "ceil_mode": True}),
    (1, (2, 3, 40), {"kernel_size": 30, "stride": 3, "padding": 7}),
    (1, (2, 3, 36), {"kernel_size": 12}),
    (2, (2, 3, 6, 8), {"kernel_size": 2}),
    (2, (2, 3, 7, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    (2, (2, 3, 7, 8), {"kernel_size": (3, 2), "stride": (1, 3), "ceil_mode": True}),
    (2, (3, 6, 6), {"kernel_size": 3, "stride": 1, "padding": 1}),
    (2, (2, 3, 9, 9), {"kernel_size": 5, "stride": 1, "padding": 2}),
    (2, (2, 2, 13, 13), {"kernel_size": 13, "stride": 1, "padding": 6}),
    (2, (2, 3, 9, 10), {"kernel_size": (2, 3), "dilation": (3, 2), "padding": (1, 0)}),
    (2, (2, 3, 5, 7), {"kernel_size": (5, 7)}),
    (2, (1, 2, 32, 64), {"kernel_size": (16, 32)}),
    (2, (2, 3, 7, 7), {"kernel_size": 1, "stride": 2}),
    (2, (2, 3, 4, 4), {"kernel_size": 1}),
    (2, (1, 1, 5, 5), {"kernel_size": 3, "stride": 2, "ceil_mode": True, "padding": 1}),
    (2, (1, 1, 2, 2), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    (2, (0, 2, 4, 4), {"kernel_size": 2}),
    (3, (2, 2, 4, 5, 6), {"kernel_size": 2}),
    (3, (2, 2, 4, 5, 6), {"kernel_size": (2, 3, 3), "stride": (1, 2, 1), "padding": (0, 1, 1)}),
    (3, (2, 4, 5, 6), {"kernel_size": 2, "stride": 3, "ceil_mode": True}),
]


@pytest.mark.parametrize("values", [draw, tied], ids=["distinct", "tied"])
@pytest.mark.parametrize("case", MAXIMA, ids=str)
def test_maxima(case, values, agrees) -> None:
    rank, shape, arguments = case
    ours, theirs = (getattr(m, f"max_pool{rank}d") for m in (pooling, TF))
    agrees(
        lambda x: ours(x, **arguments, return_indices=True),
        lambda x: theirs(x, **arguments, return_indices=True),
        values(*shape),
        symbolic=len(shape) == rank + 2,
        dtypes=["float32"] if values is tied else ["float32", "float64"],
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 1, "padding": 1},
        {"kernel_size": 5, "stride": 1, "padding": 2},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True, "padding": 1},
    ],
    ids=str,
)
def test_infinities_and_nan(arguments, agrees) -> None:
    array = np.full((1, 2, 6, 7), -np.inf)
    array[0, 1, 2, 3] = array[0, 1, 4, 4] = array[0, 1, 4, 5] = np.nan
    array[0, 0, 5, 5] = np.inf
    agrees(
        lambda x: pooling.max_pool2d(x, **arguments, return_indices=True),
        lambda x: TF.max_pool2d(x, **arguments, return_indices=True),
        array,
        dtypes=["float64"],
    )


def test_integers(agrees) -> None:
    agrees(
        lambda x: pooling.max_pool2d(x, 3, 2, 1, return_indices=True),
        lambda x: TF.max_pool2d(x, 3, 2, 1, return_indices=True),
        rng.integers(-9, 0, size=(2, 3, 6, 6)),
        dtypes=["float32"],
    )


AVERAGES = [
    (1, (2, 3, 8), {"kernel_size": 2}),
    (1, (3, 9), {"kernel_size": 3, "stride": 2, "padding": 1}),
    (1, (2, 3, 9), {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    (1, (2, 3, 40), {"kernel_size": 30, "stride": 3, "padding": 7, "ceil_mode": True}),
    (2, (2, 3, 6, 8), {"kernel_size": 2}),
    (2, (2, 3, 7, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    (2, (2, 3, 7, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    (2, (2, 3, 8, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    (2, (2, 3, 8, 8), {"kernel_size": 3, "stride": 2, "padding": (1, 0), "ceil_mode": True,
                       "count_include_pad": False}),
    (2, (2, 3, 7, 8), {"kernel_size": (3, 2), "divisor_override": 5, "padding": (1, 1)}),
    (2, (3, 9, 9), {"kernel_size": 5, "stride": 1, "padding": 2}),
    (2, (2, 3, 5, 7), {"kernel_size": (5, 7)}),
    (2, (2, 3, 30, 60), {"kernel_size": (15, 30)}),
    (2, (2, 3, 4, 4), {"kernel_size": 1}),
    (3, (2, 2, 4, 5, 6), {"kernel_size": (2, 3, 3), "stride": (1, 2, 1), "padding": (0, 1, 1)}),
    (3, (2, 4, 5, 6), {"kernel_size": 2, "stride": 3, "ceil_mode": True}),
    (3, (2, 2, 4, 5, 6), {"kernel_size": 2, "divisor_override": 3}),
]  # fmt: skip


@pytest.mark.parametrize("case", AVERAGES, ids=str)
def test_averages(case, agrees) -> None:
    rank, shape, arguments = case
    ours, theirs = (getattr(m, f"avg_pool{rank}d") for m in (pooling, TF))
    agrees(
        lambda x: ours(x, **arguments),
        lambda x: theirs(x, **arguments),
        draw(*shape),
        symbolic=len(shape) == rank + 2,
    )


@pytest.mark.parametrize("norm", [1, 2, 3.0])
def test_norms(norm, agrees) -> None:
    for rank, arguments in ((1, (3,)), (2, (2, 1)), (2, ((3, 2), 2, True)), (3, (2,))):
        ours, theirs = (getattr(m, f"lp_pool{rank}d") for m in (pooling, TF))
        agrees(
            lambda x, f=ours, a=arguments: f(x, norm, *a),
            lambda x, f=theirs, a=arguments: f(x, norm, *a),
            np.abs(draw(2, 3, 5, 6, 5)[(..., *(0,) * (3 - rank))]) + 0.1,
        )


ADAPTIVE = [
    (1, (2, 3, 8), 4),
    (1, (2, 3, 8), 1),
    (1, (3, 7), 3),
    (1, (2, 3, 5), 8),
    (1, (2, 3, 61), 2),
    (1, (2, 2, 300), 7),
    (2, (2, 3, 8, 6), (4, 3)),
    (2, (2, 3, 8, 6), 1),
    (2, (2, 3, 7, 9), (3, None)),
    (2, (2, 3, 7, 9), (None, 4)),
    (2, (2, 3, 8, 9), (2, 2)),
    (2, (3, 7, 7), 5),
    (2, (2, 3, 7, 7), 7),
    (3, (2, 2, 4, 5, 6), (2, 3, 1)),
    (3, (2, 4, 5, 6), 3),
]


@pytest.mark.parametrize("case", ADAPTIVE, ids=str)
def test_adaptive_pools(case, agrees) -> None:
    rank, shape, size = case
    for kind, arguments in (("avg", ()), ("max", (True,))):
        ours, theirs = (getattr(m, f"adaptive_{kind}_pool{rank}d") for m in (adaptive_pooling, TF))
        agrees(
            lambda x, f=ours, a=arguments: f(x, size, *a),
            lambda x, f=theirs, a=arguments: f(x, size, *a),
            draw(*shape) if kind == "avg" else tied(*shape),
            symbolic=len(shape) == rank + 2,
        )


@pytest.mark.parametrize(
    ("rank", "shape", "arguments"),
    [
        (2, (2, 3, 9, 7), {"kernel_size": 2, "output_size": (4, 3)}),
        (2, (3, 9, 7), {"kernel_size": (3, 2), "output_ratio": (0.5, 0.6)}),
        (2, (2, 3, 9, 7), {"kernel_size": 3, "output_size": 1}),
        (3, (2, 2, 7, 6, 8), {"kernel_size": 2, "output_size": (3, 4, 2)}),
    ],
    ids=str,
)
def test_fractional_pools(rank, shape, arguments, agrees) -> None:
    name = f"fractional_max_pool{rank}d"
    samples = rng.uniform(size=(*(shape[:-rank] if len(shape) > rank + 1 else (1, 3)), rank))
    agrees(
        lambda x: getattr(adaptive_pooling, name)(
            x, **arguments, return_indices=True, _random_samples=samples
        ),
        lambda x: getattr(TF, name)(
            x, **arguments, return_indices=True,
            _random_samples=torch.tensor(samples).to(x.dtype),
        ),
        draw(*shape),
    )  # fmt: skip


@pytest.mark.parametrize("number", [3, 6, 7, 9, 16, 20])
def test_machine_code_of_maxima(number, agrees) -> None:
    rank, shape, arguments = MAXIMA[number]
    ours, theirs = (getattr(m, f"max_pool{rank}d") for m in (pooling, TF))
    agrees(
        lambda x: ours(x, **arguments, return_indices=True),
        lambda x: theirs(x, **arguments, return_indices=True),
        tied(*shape),
        symbolic=len(shape) == rank + 2,
        native=True,
        dtypes=["float32"],
    )


@pytest.mark.parametrize("number", [3, 6, 8, 12])
def test_machine_code_of_averages(number, agrees) -> None:
    rank, shape, arguments = AVERAGES[number]
    ours, theirs = (getattr(m, f"avg_pool{rank}d") for m in (pooling, TF))
    agrees(
        lambda x: ours(x, **arguments),
        lambda x: theirs(x, **arguments),
        draw(*shape),
        symbolic=len(shape) == rank + 2,
        native=True,
        dtypes=["float32"],
    )


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_machine_code_of_adaptive_pools(kind, agrees) -> None:
    name = f"adaptive_{kind}_pool2d"
    agrees(
        lambda x: getattr(adaptive_pooling, name)(x, (4, 3)),
        lambda x: getattr(TF, name)(x, (4, 3)),
        tied(2, 3, 8, 10),
        symbolic=True,
        native=True,
        dtypes=["float32"],
    )


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "adaptive_max_pool2d"])
def test_second_derivatives(name, differentiate) -> None:
    ours = getattr(adaptive_pooling if "adaptive" in name else pooling, name)
    arguments = ((3, 2),) if "adaptive" in name else (3, 2, 1)
    x = constant(draw(2, 3, 7, 6), "float64")
    leaf = torch.tensor(x.node.op.value.array, requires_grad=True)

    expected = getattr(TF, name)(leaf**3, *arguments)
    cotangent, second = draw(*expected.shape), draw(*leaf.shape)
    (first,) = torch.autograd.grad(expected, leaf, torch.tensor(cotangent), create_graph=True)
    (again,) = torch.autograd.grad(first, leaf, torch.tensor(second))
    value, slopes, bends = differentiate(ours(x**3, *arguments), [x], cotangent, [second])
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-12)
    np.testing.assert_allclose(slopes[0], first.detach(), rtol=1e-10)
    np.testing.assert_allclose(bends[0], again, rtol=1e-10)


def test_pools_take_few_kernels() -> None:
    """A prediction is one kernel; a gradient adds one that visits each element once."""
    x = tensor_input("x", ("n", 4, 16, 16))
    for pool in (
        lambda v: pooling.max_pool2d(v, 2),
        lambda v: pooling.max_pool2d(v, 3, 2, 1),
        lambda v: pooling.avg_pool2d(v, 3, 2, 1),
    ):
        y = pool(x)
        assert cr.compile(y).explain().startswith("1 kernel,")
        both = cr.compile([y, *cr.grad((y * y).sum(), [x])])
        assert both.explain().startswith("2 kernels,")


UNPOOLED = [
    (1, (2, 3, 8), {"kernel_size": 2}, None),
    (1, (3, 9), {"kernel_size": 3, "stride": 2}, (10,)),
    (2, (2, 3, 6, 8), {"kernel_size": 2}, None),
    (2, (2, 3, 7, 9), {"kernel_size": 3, "stride": 1, "padding": 1}, None),
    (2, (3, 7, 9), {"kernel_size": (2, 3), "stride": 2}, (7, 9)),
    (3, (2, 2, 4, 4, 6), {"kernel_size": 2}, (2, 2, 4, 4, 6)),
]


@pytest.mark.parametrize("case", UNPOOLED, ids=str)
def test_unpooling(case, agrees) -> None:
    rank, shape, arguments, size = case
    pool, theirs = (getattr(TF, f"max_{kind}{rank}d") for kind in ("pool", "unpool"))
    ours = getattr(unpooling, f"max_unpool{rank}d")
    values, places = pool(torch.tensor(draw(*shape)), **arguments, return_indices=True)
    agrees(
        lambda x: ours(x, places.numpy(), **arguments, output_size=size),
        lambda x: theirs(x, places, **arguments, output_size=size),
        values.numpy(),
        symbolic=False,
    )
    x = tensor_input("x", ("n", *shape[1:]) if len(shape) > rank + 1 else shape, "float64")
    found = getattr(pooling, f"max_pool{rank}d")(x, **arguments, return_indices=True)
    back = ours(*found, **arguments, output_size=size)
    assert str(back.shape[0]) == ("n" if len(shape) > rank + 1 else str(shape[0]))


def test_symbolic_sizes(evaluate) -> None:
    x = tensor_input("x", ("n", 2, "h", "w"), "float64")
    array = draw(2, 2, 7, 8)
    leaf = torch.tensor(array)
    for arguments in ((2,), (3, 1, 1), (3, 2, 1), (2, 3)):
        for kind in ("max", "avg"):
            found = evaluate(getattr(pooling, f"{kind}_pool2d")(x, *arguments), x=array)
            wanted = getattr(TF, f"{kind}_pool2d")(leaf, *arguments)
            np.testing.assert_allclose(found, wanted, rtol=1e-12)
    found = evaluate(pooling.avg_pool2d(x, 3, 2, 1, count_include_pad=False), x=array)
    wanted = TF.avg_pool2d(leaf, 3, 2, 1, count_include_pad=False)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    found = evaluate(adaptive_pooling.adaptive_avg_pool2d(x, 1), x=array)
    np.testing.assert_allclose(found, TF.adaptive_avg_pool2d(leaf, 1), rtol=1e-12)
    found = evaluate(adaptive_pooling.adaptive_max_pool2d(x, 1), x=array)
    np.testing.assert_allclose(found, TF.adaptive_max_pool2d(leaf, 1), rtol=1e-12)


def test_graphs_stay_small() -> None:
    """A window of 13 x 13 takes 13 + 13 taps, one of 7 x 7 that tiles a reshape and a sum."""
    from chainrule.compiler.ir.graph import topological

    x = tensor_input("x", ("n", 8, 26, 28))
    assert len(topological([pooling.max_pool2d(x, 13, 1, 6).node])) < 400
    assert len(topological([pooling.avg_pool2d(x, 13, 1, 6).node])) < 100
    assert len(topological([pooling.avg_pool2d(x, (13, 14)).node])) < 15
    assert len(topological([adaptive_pooling.adaptive_avg_pool2d(x, 1).node])) < 8


def test_what_does_not_fit_is_refused() -> None:
    x = tensor_input("x", ("n", 4, 6, 6))
    for text, make in (
        ("padding 2 is more than half of a window of 3; up to 1", lambda: pooling.max_pool2d(
            x, 3, 1, 2)),
        ("window of 7 is larger than the axis of size 6", lambda: pooling.max_pool2d(x, 7, 1)),
        ("window of 9 is larger.*padded to 8", lambda: pooling.avg_pool2d(x, 9, 1, 1)),
        (r"\(batch, channels, length\)", lambda: pooling.avg_pool1d(x, 2)),
        ("kernel_size must be at least 1", lambda: pooling.max_pool2d(x, 0)),
        ("one int or 2 would", lambda: pooling.max_pool2d(x, (1, 2, 3))),
        ("divisor_override", lambda: pooling.avg_pool2d(x, 2, divisor_override=0)),
        ("output_size must be at least 1", lambda: adaptive_pooling.adaptive_avg_pool2d(x, 0)),
        ("5 windows of 3 do not fit an axis of 6", lambda: adaptive_pooling.fractional_max_pool2d(
            x, 3, 5)),
        ("either output_size or output_ratio", lambda: adaptive_pooling.fractional_max_pool2d(
            x, 3)),
        (r"sizes less than \(2, 2\) from \(12, 12\) would", lambda: unpooling.max_unpool2d(
            x, tensor_input("i", ("n", 4, 6, 6), "int64"), 2, output_size=(9, 12))),
        ("indices of shape", lambda: unpooling.max_unpool2d(x, np.zeros((1, 4, 6, 6), int), 2)),
        ("3 windows need a known size", lambda: adaptive_pooling.adaptive_avg_pool1d(
            tensor_input("y", (2, 3, "length")), 3)),
    ):  # fmt: skip
        with pytest.raises(GraphError, match=text) as caught:
            make()
        assert "test_pooling.py" in str(caught.value)
