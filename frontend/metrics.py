"""Metrics by name: accuracies, regression, and what `classification` and `ranking` add.

Each function takes the prediction and the target, or leaves them to the training program.  Values
over an epoch are those over its samples, not means of the batches' values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..compiler.errors import GraphError
from ..compiler.ir import ops
from ..compiler.ir.graph import topological
from . import functional as F
from .classification import (
    balanced_accuracy,
    cohen_kappa,
    confusion_matrix,
    f1,
    fbeta,
    matthews,
    precision,
    recall,
    specificity,
)
from .metric import (
    Metric,
    Sums,
    class_numbers,
    classes_of,
    count,
    divide,
    is_binary,
    ratio,
    same_shape,
    total,
)
from .ranking import auc, average_precision
from .tensor import Tensor, apply


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
        if is_binary(scores, labels):
            right = (scores > threshold) == labels.astype("bool")
        else:
            predicted, true = classes_of(scores, labels, axis)
            right = predicted == true
        return {"right": total(right), "count": count(right)}

    return Metric(name, statistics, ratio("right"), prediction, target)


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
        is_label = class_numbers(scores.shape[-1]) == labels.expand_dims(-1)
        own = apply("where", is_label, scores, 0.0).sum(-1, keepdims=True)
        above = (scores > own).astype("int64").sum(-1)
        right = (above < k) & (own == own).squeeze(-1)
        return {"right": total(right), "count": count(right)}

    return Metric(name or f"top_{k}_accuracy", statistics, ratio("right"), prediction, target)


def binary_accuracy(
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    threshold: float = 0.5,
    name: str = "binary_accuracy",
) -> Metric:
    """Return the share of elements on the right side of ``threshold``: labels by the dozen.

    ``prediction``: scores; ``target``: 0 and 1, of the same number of elements.
    """

    def statistics(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        right = (scores > threshold) == same_shape(labels, scores).astype("bool")
        return {"right": total(right), "count": count(right)}

    return Metric(name, statistics, ratio("right"), prediction, target)


def cross_entropy(
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    from_logits: bool = True,
    ignore_index: int | None = None,
    name: str = "cross_entropy",
) -> Metric:
    """Return the mean of -log p of the true class, in nats.

    ``prediction``: logits ``(…, classes)``, or probabilities; ``target``: integer labels ``(…)``,
    of which ``ignore_index`` is left out.
    """
    return Metric(
        name, _negative_logs(from_logits, ignore_index), ratio("nats"), prediction, target
    )


def perplexity(
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    from_logits: bool = True,
    ignore_index: int | None = None,
    name: str = "perplexity",
) -> Metric:
    """Return exp of `cross_entropy`, over all samples: not the mean of the batches' values."""
    mean = ratio("nats")
    return Metric(
        name,
        _negative_logs(from_logits, ignore_index),
        lambda sums: np.exp(mean(sums)),
        prediction,
        target,
    )


def _negative_logs(from_logits: bool, ignore_index: int | None) -> Callable:
    def statistics(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if labels.ndim != scores.ndim - 1:
            raise GraphError(
                f"labels of shape {labels.shape} do not fit scores of shape {scores.shape}"
            )
        logs = F.log_softmax(scores, -1) if from_logits else F.log(scores)
        counted = labels == labels if ignore_index is None else labels != ignore_index
        own = F.where(counted, F.pick(logs, labels, -1), 0.0)
        return {"nats": -total(own), "count": total(counted)}

    return statistics


def _mean_of(name: str, error: Callable[[Tensor], Tensor], root: bool = False) -> Callable:
    def metric(
        prediction: Tensor | None = None, target: Tensor | None = None, *, name: str = name
    ) -> Metric:
        def statistics(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
            errors = error(predicted - same_shape(true, predicted))
            return {"error": total(errors), "count": count(errors)}

        mean = ratio("error")
        finish = (lambda sums: np.sqrt(mean(sums))) if root else mean
        return Metric(name, statistics, finish, prediction, target)

    return metric


mean_absolute_error = _mean_of("mae", Tensor.abs)
mean_squared_error = _mean_of("mse", Tensor.square)
root_mean_squared_error = _mean_of("rmse", Tensor.square, root=True)


def r2_score(
    prediction: Tensor | None = None, target: Tensor | None = None, *, name: str = "r2"
) -> Metric:
    """Return the coefficient of determination, 1 - Σ(y - ŷ)² / Σ(y - mean y)²."""

    def statistics(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
        y = same_shape(true, predicted).astype("float64")
        residual = (y - predicted.astype("float64")).square()
        return {
            "residual": residual.sum(),
            "sum": y.sum(),
            "squares": y.square().sum(),
            "count": count(y),
        }

    def finish(sums: Sums) -> Any:
        spread = sums["squares"] - divide(sums["sum"] ** 2, sums["count"])
        return 1.0 - divide(sums["residual"], spread)

    return Metric(name, statistics, finish, prediction, target)


#: What a metric may be called where a name stands for it.
METRICS: dict[str, Callable[..., Metric]] = {
    "accuracy": accuracy,
    "acc": accuracy,
    "binary_accuracy": binary_accuracy,
    "top_5_accuracy": top_k_accuracy,
    "balanced_accuracy": balanced_accuracy,
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "r2": r2_score,
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
    "f1": f1,
    "matthews": matthews,
    "cohen_kappa": cohen_kappa,
    "confusion_matrix": confusion_matrix,
    "auc": auc,
    "average_precision": average_precision,
    "cross_entropy": cross_entropy,
    "perplexity": perplexity,
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


__all__ = [
    "METRICS",
    "Metric",
    "accuracy",
    "auc",
    "average_precision",
    "balanced_accuracy",
    "binary_accuracy",
    "cohen_kappa",
    "confusion_matrix",
    "cross_entropy",
    "f1",
    "fbeta",
    "matthews",
    "mean_absolute_error",
    "mean_squared_error",
    "perplexity",
    "precision",
    "r2_score",
    "recall",
    "resolve_metrics",
    "root_mean_squared_error",
    "specificity",
    "top_k_accuracy",
]
