"""Writing to places that data names, filling by masks, and counting.

Results are new tensors.  Where several values go to one place, sums add them in their order and
everything else keeps the last one, on any number of threads.  An index outside its axis raises
IndexRangeError when the program runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.dims import format_shape, product
from ..compiler.ir.types import FLOATS, INTEGERS, Dim, Shape
from .checks import register_range_check
from .creation import full, iota, linspace, ones_like, zeros_like
from .elementwise import clip, floor, isnan, where
from .manipulation import moveaxis, take
from .running import cumsum, linear_recurrence
from .shaping import axis_of_elements
from .sorting import argsort, searchsorted
from .tensor import Tensor, as_tensor, floating
from .tracing import build, fail


def _indices(index: object, size: Dim, what: str) -> Tensor:
    """Return ``index`` as a tensor of integers; constants are checked to lie in ``[0, size)``."""
    given = as_tensor(index)
    if 0 in given.shape and given.dtype not in INTEGERS:
        given = given.astype("int64")
    if given.dtype not in INTEGERS:
        fail(f"{what}: needs integer indices, not {given.dtype}", GraphTypeError)
    if isinstance(given.node.op, ops.Constant):
        register_range_check(given.node, 0, size, message=f"{what}: index")
    return given


def _require(index: Tensor, size: Dim, what: str, places: Tensor) -> None:
    """Require that ``index`` lies in ``[0, size)`` wherever ``places``, made of it, is computed."""
    register_range_check(index.node, 0, size, message=f"{what}: index", anchor=places.node)


def _add_at(places: Tensor, values: Tensor, size: Dim) -> Tensor:
    """Return zeros (size, ...) with the rows of ``values`` (n, ...) added at ``places`` (n,)."""
    return Tensor(build(ops.ScatterAdd(0, size), values.node, places.node))


def _numbers(values: Tensor) -> Tensor:
    return values.astype("int32") if values.dtype == "bool" else values


def _reached(places: Tensor, size: Dim, like: Tensor) -> Tensor:
    """Return which of ``size`` rows some place names, in a shape that broadcasts to ``like``."""
    hit = _add_at(places, full(places.shape, 1, "int32"), size) > 0
    return hit.reshape((size, *(1,) * (like.ndim - 1)))


def _last_of_equals(ordered: Tensor) -> Tensor:
    """Return where a sorted (n,) differs from the element that follows."""
    after = Tensor(build(ops.Pad((-1,), (1,), (0,)), ordered.node))
    return (ordered != after) | (iota(ordered.shape, 0) == ordered.shape[0] - 1)


def _overwrite(rows: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Return ``rows`` (m, ...) with ``values`` (n, ...) at ``places`` (n,), the last one wins."""
    order = argsort(places, 0)
    ordered = take(places, order, 0)
    last = _last_of_equals(ordered)
    chosen = _numbers(take(values, order, 0))
    chosen = where(last.reshape((*last.shape, *(1,) * (rows.ndim - 1))), chosen, 0)
    size = rows.shape[0]
    written = _add_at(ordered, chosen, size).astype(rows.dtype)
    return where(_reached(places, size, rows), written, rows)


# -- along an axis, one index an element ----------------------------------------------------------


def _element_places(x: Tensor, axis: int, index: object, what: str) -> tuple[Tensor, Shape]:
    """Return where the elements that ``index`` names lie in flattened ``x``, and its shape."""
    given = _indices(index, x.shape[axis], what)
    picks = given.astype("int64")
    if picks.ndim != x.ndim:
        fail(
            f"{what}: an index of shape {format_shape(picks.shape)} has another rank than "
            f"{format_shape(x.shape)}"
        )
    for a, (few, many) in enumerate(zip(picks.shape, x.shape, strict=True)):
        too_many = isinstance(few, int) and isinstance(many, int) and few > many
        if a != axis and (too_many or (not isinstance(few, int) and few != many)):
            fail(
                f"{what}: an index of shape {format_shape(picks.shape)} exceeds "
                f"{format_shape(x.shape)} on axis {a}"
            )
    size = x.shape[axis]
    place: Tensor | None = None
    for a in range(x.ndim):
        stride = product(x.shape[a + 1 :])
        along = picks if a == axis else iota(picks.shape, a)
        step = along * stride
        place = step if place is None else place + step
    assert place is not None
    inside = (picks >= 0) & (picks < size)
    places = where(inside, place, -1)
    _require(given, size, what, places)
    return places.ravel(), picks.shape


def _element_values(src: object, x: Tensor, shape: Shape, what: str) -> Tensor:
    """Return the values to write: the part of ``src`` that the index covers, flattened."""
    given = as_tensor(src, dtype=x.dtype)
    if given.ndim == 0:
        given = given.broadcast_to(shape)
    if given.ndim != len(shape) or any(
        isinstance(many, int) and isinstance(few, int) and many < few
        for many, few in zip(given.shape, shape, strict=True)
    ):
        fail(
            f"{what}: values of shape {format_shape(given.shape)} do not cover an index of shape "
            f"{format_shape(shape)}"
        )
    if given.shape != shape:
        given = given[*(slice(0, dim) for dim in shape)]
    return given.ravel()


def _flat(x: object, axis: int, what: str) -> tuple[Tensor, int, bool]:
    """Return ``x``, a scalar as one element, with the axis counted from the front."""
    tensor = as_tensor(x)
    place = axis_of_elements(axis, tensor.ndim, what)
    return (tensor, place, False) if tensor.ndim else (tensor.reshape(1), place, True)


def _lifted(value: object, scalar: bool) -> object:
    if not scalar:
        return value
    given = as_tensor(value)
    return given if given.ndim else given.reshape(1)


def scatter(x: object, axis: int, index: object, src: object, reduce: str | None = None) -> Tensor:
    """Return ``x`` with ``x[..., index[i, j, ...], ...] = src[i, j, ...]`` along ``axis``.

    ``index`` has the rank of ``x`` and ``src``, which may be a number, covers it.  Of several
    values for one place the last stays, and it alone gets a gradient.  ``reduce``: "add" or
    "multiply" what is there instead.
    """
    if reduce is not None:
        kind = {"add": "sum", "multiply": "prod"}.get(reduce)
        if kind is None:
            fail(f"scatter: no reduction is called {reduce!r}; add and multiply would fit")
        return scatter_reduce(x, axis, index, src, kind)
    tensor, place, scalar = _flat(x, axis, "scatter")
    places, shape = _element_places(tensor, place, _lifted(index, scalar), "scatter")
    if 0 in shape:
        return as_tensor(x)
    values = _element_values(src, tensor, shape, "scatter")
    result = _overwrite(tensor.ravel(), places, values).reshape(tensor.shape)
    return result.reshape(()) if scalar else result


def scatter_add(x: object, axis: int, index: object, src: object) -> Tensor:
    """Return ``x`` with ``x[..., index[i, j, ...], ...] += src[i, j, ...]`` along ``axis``."""
    tensor, place, scalar = _flat(x, axis, "scatter_add")
    if tensor.dtype == "bool":
        fail("scatter_add: bools do not add up", GraphTypeError)
    places, shape = _element_places(tensor, place, _lifted(index, scalar), "scatter_add")
    values = _element_values(src, tensor, shape, "scatter_add")
    added = _add_at(places, values, tensor.size).reshape(tensor.shape)
    return (tensor + added).reshape(()) if scalar else tensor + added


def scatter_reduce(
    x: object, axis: int, index: object, src: object, reduce: str, include_self: bool = True
) -> Tensor:
    """Return ``x`` with the values of ``src`` at every place combined: sum, prod, mean, amax, amin.

    ``include_self``: with what ``x`` holds there.  Places that no index names keep theirs.  Of
    equal extrema the last one gets the gradient.
    """
    what = "scatter_reduce"
    tensor, axis_place, scalar = _flat(x, axis, what)
    if reduce not in {"sum", "prod", "mean", "amax", "amin"}:
        fail(f"{what}: no reduction is called {reduce!r}; sum, prod, mean, amax, amin would fit")
    places, shape = _element_places(tensor, axis_place, _lifted(index, scalar), what)
    values = _element_values(src, tensor, shape, what)
    size, flat = tensor.size, tensor.ravel()
    counts = _add_at(places, ones_like(values), size)
    reached = counts > 0
    if reduce in {"sum", "mean"}:
        result = _add_at(places, values, size)
        if include_self:
            result, counts = result + flat, counts + 1
        if reduce == "mean":
            counts = where(counts == 0, 1, counts)
            result = result / counts if tensor.dtype in FLOATS else result // counts
    else:
        result = _segments(places, values, size, reduce)
        if include_self:
            both = {"prod": lambda a, b: a * b, "amax": _greater, "amin": _less}[reduce]
            result = both(flat, result)
    result = where(reached, result, flat).reshape(tensor.shape).astype(tensor.dtype)
    return result.reshape(()) if scalar else result


def _greater(a: Tensor, b: Tensor) -> Tensor:
    return where((b > a) | isnan(b), b, a) if a.dtype in FLOATS else where(b > a, b, a)


def _less(a: Tensor, b: Tensor) -> Tensor:
    return where((b < a) | isnan(b), b, a) if a.dtype in FLOATS else where(b < a, b, a)


def _segments(places: Tensor, values: Tensor, size: Dim, reduce: str) -> Tensor:
    """Return the product or extremum of the values at every place: of each segment's last one."""
    if reduce == "prod":
        order = argsort(places, 0)
    else:
        by_value = argsort(values, 0, descending=reduce == "amin")
        if reduce == "amin" and values.dtype in FLOATS:  # NaN comes last there too: it wins
            by_value = take(by_value, argsort(isnan(take(values, by_value, 0)), 0), 0)
        order = take(by_value, argsort(take(places, by_value, 0), 0), 0)
    ordered, chosen = take(places, order, 0), take(values, order, 0)
    if reduce == "prod":
        before = Tensor(build(ops.Pad((1,), (-1,), (0,)), ordered.node))
        first = (ordered != before) | (iota(ordered.shape, 0) == 0)
        chosen = linear_recurrence(where(first, 0, chosen), where(first, chosen, 0), 0)
    return _add_at(ordered, where(_last_of_equals(ordered), chosen, 0), size)


# -- along an axis, one index a row ---------------------------------------------------------------


def _rows(x: object, axis: int, index: object, what: str) -> tuple[Tensor, int, Tensor]:
    tensor = as_tensor(x)
    if tensor.ndim == 0:
        tensor = tensor.reshape(1)
    place = axis_of_elements(axis, tensor.ndim, what)
    picks = _indices(index, tensor.shape[place], what)
    if picks.ndim > 1:
        fail(f"{what}: takes indices in one axis, not {format_shape(picks.shape)}")
    return tensor, place, picks.ravel()


def _sources(source: object, x: Tensor, place: int, picks: Tensor, what: str) -> Tensor:
    given = as_tensor(source, dtype=x.dtype)
    wanted = (*x.shape[:place], picks.shape[0], *x.shape[place + 1 :])
    if given.ndim == 0:
        given = given.broadcast_to(wanted)
    if given.shape != wanted:
        fail(
            f"{what}: a source of shape {format_shape(given.shape)} does not fit; "
            f"{format_shape(wanted)} would"
        )
    return given


def index_select(x: object, axis: int, index: object) -> Tensor:
    """Return the slices of ``x`` along ``axis`` that ``index`` (n,) names."""
    tensor, place, picks = _rows(x, axis, index, "index_select")
    result = take(tensor, picks, place)
    return result.reshape(()) if as_tensor(x).ndim == 0 else result


def index_add(x: object, axis: int, index: object, source: object, alpha: object = 1) -> Tensor:
    """Return ``x`` with slice i of ``alpha * source`` added to its slice ``index[i]``."""
    tensor, place, picks = _rows(x, axis, index, "index_add")
    given = _sources(source, tensor, place, picks, "index_add")
    if not (isinstance(alpha, (int, float)) and alpha == 1):
        given = (given * alpha).astype(tensor.dtype)
    op = ops.ScatterAdd(place, tensor.shape[place])
    result = tensor + Tensor(build(op, given.node, picks.node))
    return result.reshape(as_tensor(x).shape)


def index_copy(x: object, axis: int, index: object, source: object) -> Tensor:
    """Return ``x`` with slice ``index[i]`` along ``axis`` replaced by slice i of ``source``."""
    tensor, place, picks = _rows(x, axis, index, "index_copy")
    given = _sources(source, tensor, place, picks, "index_copy")
    if picks.shape[0] == 0:
        return as_tensor(x)
    rows, values = moveaxis(tensor, place, 0), moveaxis(given, place, 0)
    result = moveaxis(_overwrite(rows, picks, values), 0, place)
    return result.reshape(as_tensor(x).shape)


def index_fill(x: object, axis: int, index: object, value: object) -> Tensor:
    """Return ``x`` with ``value`` in every slice along ``axis`` that ``index`` names."""
    tensor, place, picks = _rows(x, axis, index, "index_fill")
    size = tensor.shape[place]
    hit = _add_at(picks, full(picks.shape, 1, "int32"), size) > 0
    wide = hit.reshape(tuple(size if a == place else 1 for a in range(tensor.ndim)))
    filled = where(wide, as_tensor(value, dtype=tensor.dtype), tensor)
    return filled.reshape(as_tensor(x).shape)


def index_put(
    x: object, indices: Sequence[object], values: object, accumulate: bool = False
) -> Tensor:
    """Return ``x`` with ``x[indices] = values``, or ``+=`` with ``accumulate``.

    ``indices``: integer arrays for the first axes, which broadcast against each other.
    """
    tensor = as_tensor(x)
    count = len(indices)
    if not 0 < count <= tensor.ndim:
        fail(f"index_put: {count} indices for a tensor of rank {tensor.ndim}")
    place: Tensor | None = None
    inside: Tensor | None = None
    required: list[tuple[Tensor, Dim]] = []
    for a, index in enumerate(indices):
        given_index = _indices(index, tensor.shape[a], "index_put")
        required.append((given_index, tensor.shape[a]))
        picks = given_index.astype("int64")
        fits = (picks >= 0) & (picks < tensor.shape[a])
        step = picks * product(tensor.shape[a + 1 : count])
        place = step if place is None else place + step
        inside = fits if inside is None else inside & fits
    assert place is not None and inside is not None
    places = where(inside, place, -1)
    for given_index, size in required:
        _require(given_index, size, "index_put", places)
    rest = tensor.shape[count:]
    given = as_tensor(values, dtype=tensor.dtype).broadcast_to((*places.shape, *rest))
    rows = tensor.reshape((product(tensor.shape[:count]), *rest))
    given = given.reshape((places.size, *rest))
    if places.size == 0:
        return tensor
    if accumulate:
        result = rows + _add_at(places.ravel(), given, rows.shape[0])
    else:
        result = _overwrite(rows, places.ravel(), given)
    return result.reshape(tensor.shape)


# -- masks ----------------------------------------------------------------------------------------


def _mask(mask: object, what: str) -> Tensor:
    chosen = as_tensor(mask)
    if chosen.dtype != "bool":
        fail(f"{what}: needs a mask of bools, not {chosen.dtype}", GraphTypeError)
    return chosen


def masked_fill(x: object, mask: object, value: object) -> Tensor:
    """Return ``x`` with ``value`` where ``mask`` is true; the element type stays that of ``x``."""
    tensor = as_tensor(x)
    filler = as_tensor(value, dtype=tensor.dtype)
    if filler.ndim:
        fail(f"masked_fill: the value is one number, not {format_shape(filler.shape)}")
    return where(_mask(mask, "masked_fill"), filler, tensor)


def masked_scatter(x: object, mask: object, source: object) -> Tensor:
    """Return ``x`` with the elements of ``source``, in their order, where ``mask`` is true.

    ``source`` must hold as many elements as the mask chooses; where it does not, the last ones get
    its last element.
    """
    tensor, chosen = as_tensor(x), _mask(mask, "masked_scatter")
    given = as_tensor(source, dtype=tensor.dtype).ravel()
    shape = where(chosen, tensor, tensor).shape
    chosen = chosen.broadcast_to(shape)
    if given.size == 0:
        return tensor.broadcast_to(shape)
    number = cumsum(chosen.ravel().astype("int64"), 0) - 1
    picked = take(given, clip(number, 0, as_tensor(given.size) - 1), 0)
    return where(chosen, picked.reshape(shape), tensor)


def masked_select(x: object, mask: object) -> NoReturn:
    """Raise GraphTypeError: how many elements a mask chooses is not known before the call."""
    fail(
        "masked_select: the shape of the result depends on values, which a compiled graph cannot "
        "have; use where(mask, x, 0), or masked_fill",
        GraphTypeError,
    )


# -- counting -------------------------------------------------------------------------------------


def bincount(x: object, weights: object = None, minlength: Dim = 0) -> Tensor:
    """Return how often each of 0 to ``minlength - 1`` occurs in ``x`` (n,), or the weights' sums.

    The size of the result must be known, so ``minlength`` is its size: an element of ``x`` outside
    raises IndexRangeError.
    """
    tensor = as_tensor(x)
    if tensor.ndim != 1:
        fail(f"bincount: takes one axis, not {format_shape(tensor.shape)}")
    if isinstance(minlength, int) and minlength < 1 and tensor.shape != (0,):
        fail("bincount: the number of bins is not known; pass minlength, greater than any element")
    places = _indices(tensor, minlength, "bincount")
    if weights is None:
        return _add_at(places, full(places.shape, 1, "int64"), minlength)
    given = as_tensor(weights)
    if given.shape != places.shape:
        fail(
            f"bincount: weights of shape {format_shape(given.shape)} do not fit "
            f"{format_shape(places.shape)}"
        )
    return _add_at(places, _numbers(given), minlength)


def histc(x: object, bins: int = 100, min: object = 0, max: object = 0) -> Tensor:
    """Return how many elements fall in each of ``bins`` equal parts of ``[min, max]``.

    Equal bounds stand for those of the elements.  Elements outside and NaN do not count.
    """
    tensor = floating(x).ravel()
    if bins < 1:
        fail(f"histc: bins must be positive, not {bins}")
    low, high = (as_tensor(v, dtype=tensor.dtype) for v in (min, max))
    if tensor.shape != (0,):
        same = low == high
        low, high = where(same, tensor.min(), low), where(same, tensor.max(), high)
    same = low == high
    low, high = where(same, low - 1, low), where(same, high + 1, high)
    inside = (tensor >= low) & (tensor <= high)
    place = floor((where(inside, tensor, low) - low) * bins / (high - low)).astype("int64")
    places = clip(place, 0, bins - 1)
    return _add_at(places, inside.astype(tensor.dtype), bins)


def histogram(
    x: object, bins: object = 10, range: tuple[float, float] | None = None, weights: object = None
) -> tuple[Tensor, Tensor]:
    """Return the counts (or the weights' sums) in each bin, and the edges.

    ``bins``: a number of equal bins over ``range`` (None: from the least element to the greatest),
    or the increasing edges.  All bins are half-open but the last.
    """
    tensor = floating(x).ravel()
    if isinstance(bins, (int, np.integer)):
        if bins < 1:
            fail(f"histogram: bins must be positive, not {bins}")
        if range is None:
            low, high = tensor.min(), tensor.max()
            same = low == high
            low, high = where(same, low - 0.5, low), where(same, high + 0.5, high)
            edges = low + (high - low) * linspace(0.0, 1.0, int(bins) + 1, dtype=tensor.dtype)
            edges = where(iota(edges.shape, 0) == int(bins), high, edges)
        else:
            edges = linspace(range[0], range[1], int(bins) + 1, dtype=tensor.dtype)
    else:
        edges = as_tensor(bins, dtype=tensor.dtype)
    count = edges.shape[0] - 1
    inside = (tensor >= edges[0]) & (tensor <= edges[-1])
    places = clip(searchsorted(edges, tensor, side="right") - 1, 0, count - 1)
    given = ones_like(tensor, "int64") if weights is None else _numbers(as_tensor(weights)).ravel()
    return _add_at(places, where(inside, given, zeros_like(given)), count), edges


def nonzero(x: object) -> NoReturn:
    """Raise GraphTypeError: how many elements are not zero is not known before the call."""
    fail(
        "nonzero: the shape of the result depends on values, which a compiled graph cannot have; "
        "use where, count_nonzero, or topk of the mask",
        GraphTypeError,
    )


def unique(x: object) -> NoReturn:
    """Raise GraphTypeError: how many elements differ is not known before the call."""
    fail(
        "unique: the shape of the result depends on values, which a compiled graph cannot have; "
        "use sort, and compare neighbours",
        GraphTypeError,
    )


def index_reduce(
    x: object, axis: int, index: object, source: object, reduce: str, include_self: bool = True
) -> Tensor:
    """Return ``x`` with slices of ``source`` combined at ``index``; see `scatter_reduce`."""
    tensor, place, picks = _rows(x, axis, index, "index_reduce")
    given = _sources(source, tensor, place, picks, "index_reduce")
    wide = picks.reshape(tuple(-1 if a == place else 1 for a in range(tensor.ndim)))
    result = scatter_reduce(
        tensor, place, wide.broadcast_to(given.shape), given, reduce, include_self
    )
    return result.reshape(as_tensor(x).shape)


__all__ = [
    "bincount",
    "histc",
    "histogram",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_reduce",
    "index_select",
    "masked_fill",
    "masked_scatter",
    "masked_select",
    "nonzero",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "unique",
]
