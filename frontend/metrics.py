"""Metrics: additive statistics in the graph, finished on the host.

A metric is a few sums over the batch, computed by the compiled program beside the loss, and a
formula that turns the sums over all batches into a number.  The result over a data set therefore
does not depend on how it was cut into batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..compiler.errors import GraphError
from ..compiler.ir import ops
from ..compiler.ir.graph import make, topological
from ..compiler.ir.types import FLOATS, TensorType
from .tensor import Tensor, apply, as_tensor

Sums = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A metric of a prediction against a target.

    ``statistics(prediction, target)`` gives tensors whose sums over batches ``finish`` turns into
    the value.  ``prediction`` and ``target`` are filled in by the training program where they are
    None.
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

    def value(self, outputs: Mapping[str, np.ndarray]) -> float:
        """Return the metric from (sums of) its program outputs; NaN where nothing was counted."""
        prefix = f"{self.name}."
        start = len(prefix)
        return float(
            self.finish({k[start:]: v for k, v in outputs.items() if k.startswith(prefix)})
        )


def _ratio(above: str, below: str = "count") -> Callable[[Sums], float]:
    def finish(sums: Sums) -> float:
        count = float(sums[below])
        return float(sums[above]) / count if count else math.nan

    return finish


def _divide(a: Any, b: Any) -> Any:
    """Return ``a / b`` in float64, NaN or infinite without a word where ``b`` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(np.float64(a), np.float64(b))


def _total(x: Tensor) -> Tensor:
    """Return the sum over all elements: int64 of bools, float64 of floats."""
    return x.astype("float64" if x.dtype in FLOATS else "int64").sum()


def _count(x: Tensor) -> Tensor:
    return as_tensor(x.size, dtype="int64")


def _classes(prediction: Tensor, target: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return predicted and true class numbers of scores and of labels or one-hot rows."""
    if target.dtype not in FLOATS and target.ndim == prediction.ndim - 1:
        return prediction.argmax(axis), target
    if target.ndim == prediction.ndim:
        return prediction.argmax(axis), target.argmax(axis)
    raise GraphError(
        f"scores of shape {prediction.shape} do not fit labels of shape {target.shape}; labels "
        "without the class axis, or one-hot rows of the same shape, would fit"
    )


def _is_binary(prediction: Tensor, target: Tensor) -> bool:
    return prediction.ndim == target.ndim and (prediction.ndim < 2 or prediction.shape[-1] == 1)


def accuracy(
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    axis: int = -1,
    threshold: float = 0.5,
    name: str = "accuracy",
) -> Metric:
    """Return the share of right classes.

    ``prediction``: scores with the classes along ``axis``; or, where it is of one axis or its last
    axis is of size 1, the score of the positive class, which is compared to ``threshold`` (0.5 for
    probabilities, 0 for logits).  ``target``: integer labels, one-hot rows, or 0 and 1.
    """

    def statistics(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if _is_binary(scores, labels):
            right = (scores > threshold) == labels.astype("bool")
        else:
            predicted, true = _classes(scores, labels, axis)
            right = predicted == true
        return {"right": _total(right), "count": _count(right)}

    return Metric(name, statistics, _ratio("right"), prediction, target)


def top_k_accuracy(
    k: int = 5,
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    name: str | None = None,
) -> Metric:
    """Return the share of labels with fewer than ``k`` classes scored above them.

    ``prediction``: scores ``(…, classes)``; ``target``: integer labels ``(…)``.
    """

    def statistics(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        is_label = _class_numbers(scores) == labels.expand_dims(-1)
        own = apply("where", is_label, scores, 0.0).sum(-1, keepdims=True)
        above = (scores > own).astype("int64").sum(-1)
        right = (above < k) & (own == own).squeeze(-1)
        return {"right": _total(right), "count": _count(right)}

    return Metric(name or f"top_{k}_accuracy", statistics, _ratio("right"), prediction, target)


def _class_numbers(scores: Tensor) -> Tensor:
    return Tensor(make(ops.Iota(TensorType("int64", (scores.shape[-1],)), 0)))


def _mean_of(name: str, error: Callable[[Tensor], Tensor], root: bool = False) -> Callable:
    def metric(
        prediction: Tensor | None = None, target: Tensor | None = None, *, name: str = name
    ) -> Metric:
        def statistics(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
            errors = error(predicted - _like(true, predicted))
            return {"error": _total(errors), "count": _count(errors)}

        mean = _ratio("error")
        finish = (lambda sums: np.sqrt(mean(sums))) if root else mean
        return Metric(name, statistics, finish, prediction, target)

    return metric


def _like(true: Tensor, predicted: Tensor) -> Tensor:
    """Return ``true`` in the shape of ``predicted``: ``(n,)`` and ``(n, 1)`` must not broadcast."""
    if true.shape == predicted.shape:
        return true
    if true.size == predicted.size:
        return true.reshape(predicted.shape)
    raise GraphError(f"prediction {predicted.shape} and target {true.shape} differ in size")


mean_absolute_error = _mean_of("mae", Tensor.abs)
mean_squared_error = _mean_of("mse", Tensor.square)
root_mean_squared_error = _mean_of("rmse", Tensor.square, root=True)


def r2_score(
    prediction: Tensor | None = None, target: Tensor | None = None, *, name: str = "r2"
) -> Metric:
    """Return the coefficient of determination, 1 - Σ(y - ŷ)² / Σ(y - mean y)²."""

    def statistics(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
        y = _like(true, predicted).astype("float64")
        residual = (y - predicted.astype("float64")).square()
        return {
            "residual": residual.sum(),
            "sum": y.sum(),
            "squares": y.square().sum(),
            "count": _count(y),
        }

    def finish(sums: Sums) -> Any:
        spread = sums["squares"] - _divide(sums["sum"] ** 2, sums["count"])
        return 1.0 - _divide(sums["residual"], spread)

    return Metric(name, statistics, finish, prediction, target)


def _hits(axis: int, threshold: float) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """Return the counts of true positives, false positives and misses (of each class)."""

    def statistics(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if _is_binary(scores, labels):
            said, true = scores > threshold, labels.astype("bool")
            over = None
        else:
            predicted, label = _classes(scores, labels, axis)
            numbers = Tensor(make(ops.Iota(TensorType("int64", (scores.shape[axis],)), 0)))
            said = predicted.expand_dims(-1) == numbers
            true = label.expand_dims(-1) == numbers
            over = tuple(range(said.ndim - 1))
        counted = {"hits": said & true, "false": said & ~true, "missed": ~said & true}
        return {key: x.astype("int64").sum(over) for key, x in counted.items()}

    return statistics


#: Name -> the score of each class from hits, false positives and misses.
_SCORES: dict[str, Callable[..., np.ndarray]] = {
    "precision": lambda hits, false, missed: _divide(hits, hits + false),
    "recall": lambda hits, false, missed: _divide(hits, hits + missed),
    "f1": lambda hits, false, missed: _divide(2 * hits, 2 * hits + false + missed),
}


def _score(kind: str) -> Callable:
    def metric(
        prediction: Tensor | None = None,
        target: Tensor | None = None,
        *,
        average: str = "macro",
        axis: int = -1,
        threshold: float = 0.5,
        name: str = kind,
    ) -> Metric:
        if average not in ("macro", "micro"):
            raise ValueError(f"average {average!r} is not 'macro' or 'micro'")

        def finish(sums: Sums) -> Any:
            counts = [np.asarray(sums[key], "float64") for key in ("hits", "false", "missed")]
            if average == "micro":
                counts = [count.sum() for count in counts]
            seen = sum(counts) > 0
            score = np.nan_to_num(_SCORES[kind](*counts))
            return score[seen].mean() if np.ndim(score) else score

        return Metric(name, _hits(axis, threshold), finish, prediction, target)

    metric.__name__ = metric.__qualname__ = kind
    metric.__doc__ = (
        f"Return the {kind} of the positive class, or the average over the classes that occur.\n\n"
        "Scores and labels are as for `accuracy`; a class without a denominator counts as 0."
    )
    return metric


precision = _score("precision")
recall = _score("recall")
f1 = _score("f1")

#: What a metric may be called where a name stands for it.
METRICS: dict[str, Callable[..., Metric]] = {
    "accuracy": accuracy,
    "acc": accuracy,
    "top_5_accuracy": top_k_accuracy,
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "r2": r2_score,
    "precision": precision,
    "recall": recall,
    "f1": f1,
}


def resolve_metrics(
    metrics: Sequence[str | Metric] | Mapping[str, Metric],
    loss: Tensor,
    outputs: Mapping[str, Tensor],
) -> tuple[Metric, ...]:
    """Return metrics with their predictions and targets.

    A metric that names none is of the first of ``outputs``, against the one input that the loss
    reads and that output does not.

    Raises
    ------
    GraphError
        A name is unknown, there is no output, or the target is ambiguous.
    """
    items = (
        [replace(metric, name=name) for name, metric in metrics.items()]
        if isinstance(metrics, Mapping)
        else [_named(metric) for metric in metrics]
    )
    names = [metric.name for metric in items]
    if twice := {name for name in names if names.count(name) > 1 or name == "loss"}:
        raise GraphError(f"metric names must differ from each other and 'loss': {sorted(twice)}")
    found = []
    for metric in items:
        if metric.prediction is None or metric.target is None:
            metric = metric.bound_to(*_guess_operands(metric, loss, outputs))
        found.append(metric)
    return tuple(found)


def _named(metric: str | Metric) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if metric not in METRICS:
        raise GraphError(f"no metric is called {metric!r}; known: {', '.join(METRICS)}")
    return METRICS[metric]()


def _guess_operands(
    metric: Metric, loss: Tensor, outputs: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    prediction = metric.prediction
    if prediction is None:
        if not outputs:
            raise GraphError(
                f"metric {metric.name!r} needs a prediction: pass outputs={{'logits': …}} to "
                "compile_train, or metrics.<name>(prediction, target)"
            )
        prediction = next(iter(outputs.values()))
    if metric.target is not None:
        return prediction, metric.target
    read = set(topological([prediction.node]))
    candidates = [
        node
        for node in topological([loss.node])
        if isinstance(node.op, ops.Input) and node not in read
    ]
    if len(candidates) != 1:
        names = ", ".join(node.op.label for node in candidates) or "none"  # type: ignore[union-attr]
        raise GraphError(
            f"metric {metric.name!r}: the target is ambiguous ({names}); pass "
            f"metrics.<name>(prediction, target)"
        )
    return prediction, Tensor(candidates[0])
