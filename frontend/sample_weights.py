"""Weights of samples and classes: how much each counts in the loss of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..compiler.errors import GraphError, InputError, locate
from ..compiler.ir.graph import Node
from ..compiler.ir.types import INTEGERS
from . import functional as F
from .batch_sources import Source, samples_in
from .tensor import Tensor
from .tensor import input as declare_input

#: The input that holds the weights.
SAMPLE_WEIGHT = "sample_weight"

#: By class number, one for each class, or "balanced": samples / (classes * samples of the class).
ClassWeight = Mapping[int, float] | Sequence[float] | np.ndarray | str


def weigh_loss(loss: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ w·loss / Σ w, 0-d, and Σ w, of a loss ``(batch, …)``: w is the new input.

    Axes after the first are averaged.  Where all weights are 0 the loss is 0.  Raises GraphError
    for a 0-d loss.
    """
    if not loss.ndim:
        raise GraphError(
            locate(
                "weighted=True needs one loss a sample, (batch,): use reduction='none'",
                loss.node.source,
            )
        )
    each = loss.mean(tuple(range(1, loss.ndim))) if loss.ndim > 1 else loss
    weight = declare_input(SAMPLE_WEIGHT, each.shape, dtype=each.dtype)
    total = weight.sum()
    nothing = total == 0
    # A sample of weight 0 must not matter at all: 0 times an infinite loss would be NaN.
    terms = F.where(weight == 0, 0.0, weight * each)
    return F.where(nothing, 0.0, terms.sum() / F.where(nothing, 1.0, total)), total


def add_weights(
    arrays: Mapping[str, Any],
    inputs: Mapping[str, Node],
    sample_weight: object = None,
    class_weight: ClassWeight | None = None,
) -> dict[str, Any]:
    """Return ``arrays`` with an array of weights, 1 where neither they nor the arguments say so.

    Raises
    ------
    InputError
        The weights do not fit the samples, or there is no single input of class labels.
    """
    count = samples_in(arrays)
    given = arrays.get(SAMPLE_WEIGHT) if sample_weight is None else sample_weight
    weights = np.ones(count) if given is None else np.asarray(given, "float64")
    if weights.shape != (count,):
        raise InputError(f"sample_weight of shape {weights.shape} does not fit {count} samples")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise InputError("sample_weight must be finite and not negative")
    if class_weight is not None:
        labels = np.asarray(arrays[_label_input(inputs)])
        weights = weights * _weight_of_classes(labels, class_weight)[labels]
    return {**arrays, SAMPLE_WEIGHT: weights.astype(inputs[SAMPLE_WEIGHT].dtype)}


def _label_input(inputs: Mapping[str, Node]) -> str:
    found = [n for n, x in inputs.items() if x.dtype in INTEGERS and x.type.rank == 1]
    if len(found) != 1:
        raise InputError(
            "class_weight needs one input of integer labels (batch,); there are "
            + (", ".join(found) or "none")
        )
    return found[0]


def _weight_of_classes(labels: np.ndarray, class_weight: ClassWeight) -> np.ndarray:
    """Return the weight of every class up to the largest label."""
    if labels.size and labels.min() < 0:
        raise InputError("class_weight: a label is negative")
    count = int(labels.max(initial=-1)) + 1
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise InputError(f"class_weight {class_weight!r} is not 'balanced' or weights")
        seen = np.bincount(labels, minlength=count)
        return labels.size / (max(int((seen > 0).sum()), 1) * np.maximum(seen, 1))
    if isinstance(class_weight, Mapping):
        weights = np.ones(max([count, *(k + 1 for k in class_weight)]))
        for label, weight in class_weight.items():
            weights[label] = weight
        return weights
    weights = np.asarray(class_weight, "float64")
    if weights.ndim != 1 or len(weights) < count:
        raise InputError(f"class_weight holds {weights.shape} weights; labels go to {count - 1}")
    return weights


class WeighingSource:
    """Epochs of another source, whose batches are given weights."""

    def __init__(
        self, source: Source, inputs: Mapping[str, Node], class_weight: ClassWeight | None
    ) -> None:
        self.source, self.inputs, self.class_weight = source, inputs, class_weight
        self.length = source.length

    def epoch(self, number: int, first: int) -> Iterator[tuple[dict[str, Any], int]]:
        for arrays, size in self.source.epoch(number, first):
            yield add_weights(arrays, self.inputs, None, self.class_weight), size
