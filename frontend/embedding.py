"""Rows of a table chosen by integers, one by one or summed in bags, with PyTorch's arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.dims import format_shape
from ..compiler.ir.types import INTEGERS, Dim
from .creation import arange, equals_index, full, ones, zeros
from .elementwise import abs, maximum, power, stop_gradient, where
from .manipulation import take
from .state import Variable, register_effect
from .tensor import Tensor, as_tensor
from .tracing import build, fail

#: What PyTorch adds to a norm before it divides by it.
_NORM_EPSILON = 1e-7
_MODES = ("sum", "mean", "max")


@dataclass(frozen=True)
class _Lookup:
    """How rows are read: the arguments that `embedding` and `embedding_bag` share."""

    what: str
    padding_idx: int | None
    max_norm: float | None
    norm_type: float
    scale_grad_by_freq: bool

    def rows(self, weight: Tensor, places: Tensor) -> Tensor:
        """Return the rows of ``weight`` (rows, width) at ``places`` (...); (..., width)."""
        rows = take(weight, places, 0)
        if self.max_norm is not None:
            rows = self._limited(weight, places, rows)
        if self.scale_grad_by_freq:
            frequency = take(_counts(places, weight.shape[0], weight.dtype), places, 0)
            rows = _with_gradient_times(rows, (1.0 / frequency).expand_dims(-1))
        if self.padding_idx is None:
            return rows
        padding = (places == self.padding_idx).expand_dims(-1)
        return where(padding, stop_gradient(rows), rows)

    def _limited(self, weight: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """Return ``rows`` no longer than max_norm, and have the table keep them so."""
        limited = stop_gradient(rows * self._shrinkage(rows))
        limited = limited + (rows - stop_gradient(rows))
        if isinstance(weight, Variable):
            size = weight.shape[0]

            def shorten(table: Tensor) -> Tensor:
                used = _counts(places, size, table.dtype) > 0
                return table * where(used.expand_dims(-1), self._shrinkage(table), 1.0)

            register_effect(weight, limited.node, shorten)
        return limited

    def _shrinkage(self, rows: Tensor) -> Tensor:
        """Return what each row (..., width) is multiplied by; (..., 1)."""
        limit = self.max_norm
        assert limit is not None
        magnitude = abs(rows)
        if math.isinf(self.norm_type):
            length = magnitude.max(-1, keepdims=True)
        else:
            total = power(magnitude, self.norm_type).sum(-1, keepdims=True)
            length = power(total, 1.0 / self.norm_type)
        return where(length > limit, limit / (length + _NORM_EPSILON), 1.0)


def _with_gradient_times(x: Tensor, factor: Tensor) -> Tensor:
    """Return ``x``, whose cotangent is multiplied by ``factor``."""
    return stop_gradient(x) + (x - stop_gradient(x)) * stop_gradient(factor)


def _counts(places: Tensor, size: Dim, dtype: str) -> Tensor:
    """Return how often each of the integers below ``size`` occurs; (size,)."""
    flat = places.ravel()
    return _add_into(ones(flat.shape, dtype), flat, size)


def _add_into(updates: Tensor, places: Tensor, size: Dim) -> Tensor:
    """Return zeros (size, ...) with ``updates`` (n, ...) added at ``places`` (n)."""
    return Tensor(build(ops.ScatterAdd(0, size), updates.node, places.node))


def _lookup(
    what: str,
    input: object,
    weight: object,
    padding_idx: int | None,
    max_norm: float | None,
    norm_type: float,
    scale_grad_by_freq: bool,
) -> tuple[Tensor, Tensor, _Lookup]:
    places, table = as_tensor(input), as_tensor(weight)
    if places.dtype not in INTEGERS:
        fail(f"{what}: needs integer indices, not {places.dtype}", GraphTypeError)
    if table.ndim != 2:
        fail(f"{what}: the weight is (rows, width), not {format_shape(table.shape)}")
    padding_idx = checked_padding(what, padding_idx, table.shape[0])
    if max_norm is not None and norm_type <= 0:
        fail(f"{what}: norm_type must be positive, not {norm_type}")
    how = _Lookup(what, padding_idx, max_norm, norm_type, scale_grad_by_freq)
    return places, table, how


def checked_padding(what: str, padding_idx: int | None, rows: Dim) -> int | None:
    """Return ``padding_idx`` counted from the front; GraphError where it leaves the rows."""
    if padding_idx is None or not isinstance(rows, int):
        return padding_idx
    if not -rows <= padding_idx < rows:
        fail(f"{what}: padding_idx {padding_idx} leaves the {rows} rows")
    return padding_idx % rows


def embedding(
    input: object,
    weight: object,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Return the rows of ``weight`` at ``input``.

    Parameters
    ----------
    input : (...), integer
        Rows outside of the table raise IndexRangeError at run time.
    weight : (rows, width), float
    padding_idx : int, optional
        The gradient of this row is zero.
    max_norm, norm_type : float
        Rows whose ``norm_type``-norm is above ``max_norm`` are shortened to it, in a `Variable` for
        good, by each call of the compiled program; the gradient is that of the lookup alone.
    scale_grad_by_freq : bool
        Divide the gradient of a row by how often it is looked up.
    sparse : bool
        Has no effect.

    Returns
    -------
    Tensor
        (..., width).

    Raises
    ------
    GraphError, GraphTypeError
        Arguments that do not fit.
    """
    del sparse
    places, table, how = _lookup(
        "embedding", input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq
    )
    return how.rows(table, places)


def embedding_bag(
    input: object,
    weight: object,
    offsets: object = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: object = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Return the sum, mean or maximum of each bag of rows of ``weight``; empty bags give zeros.

    Parameters
    ----------
    input : (bags, n) or (total,), integer
        Bags of one size, or one after the other.
    weight : (rows, width), float
    offsets : (bags,), integer
        Where each bag of a ``(total,)`` input begins; 0 first, not decreasing.
    mode : str
        ``"sum"``, ``"mean"`` or ``"max"``.
    per_sample_weights : as ``input``, float
        What each row is multiplied by, for ``"sum"`` alone.
    include_last_offset : bool
        ``offsets`` ends with the end of the last bag.
    padding_idx : int, optional
        This row counts in no bag.
    max_norm, norm_type, scale_grad_by_freq, sparse
        As for `embedding`.

    Returns
    -------
    Tensor
        (bags, width).

    Raises
    ------
    GraphError, GraphTypeError
        Arguments that do not fit.
    """
    del sparse
    what = "embedding_bag"
    places, table, how = _lookup(
        what, input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq
    )
    if mode not in _MODES:
        fail(f"{what}: mode {mode!r} is not one of {', '.join(_MODES)}")
    rows = how.rows(table, places)
    counted = None if how.padding_idx is None else places != how.padding_idx
    if per_sample_weights is not None:
        weights = as_tensor(per_sample_weights, dtype=table.dtype)
        if mode != "sum":
            fail(f"{what}: per_sample_weights go with mode 'sum', not {mode!r}")
        if weights.shape != places.shape:
            fail(
                f"{what}: per_sample_weights {format_shape(weights.shape)} do not fit indices "
                f"{format_shape(places.shape)}; they must be equal"
            )
        rows = rows * weights.expand_dims(-1)
    if places.ndim == 2:
        if offsets is not None:
            fail(f"{what}: indices {format_shape(places.shape)} are bags already; offsets is None")
        return _reduce_even_bags(rows, counted, mode)
    if places.ndim != 1 or offsets is None:
        fail(
            f"{what}: indices are (bags, n), or (total,) with offsets, not "
            f"{format_shape(places.shape)}"
        )
    bag, bags, inside = _bags(what, as_tensor(offsets), places.shape[0], include_last_offset)
    if inside is not None:
        counted = inside if counted is None else counted & inside
    return _reduce_bags(rows, bag, bags, counted, mode)


def _bags(
    what: str, offsets: Tensor, total: Dim, include_last_offset: bool
) -> tuple[Tensor, Dim, Tensor | None]:
    """Return the bag of each index (total,), how many there are, and what lies in any."""
    if offsets.ndim != 1 or offsets.dtype not in INTEGERS:
        fail(
            f"{what}: offsets are integers (bags,), not {offsets.dtype}"
            f"{format_shape(offsets.shape)}"
        )
    place, inside = arange(total), None
    if include_last_offset:
        if offsets.shape[0] == 0:
            fail(f"{what}: include_last_offset needs at least one offset")
        offsets, end = offsets[:-1], offsets[-1]
        inside = place < end
    begun = offsets.astype("int64").expand_dims(0) <= place.expand_dims(1)
    return begun.astype("int64").sum(1) - 1, offsets.shape[0], inside


def _reduce_even_bags(rows: Tensor, counted: Tensor | None, mode: str) -> Tensor:
    """Return ``rows`` (bags, n, width) reduced over n, those that are ``counted``."""
    bags, n, width = rows.shape
    if n == 0:
        return zeros((bags, width), rows.dtype)
    chosen = None if counted is None else counted.expand_dims(-1)
    if mode == "max":
        return rows.max(1) if chosen is None else _maximum(rows, chosen, 1)
    if chosen is None:
        return rows.mean(1) if mode == "mean" else rows.sum(1)
    total = where(chosen, rows, 0.0).sum(1)
    if mode == "sum":
        return total
    return total / maximum(chosen.astype(rows.dtype).sum(1), 1.0)


def _reduce_bags(rows: Tensor, bag: Tensor, bags: Dim, counted: Tensor | None, mode: str) -> Tensor:
    """Return ``rows`` (total, width) reduced over those of one ``bag`` that are ``counted``."""
    if bags == 0 or rows.shape[0] == 0:
        return zeros((bags, rows.shape[1]), rows.dtype)
    if mode == "max":
        chosen = equals_index(bag, bags, 0)
        chosen = chosen if counted is None else chosen & counted
        return _maximum(rows, chosen.expand_dims(-1), 1)
    kept = rows if counted is None else where(counted.expand_dims(-1), rows, 0.0)
    total = _add_into(kept, bag, bags)
    if mode == "sum":
        return total
    one = full(bag.shape, 1.0, rows.dtype) if counted is None else counted.astype(rows.dtype)
    return total / maximum(_add_into(one, bag, bags), 1.0).expand_dims(-1)


def _maximum(rows: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """Return the maximum over ``axis`` of the ``chosen`` rows, and zeros where there is none."""
    found = where(chosen, rows, -math.inf).max(axis)
    return where(chosen.any(axis), found, 0.0)
