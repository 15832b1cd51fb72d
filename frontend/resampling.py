"""Images of other sizes: interpolation, rearranged channels, and sampling at given places.

Interpolation is separable: along each axis, every result is a weighted sum of few elements.  The
conventions (where the results lie on the axis, PyTorch's ``align_corners``) are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..compiler.ir.dims import divide_exactly, format_shape
from ..compiler.ir.types import FLOATS, Dim
from .adaptive_pooling import adaptive_average
from .axis_maps import map_axis
from .manipulation import take
from .tensor import Tensor, as_tensor
from .tracing import fail

#: How many spatial axes each mode takes.
_RANKS = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "trilinear": (3,),
    "bicubic": (2,),
}
_ALIGNED = ("linear", "bilinear", "trilinear", "bicubic")


def interpolate(
    x: object,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Return ``x`` (batch, channels, ...) resampled to other spatial sizes.

    Parameters
    ----------
    x
        (batch, channels, length), (…, height, width) or (…, depth, height, width).
    size, scale_factor
        The spatial sizes of the result, or the factors to them, rounded down; one of the two.
    mode
        ``"nearest"``, ``"nearest-exact"``, ``"area"``, ``"linear"`` (1-D), ``"bilinear"`` and
        ``"bicubic"`` (2-D), ``"trilinear"`` (3-D).
    align_corners
        Whether the outer elements of input and result lie on each other; otherwise the outer edges
        do.  For the linear and cubic modes.
    recompute_scale_factor
        Take the ratio of the sizes as the scale in place of ``scale_factor`` itself.
    antialias
        Widen the filter when a side shrinks; for ``"bilinear"`` and ``"bicubic"``.

    Raises
    ------
    GraphError
        The arguments do not fit each other or the shape.
    """
    tensor = as_tensor(x)
    rank = tensor.ndim - 2
    if mode not in _RANKS:
        fail(f"interpolate: no mode is called {mode!r}; known: {', '.join(_RANKS)}")
    if rank not in _RANKS[mode]:
        fitting = " or ".join(str(r + 2) for r in _RANKS[mode])
        fail(
            f"interpolate: mode {mode!r} does not fit an input of shape "
            f"{format_shape(tensor.shape)}; rank {fitting} would"
        )
    if align_corners is not None and mode not in _ALIGNED:
        fail(f"interpolate: align_corners goes with {', '.join(_ALIGNED)}, not with {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        fail(f"interpolate: antialias goes with bilinear and bicubic, not with {mode!r}")
    sizes, factors = _target(tensor, size, scale_factor, bool(recompute_scale_factor))
    if mode == "area":
        return adaptive_average(tensor, sizes, rank)
    if tensor.dtype not in FLOATS and not mode.startswith("nearest"):
        fail(f"interpolate: mode {mode!r} needs floating-point elements, not {tensor.dtype}")
    if mode.startswith("nearest"):
        return _nearest(tensor, sizes, factors, mode == "nearest-exact")
    for a, (wanted, factor) in enumerate(zip(sizes, factors, strict=True)):
        axis = tensor.ndim - rank + a
        given = tensor.shape[axis]
        if not isinstance(given, int):
            fail(f"interpolate: mode {mode!r} needs a known size, not {given}")
        if antialias:
            taps = _antialiased(given, wanted, factor, bool(align_corners), mode == "bicubic")
        else:
            weigh = _cubic if mode == "bicubic" else _linear
            taps = weigh(given, wanted, factor, bool(align_corners))
        tensor = map_axis(tensor, axis, *taps)
    return tensor


def _target(
    x: Tensor,
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
    recompute: bool,
) -> tuple[list[int], list[float | None]]:
    """Return the spatial sizes of the result, and the scales that the caller insists on."""
    rank, field = x.ndim - 2, x.shape[2:]
    if (size is None) == (scale_factor is None):
        fail("interpolate: takes either size or scale_factor")
    if 0 in field:
        fail(f"interpolate: {format_shape(x.shape)} has no elements to take values from")
    given = size if size is not None else scale_factor
    values = tuple(given) if isinstance(given, Sequence) else (given,) * rank
    if len(values) != rank:
        fail(f"interpolate: {given!r} does not fit; one number or {rank} would")
    if size is not None:
        if recompute:
            fail("interpolate: recompute_scale_factor goes with scale_factor, not with size")
        sizes, factors = [int(v) for v in values], [None] * rank  # type: ignore[arg-type]
    else:
        if not all(isinstance(n, int) for n in field):
            if not all(float(f) == int(f) for f in values):  # type: ignore[arg-type]
                fail(f"interpolate: scale_factor {given!r} needs known sizes, not {field}")
            sizes = [n * int(f) for n, f in zip(field, values, strict=True)]  # type: ignore[arg-type]
        else:
            sizes = [math.floor(n * f) for n, f in zip(field, values, strict=True)]  # type: ignore[operator]
        factors = [None if recompute else float(f) for f in values]  # type: ignore[arg-type]
    if any(isinstance(n, int) and n < 1 for n in sizes):
        fail(f"interpolate: the result would have sizes {tuple(sizes)}; at least 1 would fit")
    return sizes, factors  # type: ignore[return-value]


def _nearest(
    x: Tensor, sizes: Sequence[Dim], factors: Sequence[float | None], exact: bool
) -> Tensor:
    """Return the nearest elements; where sizes grow by whole numbers, each is repeated."""
    lead = x.ndim - len(sizes)
    times = [1] * x.ndim
    places: dict[int, np.ndarray] = {}
    for axis, (wanted, factor) in enumerate(zip(sizes, factors, strict=True), lead):
        size = x.shape[axis]
        whole = divide_exactly(wanted, size)
        if isinstance(whole, int) and (factor is None or factor == whole):
            times[axis] = whole
        elif isinstance(size, int) and isinstance(wanted, int):
            places[axis] = _nearest_places(size, wanted, factor, exact)
        else:
            fail(f"interpolate: from {size} to {wanted} needs known sizes")
    if any(n > 1 for n in times):
        split = [d for size, n in zip(x.shape, times, strict=True) for d in (size, n)]
        wide = x.expand_dims(range(1, 2 * x.ndim, 2)).broadcast_to(split)
        x = wide.reshape([size * n for size, n in zip(x.shape, times, strict=True)])
    for axis, chosen in places.items():
        x = take(x, chosen, axis)
    return x


def _nearest_places(size: int, wanted: int, factor: float | None, exact: bool) -> np.ndarray:
    """Return which element is the nearest to each result.

    PyTorch computes it in float32, and rounding decides.
    """
    scale = np.float32(1.0 / factor) if factor else np.float32(size) / np.float32(wanted)
    places = np.arange(wanted, dtype=np.float32)
    places = (places + np.float32(0.5)) * scale if exact else places * scale
    return np.minimum(np.floor(places).astype(np.int64), size - 1)


def _sources(size: int, wanted: int, factor: float | None, aligned: bool) -> np.ndarray:
    """Return where the results lie on the axis, in elements."""
    index = np.arange(wanted)
    if aligned:
        return index * ((size - 1) / (wanted - 1) if wanted > 1 else 0.0)
    scale = 1.0 / factor if factor else size / wanted
    return (index + 0.5) * scale - 0.5


#: Places, which beyond the axis stand for its ends, and weights: (size of the result, taps).
Taps = tuple[np.ndarray, np.ndarray]


def _linear(size: int, wanted: int, factor: float | None, aligned: bool) -> Taps:
    source = _sources(size, wanted, factor, aligned)
    low = np.floor(source)
    part = source - low
    return np.stack([low, low + 1], 1).astype(np.int64), np.stack([1 - part, part], 1)


def _cubic_weights(distance: np.ndarray, a: float) -> np.ndarray:
    """Return the cubic convolution kernel (Keys 1981) at a distance in elements."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _cubic(size: int, wanted: int, factor: float | None, aligned: bool) -> Taps:
    source = _sources(size, wanted, factor, aligned)
    first = np.floor(source)
    taps = first[:, None] + np.arange(-1, 3)
    weights = _cubic_weights(source[:, None] - taps, -0.75)
    return taps.astype(np.int64), weights


def _antialiased(size: int, wanted: int, factor: float | None, aligned: bool, cubic: bool) -> Taps:
    """Return taps of a filter as wide as a result covers of the input, normalised to sum 1."""
    if aligned:
        scale = (size - 1) / (wanted - 1) if wanted > 1 else 0.0
    else:
        scale = 1.0 / factor if factor else size / wanted
    shrink = max(scale, 1.0)
    reach = (2.0 if cubic else 1.0) * shrink
    centre = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach + 0.5).astype(np.int64), size)
    taps = first[:, None] + np.arange(int((last - first).max()))
    distance = (taps - centre[:, None] + 0.5) / shrink
    if cubic:
        weights = _cubic_weights(distance, -0.5)
    else:
        weights = np.maximum(0.0, 1.0 - np.abs(distance))
    weights = np.where(taps < last[:, None], weights, 0.0)
    return taps, weights / weights.sum(1, keepdims=True)


# -- rearranged channels --------------------------------------------------------------------------


def pixel_shuffle(x: object, upscale_factor: int) -> Tensor:
    """Return (..., c, h r, w r) of ``x`` (..., c r², h, w), channels made pixels.

    (Shi et al., "Real-time single image and video super-resolution", 2016.)  Raises GraphError
    where r² does not divide the channels.
    """
    tensor, r = _shuffled(x, upscale_factor, "pixel_shuffle")
    *lead, channels, height, width = tensor.shape
    inner = divide_exactly(channels, r * r)
    if inner is None:
        fail(f"pixel_shuffle: {channels} channels do not divide into blocks of {r} x {r}")
    n = len(lead)
    split = tensor.reshape((*lead, inner, r, r, height, width))
    order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return split.transpose(order).reshape((*lead, inner, height * r, width * r))


def pixel_unshuffle(x: object, downscale_factor: int) -> Tensor:
    """Return (..., c r², h, w) of ``x`` (..., c, h r, w r): the inverse of `pixel_shuffle`."""
    tensor, r = _shuffled(x, downscale_factor, "pixel_unshuffle")
    *lead, channels, height, width = tensor.shape
    rows, columns = divide_exactly(height, r), divide_exactly(width, r)
    if rows is None or columns is None:
        fail(f"pixel_unshuffle: {height} x {width} pixels do not divide into blocks of {r} x {r}")
    n = len(lead)
    split = tensor.reshape((*lead, channels, rows, r, columns, r))
    order = (*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    return split.transpose(order).reshape((*lead, channels * (r * r), rows, columns))


def _shuffled(x: object, factor: int, what: str) -> tuple[Tensor, int]:
    tensor = as_tensor(x)
    if tensor.ndim < 3:
        fail(f"{what}: {format_shape(tensor.shape)} has no channels, height and width")
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        fail(f"{what}: the factor is a positive int, not {factor!r}")
    return tensor, factor


def channel_shuffle(x: object, groups: int) -> Tensor:
    """Return ``x`` (batch, channels, ...) with the channels of ``groups`` groups interleaved.

    (Zhang et al., "ShuffleNet", 2018.)  Raises GraphError where groups do not divide the channels.
    """
    tensor = as_tensor(x)
    if tensor.ndim < 3:
        fail(f"channel_shuffle: {format_shape(tensor.shape)} has no channels and pixels")
    batch, channels, *field = tensor.shape
    inner = divide_exactly(channels, groups) if groups > 0 else None
    if inner is None:
        fail(f"channel_shuffle: {groups} groups do not divide {channels} channels")
    split = tensor.reshape((batch, groups, inner, *field))
    return split.swapaxes(1, 2).reshape(tensor.shape)


__all__ = [
    "channel_shuffle",
    "interpolate",
    "pixel_shuffle",
    "pixel_unshuffle",
]
