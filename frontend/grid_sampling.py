"""Sampling an image at places that are values: `affine_grid` and `grid_sample`.

A place is (x, y) or (x, y, z) in units of half the image, -1 to 1 from edge to edge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..compiler.ir.dims import format_shape
from ..compiler.ir.types import FLOATS, Dim
from . import shaping
from .creation import iota
from .elementwise import clip, floor, round, where
from .manipulation import moveaxis, take
from .promotion import unify
from .tensor import Tensor, as_tensor
from .tracing import fail

_MODES = ("bilinear", "nearest", "bicubic")


def affine_grid(theta: object, size: Sequence[Dim], align_corners: bool = False) -> Tensor:
    """Return the places that affine maps send the pixels of an image to.

    Parameters
    ----------
    theta
        (batch, 2, 3), or (batch, 3, 4) for volumes.
    size
        The shape of the image: (batch, channels, height, width), or with a depth before height.
    align_corners
        Whether -1 and 1 are the centres of the outer pixels; otherwise their outer edges.

    Returns
    -------
    Tensor
        (batch, height, width, 2), or (batch, depth, height, width, 3).

    Raises
    ------
    GraphError
        The shapes do not fit.
    """
    maps = as_tensor(theta)
    shape = shaping.nonnegative_shape(size, "affine_grid")
    rank = len(shape) - 2
    if rank not in (2, 3) or maps.ndim != 3 or maps.shape[1:] != (rank, rank + 1):
        fail(
            f"affine_grid: maps of shape {format_shape(maps.shape)} do not fit an image of shape "
            f"{format_shape(shape)}; (batch, 2, 3) fits rank 4, (batch, 3, 4) rank 5"
        )
    if maps.dtype not in FLOATS:
        fail(f"affine_grid: needs floating-point maps, not {maps.dtype}")
    if maps.shape[0] != shape[0]:
        fail(f"affine_grid: {maps.shape[0]} maps do not fit a batch of {shape[0]}")
    field = shape[2:]
    result: Tensor | None = None
    # result[..., i] = theta[i, 0] x + theta[i, 1] y + ... + theta[i, rank]
    for column in range(rank):
        axis = rank - 1 - column  # x runs along the last axis
        size_here = field[axis]
        steps = iota(tuple(n if a == axis else 1 for a, n in enumerate(field)), axis, maps.dtype)
        if align_corners:
            one = isinstance(size_here, int) and size_here <= 1
            place = steps * 0.0 if one else (steps * 2.0) / (size_here - 1) - 1.0
        else:
            place = (steps * 2.0 + 1.0) / size_here - 1.0
        slope = maps[:, :, column].reshape((-1, *(1,) * rank, rank))
        part = place.expand_dims(-1) * slope
        result = part if result is None else result + part
    assert result is not None
    return result + maps[:, :, rank].reshape((-1, *(1,) * rank, rank))


def grid_sample(
    x: object,
    grid: object,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """Return ``x`` interpolated at the places of ``grid`` (Jaderberg et al. 2015).

    Parameters
    ----------
    x
        (batch, channels, height, width), or (batch, channels, depth, height, width).
    grid
        (batch, height', width', 2), or (batch, depth', height', width', 3): see `affine_grid`.
    mode
        ``"bilinear"`` (trilinear for volumes), ``"nearest"``, or ``"bicubic"`` (not for volumes).
    padding_mode
        What lies outside: ``"zeros"``, ``"border"`` (the nearest pixel) or ``"reflection"``.
    align_corners
        Whether -1 and 1 are the centres of the outer pixels; otherwise their outer edges.

    Raises
    ------
    GraphError
        The shapes or modes do not fit.
    """
    image, places = (Tensor(node) for node in unify(as_tensor(x).node, as_tensor(grid).node))
    rank = image.ndim - 2
    if rank not in (2, 3) or places.ndim != rank + 2 or places.shape[-1] != rank:
        fail(
            f"grid_sample: a grid of shape {format_shape(places.shape)} does not fit an image of "
            f"shape {format_shape(image.shape)}; (batch, height, width, 2) fits rank 4, "
            "(batch, depth, height, width, 3) rank 5"
        )
    if places.shape[0] != image.shape[0]:
        fail(
            f"grid_sample: a batch of {places.shape[0]} places does not fit one of "
            f"{image.shape[0]} images"
        )
    if mode not in _MODES or (mode == "bicubic" and rank == 3):
        fail(f"grid_sample: mode {mode!r} is not one of {', '.join(_MODES[: 5 - rank])}")
    if padding_mode not in _PADDINGS:
        fail(f"grid_sample: padding_mode {padding_mode!r} is not one of {', '.join(_PADDINGS)}")
    if image.dtype not in FLOATS or 0 in image.shape[1:]:
        fail(f"grid_sample: needs floating-point pixels, not {image.node.type}")
    sampler = _Sampler(image, padding_mode, bool(align_corners))
    coordinates = [
        _unnormalize(places[..., rank - 1 - a], image.shape[2 + a], bool(align_corners))
        for a in range(rank)
    ]
    return moveaxis(_SAMPLERS[mode](sampler, coordinates), -1, 1)


def _unnormalize(place: Tensor, size: Dim, aligned: bool) -> Tensor:
    """Return a coordinate in [-1, 1] as a position in pixels."""
    if aligned:
        return (place + 1.0) * 0.5 * (size - 1)
    return ((place + 1.0) * size - 1.0) * 0.5


class _Sampler:
    """An image, and how places outside of it are brought inside."""

    def __init__(self, image: Tensor, padding_mode: str, aligned: bool) -> None:
        self.field = image.shape[2:]
        self.zeros = padding_mode == "zeros"
        self.inward = _PADDINGS[padding_mode]
        self.aligned = aligned
        # pixels as rows of channels, which one index finds
        rows = moveaxis(image, 1, -1)
        count = rows.shape[0]
        for size in self.field:
            count = count * size
        self.rows = rows.reshape((count, image.shape[1]))
        self.batch = iota((image.shape[0], *(1,) * len(self.field)), 0)

    def bring_inside(self, position: Tensor, axis: int) -> Tensor:
        """Return a position, in pixels, moved into the image where the padding asks for it."""
        return self.inward(position, self.field[axis], self.aligned)

    def pixels(self, places: Sequence[Tensor]) -> Tensor:
        """Return (..., channels) at whole-numbered positions; 0 outside."""
        index = self.batch
        inside: Tensor | None = None
        for axis, place in enumerate(places):
            size = self.field[axis]
            near = clip(place, 0.0, size - 1).astype("int64")
            near = clip(where(place == place, near, 0), 0, size - 1)
            index = index * size + near
            if self.zeros:
                here = (place >= 0) & (place <= size - 1)
                inside = here if inside is None else inside & here
        values = take(self.rows, index, 0)
        return values if inside is None else where(inside.expand_dims(-1), values, 0)


def _sample_nearest(sampler: _Sampler, position: Sequence[Tensor]) -> Tensor:
    inside = [sampler.bring_inside(p, axis) for axis, p in enumerate(position)]
    return sampler.pixels([round(p) for p in inside])


def _sample_linear(sampler: _Sampler, position: Sequence[Tensor]) -> Tensor:
    inside = [sampler.bring_inside(p, axis) for axis, p in enumerate(position)]
    low = [floor(p) for p in inside]
    total: Tensor | None = None
    for corner in np.ndindex(*(2,) * len(inside)):
        weight: Tensor | None = None
        for p, base, step in zip(inside, low, corner, strict=True):
            side = p - base if step else (base + 1.0) - p
            weight = side if weight is None else weight * side
        assert weight is not None
        values = sampler.pixels([base + float(s) for base, s in zip(low, corner, strict=True)])
        part = values * weight.expand_dims(-1)
        total = part if total is None else total + part
    assert total is not None
    return total


def _sample_cubic(sampler: _Sampler, position: Sequence[Tensor]) -> Tensor:
    low = [floor(p) for p in position]
    weights = [_cubic(p - base) for p, base in zip(position, low, strict=True)]
    rows = []
    for i in range(4):
        row = sampler.bring_inside(low[0] + float(i - 1), 0)
        parts = []
        for j in range(4):
            column = sampler.bring_inside(low[1] + float(j - 1), 1)
            parts.append(sampler.pixels([row, column]) * weights[1][j].expand_dims(-1))
        rows.append((parts[0] + parts[1] + parts[2] + parts[3]) * weights[0][i].expand_dims(-1))
    return rows[0] + rows[1] + rows[2] + rows[3]


def _cubic(part: Tensor) -> list[Tensor]:
    """Return the weights of the four pixels around, by cubic convolution (Keys 1981)."""
    a = -0.75

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1.0

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(part + 1.0), near(part), near(1.0 - part), far(2.0 - part)]


def _keep(position: Tensor, size: Dim, aligned: bool) -> Tensor:
    del size, aligned
    return position


def _clamp(position: Tensor, size: Dim, aligned: bool) -> Tensor:
    """Return the position clamped to the image; its derivative is 0 at the bounds and beyond."""
    del aligned
    end = size - 1
    return where(position > 0.0, where(position < end, position, end), 0.0)


def _reflect(position: Tensor, size: Dim, aligned: bool) -> Tensor:
    """Return the position mirrored into the image as often as it takes."""
    if aligned:
        if size == 1:
            return position * 0.0
        low, span = 0.0, size - 1
    else:
        low, span = -0.5, size
    away = (position - low).abs()
    flips = floor(away / span)
    extra = away - flips * span
    odd = flips - 2.0 * floor(flips * 0.5)
    mirrored = where(odd == 0.0, extra, span - extra) + low
    return _clamp(mirrored, size, aligned)


_PADDINGS: dict[str, Callable[[Tensor, Dim, bool], Tensor]] = {
    "zeros": _keep,
    "border": _clamp,
    "reflection": _reflect,
}
_SAMPLERS: dict[str, Callable[[_Sampler, Sequence[Tensor]], Tensor]] = {
    "nearest": _sample_nearest,
    "bilinear": _sample_linear,
    "bicubic": _sample_cubic,
}

__all__ = ["affine_grid", "grid_sample"]
