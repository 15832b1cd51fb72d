"""Resampling against PyTorch: interpolation, rearranged channels, sampling at given places."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError
from chainrule.frontend import grid_sampling, resampling
from chainrule.frontend.tensor import input as tensor_input

torch = pytest.importorskip("torch", reason="compares with PyTorch")
TF = torch.nn.functional
rng = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
SIZES = [
    (1, (2, 3, 7), {"size": 12}),
    (1, (2, 3, 7), {"size": 3}),
    (1, (2, 3, 7), {"size": 1}),
    (1, (2, 3, 1), {"size": 4}),
    (1, (2, 3, 7), {"scale_factor": 2}),
    (1, (2, 3, 7), {"scale_factor": 1.7}),
    (1, (2, 3, 7), {"scale_factor": 1.7, "recompute_scale_factor": True}),
    (1, (2, 3, 300), {"size": 130}),
    (2, (2, 3, 4, 6), {"scale_factor": 2}),
    (2, (2, 3, 4, 6), {"scale_factor": 0.5}),
    (2, (2, 3, 5, 6), {"size": (9, 4)}),
    (2, (2, 3, 5, 6), {"scale_factor": (0.6, 2.3)}),
    (2, (2, 3, 5, 6), {"size": (5, 6)}),
    (3, (2, 2, 3, 4, 5), {"scale_factor": 2}),
    (3, (2, 2, 3, 4, 5), {"size": (2, 6, 5)}),
]


def compare(agrees, shape, **arguments) -> None:
    agrees(
        lambda x: resampling.interpolate(x, **arguments),
        lambda x: TF.interpolate(x, **arguments),
        draw(*shape),
        symbolic=True,
        scale=10.0,
    )


@pytest.mark.parametrize("case", SIZES, ids=str)
def test_interpolation(case, agrees) -> None:
    rank, shape, arguments = case
    compare(agrees, shape, **arguments)
    compare(agrees, shape, **arguments, mode="nearest-exact")
    compare(agrees, shape, **arguments, mode="area")
    for aligned in (False, True):
        compare(agrees, shape, **arguments, mode=LINEAR[rank], align_corners=aligned)


@pytest.mark.parametrize("case", [row for row in SIZES if row[0] == 2], ids=str)
def test_cubic_and_antialiased_interpolation(case, agrees) -> None:
    _, shape, arguments = case
    for aligned in (False, True):
        compare(agrees, shape, **arguments, mode="bicubic", align_corners=aligned)
        for mode in ("bilinear", "bicubic"):
            compare(agrees, shape, **arguments, mode=mode, align_corners=aligned, antialias=True)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_machine_code_of_interpolation(mode, agrees) -> None:
    for factor in (2, 0.7):
        agrees(
            lambda x, f=factor: resampling.interpolate(x, None, f, mode),
            lambda x, f=factor: TF.interpolate(x, None, f, mode),
            draw(2, 3, 5, 6),
            symbolic=True,
            native=True,
            dtypes=["float32"],
        )


def test_nearest_places_round_as_in_torch(evaluate) -> None:
    """The place of a result is computed in float32, where some products fall below an integer."""
    for size, wanted in ((7, 49), (10, 1000), (3, 1001), (640, 77)):
        array = np.arange(size, dtype="f")[None, None]
        for mode in ("nearest", "nearest-exact"):
            found = evaluate(resampling.interpolate(array, wanted, mode=mode))
            theirs = TF.interpolate(torch.tensor(array), wanted, mode=mode)
            np.testing.assert_array_equal(found, theirs)


def test_symbolic_sizes(evaluate) -> None:
    x = tensor_input("x", ("n", 2, "h", "w"), "float64")
    array = draw(2, 2, 3, 4)
    for factor in (2, (3, 1)):
        found = evaluate(resampling.interpolate(x, scale_factor=factor), x=array)
        np.testing.assert_array_equal(found, TF.interpolate(torch.tensor(array), None, factor))


def test_rearranged_channels(agrees) -> None:
    for shape in ((2, 12, 3, 4), (3, 2, 8, 2, 3), (4, 3, 2)):
        agrees(
            lambda x: resampling.pixel_shuffle(x, 2), lambda x: TF.pixel_shuffle(x, 2),
            draw(*shape), dtypes=["float64"], symbolic=len(shape) > 3,
        )  # fmt: skip
    for shape in ((2, 3, 4, 6), (2, 2, 8, 2), (1, 2, 4)):
        agrees(
            lambda x: resampling.pixel_unshuffle(x, 2), lambda x: TF.pixel_unshuffle(x, 2),
            draw(*shape), dtypes=["float64"], symbolic=len(shape) > 3,
        )  # fmt: skip
    for shape in ((2, 6, 3, 4), (2, 6, 5)):
        shuffle = torch.nn.ChannelShuffle(3)
        agrees(
            lambda x: resampling.channel_shuffle(x, 3), shuffle, draw(*shape), dtypes=["float64"],
            symbolic=True,
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore:Since version 1.3.0")
@pytest.mark.parametrize("aligned", [False, True])
def test_affine_grids(aligned, agrees) -> None:
    for size in ((2, 3, 4, 5), (2, 1, 1, 3), (2, 3, 2, 3, 4)):
        rank = len(size) - 2
        agrees(
            lambda theta, s=size: grid_sampling.affine_grid(theta, s, aligned),
            lambda theta, s=size: TF.affine_grid(theta, list(s), aligned),
            draw(2, rank, rank + 1),
        )


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_samples(mode, padding, aligned, agrees) -> None:
    for shape, field in (
        ((2, 3, 5, 4), (3, 6)),
        ((1, 2, 1, 3), (2, 2)),
        ((2, 2, 3, 4, 2), (2, 3, 2)),
    ):
        if mode == "bicubic" and len(shape) == 5:
            continue
        grid = rng.uniform(-2.5, 2.5, size=(shape[0], *field, len(field)))
        agrees(
            lambda x, g: grid_sampling.grid_sample(x, g, mode, padding, aligned),
            lambda x, g: TF.grid_sample(x, g, mode, padding, aligned),
            draw(*shape),
            grid,
            dtypes=["float64"],
            scale=10.0,
        )


@pytest.mark.parametrize("padding", ["zeros", "reflection"])
def test_machine_code_of_grid_samples(padding, agrees) -> None:
    agrees(
        lambda x, g: grid_sampling.grid_sample(x, g, "bilinear", padding),
        lambda x, g: TF.grid_sample(x, g, "bilinear", padding, False),
        draw(2, 3, 5, 4),
        rng.uniform(-1.5, 1.5, size=(2, 3, 6, 2)),
        native=True,
        dtypes=["float32"],
        scale=10.0,
    )


def test_grid_samples_of_a_symbolic_batch(evaluate) -> None:
    x = tensor_input("x", ("n", 3, 5, 4), "float64")
    grid = tensor_input("grid", ("n", 3, 6, 2), "float64")
    arrays = {"x": draw(2, 3, 5, 4), "grid": rng.uniform(-1, 1, size=(2, 3, 6, 2))}
    arrays["grid"][0, 0, 0] = np.nan, np.inf
    found = evaluate(grid_sampling.grid_sample(x, grid), **arrays)
    wanted = TF.grid_sample(*map(torch.tensor, arrays.values()), align_corners=False)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found[0, :, 1:], wanted[0, :, 1:], rtol=1e-10, atol=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    x = tensor_input("x", ("n", 6, 6, 5))
    y = tensor_input("y", ("n", 6, "h", "w"))
    interpolate = resampling.interpolate
    for text, make in (
        ("no mode is called 'cubic'", lambda: interpolate(x, 3, mode="cubic")),
        ("rank 3 would", lambda: interpolate(x, 3, mode="linear")),
        ("align_corners goes with", lambda: interpolate(x, 3, align_corners=True)),
        ("antialias goes with", lambda: interpolate(x, 3, antialias=True)),
        ("either size or scale_factor", lambda: interpolate(x)),
        ("either size or scale_factor", lambda: interpolate(x, 3, 2.0)),
        ("one number or 2 would", lambda: interpolate(x, (1, 2, 3))),
        ("at least 1 would fit", lambda: interpolate(x, scale_factor=0.1)),
        ("needs a known size", lambda: interpolate(y, 4, mode="bilinear")),
        ("do not divide into blocks", lambda: resampling.pixel_shuffle(x, 2)),
        ("6 x 5 pixels do not divide", lambda: resampling.pixel_unshuffle(x, 2)),
        ("4 groups do not divide 6 channels", lambda: resampling.channel_shuffle(x, 4)),
        ("fits rank 4", lambda: grid_sampling.grid_sample(x, np.zeros((1, 2, 2, 3), "f"))),
        ("mode 'cubic' is not one of", lambda: grid_sampling.grid_sample(
            x, tensor_input("g", ("n", 2, 2, 2)), "cubic")),
        ("do not fit an image of shape", lambda: grid_sampling.affine_grid(
            np.zeros((2, 3, 3), "f"), (2, 1, 3, 3))),
        ("3 maps do not fit a batch of 2", lambda: grid_sampling.affine_grid(
            np.zeros((3, 2, 3), "f"), (2, 1, 3, 3))),
    ):  # fmt: skip
        with pytest.raises(GraphError, match=text) as caught:
            make()
        assert "test_resampling.py" in str(caught.value)
