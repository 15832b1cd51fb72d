"""Pooling to a given number of windows: adaptive averages and maxima, and fractional maxima."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..compiler.ir.dims import divide_exactly, format_shape, product
from ..compiler.ir.types import FLOATS, Dim
from .axis_maps import map_axis
from .creation import iota
from .elementwise import floor, where
from .manipulation import pick, take
from .pooling import first_of_maxima, plane_numbers
from .random import Generator, uniform
from .reductions import number_of
from .tensor import Tensor, as_tensor, constant
from .tracing import fail
from .windows import PerAxis, batched, per_axis

#: A number of windows for each axis; None keeps the axis.
Windows = int | None | Sequence[int | None]
_UNROLLED = 25


def _targets(x: Tensor, output_size: Windows, rank: int, what: str) -> list[tuple[int, Dim]]:
    """Return axis and number of windows for every axis that changes."""
    given = (output_size,) * rank if output_size is None or isinstance(output_size, int) else None
    sizes = given or tuple(output_size)  # type: ignore[arg-type]
    if len(sizes) == 1:
        sizes = sizes * rank
    known = per_axis([1 if n is None else n for n in sizes], rank, "output_size", what)
    targets: list[tuple[int, Dim]] = []
    for a, (n, wanted) in enumerate(zip(sizes, known, strict=True)):
        axis = x.ndim - rank + a
        size = x.shape[axis]
        if size == 0:
            fail(f"{what}: axis {axis} of {format_shape(x.shape)} has no elements")
        if n is None or wanted == size:
            continue
        if not isinstance(size, int) and divide_exactly(size, wanted) is None:
            fail(f"{what}: {wanted} windows need a known size, not {size}")
        targets.append((axis, wanted))
    return targets


def _bounds(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each of ``count`` windows begins and ends: floor(i n / m), ceil((i+1) n / m)."""
    windows = np.arange(count)
    return windows * size // count, -(-(windows + 1) * size // count)


def _blocks(x: Tensor, axis: int, count: Dim) -> Tensor | None:
    """Return the axis as ``count`` windows of equal size, in a new axis after it, or None."""
    size = divide_exactly(x.shape[axis], count)
    if size is None:
        return None
    return x.reshape((*x.shape[:axis], count, size, *x.shape[axis + 1 :]))


def adaptive_average(x: object, output_size: Windows, rank: int) -> Tensor:
    """Return the means of windows along the last ``rank`` axes (see `adaptive_avg_pool1d`)."""
    what = f"adaptive_avg_pool{rank}d"
    tensor, single = batched(as_tensor(x), rank, what)
    if tensor.dtype not in FLOATS:
        fail(f"{what}: needs floating-point elements, not {tensor.dtype}")
    targets = _targets(tensor, output_size, rank, what)
    total, averaged = tensor, []
    for axis, count in reversed(targets):
        blocks = _blocks(total, axis, count)
        if blocks is not None:
            averaged.append(divide_exactly(tensor.shape[axis], count))
            total = blocks
    split = [axis for axis, count in targets if _blocks(tensor, axis, count) is not None]
    if split:
        # each split axis is followed by the elements of its windows; one reduction sums them all
        total = total.sum([axis + 1 + number for number, axis in enumerate(split)])
        total = total / Tensor(number_of(product(tuple(averaged)), total.dtype))  # type: ignore[arg-type]
    for axis, count in targets:
        if axis not in split:
            total = _average_uneven(total, axis, count)
    return total.squeeze(0) if single else total


def _average_uneven(x: Tensor, axis: int, count: Dim) -> Tensor:
    size = x.shape[axis]
    assert isinstance(size, int)
    assert isinstance(count, int)
    begin, end = _bounds(size, count)
    longest = int((end - begin).max())
    taps = begin[:, None] + np.arange(longest)
    inside = taps < end[:, None]
    weights = inside / (end - begin)[:, None]
    return map_axis(x, axis, np.where(inside, taps, 0), weights)


def adaptive_avg_pool1d(x: object, output_size: Windows) -> Tensor:
    """Return the means of ``output_size`` windows that cover ``x`` (batch, channels, length).

    ``output_size``: the number of windows, None for as many as elements.  Window i of n over m
    elements goes from floor(i m / n) to ceil((i + 1) m / n).  Raises GraphError for an empty axis.
    """
    return adaptive_average(x, output_size, 1)


def adaptive_avg_pool2d(x: object, output_size: Windows) -> Tensor:
    """Return the means of windows that cover ``x`` (batch, channels, height, width).

    ``output_size``: (height, width) of the result, or one int for both; None keeps an axis.
    """
    return adaptive_average(x, output_size, 2)


def adaptive_avg_pool3d(x: object, output_size: Windows) -> Tensor:
    """Return the means of windows that cover ``x`` (batch, channels, depth, height, width).

    ``output_size``: (depth, height, width) of the result, or one int; None keeps an axis.
    """
    return adaptive_average(x, output_size, 3)


def _adaptive_max(
    x: object, output_size: Windows, return_indices: bool, rank: int
) -> Tensor | tuple[Tensor, Tensor]:
    what = f"adaptive_max_pool{rank}d"
    value, single = batched(as_tensor(x), rank, what)
    number = plane_numbers(value, rank)
    # from the last axis on, so that of equal maxima the first in row-major order is found
    for axis, count in reversed(_targets(value, output_size, rank, what)):
        blocks = _blocks(value, axis, count)
        if blocks is not None:
            numbers = _blocks(number, axis, count)
            assert numbers is not None
            value, number = _max_of_blocks(blocks, numbers, axis + 1)
        else:
            value, number = _max_uneven(value, number, axis, count)
    number = number.broadcast_to(value.shape)
    if single:
        value, number = value.squeeze(0), number.squeeze(0)
    return (value, number) if return_indices else value


def _max_of_blocks(blocks: Tensor, numbers: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    taps = blocks.shape[axis]
    if isinstance(taps, int) and taps <= _UNROLLED:
        before = (slice(None),) * axis
        parts = [(blocks[*before, t], numbers[*before, t]) for t in range(taps)]
        return first_of_maxima([v for v, _ in parts], [n for _, n in parts])
    chosen = blocks.argmax(axis)
    return pick(blocks, chosen, axis), pick(numbers.broadcast_to(blocks.shape), chosen, axis)


def _max_uneven(value: Tensor, number: Tensor, axis: int, count: Dim) -> tuple[Tensor, Tensor]:
    size = value.shape[axis]
    assert isinstance(size, int)
    assert isinstance(count, int)
    begin, end = _bounds(size, count)
    taps = np.arange(int((end - begin).max()))
    places = np.minimum(begin[:, None] + taps, end[:, None] - 1)  # a last one again is no first
    if len(taps) <= _UNROLLED:
        values = [take(value, places[:, tap], axis) for tap in taps]
        numbers = [take(number, places[:, tap], axis) for tap in taps]
        return first_of_maxima(values, numbers)
    return _max_of_blocks(take(value, places, axis), take(number, places, axis), axis + 1)


def adaptive_max_pool1d(
    x: object, output_size: Windows, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the maxima of ``output_size`` windows that cover ``x`` (batch, channels, length).

    The windows are those of `adaptive_avg_pool1d`.  ``return_indices``: also the int64 places of
    the maxima, row-major over the spatial axes.
    """
    return _adaptive_max(x, output_size, return_indices, 1)


def adaptive_max_pool2d(
    x: object, output_size: Windows, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the maxima of windows that cover ``x`` (batch, channels, height, width).

    ``output_size``: (height, width) of the result, or one int for both; None keeps an axis.
    """
    return _adaptive_max(x, output_size, return_indices, 2)


def adaptive_max_pool3d(
    x: object, output_size: Windows, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the maxima of windows that cover ``x`` (batch, channels, depth, height, width).

    ``output_size``: (depth, height, width) of the result, or one int; None keeps an axis.
    """
    return _adaptive_max(x, output_size, return_indices, 3)


# -- fractional pooling ---------------------------------------------------------------------------


def _fractional(
    x: object,
    kernel_size: PerAxis,
    output_size: PerAxis | None,
    output_ratio: float | Sequence[float] | None,
    return_indices: bool,
    samples: object | None,
    generator: Generator | None,
    rank: int,
) -> Tensor | tuple[Tensor, Tensor]:
    what = f"fractional_max_pool{rank}d"
    tensor, single = batched(as_tensor(x), rank, what)
    kernel = per_axis(kernel_size, rank, "kernel_size", what)
    field = tensor.shape[2:]
    if (output_size is None) == (output_ratio is None):
        fail(f"{what}: takes either output_size or output_ratio")
    if output_ratio is not None:
        ratios = (
            tuple(output_ratio) if isinstance(output_ratio, Sequence) else (output_ratio,) * rank
        )
        if len(ratios) != rank or not all(0 < ratio < 1 for ratio in ratios):
            fail(f"{what}: output_ratio {output_ratio!r} is not {rank} numbers between 0 and 1")
        output_size = [int(n * ratio) for n, ratio in zip(field, ratios, strict=True)]  # type: ignore[operator]
    assert output_size is not None
    counts = per_axis(output_size, rank, "output_size", what)
    for size, k, n in zip(field, kernel, counts, strict=True):
        if not isinstance(size, int):
            fail(f"{what}: needs a known size, not {size}")
        if n + k - 1 > size:
            fail(f"{what}: {n} windows of {k} do not fit an axis of {size}; up to {size - k + 1}")
    lead = tensor.shape[:2]
    if samples is None:
        draws = uniform((*lead, rank), dtype=tensor.dtype, generator=generator)
    else:
        draws = as_tensor(samples).astype(tensor.dtype)
        given, wanted = draws.shape[:1], lead[:1]
        spare = all(isinstance(n, int) for n in (*given, *wanted)) and given > wanted
        if draws.ndim == 3 and spare:  # PyTorch takes the first ones
            draws = draws[: wanted[0]]
        if draws.shape != (*lead, rank):
            fail(
                f"{what}: samples of shape {format_shape(draws.shape)} do not fit; "
                f"{format_shape((*lead, rank))} would"
            )
    order = (1, 0) if rank == 2 else tuple(range(rank))  # PyTorch draws width before height
    flat: Tensor = constant(0)
    taps: Tensor = constant(0)
    for a in range(rank):
        size, k, n = field[a], kernel[a], counts[a]
        assert isinstance(size, int)
        begin = _fractional_begins(draws[:, :, order[a]], size, k, n)
        place = begin.reshape((*lead, *(n if b == a else 1 for b in range(rank))))
        flat = flat * size + place
        along = iota(tuple(k if b == a else 1 for b in range(rank)), a)
        taps = taps * size + along
    places = flat.expand_dims(-1) + taps.ravel()
    plane = math.prod(size for size in field if isinstance(size, int))
    rows = iota((lead[0] * lead[1],), 0).reshape((*lead, *(1,) * (rank + 1)))
    windows = take(tensor.ravel(), places + rows * plane, 0)
    chosen = windows.argmax(-1)
    value = pick(windows, chosen, -1)
    number = pick(places.broadcast_to(windows.shape), chosen, -1)
    if single:
        value, number = value.squeeze(0), number.squeeze(0)
    return (value, number) if return_indices else value


def _fractional_begins(sample: Tensor, size: int, kernel: int, count: int) -> Tensor:
    """Return where the windows begin: (batch, channels, count), from a sample in [0, 1) each."""
    if count == 1:
        return (sample.expand_dims(-1) * 0).astype("int64") + (size - kernel)
    alpha = (size - kernel) / (count - 1)
    wide = sample.expand_dims(-1)
    steps = floor((wide + iota((count,), 0, sample.dtype)) * alpha) - floor(wide * alpha)
    last = iota((count,), 0) == count - 1
    return where(last, size - kernel, steps.astype("int64"))


def fractional_max_pool2d(
    x: object,
    kernel_size: PerAxis,
    output_size: PerAxis | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: object | None = None,
    generator: Generator | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the maxima of windows at pseudo-random distances (Graham 2014).

    Parameters
    ----------
    x
        (batch, channels, height, width), or without the batch.
    kernel_size
        The size of the windows.
    output_size, output_ratio
        How many windows, or how many for each element; one of the two.
    return_indices
        Also return the int64 places of the maxima, row-major over the spatial axes.
    _random_samples
        (batch, channels, 2) in [0, 1), which the places of the windows follow from; by default new
        ones in each call.

    Raises
    ------
    GraphError
        The windows do not fit.
    """
    return _fractional(
        x, kernel_size, output_size, output_ratio, return_indices, _random_samples, generator, 2
    )


def fractional_max_pool3d(
    x: object,
    kernel_size: PerAxis,
    output_size: PerAxis | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: object | None = None,
    generator: Generator | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the maxima of windows at pseudo-random distances in (batch, channels, d, h, w).

    Arguments as in `fractional_max_pool2d`.
    """
    return _fractional(
        x, kernel_size, output_size, output_ratio, return_indices, _random_samples, generator, 3
    )


__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
]
