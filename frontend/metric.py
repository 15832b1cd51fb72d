"""What a metric is: additive statistics in the graph, finished on the host.

A metric is a few sums over the batch, computed by the compiled program beside the loss, and a
formula that turns the sums over all batches into a number.  The result over a data set therefore
does not depend on how it was cut into batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..compiler.errors import GraphError
from ..compiler.ir import ops
from ..compiler.ir.graph import make
from ..compiler.ir.types import FLOATS, TensorType
from .tensor import Tensor, as_tensor

Sums = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A metric of a prediction against a target.

    ``statistics(prediction, target)`` gives tensors whose sums over batches ``finish`` turns into
    the value, a number or an array.  Those that ``collects`` names are not summed but joined along
    their first axis: the memory grows with the samples.  ``prediction`` and ``target`` are filled
    in by the training program where they are None.
    """

    name: str
    statistics: Callable[[Tensor, Tensor], dict[str, Tensor]]
    finish: Callable[[Sums], Any]
    prediction: Tensor | None = None
    target: Tensor | None = None
    collects: tuple[str, ...] = ()

    def bound_to(self, prediction: Tensor, target: Tensor) -> Metric:
        """Return this metric of ``prediction`` against ``target``, where it has none yet."""
        return replace(
            self,
            prediction=prediction if self.prediction is None else self.prediction,
            target=target if self.target is None else self.target,
        )

    def outputs(self) -> dict[str, Tensor]:
        """Return the statistics under the names of their program outputs, ``name.statistic``."""
        if self.prediction is None or self.target is None:
            raise GraphError(f"metric {self.name!r} has no prediction and target yet")
        found = self.statistics(self.prediction, self.target)
        return {f"{self.name}.{key}": value for key, value in found.items()}

    def collected(self) -> tuple[str, ...]:
        """Return the names of the outputs that are kept whole, sample by sample, not summed."""
        return tuple(f"{self.name}.{key}" for key in self.collects)

    def value(self, outputs: Mapping[str, np.ndarray]) -> Any:
        """Return the metric from (sums of) its program outputs, a float or an array.

        NaN where nothing was counted.
        """
        prefix = f"{self.name}."
        start = len(prefix)
        found = self.finish({k[start:]: v for k, v in outputs.items() if k.startswith(prefix)})
        return np.asarray(found) if np.ndim(found) else float(found)


def ratio(above: str, below: str = "count") -> Callable[[Sums], float]:
    """Return what divides one sum by another; NaN where that is 0."""

    def finish(sums: Sums) -> float:
        number = float(sums[below])
        return float(sums[above]) / number if number else math.nan

    return finish


def divide(a: Any, b: Any) -> Any:
    """Return ``a / b`` in float64, NaN or infinite without a word where ``b`` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(np.float64(a), np.float64(b))


def total(x: Tensor) -> Tensor:
    """Return the sum over all elements: int64 of bools, float64 of floats."""
    return x.astype("float64" if x.dtype in FLOATS else "int64").sum()


def count(x: Tensor) -> Tensor:
    """Return the number of elements, int64."""
    return as_tensor(x.size, dtype="int64")


def classes_of(prediction: Tensor, target: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return predicted and true class numbers of scores and of labels or one-hot rows."""
    if target.dtype not in FLOATS and target.ndim == prediction.ndim - 1:
        return prediction.argmax(axis), target
    if target.ndim == prediction.ndim:
        return prediction.argmax(axis), target.argmax(axis)
    raise GraphError(
        f"scores of shape {prediction.shape} do not fit labels of shape {target.shape}; labels "
        "without the class axis, or one-hot rows of the same shape, would fit"
    )


def is_binary(prediction: Tensor, target: Tensor) -> bool:
    """Return whether the prediction is the score of one class, the positive one."""
    return prediction.ndim == target.ndim and (prediction.ndim < 2 or prediction.shape[-1] == 1)


def class_numbers(count: Any) -> Tensor:
    """Return 0, 1, … ``count`` - 1, int64."""
    return Tensor(make(ops.Iota(TensorType("int64", (count,)), 0)))


def same_shape(true: Tensor, predicted: Tensor) -> Tensor:
    """Return ``true`` in the shape of ``predicted``: ``(n,)`` and ``(n, 1)`` must not broadcast."""
    if true.shape == predicted.shape:
        return true
    if true.size == predicted.size:
        return true.reshape(predicted.shape)
    raise GraphError(f"prediction {predicted.shape} and target {true.shape} differ in size")
