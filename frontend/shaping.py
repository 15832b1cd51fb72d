"""Views of nodes: reshaping, reordering and indexing, with NumPy's rules for the arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..compiler.errors import GraphTypeError, IndexRangeError
from ..compiler.ir import ops
from ..compiler.ir.dims import SymbolicDim, divide_exactly, format_shape, product
from ..compiler.ir.graph import Node
from ..compiler.ir.types import INTEGERS, Dim, Shape
from . import elementary
from .promotion import array_of, constant_node, convert
from .tracing import build, fail

Axes = int | Sequence[int] | None


def shape_of(dims: object, what: str = "shape") -> Shape:
    """Return ``dims`` (an int, a `SymbolicDim`, a name, or a sequence of these) as a shape."""
    if isinstance(dims, (int, str, SymbolicDim, np.integer)):
        dims = (dims,)
    if not isinstance(dims, Iterable):
        fail(f"{what}: {dims!r} is not a shape", GraphTypeError)
    result: list[Dim] = []
    for dim in dims:
        if isinstance(dim, str):
            if not dim.isidentifier():
                fail(f"{what}: {dim!r} is not a name for a dimension")
            dim = SymbolicDim.of(dim)
        elif isinstance(dim, (bool, np.bool_)) or not isinstance(
            dim, (int, np.integer, SymbolicDim)
        ):
            fail(
                f"{what}: a dimension is an int, a symbol's name or a symbolic dimension, "
                f"not {dim!r}",
                GraphTypeError,
            )
        result.append(dim if isinstance(dim, SymbolicDim) else int(dim))
    return tuple(result)


def nonnegative_shape(dims: object, what: str = "shape") -> Shape:
    """Return `shape_of` ``dims``; raises GraphError for a negative size."""
    shape = shape_of(dims, what)
    if any(isinstance(dim, int) and dim < 0 for dim in shape):
        fail(f"{what}: {format_shape(shape)} has a negative size")
    return shape


def normalize_axis(axis: int, rank: int, what: str) -> int:
    """Return ``axis`` counted from the front; raises GraphError where it does not fit ``rank``."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        fail(f"{what}: an axis is an int, not {axis!r}", GraphTypeError)
    if not -rank <= axis < rank:
        fail(f"{what}: axis {axis} does not fit rank {rank}")
    return int(axis) % rank


def axis_of_elements(axis: int, rank: int, what: str) -> int:
    """Return `normalize_axis`; a 0-d value counts as one element along axis 0."""
    return normalize_axis(axis, max(rank, 1), what)


def normalize_axes(axes: Axes, rank: int, what: str) -> tuple[int, ...]:
    """Return ``axes`` (None: all) sorted and counted from the front.

    Of a 0-d value, axis 0 or -1 is no axis: it counts as one element, as in NumPy and PyTorch.
    """
    if axes is None:
        return tuple(range(rank))
    if isinstance(axes, (int, np.integer)):
        axes = (int(axes),)
    if rank == 0 and len(axes) == 1 and not isinstance(axes[0], bool) and axes[0] in (0, -1):
        return ()
    found = sorted(normalize_axis(axis, rank, what) for axis in axes)
    if len(set(found)) != len(found):
        fail(f"{what}: axes {tuple(axes)} name one axis twice")
    return tuple(found)


def reshape(x: Node, shape: Shape) -> Node:
    """Return ``x`` in ``shape``, where one dimension may be -1."""
    unknown = [axis for axis, dim in enumerate(shape) if dim == -1]
    if len(unknown) > 1:
        fail(f"reshape: {format_shape(shape)} has more than one -1")
    if unknown:
        rest = product(tuple(dim for dim in shape if dim != -1))
        if rest == 0:
            fail(f"reshape: -1 in {format_shape(shape)} is ambiguous beside a size of 0")
        found = divide_exactly(x.type.size, rest)
        if found is None:
            fail(
                f"reshape: {format_shape(x.shape)} has {x.type.size} elements, which {rest} does "
                f"not divide, so it cannot become {format_shape(shape)}"
            )
        shape = tuple(found if dim == -1 else dim for dim in shape)
    if any(isinstance(dim, int) and dim < 0 for dim in shape):
        fail(f"reshape: {format_shape(shape)} has a negative size")
    return x if shape == x.shape else build(ops.Reshape(shape), x)


def transpose(x: Node, permutation: Sequence[int] | None) -> Node:
    """Return ``x`` with its axes in the order of ``permutation`` (None: reversed)."""
    rank = x.type.rank
    if permutation is None:
        permutation = tuple(reversed(range(rank)))
    order = tuple(normalize_axis(axis, rank, "transpose") for axis in permutation)
    if sorted(order) != list(range(rank)):
        fail(f"transpose: {tuple(permutation)} is no permutation of the {rank} axes")
    return x if order == tuple(range(rank)) else build(ops.Transpose(order), x)


def broadcast(x: Node, shape: Shape) -> Node:
    """Return ``x`` broadcast to ``shape``."""
    return x if shape == x.shape else build(ops.Broadcast(shape), x)


def expand_dims(x: Node, axes: Axes) -> Node:
    """Return ``x`` with axes of size 1 at ``axes`` of the result."""
    count = 1 if isinstance(axes, (int, np.integer)) else len(axes or ())
    rank = x.type.rank + count
    places = normalize_axes(axes if axes is not None else (), rank, "expand_dims")
    sizes = iter(x.shape)
    return reshape(x, tuple(1 if axis in places else next(sizes) for axis in range(rank)))


def squeeze(x: Node, axes: Axes) -> Node:
    """Return ``x`` without the axes of size 1 (or without ``axes``, which must be of size 1)."""
    if axes is None:
        return reshape(x, tuple(dim for dim in x.shape if dim != 1))
    drop = normalize_axes(axes, x.type.rank, "squeeze")
    for axis in drop:
        if x.shape[axis] != 1:
            fail(f"squeeze: axis {axis} of {format_shape(x.shape)} is not of size 1")
    return reshape(x, tuple(dim for axis, dim in enumerate(x.shape) if axis not in drop))


def flip(x: Node, axes: Axes) -> Node:
    """Return ``x`` with the order of the elements along ``axes`` reversed."""
    places = normalize_axes(axes, x.type.rank, "flip")
    return build(ops.Flip(places), x) if places else x


def slice_axes(x: Node, starts: Sequence[Dim], sizes: Sequence[Dim], steps: Sequence[int]) -> Node:
    """Return ``x[start:start + size*step:step]`` on every axis."""
    whole = all(start == 0 for start in starts) and all(step == 1 for step in steps)
    if whole and tuple(sizes) == x.shape:
        return x
    return build(ops.Slice(tuple(starts), tuple(sizes), tuple(steps)), x)


def concatenate(nodes: Sequence[Node], axis: int) -> Node:
    """Return ``nodes``, of one element type, joined along ``axis``."""
    if not nodes:
        fail("concatenate: needs at least one tensor")
    axis = normalize_axis(axis, nodes[0].type.rank, "concatenate")
    return nodes[0] if len(nodes) == 1 else build(ops.Concat(axis), *nodes)


def _bound(value: object, dim: Dim, default: Dim) -> Dim:
    """Return a slice's bound counted from the front; static ones are clamped into the axis."""
    if value is None:
        return default
    if isinstance(value, SymbolicDim):
        return value
    if not hasattr(value, "__index__"):
        fail(f"index: a slice's bound is an int or a dimension, not {value!r}", GraphTypeError)
    place = value.__index__()  # type: ignore[attr-defined]
    if isinstance(dim, int):
        return min(max(place + dim if place < 0 else place, 0), dim)
    return dim + place if place < 0 else place


def _slice_axis(part: slice, dim: Dim) -> tuple[Dim, Dim, int, bool]:
    """Return start, size, step and whether the result is reversed first."""
    step = 1 if part.step is None else part.step
    if not isinstance(step, (int, np.integer)) or step == 0:
        fail(f"index: a slice's step is a non-zero int, not {step!r}", GraphTypeError)
    step = int(step)
    if step > 0:
        start = _bound(part.start, dim, 0)
        stop = _bound(part.stop, dim, dim)
    else:
        # x[a:b:-s] is flip(x)[n-1-a:n-1-b:s]
        first = dim - 1
        start = 0 if part.start is None else first - _last(part.start, dim)
        stop = dim if part.stop is None else first - _last(part.stop, dim)
    span = stop - start
    if isinstance(span, int):
        size: Dim = max(0, -(-span // abs(step)))
    else:
        size = span if abs(step) == 1 else (span + (abs(step) - 1)) // abs(step)
    return (0 if size == 0 else start), size, abs(step), step < 0


def _last(value: object, dim: Dim) -> Dim:
    """Return a bound of a backwards slice; static ones are clamped into ``[-1, dim - 1]``."""
    if isinstance(value, SymbolicDim):
        return value
    place = value.__index__()  # type: ignore[attr-defined]
    if isinstance(dim, int):
        return min(max(place + dim if place < 0 else place, -1), dim - 1)
    return dim + place if place < 0 else place


def _expand_key(key: object, rank: int) -> list[object]:
    parts = list(key) if isinstance(key, tuple) else [key]
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        fail("index: more than one Ellipsis")
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if used > rank:
        fail(f"index: {used} indices for a tensor of rank {rank}", IndexRangeError)
    fill: list[object] = [slice(None)] * (rank - used)
    if dots:
        return parts[: dots[0]] + fill + parts[dots[0] + 1 :]
    return parts + fill


def _index_node(part: object, dim: Dim) -> Node:
    """Return an array of indices along an axis as a node, its constants checked and wrapped."""
    if not isinstance(part, Node):
        array = array_of(part)
        if array.dtype == bool:
            fail(_MASK, GraphTypeError)
        if array.size == 0:
            array = array.astype("int64")
        if array.dtype.kind not in "iu":
            fail(f"index: indices are integers, not {array.dtype}", GraphTypeError)
        if isinstance(dim, int):
            wrong = array[(array < -dim) | (array >= dim)]
            if wrong.size:
                fail(f"index {wrong[0]} leaves the axis of size {dim}", IndexRangeError)
            array = np.where(array < 0, array + dim, array)
        part = constant_node(array, "int64")
    if part.dtype == "bool":
        fail(_MASK, GraphTypeError)
    if part.dtype not in INTEGERS:
        fail(f"index: indices are integers, not {part.dtype}", GraphTypeError)
    return part


_MASK = (
    "index: a bool mask gives a result whose shape depends on values, which a compiled graph "
    "cannot have; use where(mask, x, 0), or multiply by the mask"
)


def index(x: Node, key: object) -> Node:
    """Return ``x[key]`` by NumPy's rules.

    ``key``: ints, slices, None, Ellipsis, and arrays of integers (a `Node` or an array), which
    gather.  Several arrays broadcast against each other, and ints beside them count as arrays;
    their axes stand where they did, or in front if something stood between them.  Raises
    IndexRangeError where a static index leaves its axis, GraphTypeError for a bool mask.
    """
    parts = _expand_key(key, x.type.rank)
    starts: list[Dim] = []
    sizes: list[Dim] = []
    steps: list[int] = []
    flips: list[int] = []
    kept: list[Dim] = []  # the shape after integer axes are dropped and new ones inserted
    gathers: list[_Gathered] = []
    arrays = any(not (part is None or isinstance(part, (slice, *_INTEGERS))) for part in parts)
    axis = 0
    for number, part in enumerate(parts):
        if part is None:
            kept.append(1)
            continue
        dim = x.shape[axis]
        if isinstance(part, (bool, np.bool_)):
            fail(_MASK, GraphTypeError)
        if isinstance(part, slice):
            start, size, step, backwards = _slice_axis(part, dim)
            flips += [axis] if backwards else []
            kept.append(size)
        elif isinstance(part, _INTEGERS) and not (arrays and not isinstance(part, SymbolicDim)):
            place = int(part) if not isinstance(part, SymbolicDim) else part
            if isinstance(dim, int) and isinstance(place, int) and not -dim <= place < dim:
                fail(
                    f"index {place} leaves axis {axis} of size {dim} of {format_shape(x.shape)}",
                    IndexRangeError,
                )
            start = dim + place if isinstance(place, int) and place < 0 else place
            size, step = 1, 1
        else:
            gathers.append(_Gathered(number, len(kept), _index_node(part, dim), dim))
            start, size, step = 0, dim, 1
            kept.append(dim)
        starts.append(start)
        sizes.append(size)
        steps.append(step)
        axis += 1
    result = reshape(slice_axes(flip(x, flips), starts, sizes, steps), tuple(kept))
    return _gather(result, gathers) if gathers else result


_INTEGERS = (int, np.integer, SymbolicDim)


@dataclass(frozen=True)
class _Gathered:
    """An array of indices: its number in the key, and the axis of size ``dim`` that it indexes."""

    number: int
    axis: int
    indices: Node
    dim: Dim


def _gather(x: Node, gathers: Sequence[_Gathered]) -> Node:
    """Return ``x`` with all indexed axes made one, gathered at the indices' places in it."""
    if len(gathers) == 1:
        return build(ops.Gather(gathers[0].axis), x, gathers[0].indices)
    axes = [g.axis for g in gathers]
    adjacent = gathers[-1].number - gathers[0].number == len(gathers) - 1
    target = axes[0] if adjacent else 0
    rest = [axis for axis in range(x.type.rank) if axis not in axes]
    moved = transpose(x, [*rest[:target], *axes, *rest[target:]])
    dims = tuple(g.dim for g in gathers)
    tail = moved.shape[target + len(axes) :]
    merged = reshape(moved, (*moved.shape[:target], product(dims), *tail))
    place: Node | None = None
    inside: Node | None = None
    for position, g in enumerate(gathers):
        wide = convert(g.indices, "int64")
        step = elementary.apply("mul", wide, product(dims[position + 1 :]))
        place = step if place is None else elementary.apply("add", place, step)
        if not isinstance(g.indices.op, ops.Constant):  # constants have been checked
            above = elementary.apply("ge", wide, 0)
            fits = elementary.logical("logical_and", above, elementary.apply("lt", wide, g.dim))
            inside = fits if inside is None else elementary.logical("logical_and", inside, fits)
    assert place is not None
    if inside is not None:  # another index must not make up for one that is outside
        place = elementary.apply("where", inside, place, -1)
    return build(ops.Gather(target), merged, place)
