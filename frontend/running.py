"""Values that run along an axis: cumulative sums, products, extrema; recurrences, differences."""

from __future__ import annotations

from ..compiler.ir import ops
from ..compiler.ir.construct import shift
from ..compiler.ir.infer import broadcast_shapes
from ..compiler.ir.types import FLOATS
from .creation import iota, ones_like
from .elementwise import exp, isfinite, isnan, log, minimum, stop_gradient, where
from .manipulation import concatenate
from .promotion import unify
from .shaping import axis_of_elements, normalize_axis
from .tensor import Tensor, as_tensor, floating, operand_of
from .tracing import build, fail


def linear_recurrence(a: object, b: object, axis: int = -1, reverse: bool = False) -> Tensor:
    """Return ``y[i] = a[i] * y[i-1] + b[i]`` along ``axis``, beginning with ``y[0] = b[0]``.

    ``reverse`` begins at the end: ``y[i] = a[i] * y[i+1] + b[i]``.  ``a`` and ``b`` broadcast.  A
    constant ``a`` gives an exponential moving average or a discounted return.
    """
    factors, terms = unify(operand_of(a), operand_of(b), numeric=True)
    try:
        shape = broadcast_shapes(factors.shape, terms.shape)
    except ValueError as error:
        fail(f"linear_recurrence: {error}")
    factor, term = (Tensor(x).broadcast_to(shape) for x in (factors, terms))
    place = axis_of_elements(axis, term.ndim, "linear_recurrence")
    if term.ndim == 0:
        return term
    return Tensor(build(ops.LinearRecurrence(place, reverse), factor.node, term.node))


def _numeric(x: object, dtype: object) -> Tensor:
    tensor = as_tensor(x, dtype=dtype)
    return tensor if tensor.dtype in FLOATS else tensor.astype("int64")


def cumsum(x: object, axis: int = -1, reverse: bool = False, dtype: object = None) -> Tensor:
    """Return the sums of all elements along ``axis`` so far; bools and integers give int64.

    ``reverse``: from each element to the end.  ``dtype``: convert to it first.
    """
    tensor = _numeric(x, dtype)
    return linear_recurrence(ones_like(tensor), tensor, axis, reverse)


def cumprod(x: object, axis: int = -1, reverse: bool = False, dtype: object = None) -> Tensor:
    """Return the products of all elements along ``axis`` so far; bools and integers give int64.

    The gradient divides by nothing: it holds where elements are zero.
    """
    tensor = _numeric(x, dtype)
    place = axis_of_elements(axis, tensor.ndim, "cumprod")
    if tensor.ndim == 0:
        return tensor
    first = iota(tensor.shape, place) == (tensor.shape[place] - 1 if reverse else 0)
    return linear_recurrence(tensor, where(first, tensor, 0), place, reverse)


def cummax(x: object, axis: int = -1, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """Return the maximum along ``axis`` so far, and where it is; of equals the last one.

    NaN once there was one.
    """
    return _extremum("max", x, axis, reverse)


def cummin(x: object, axis: int = -1, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """Return the minimum along ``axis`` so far, and where it is; of equals the last one.

    NaN once there was one.
    """
    return _extremum("min", x, axis, reverse)


def _running(kind: str, x: Tensor, place: int, reverse: bool) -> Tensor:
    return Tensor(build(ops.RunningExtremum(kind, place, reverse), x.node))


def _extremum(kind: str, x: object, axis: int, reverse: bool) -> tuple[Tensor, Tensor]:
    tensor = as_tensor(x)
    place = axis_of_elements(axis, tensor.ndim, f"cum{kind}")
    if tensor.ndim == 0:
        return tensor, Tensor((tensor != tensor).astype("int64").node)
    given = tensor.astype("int32") if tensor.dtype == "bool" else tensor
    best = _running(kind, given, place, reverse)
    leads = given == best
    if given.dtype in FLOATS:
        leads = leads | isnan(given)
    position = iota(tensor.shape, place)
    if reverse:
        at = _running("min", where(leads, position, tensor.shape[place]), place, True)
    else:
        at = _running("max", where(leads, position, -1), place, False)
    return best.astype(tensor.dtype), at


def logcumsumexp(x: object, axis: int = -1, reverse: bool = False) -> Tensor:
    """Return log(Σ exp) of all elements along ``axis`` so far, without overflow.

    With the maximum m so far, ``r[i] = exp(m[i-1] - m[i]) r[i-1] + exp(x[i] - m[i])`` runs, and the
    result is ``m + log r``.
    """
    tensor = floating(x)
    place = axis_of_elements(axis, tensor.ndim, "logcumsumexp")
    if tensor.ndim == 0:
        return tensor
    peak = stop_gradient(_running("max", tensor, place, reverse))
    peak = where(isfinite(peak), peak, 0)
    before = Tensor(shift(peak.node, place, -1 if reverse else 1))
    decay = exp(minimum(before - peak, 0))
    return log(linear_recurrence(decay, exp(tensor - peak), place, reverse)) + peak


def diff(
    x: object, n: int = 1, axis: int = -1, prepend: object = None, append: object = None
) -> Tensor:
    """Return the ``n``-th differences of neighbours along ``axis``; of bools, whether they differ.

    ``prepend`` and ``append`` are joined to ``x`` first; scalars count as one element a row.
    """
    tensor = as_tensor(x)
    if tensor.ndim == 0:
        fail("diff: takes at least one axis, not a scalar")
    if n < 0:
        fail(f"diff: n must not be negative, not {n}")
    place = normalize_axis(axis, tensor.ndim, "diff")
    if n == 0:
        return tensor

    def piece(value: object) -> Tensor:
        given = as_tensor(value, tensor)
        single = (*tensor.shape[:place], 1, *tensor.shape[place + 1 :])
        return given.broadcast_to(single) if given.ndim == 0 else given

    parts = [
        *([] if prepend is None else [piece(prepend)]),
        tensor,
        *([] if append is None else [piece(append)]),
    ]
    if len(parts) > 1:
        tensor = concatenate(parts, place)
    rows = (slice(None),) * place
    for _ in range(n):
        if tensor.shape[place] == 0:
            break
        later, earlier = tensor[*rows, 1:], tensor[*rows, :-1]
        tensor = later != earlier if tensor.dtype == "bool" else later - earlier
    return tensor


def _panels(y: object, x: object, dx: object, axis: int, what: str) -> tuple[Tensor, int]:
    """Return the areas between neighbours, and the axis from the front."""
    heights = floating(y)
    if heights.ndim == 0:
        fail(f"{what}: takes at least one axis, not a scalar")
    place = normalize_axis(axis, heights.ndim, what)
    widths: object = dx
    if x is not None:
        points = as_tensor(x)
        if points.ndim == 1 and heights.ndim > 1:
            tail = (1,) * (heights.ndim - place - 1)
            points = points.reshape((*points.shape, *tail))
        widths = diff(points, axis=place - heights.ndim)
    rows = (slice(None),) * place
    if heights.shape[place] == 0:
        return heights, place
    return (heights[*rows, 1:] + heights[*rows, :-1]) * 0.5 * widths, place


def trapezoid(y: object, x: object = None, dx: object = 1.0, axis: int = -1) -> Tensor:
    """Return the integral of ``y`` along ``axis`` by the trapezoid rule, at ``x`` or ``dx`` apart.

    ``x``: the points, of one axis or of the shape of ``y``.
    """
    areas, place = _panels(y, x, dx, axis, "trapezoid")
    return areas.sum(place)


def cumulative_trapezoid(y: object, x: object = None, dx: object = 1.0, axis: int = -1) -> Tensor:
    """Return the integrals of ``y`` up to each point but the first; see `trapezoid`."""
    areas, place = _panels(y, x, dx, axis, "cumulative_trapezoid")
    return cumsum(areas, place)


__all__ = [
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "cumulative_trapezoid",
    "diff",
    "linear_recurrence",
    "logcumsumexp",
    "trapezoid",
]
