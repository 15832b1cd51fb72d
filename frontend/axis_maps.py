"""Linear maps along one axis whose every result is a weighted sum of few elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..compiler.ir.types import Dim
from .contraction import contract
from .custom_gradient import custom_gradient
from .manipulation import take
from .padding import pad_axes
from .tensor import Tensor, constant

#: Axes of up to so many elements are multiplied with a matrix, mostly zeros: a product runs at the
#: speed of the chip, and what is loaded from places in a table takes a pass over memory per tap.
_DENSE = 128


def map_axis(x: Tensor, axis: int, places: np.ndarray, weights: np.ndarray) -> Tensor:
    """Return ``y[..., i, ...] = sum over j of weights[i, j] * x[..., places[i, j], ...]``.

    ``places``, ``weights``: (size of the result, taps); places beyond the axis, whose size is
    known, stand for its ends.
    """
    size = x.shape[axis]
    assert isinstance(size, int), "the places are known, so is the axis"
    if np.array_equal(places, np.arange(size)[:, None]) and (weights == 1).all():
        return x
    phases = _phases(places, weights, size)
    if phases is not None:
        return _sum_phases(x, axis, *phases)
    places = np.clip(places, 0, size - 1)
    if size <= _DENSE:
        matrix = np.zeros((len(places), size))
        np.add.at(matrix, (np.arange(len(places))[:, None], places), weights)
        return _multiply_axis(x, axis, matrix)
    back = _transposed(places, weights, size)

    @custom_gradient
    def mapped(given: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return _sum_taps(given, axis, places, weights), lambda g: _sum_taps(g, axis, *back)

    return mapped(x)


def _phases(
    places: np.ndarray, weights: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return distances and weights (phases, taps) that hold at every element, or None.

    Where an axis grows by a whole number s, results s u to s u + s - 1 may all be the same function
    of what surrounds element u.
    """
    count, taps = places.shape
    if count % size or count == size:
        return None
    shape = (size, count // size, taps)
    distances = places.reshape(shape) - np.arange(size)[:, None, None]
    factors = weights.reshape(shape)
    if (distances != distances[0]).any() or not np.allclose(factors, factors[0], 0.0, 1e-12):
        return None
    return distances[0], factors[0]


def _sum_phases(x: Tensor, axis: int, distances: np.ndarray, weights: np.ndarray) -> Tensor:
    """Return the map as a sum of shifted tensors, each times one number for each phase."""
    size = x.shape[axis]
    low, high = max(0, -int(distances.min())), max(0, int(distances.max()))
    pairs = [(0, 0)] * x.ndim
    pairs[axis] = (low, high)
    padded = pad_axes(x, pairs, "replicate")
    before = (slice(None),) * axis
    total: Tensor | None = None
    for distance in np.unique(distances):
        factors = np.where(distances == distance, weights, 0.0).sum(1)
        shifted = padded[*before, int(distance) + low : size + (int(distance) + low)]
        wide = [1] * (x.ndim + 1)
        wide[axis + 1] = len(factors)
        part = shifted.expand_dims(axis + 1) * constant(factors.reshape(wide), x.dtype)
        total = part if total is None else total + part
    assert total is not None
    return total.reshape((*x.shape[:axis], size * len(weights), *x.shape[axis + 1 :]))


def _sum_taps(x: Tensor, axis: int, places: np.ndarray, weights: np.ndarray) -> Tensor:
    wide: list[Dim] = [1] * x.ndim
    wide[axis] = len(places)
    total: Tensor | None = None
    for tap in range(places.shape[1]):
        weight = constant(weights[:, tap].reshape(wide), x.dtype)  # type: ignore[arg-type]
        part = take(x, places[:, tap], axis) * weight
        total = part if total is None else total + part
    assert total is not None
    return total


def _transposed(
    places: np.ndarray, weights: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return places and weights of the transposed map, which the gradient follows."""
    sums: list[dict[int, float]] = [{} for _ in range(size)]
    for result, (row, factors) in enumerate(zip(places, weights, strict=True)):
        for place, factor in zip(row, factors, strict=True):
            if factor:
                sums[place][result] = sums[place].get(result, 0.0) + float(factor)
    taps = max(1, *(len(terms) for terms in sums))
    back = np.zeros((size, taps), np.int64), np.zeros((size, taps))
    for place, terms in enumerate(sums):
        for tap, (result, factor) in enumerate(sorted(terms.items())):
            back[0][place, tap], back[1][place, tap] = result, factor
    return back


def _multiply_axis(x: Tensor, axis: int, matrix: np.ndarray) -> Tensor:
    """Return the product of ``matrix`` (n, m) with an axis of size m, which becomes n."""
    labels = tuple(f"a{i}" for i in range(x.ndim))
    output = (*labels[:axis], "out", *labels[axis + 1 :])
    right = constant(matrix, x.dtype).node
    return Tensor(contract(x.node, labels, right, ("out", labels[axis]), output, "map_axis"))
