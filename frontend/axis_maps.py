"""Linear maps along one axis whose every result is a weighted sum of few elements."""

from __future__ import annotations

import numpy as np

from ..compiler.ir.types import Dim
from .contraction import contract
from .manipulation import take
from .tensor import Tensor, constant

#: Axes up to this size are multiplied with a matrix: over so few, mostly zero, weights a matrix
#: product costs less than gathering, and far less than the scattering of its gradient.
_DENSE = 256


def map_axis(x: Tensor, axis: int, places: np.ndarray, weights: np.ndarray) -> Tensor:
    """Return ``y[..., i, ...] = sum over j of weights[i, j] * x[..., places[i, j], ...]``.

    ``places``, ``weights``: (size of the result, taps); places lie on the axis, of known size.
    """
    size = x.shape[axis]
    assert isinstance(size, int), "the places are known, so is the axis"
    if np.array_equal(places, np.arange(size)[:, None]) and (weights == 1).all():
        return x
    if size <= _DENSE:
        matrix = np.zeros((len(places), size))
        np.add.at(matrix, (np.arange(len(places))[:, None], places), weights)
        return multiply_axis(x, axis, matrix)
    wide: list[Dim] = [1] * x.ndim
    wide[axis] = len(places)
    total: Tensor | None = None
    for tap in range(places.shape[1]):
        weight = constant(weights[:, tap].reshape(wide), x.dtype)  # type: ignore[arg-type]
        part = take(x, places[:, tap], axis) * weight
        total = part if total is None else total + part
    assert total is not None
    return total


def multiply_axis(x: Tensor, axis: int, matrix: np.ndarray) -> Tensor:
    """Return the product of ``matrix`` (n, m) with an axis of size m, which becomes n."""
    labels = tuple(f"a{i}" for i in range(x.ndim))
    output = (*labels[:axis], "out", *labels[axis + 1 :])
    right = constant(matrix, x.dtype).node
    return Tensor(contract(x.node, labels, right, ("out", labels[axis]), output, "map_axis"))
