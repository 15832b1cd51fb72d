"""Joining, splitting, repeating and picking parts of tensors, with NumPy's arguments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..compiler.errors import GraphTypeError
from ..compiler.ir.dims import divide_exactly, format_shape, product
from ..compiler.ir.types import INTEGERS, Dim
from . import shaping
from .checks import register_range_check
from .creation import equals_index, iota
from .elementwise import where
from .promotion import unify
from .shaping import Axes, normalize_axis
from .tensor import Tensor, as_tensor, operand_of
from .tracing import fail


def reshape(x: object, shape: object) -> Tensor:
    """Return the elements, row-major, in ``shape``; one dimension may be -1."""
    return as_tensor(x).reshape(shape)


def transpose(x: object, axes: Sequence[int] | None = None) -> Tensor:
    """Return ``x`` with its axes in the order of ``axes`` (None: reversed)."""
    return as_tensor(x).transpose(axes)


def swapaxes(x: object, first: int, second: int) -> Tensor:
    """Return ``x`` with two axes exchanged."""
    return as_tensor(x).swapaxes(first, second)


def moveaxis(x: object, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Return ``x`` with the axes ``source`` at the places ``destination``, the rest in order."""
    tensor = as_tensor(x)
    sources = (source,) if isinstance(source, int) else tuple(source)
    targets = (destination,) if isinstance(destination, int) else tuple(destination)
    if len(sources) != len(targets):
        fail(f"moveaxis: {len(sources)} sources and {len(targets)} destinations")
    sources = tuple(normalize_axis(axis, tensor.ndim, "moveaxis") for axis in sources)
    targets = tuple(normalize_axis(axis, tensor.ndim, "moveaxis") for axis in targets)
    order = [axis for axis in range(tensor.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return tensor.transpose(order)


def expand_dims(x: object, axis: int | Sequence[int]) -> Tensor:
    """Return ``x`` with axes of size 1 at ``axis`` of the result."""
    return as_tensor(x).expand_dims(axis)


def squeeze(x: object, axis: Axes = None) -> Tensor:
    """Return ``x`` without ``axis`` (None: without every axis of size 1)."""
    return as_tensor(x).squeeze(axis)


def broadcast_to(x: object, shape: object) -> Tensor:
    """Return ``x`` broadcast to ``shape``."""
    return as_tensor(x).broadcast_to(shape)


def flatten(x: object, start: int = 0, end: int = -1) -> Tensor:
    """Return ``x`` with axes ``start`` to ``end`` (inclusive) made one."""
    return as_tensor(x).flatten(start, end)


def concatenate(tensors: Sequence[object], axis: int = 0) -> Tensor:
    """Return ``tensors`` joined along ``axis``; their other axes must be equal."""
    return Tensor(shaping.concatenate(unify(*map(operand_of, tensors)), axis))


def stack(tensors: Sequence[object], axis: int = 0) -> Tensor:
    """Return ``tensors``, all of one shape, joined along a new ``axis``."""
    nodes = unify(*map(operand_of, tensors))
    if not nodes:
        fail("stack: needs at least one tensor")
    if any(node.shape != nodes[0].shape for node in nodes):
        listed = ", ".join(format_shape(node.shape) for node in nodes)
        fail(f"stack: shapes {listed} differ; they must be equal")
    place = normalize_axis(axis, nodes[0].type.rank + 1, "stack")
    return Tensor(shaping.concatenate([shaping.expand_dims(x, place) for x in nodes], place))


def split(x: object, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Return equal parts of ``x`` along ``axis``, or the parts between the cuts ``sections``."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "split")
    size = tensor.shape[place]
    if isinstance(sections, int):
        part = divide_exactly(size, sections)
        if part is None:
            fail(f"split: axis {axis} of size {size} does not divide into {sections} equal parts")
        cuts: list[Dim] = [part * i for i in range(1, sections)]
    else:
        cuts = list(sections)
    starts: list[Dim] = [0, *cuts]
    stops: list[Dim | None] = [*cuts, None]
    before = (slice(None),) * place
    return [tensor[*before, slice(a, b)] for a, b in zip(starts, stops, strict=True)]


def tile(x: object, repeats: int | Sequence[int]) -> Tensor:
    """Return ``x`` repeated ``repeats`` times along each of the last axes."""
    tensor = as_tensor(x)
    counts = [repeats] if isinstance(repeats, int) else list(repeats)
    rank = max(len(counts), tensor.ndim)
    counts = [1] * (rank - len(counts)) + counts
    sizes = (*(1,) * (rank - tensor.ndim), *tensor.shape)
    spread = tuple(d for n, size in zip(counts, sizes, strict=True) for d in (n, size))
    single = tuple(d for size in sizes for d in (1, size))
    result = tensor.reshape(single).broadcast_to(spread)
    return result.reshape(tuple(size * n for n, size in zip(counts, sizes, strict=True)))


def repeat(x: object, repeats: int | Sequence[int] | np.ndarray, axis: int | None = None) -> Tensor:
    """Return ``x`` with each element along ``axis`` (None: of all, flattened) ``repeats`` times.

    ``repeats``: one number, or one for each element, known when the graph is built.
    """
    tensor = as_tensor(x)
    if axis is None:
        tensor, axis = tensor.ravel(), 0
    if isinstance(repeats, Tensor):
        fail("repeat: how long the result is must be known; pass numbers", GraphTypeError)
    if not isinstance(repeats, (int, np.integer)):
        counts = np.asarray(repeats)
        if counts.size != 1:
            size = tensor.shape[normalize_axis(axis, tensor.ndim, "repeat")]
            if not isinstance(size, int) or counts.shape != (size,) or (counts < 0).any():
                fail(f"repeat: {counts.tolist()} are no counts for an axis of size {size}")
            return take(tensor, np.repeat(np.arange(size), counts), axis)
        repeats = int(counts.reshape(-1)[0])
    place = normalize_axis(axis, tensor.ndim, "repeat")
    shape = tensor.shape
    wide = tensor.expand_dims(place + 1).broadcast_to(
        (*shape[: place + 1], repeats, *shape[place + 1 :])
    )
    return wide.reshape((*shape[:place], shape[place] * repeats, *shape[place + 1 :]))


def flip(x: object, axis: Axes = None) -> Tensor:
    """Return ``x`` with the order of the elements along ``axis`` (None: all) reversed."""
    return Tensor(shaping.flip(as_tensor(x).node, axis))


def roll(x: object, shift: int | Sequence[int], axis: Axes = None) -> Tensor:
    """Return ``x`` with the elements moved on by ``shift`` along ``axis``, the last ones first.

    Several axes take a shift each, or one for all.  None flattens and restores the shape.  On a
    symbolic axis, ``shift`` must not exceed its size.
    """
    tensor = as_tensor(x)
    if isinstance(axis, Sequence) or isinstance(shift, Sequence):
        axes = [0] if axis is None else [axis] if isinstance(axis, int) else list(axis)
        shifts = list(shift) if isinstance(shift, Sequence) else [shift] * len(axes)
        if len(shifts) != len(axes):
            fail(f"roll: {len(shifts)} shifts and {len(axes)} axes")
        result = tensor.ravel() if axis is None else tensor
        for by, along in zip(shifts, axes, strict=True):
            result = roll(result, by, along)
        return result.reshape(tensor.shape)
    if axis is None:
        return roll(tensor.ravel(), shift, 0).reshape(tensor.shape)
    place = normalize_axis(axis, tensor.ndim, "roll")
    size = tensor.shape[place]
    if isinstance(size, int):
        shift = shift % size if size else 0
    if shift == 0:
        return tensor
    before = (slice(None),) * place
    return concatenate([tensor[*before, -shift:], tensor[*before, :-shift]], place)


def take(x: object, indices: object, axis: int | None = None) -> Tensor:
    """Return the slices of ``x`` along ``axis`` (None: flattened) at ``indices``.

    The axes of ``indices`` stand where ``axis`` was.  Negative indices count from the end where
    they are constants; in tensors they raise IndexRangeError at run time, as all others outside do.
    """
    tensor = as_tensor(x)
    if axis is None:
        tensor, axis = tensor.ravel(), 0
    place = normalize_axis(axis, tensor.ndim, "take")
    return tensor[*(slice(None),) * place, indices]


def gather(x: object, indices: object, axis: int = 0) -> Tensor:
    """Return `take` along one axis: an embedding lookup for ``axis=0``."""
    return take(x, indices, axis)


def take_along_axis(x: object, indices: object, axis: int | None = -1) -> Tensor:
    """Return ``x[..., indices[..., j, ...], ...]``: one element for every index, along ``axis``.

    ``indices``: integers of the rank of ``x``.  Its other axes fit those of ``x`` where they are
    equal, where one has size 1 (it broadcasts), or where the indices are fewer: then the first
    slices of ``x`` are meant, as in ``torch.gather``.  ``axis`` None flattens both.  One index a
    row selects by comparison with the position and sums, which fuses with its surroundings; more
    gather from the flattened array.
    """
    tensor, picks = as_tensor(x), as_tensor(indices)
    if picks.dtype not in INTEGERS:
        fail(f"take_along_axis: needs integer indices, not {picks.dtype}", GraphTypeError)
    if axis is None:
        tensor, picks, axis = tensor.ravel(), picks.ravel(), 0
    if tensor.ndim == 0 and picks.ndim < 2:
        one = take_along_axis(tensor.reshape(1), picks.ravel(), axis)
        return one.reshape(picks.shape)
    place = normalize_axis(axis, tensor.ndim, "take_along_axis")
    tensor, picks = _fit_rows(tensor, picks, place)
    size = tensor.shape[place]
    what = "take_along_axis: index"
    if picks.shape[place] == 1:
        labels = picks.squeeze(place)
        anchor = equals_index(labels, size, place)
        register_range_check(picks.node, 0, size, message=what, anchor=anchor.node)
        return pick(tensor, labels, place).expand_dims(place)
    rows = moveaxis(tensor, place, -1)
    chosen = moveaxis(picks, place, -1).astype("int64")
    row = iota((product(rows.shape[:-1]),), 0).reshape((*rows.shape[:-1], 1))
    places = row * size + chosen
    register_range_check(picks.node, 0, size, message=what, anchor=places.node)
    flat = take(rows.ravel(), places, 0)
    return moveaxis(flat, -1, place)


def _fit_rows(x: Tensor, picks: Tensor, place: int) -> tuple[Tensor, Tensor]:
    """Return both with equal axes, apart from ``place``."""
    wide, many = list(x.shape), list(picks.shape)
    fits = len(wide) == len(many)
    for a, (have, want) in enumerate(zip(x.shape, picks.shape, strict=False)):
        if a == place or have == want:
            continue
        if want == 1:
            many[a] = have
        elif have == 1:
            wide[a] = want
        elif isinstance(have, int) and isinstance(want, int) and want < have:
            x = x[*(slice(None),) * a, :want]
            wide[a] = want
        else:
            fits = False
    if not fits:
        fail(
            f"take_along_axis: indices of shape {format_shape(picks.shape)} do not fit "
            f"{format_shape(x.shape)}: all axes but {place} must be equal, or of size 1"
        )
    return x.broadcast_to(wide), picks.broadcast_to(many)


def pick(x: Tensor, labels: Tensor, axis: int) -> Tensor:
    """Return the element of ``x`` along ``axis`` that each label names; 0 for labels outside."""
    place = normalize_axis(axis, x.ndim, "pick")
    return where(equals_index(labels, x.shape[place], place), x, 0).sum(place)
