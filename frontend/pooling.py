"""Pooling over windows: maxima with their places, averages, and p-norms.

Windows are seen through their taps: tap t of every window is one strided slice of the padded input,
so a pool is an elementwise function of its taps, and fuses.  Pools with many taps go axis by axis;
windows that tile an axis are a reshape and a reduction.

The gradient is a rule (`custom_gradient`) that visits every element of the input once, by its
remainder modulo the stride (see `_spread`), where the adjoints of strided slices would leave every
other lane empty.  Of equal maxima the first in row-major order counts, as in PyTorch: it is what
``return_indices`` names and what the whole gradient goes to.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..compiler.ir import ops
from ..compiler.ir.types import FLOATS, Dim
from . import shaping
from .creation import iota
from .custom_gradient import custom_gradient
from .elementwise import isnan, maximum, minimum, where
from .manipulation import moveaxis, pick, take
from .padding import pad_axes
from .tensor import Tensor, as_tensor, constant
from .tracing import build, fail
from .windows import PerAxis, batched, per_axis

#: With up to so many taps, a window is taken in one step over all its axes (3 x 3).
_TOGETHER = 9
#: With more taps than this along one axis, windows are gathered and reduced.
_UNROLLED = 64


@dataclass(frozen=True)
class Pool:
    """Windows along one axis: ``stride * position + dilation * tap - low``."""

    axis: int
    size: Dim
    kernel: int
    stride: int
    low: int
    dilation: int
    count: Dim

    @property
    def high(self) -> int:
        """How far the last window reaches beyond the axis, at least 0."""
        reach = self.stride * (self.count - 1) + self.dilation * (self.kernel - 1) + 1 - self.low
        beyond = reach - self.size
        if isinstance(beyond, int):
            return max(0, beyond)
        return self.low  # symbolic sizes: never more without ceil_mode

    @property
    def tiles(self) -> bool:
        """Whether the windows lie side by side and cover the axis."""
        side_by_side = self.dilation == 1 and self.low == 0 and self.high == 0
        return side_by_side and self.stride == self.kernel and self.count * self.kernel == self.size


def window_pools(
    x: Tensor,
    kernel_size: PerAxis,
    stride: PerAxis | None,
    padding: PerAxis,
    dilation: PerAxis,
    ceil_mode: bool,
    rank: int,
    what: str,
) -> list[Pool]:
    """Return the windows along the last ``rank`` axes.

    Raises GraphError where no window fits, or where the padding is over half a window.
    """
    kernel = per_axis(kernel_size, rank, "kernel_size", what)
    strides = kernel
    if stride is not None and not (isinstance(stride, Sequence) and not stride):
        strides = per_axis(stride, rank, "stride", what)
    pads = per_axis(padding, rank, "padding", what, least=0)
    dilations = per_axis(dilation, rank, "dilation", what)
    pools = []
    for a, (k, s, p, d) in enumerate(zip(kernel, strides, pads, dilations, strict=True)):
        axis = x.ndim - rank + a
        size, span = x.shape[axis], d * (k - 1) + 1
        if 2 * p > span:
            fail(
                f"{what}: padding {p} is more than half of a window of {span}; "
                f"up to {span // 2} would fit"
            )
        room = size + (2 * p - span)
        if isinstance(room, int):
            if size == 0 or (room < 0 and not (ceil_mode and room + s - 1 >= 0)):
                padded = f" padded to {size + 2 * p}" if p else ""
                fail(f"{what}: a window of {span} is larger than the axis of size {size}{padded}")
            count = (room + (s - 1 if ceil_mode else 0)) // s + 1
            if ceil_mode and isinstance(size, int) and (count - 1) * s >= size + p:
                count -= 1  # the last window must begin on the axis or in the padding before it
        elif ceil_mode and s > 1:
            fail(f"{what}: ceil_mode needs a known size, not {size}")
        else:
            count = room // s + 1
        pools.append(Pool(axis, size, k, s, p, d, count))
    return pools


def _stages(pools: Sequence[Pool]) -> list[list[Pool]]:
    """Return the pools in the order in which they are taken: all at once, or from the last axis."""
    wide = [pool for pool in pools if pool.kernel > 1 or pool.stride > 1]
    if math.prod(pool.kernel for pool in wide) <= _TOGETHER:
        return [wide] if wide else []
    return [[pool] for pool in reversed(wide)]


def _sides(x: Tensor, pools: Sequence[Pool]) -> list[tuple[int, int]]:
    pairs = [(0, 0)] * x.ndim
    for pool in pools:
        pairs[pool.axis] = (pool.low, pool.high)
    return pairs


def _taps(padded: Tensor, pools: Sequence[Pool]) -> list[Tensor]:
    """Return every tap of the windows of a padded tensor, in row-major order."""
    result = []
    for places in itertools.product(*(range(pool.kernel) for pool in pools)):
        starts: list[Dim] = [0] * padded.ndim
        sizes: list[Dim] = list(padded.shape)
        steps = [1] * padded.ndim
        for pool, place in zip(pools, places, strict=True):
            starts[pool.axis], sizes[pool.axis] = pool.dilation * place, pool.count
            steps[pool.axis] = pool.stride
        result.append(Tensor(shaping.slice_axes(padded.node, starts, sizes, steps)))
    return result


def _along(pool: Pool, rank: int, dtype: str = "int64") -> Tensor:
    """Return the number of each window, in a tensor of ``rank`` that broadcasts."""
    shape: list[Dim] = [1] * rank
    shape[pool.axis] = pool.count
    return iota(shape, pool.axis, dtype)


def _windows(x: Tensor, pool: Pool) -> Tensor:
    """Return the windows along one axis of a padded tensor, their taps as a new last axis."""
    if pool.tiles:
        shape = (*x.shape[: pool.axis], pool.count, pool.kernel, *x.shape[pool.axis + 1 :])
        return moveaxis(x.reshape(shape), pool.axis + 1, -1)
    if not isinstance(pool.count, int):
        fail(f"pooling: a window of {pool.kernel} needs a known size, not {pool.size}")
    begins = pool.stride * np.arange(pool.count)[:, None]
    places = begins + pool.dilation * np.arange(pool.kernel)
    return moveaxis(take(x, places, pool.axis), pool.axis + 1, -1)


# -- gradients ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Phases:
    """The elements of one axis as rows of ``stride``: element ``stride * row + phase``.

    ``taps``: for every distance from a window's number to a row, the tap of that window in each
    phase of the row, -1 where the window has none.
    """

    pool: Pool
    rows: Dim
    taps: dict[int, tuple[int, ...]]

    @staticmethod
    def of(pool: Pool) -> _Phases:
        taps: dict[int, list[int]] = {}
        for tap in range(pool.kernel):
            distance, phase = divmod(pool.dilation * tap - pool.low, pool.stride)
            taps.setdefault(distance, [-1] * pool.stride)[phase] = tap
        rows = (pool.size + (pool.stride - 1)) // pool.stride
        return _Phases(pool, rows, {d: tuple(t) for d, t in sorted(taps.items())})


def _spread(g: Tensor, x: Tensor, pools: Sequence[Pool], chosen: Tensor | None) -> Tensor:
    """Return, for every element of ``x``, the sum of ``g`` over the windows that hold it.

    ``chosen``: the number of the one tap of each window that counts; None: all do.
    """
    axes = [_Phases.of(pool) for pool in pools]
    split: list[Dim] = list(x.shape)
    for phases in reversed(axes):
        split[phases.pool.axis : phases.pool.axis + 1] = [phases.rows, phases.pool.stride]
    # 0 is what lies beyond the windows
    marks = None if chosen is None else (chosen + 1).astype("int32").broadcast_to(g.shape)
    total: Tensor | None = None
    for distances in itertools.product(*(phases.taps for phases in axes)):
        taps = np.zeros((), np.int32)
        for phases, distance in zip(axes, distances, strict=True):
            here = np.array(phases.taps[distance], np.int32)
            wide = taps[..., None] * phases.pool.kernel + here
            taps = np.where((taps[..., None] < 0) | (here < 0), -1, wide)
        wide_taps = _beside_rows(taps, x.ndim, pools)
        part = _shifted(g, axes, distances).expand_dims(_phase_axes(pools))
        if marks is not None:
            mark = _shifted(marks, axes, distances).expand_dims(_phase_axes(pools))
            part = where(mark == wide_taps + 1, part, 0)
        elif (taps < 0).any():
            part = where(wide_taps >= 0, part, 0)
        total = part if total is None else total + part
    assert total is not None
    whole = list(x.shape)
    for phases in axes:
        whole[phases.pool.axis] = phases.rows * phases.pool.stride
    result = total.broadcast_to(split).reshape(whole)
    return Tensor(shaping.slice_axes(result.node, [0] * x.ndim, x.shape, [1] * x.ndim))


def _phase_axes(pools: Sequence[Pool]) -> list[int]:
    """Return where the phases of the pooled axes stand, each after its rows."""
    return [pool.axis + 1 + number for number, pool in enumerate(pools)]


def _beside_rows(taps: np.ndarray, rank: int, pools: Sequence[Pool]) -> np.ndarray:
    """Return an array with one axis for each pool's phases in a shape that broadcasts."""
    shape = [1] * (rank + len(pools))
    for axis, size in zip(_phase_axes(pools), taps.shape, strict=True):
        shape[axis] = size
    return taps.reshape(shape)


def _shifted(x: Tensor, axes: Sequence[_Phases], distances: Sequence[int]) -> Tensor:
    """Return, for every row, the element of the window that lies ``distances`` before it; or 0."""
    low, high = [0] * x.ndim, [0] * x.ndim
    for phases, distance in zip(axes, distances, strict=True):
        axis = phases.pool.axis
        low[axis], high[axis] = distance, phases.rows - phases.pool.count - distance  # type: ignore[call-overload]
    if not any(low) and all(isinstance(h, int) and h == 0 for h in high):
        return x
    return Tensor(build(ops.Pad(tuple(low), tuple(high), (0,) * x.ndim), x.node))


# -- maxima ---------------------------------------------------------------------------------------


def _lowest(dtype: str) -> float | int:
    return -math.inf if dtype in FLOATS else int(np.iinfo(dtype).min)


def _max_stage(
    x: Tensor, plane: Tensor | None, pools: Sequence[Pool]
) -> tuple[Tensor, Tensor | None]:
    """Return the first maximum of every window, and the number that ``plane`` has there."""
    pairs = _sides(x, pools)
    padded = pad_axes(x, pairs, "constant", _lowest(x.dtype))
    numbers = None if plane is None else pad_axes(plane, pairs, "constant")
    large = math.prod(pool.kernel for pool in pools) > _UNROLLED or _is_large_tile(pools)
    if large:
        windows = _windows(padded, pools[0])
        value, chosen = windows.max(-1), windows.argmax(-1)
    else:
        taps = _taps(padded, pools)
        value = functools.reduce(maximum, taps)
        chosen = _first_equal(taps, value, _first_inside(x, pools))

    @custom_gradient
    def pooled(whole: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return value, lambda g: _spread(g, whole, pools, chosen)

    result = pooled(x) if x.dtype in FLOATS else value
    if numbers is None:
        return result, None
    if large:
        candidates = _windows(numbers, pools[0])
        return result, pick(candidates.broadcast_to((*value.shape, pools[0].kernel)), chosen, -1)
    return result, _number_at(chosen, _taps(numbers, pools))


def _is_large_tile(pools: Sequence[Pool]) -> bool:
    return len(pools) == 1 and pools[0].tiles and pools[0].kernel > _TOGETHER


def _first_inside(x: Tensor, pools: Sequence[Pool]) -> Tensor | None:
    """Return the number of the first tap of each window that is no padding, None where it is 0.

    A window of nothing but -inf has its maximum there.
    """
    if not any(pool.low for pool in pools):
        return None
    first: Tensor | np.ndarray | int = 0
    for pool in pools:
        first = first * pool.kernel
        if not pool.low:
            continue
        if isinstance(pool.count, int):
            outside = pool.low - pool.stride * np.arange(pool.count, dtype=np.int32)
            skipped = np.maximum(0, -(-outside // pool.dilation))
            shape = [1] * x.ndim
            shape[pool.axis] = pool.count
            first = first + skipped.reshape(shape)
        else:
            beyond = pool.low - _along(pool, x.ndim, "int32") * pool.stride
            first = maximum(0, (beyond + (pool.dilation - 1)) // pool.dilation) + first
    return as_tensor(first)


def _first_equal(taps: Sequence[Tensor], value: Tensor, first: Tensor | None) -> Tensor:
    """Return the number of the first tap that equals ``value``, their maximum; int32.

    Where that is NaN, the last NaN, as in PyTorch.  ``first``: the least number to return.
    """
    chosen: Tensor = constant(0, "int32")
    numbered = list(enumerate(taps))
    # every step depends on the maximum, so that all of them join the kernel that computes it
    for number, tap in reversed(numbered):
        chosen = where(tap == value, number, chosen)
    if value.dtype in FLOATS:
        for number, tap in numbered:
            chosen = where(isnan(tap), number, chosen)
    return chosen if first is None else maximum(chosen, first)


def _number_at(chosen: Tensor, numbers: Sequence[Tensor]) -> Tensor:
    """Return, at every place, the one of ``numbers`` that ``chosen`` counts."""
    number = numbers[0]
    for tap in range(1, len(numbers)):
        number = where(chosen == tap, numbers[tap], number)
    return number


def first_of_maxima(taps: Sequence[Tensor], numbers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the first maximum among ``taps`` at every place, and the one of ``numbers`` there."""
    value = functools.reduce(maximum, taps)
    chosen = _first_equal(taps, value, None)

    @custom_gradient
    def largest(*given: Tensor) -> tuple[Tensor, Callable[[Tensor], list[Tensor]]]:
        return value, lambda g: [where(chosen == tap, g, 0) for tap in range(len(given))]

    result = largest(*taps) if value.dtype in FLOATS else value
    return result, _number_at(chosen, numbers)


def plane_numbers(x: Tensor, rank: int) -> Tensor:
    """Return the row-major number of every element of the last ``rank`` axes; 1 elsewhere."""
    number: Tensor = constant(0)
    for axis in range(x.ndim - rank, x.ndim):
        shape: list[Dim] = [1] * x.ndim
        shape[axis] = x.shape[axis]
        number = number * x.shape[axis] + iota(shape, axis)
    return number


def _max_pool(
    x: object,
    kernel_size: PerAxis,
    stride: PerAxis | None,
    padding: PerAxis,
    dilation: PerAxis,
    ceil_mode: bool,
    return_indices: bool,
    rank: int,
) -> Tensor | tuple[Tensor, Tensor]:
    what = f"max_pool{rank}d"
    value, single = batched(as_tensor(x), rank, what)
    if value.dtype == "bool":
        fail(f"{what}: needs numbers, not bool")
    pools = window_pools(value, kernel_size, stride, padding, dilation, ceil_mode, rank, what)
    number = plane_numbers(value, rank) if return_indices else None
    for stage in _stages(pools):
        value, number = _max_stage(value, number, stage)
    if single:
        value = value.squeeze(0)
    if number is None:
        return value
    number = number.squeeze(0) if single and number.ndim > value.ndim else number
    return value, number.broadcast_to(value.shape)


def max_pool1d(
    x: object,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the maximum of every window of ``x`` (batch, channels, length).

    Parameters
    ----------
    x
        (batch, channels, length), or without the batch.
    kernel_size, stride, dilation
        The number of elements of a window, the distance between windows (None: ``kernel_size``),
        and between the elements of one.
    padding
        What counts as -inf at both ends; at most half a window.
    ceil_mode
        Keep a last window that reaches beyond the end.
    return_indices
        Return the int64 places of the maxima, too: row-major over the spatial axes.

    Raises
    ------
    GraphError
        No window fits, or the padding is over half a window.
    """
    return _max_pool(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 1)


def max_pool2d(
    x: object,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the maximum of every window of ``x`` (batch, channels, height, width).

    Arguments as in `max_pool1d`.
    """
    return _max_pool(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 2)


def max_pool3d(
    x: object,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the maximum of every window of ``x`` (batch, channels, depth, height, width).

    Arguments as in `max_pool1d`.
    """
    return _max_pool(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 3)


# -- averages -------------------------------------------------------------------------------------


def _sum_stage(x: Tensor, pools: Sequence[Pool]) -> Tensor:
    if all(isinstance(p.count, int) and p.count == 1 and p.tiles for p in pools):
        return x.sum([pool.axis for pool in pools], keepdims=True)
    padded = pad_axes(x, _sides(x, pools), "constant")
    if math.prod(pool.kernel for pool in pools) > _UNROLLED or _is_large_tile(pools):
        return _windows(padded, pools[0]).sum(-1)
    total, *rest = _taps(padded, pools)
    for tap in rest:
        total = total + tap

    @custom_gradient
    def summed(whole: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return total, lambda g: _spread(g, whole, pools, None)

    return summed(x)


def window_sums(x: Tensor, pools: Sequence[Pool]) -> Tensor:
    """Return the sum over every window, padding counted as 0."""
    if all(pool.tiles and pool.count == 1 for pool in pools):
        return _sum_stage(x, pools)
    for stage in _stages(pools):
        x = _sum_stage(x, stage)
    return x


def _counts(pool: Pool, rank: int, include_padding: bool) -> Tensor | int:
    """Return how many elements each window averages over."""
    if pool.low == 0 and pool.high == 0:
        return pool.kernel
    begin = _along(pool, rank) * pool.stride - pool.low
    end = begin + pool.kernel
    if include_padding:
        if pool.high <= pool.low:
            return pool.kernel
        return minimum(end, pool.size + pool.low) - begin
    return minimum(end, pool.size) - maximum(begin, 0)


def _avg_pool(
    x: object,
    kernel_size: PerAxis,
    stride: PerAxis | None,
    padding: PerAxis,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    rank: int,
) -> Tensor:
    what = f"avg_pool{rank}d"
    tensor, single = batched(as_tensor(x), rank, what)
    if tensor.dtype not in FLOATS:
        fail(f"{what}: needs floating-point elements, not {tensor.dtype}")
    if divisor_override is not None and divisor_override == 0:
        fail(f"{what}: divisor_override must not be 0")
    pools = window_pools(tensor, kernel_size, stride, padding, 1, ceil_mode, rank, what)
    total = window_sums(tensor, pools)
    divisor: Tensor | int = 1
    if divisor_override is not None:
        divisor = divisor_override
    else:
        for pool in pools:
            divisor = _counts(pool, tensor.ndim, count_include_pad) * divisor
    if isinstance(divisor, Tensor):
        divisor = divisor.astype(total.dtype)
    result = total / divisor
    return result.squeeze(0) if single else result


def avg_pool1d(
    x: object,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Return the mean of every window of ``x`` (batch, channels, length).

    Parameters
    ----------
    x
        (batch, channels, length), or without the batch.
    kernel_size, stride
        The size of a window and the distance between windows (None: ``kernel_size``).
    padding
        Zeros at both ends; at most half a window.
    ceil_mode
        Keep a last window that reaches beyond the end.
    count_include_pad
        Whether the padding counts among what is divided by.

    Raises
    ------
    GraphError
        No window fits, or the padding is over half a window.
    """
    return _avg_pool(x, kernel_size, stride, padding, ceil_mode, count_include_pad, None, 1)


def avg_pool2d(
    x: object,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Return the mean of every window of ``x`` (batch, channels, height, width).

    ``divisor_override``: what sums are divided by in place of the size of a window; the other
    arguments as in `avg_pool1d`.
    """
    return _avg_pool(
        x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 2
    )


def avg_pool3d(
    x: object,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Return the mean of every window of ``x`` (batch, channels, depth, height, width).

    Arguments as in `avg_pool2d`.
    """
    return _avg_pool(
        x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 3
    )


# -- p-norms --------------------------------------------------------------------------------------


def _lp_pool(
    x: object,
    norm_type: float,
    kernel_size: PerAxis,
    stride: PerAxis | None,
    ceil_mode: bool,
    rank: int,
) -> Tensor:
    """Return the signed p-th root of the sum of p-th powers, as PyTorch defines it."""
    what = f"lp_pool{rank}d"
    if norm_type == 0:
        fail(f"{what}: norm_type must not be 0")
    tensor = as_tensor(x)
    mean = _avg_pool(tensor**norm_type, kernel_size, stride, 0, ceil_mode, True, None, rank)
    size = math.prod(per_axis(kernel_size, rank, "kernel_size", what))
    return (mean.sign() * mean.abs().relu() * size) ** (1.0 / norm_type)


def lp_pool1d(
    x: object,
    norm_type: float,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Return (Σ xᵖ)^(1/p), p = ``norm_type``, of every window of ``x`` (batch, channels, length).

    Raises GraphError where no window fits.
    """
    return _lp_pool(x, norm_type, kernel_size, stride, ceil_mode, 1)


def lp_pool2d(
    x: object,
    norm_type: float,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Return (Σ xᵖ)^(1/p) of every window of ``x`` (batch, channels, height, width)."""
    return _lp_pool(x, norm_type, kernel_size, stride, ceil_mode, 2)


def lp_pool3d(
    x: object,
    norm_type: float,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Return (Σ xᵖ)^(1/p) of every window of ``x`` (batch, channels, depth, height, width)."""
    return _lp_pool(x, norm_type, kernel_size, stride, ceil_mode, 3)


__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]
