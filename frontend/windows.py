"""Windows that slide over the last axes of a tensor: their arguments, their number, their views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..compiler.errors import GraphTypeError
from ..compiler.ir.dims import format_shape
from ..compiler.ir.types import Dim
from .tensor import Tensor
from .tracing import fail

#: An argument with one value for each spatial axis, or one int for all of them.
PerAxis = int | Sequence[int]


def per_axis(value: object, rank: int, name: str, what: str, least: int = 1) -> tuple[int, ...]:
    """Return ``value`` as one int for each of ``rank`` axes.

    Raises GraphError for another number of them or for one below ``least``.
    """
    single = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    values = (value,) * rank if single else tuple(value) if isinstance(value, Sequence) else ()
    if len(values) == 1:
        values = values * rank
    if not values or any(
        isinstance(v, bool) or not isinstance(v, (int, np.integer)) for v in values
    ):
        fail(f"{what}: {name} is an int or {rank} of them, not {value!r}", GraphTypeError)
    if len(values) != rank:
        fail(f"{what}: {name} {tuple(values)} does not fit; one int or {rank} would")
    numbers = tuple(int(v) for v in values)  # type: ignore[call-overload]
    if min(numbers) < least:
        fail(f"{what}: {name} must be at least {least}, not {value!r}")
    return numbers


def batched(x: Tensor, rank: int, what: str) -> tuple[Tensor, bool]:
    """Return ``x`` with a batch axis in front, and whether it had none.

    Raises GraphError unless ``x`` has ``rank`` spatial axes after (batch and) channels.
    """
    if x.ndim == rank + 1:
        return x.expand_dims(0), True
    if x.ndim != rank + 2:
        names = ("length",), ("height", "width"), ("depth", "height", "width")
        axes = ", ".join(names[rank - 1])
        fail(
            f"{what}: an input of shape {format_shape(x.shape)} does not fit; "
            f"(batch, channels, {axes}) or (channels, {axes}) would"
        )
    return x, False


def window_count(
    size: Dim, kernel: int, stride: int, low: int, high: int, dilation: int, what: str
) -> Dim:
    """Return how many windows lie on an axis of ``size`` with ``low`` + ``high`` around it.

    Raises GraphError where not even one does.
    """
    span = dilation * (kernel - 1) + 1
    room = size + (low + high - span)
    if isinstance(room, int) and room < 0:
        dilated = f" dilated by {dilation} to {span}" if dilation > 1 else ""
        padded = f" padded to {size + low + high}" if low + high else ""
        fail(
            f"{what}: a kernel of {kernel}{dilated} is larger than the axis of size {size}{padded}"
        )
    return room // stride + 1


def output_sizes(
    shape: Sequence[Dim],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    what: str,
) -> tuple[Dim, ...]:
    """Return the number of windows along each axis (see `window_count`)."""
    return tuple(
        window_count(size, k, s, low, high, d, what)
        for size, k, s, (low, high), d in zip(shape, kernel, stride, padding, dilation, strict=True)
    )
