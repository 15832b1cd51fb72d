"""Padding: constants, reflections, edges or wrapped copies around the axes of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.dims import format_shape
from ..compiler.ir.types import Dim
from .creation import iota
from .elementwise import where
from .manipulation import concatenate, flip
from .tensor import Tensor, as_tensor
from .tracing import build, fail

#: How many elements before and after an axis; negative numbers crop.
Sides = tuple[int, int]


def pad(
    x: object,
    width: int | Sequence[int] | Sequence[Sequence[int]],
    value: float = 0,
    mode: str = "constant",
) -> Tensor:
    """Return ``x`` with something around it.

    Parameters
    ----------
    width
        One int for all sides, (before, after) for all axes, or such a pair for each axis.
        Negative widths crop.
    value
        What ``mode="constant"`` pads with.
    mode
        ``"constant"``; ``"reflect"`` mirrors at the outer elements, without repeating them;
        ``"replicate"`` (or ``"edge"``) repeats them; ``"circular"`` (or ``"wrap"``) goes on at the
        other end.

    Raises
    ------
    GraphError
        The widths do not fit the shape.
    """
    tensor = as_tensor(x)
    pairs: list[Sides]
    if isinstance(width, int):
        pairs = [(width, width)] * tensor.ndim
    elif width and all(isinstance(side, int) for side in width):
        pairs = [tuple(width)] * tensor.ndim  # type: ignore[list-item]
    else:
        pairs = [tuple(pair) for pair in width]  # type: ignore[union-attr,misc]
    if len(pairs) != tensor.ndim or any(len(pair) != 2 for pair in pairs):
        fail(f"pad: width {width!r} is no pair of sizes for each of the {tensor.ndim} axes")
    return pad_axes(tensor, pairs, mode, value)


def pad_last(
    x: object, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Return ``x`` padded as by ``torch.nn.functional.pad``.

    ``pad``: before and after the last axis, then before and after the one before it, and so on;
    negative numbers crop.  ``mode``, ``value``: as for `pad`.  Raises GraphError where the sizes do
    not fit.
    """
    tensor = as_tensor(x)
    sides = tuple(pad)
    if len(sides) % 2 or len(sides) > 2 * tensor.ndim:
        fail(
            f"pad_last: {len(sides)} sides do not fit {format_shape(tensor.shape)}; an even "
            f"number up to {2 * tensor.ndim} would"
        )
    pairs = [(sides[i], sides[i + 1]) for i in range(0, len(sides), 2)]
    untouched = [(0, 0)] * (tensor.ndim - len(pairs))
    return pad_axes(tensor, [*untouched, *reversed(pairs)], mode, value or 0)


def pad_axes(x: Tensor, pairs: Sequence[Sides], mode: str, value: float = 0) -> Tensor:
    """Return `pad` of ``x`` with one pair of widths for each axis."""
    if not any(any(pair) for pair in pairs):
        return x
    for axis, (size, (low, high)) in enumerate(zip(x.shape, pairs, strict=True)):
        kept = size + (min(low, 0) + min(high, 0))
        if isinstance(kept, int) and kept < 0:
            fail(
                f"pad: widths {low} and {high} crop more than axis {axis} of "
                f"{format_shape(x.shape)} has"
            )
    if mode == "constant":
        return _pad_constant(x, pairs, value)
    if mode not in _EXTENSIONS:
        known = ", ".join(["constant", *_EXTENSIONS])
        fail(f"pad: no mode is called {mode!r}; known: {known}", GraphTypeError)
    for axis, (low, high) in enumerate(pairs):
        if mode in _CROPPED_FIRST:
            x, low, high = _crop(x, axis, low, high), max(0, low), max(0, high)
        if max(low, high) > 0:
            x = _EXTENSIONS[mode](x, axis, max(0, low), max(0, high))
        x = _crop(x, axis, low, high)
    return x


def _crop(x: Tensor, axis: int, low: int, high: int) -> Tensor:
    """Return ``x`` without what negative widths take away."""
    if min(low, high) >= 0:
        return x
    return _part(x, axis, max(0, -low), x.shape[axis] - max(0, -high))


def _pad_constant(x: Tensor, pairs: Sequence[Sides], value: float) -> Tensor:
    low, high = (tuple(pair[side] for pair in pairs) for side in (0, 1))
    padded = Tensor(build(ops.Pad(low, high, (0,) * x.ndim), x.node))
    if value == 0:
        return padded
    inside = inside_mask(padded.shape, x.shape, pairs)
    return padded if inside is None else where(inside, padded, value)


def inside_mask(
    shape: Sequence[Dim], inner: Sequence[Dim], pairs: Sequence[Sides]
) -> Tensor | None:
    """Return which elements of a padded ``shape`` are not padding, None where all are."""
    inside: Tensor | None = None
    for axis, (size, (low, high)) in enumerate(zip(inner, pairs, strict=True)):
        if max(low, high) <= 0:
            continue
        wide = [1] * len(shape)
        wide[axis] = shape[axis]  # type: ignore[call-overload]
        place = iota(wide, axis)
        if low > 0:
            here = place >= low
            inside = here if inside is None else inside & here
        if high > 0:
            here = place < size + low
            inside = here if inside is None else inside & here
    return inside


def _part(x: Tensor, axis: int, start: Dim, stop: Dim) -> Tensor:
    return x[*(slice(None),) * axis, slice(start, stop)]


def _check_room(x: Tensor, axis: int, low: int, high: int, room: Dim, mode: str) -> None:
    if isinstance(room, int) and max(low, high) > room:
        fail(
            f"pad: widths {low} and {high} in mode {mode!r} do not fit axis {axis} of "
            f"{format_shape(x.shape)}; up to {max(room, 0)} would"
        )


def _reflect(x: Tensor, axis: int, low: int, high: int) -> Tensor:
    size = x.shape[axis]
    _check_room(x, axis, low, high, size - 1, "reflect")
    parts = [x]
    if low:
        parts.insert(0, flip(_part(x, axis, 1, low + 1), axis))
    if high:
        parts.append(flip(_part(x, axis, size - 1 - high, size - 1), axis))
    return concatenate(parts, axis)


def _replicate(x: Tensor, axis: int, low: int, high: int) -> Tensor:
    size = x.shape[axis]
    if size == 0:
        fail(f"pad: axis {axis} of {format_shape(x.shape)} has no edge to repeat")

    def copies(start: Dim, count: int) -> Tensor:
        edge = _part(x, axis, start, start + 1)
        return edge.broadcast_to((*x.shape[:axis], count, *x.shape[axis + 1 :]))

    parts = [x]
    if low:
        parts.insert(0, copies(0, low))
    if high:
        parts.append(copies(size - 1, high))
    return concatenate(parts, axis)


def _wrap(x: Tensor, axis: int, low: int, high: int) -> Tensor:
    size = x.shape[axis]
    _check_room(x, axis, low, high, size, "circular")
    parts = [x]
    if low:
        parts.insert(0, _part(x, axis, size - low, size))
    if high:
        parts.append(_part(x, axis, 0, high))
    return concatenate(parts, axis)


#: PyTorch mirrors and repeats what it then crops, and wraps what is left.
_CROPPED_FIRST = ("circular", "wrap")
_EXTENSIONS: dict[str, Callable[[Tensor, int, int, int], Tensor]] = {
    "reflect": _reflect,
    "replicate": _replicate,
    "edge": _replicate,
    "circular": _wrap,
    "wrap": _wrap,
}

__all__ = ["pad", "pad_last"]
