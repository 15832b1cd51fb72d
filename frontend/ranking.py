"""Metrics of the order in which scores put the samples: areas under curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..compiler.errors import GraphError
from ..compiler.ir.types import FLOATS
from .metric import Metric, Sums, class_numbers, divide, is_binary
from .tensor import Tensor


def auc(
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    thresholds: int | None = None,
    name: str = "auc",
) -> Metric:
    """Return the area under the receiver operating characteristic.

    Exact: scores and labels of the whole epoch are kept (a few bytes a sample) and ranked, ties
    counting one half (Mann & Whitney 1947).  With ``thresholds``, scores in [0, 1] are counted in
    so many equal bins instead, in constant memory; scores of one bin then tie.

    ``prediction``: scores of the positive class, or ``(samples, classes)``, for which the result is
    the mean over the classes against the rest; ``target``: 0 and 1, labels, or one-hot rows.  NaN
    where a class has no sample or no other.
    """
    if thresholds is None:
        return _of_all(name, _roc_area, prediction, target)
    if thresholds < 2:
        raise ValueError(f"thresholds must be at least 2, not {thresholds}")

    def statistics(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        found, true = _scores_and_marks(scores, labels)
        place = (found * float(thresholds)).astype("int64").clip(0, thresholds - 1)
        in_bin = place.expand_dims(-1) == class_numbers(thresholds)
        mark = true.expand_dims(-1)
        return {
            "positive": (in_bin & mark).astype("int64").sum(0),
            "negative": (in_bin & ~mark).astype("int64").sum(0),
        }

    def finish(sums: Sums) -> Any:
        pairs = zip(np.asarray(sums["positive"]), np.asarray(sums["negative"]), strict=True)
        return np.mean([_area_of_counts(p, n) for p, n in pairs])

    return Metric(name, statistics, finish, prediction, target)


def average_precision(
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    name: str = "average_precision",
) -> Metric:
    """Return Σ (Rᵢ - Rᵢ₋₁) Pᵢ over the thresholds: the area under precision against recall.

    Exact, from all scores of the epoch; arguments are as for `auc`.
    """
    return _of_all(name, _average_precision, prediction, target)


def _of_all(
    name: str,
    area: Callable[[np.ndarray, np.ndarray], float],
    prediction: Tensor | None,
    target: Tensor | None,
) -> Metric:
    def statistics(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        found, true = _scores_and_marks(scores, labels)
        return {"scores": found, "true": true}

    def finish(sums: Sums) -> Any:
        scores, true = np.asarray(sums["scores"]), np.asarray(sums["true"], "bool")
        if not scores.size or np.isnan(scores).any():
            return np.nan
        return np.mean([area(scores[:, c], true[:, c]) for c in range(scores.shape[1])])

    return Metric(name, statistics, finish, prediction, target, ("scores", "true"))


def _scores_and_marks(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores and whether they are of the true class, both ``(samples, classes)``."""
    if is_binary(scores, labels):
        return scores.reshape((-1, 1)), labels.astype("bool").reshape((-1, 1))
    if scores.ndim == 2 and labels.shape == scores.shape:
        return scores, labels.astype("bool")
    if scores.ndim == 2 and labels.ndim == 1 and labels.dtype not in FLOATS:
        return scores, labels.expand_dims(-1) == class_numbers(scores.shape[1])
    raise GraphError(f"scores {scores.shape} do not fit labels {labels.shape}")


def _counts_by_score(scores: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many positives and negatives have each score, the least score first."""
    _, place = np.unique(scores, return_inverse=True)
    size = int(place.max()) + 1
    positive = np.bincount(place, true, size)
    return positive, np.bincount(place, ~true, size)


def _area_of_counts(positive: np.ndarray, negative: np.ndarray) -> float:
    below = np.cumsum(negative) - negative
    won = (positive * (below + 0.5 * negative)).sum()
    return float(divide(won, float(positive.sum()) * float(negative.sum())))


def _roc_area(scores: np.ndarray, true: np.ndarray) -> float:
    return _area_of_counts(*_counts_by_score(scores, true))


def _average_precision(scores: np.ndarray, true: np.ndarray) -> float:
    positive, negative = (count[::-1] for count in _counts_by_score(scores, true))
    found = np.cumsum(positive)
    precision = divide(found, found + np.cumsum(negative))
    return float(divide((positive * precision).sum(), positive.sum()))
