"""Metrics of counted decisions: precision, recall, F, and what a confusion matrix tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import functional as F
from .metric import Metric, Sums, class_numbers, classes_of, divide, is_binary
from .tensor import Tensor

AVERAGES = ("macro", "micro", "weighted", "binary", "none")

Score = Callable[[Any, Any, Any, Any], Any]


def _counts(
    axis: int, threshold: float, with_rest: bool = False
) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """Return the counts of true positives, false positives and misses (of each class).

    ``with_rest``: and of true negatives.
    """

    def statistics(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if is_binary(scores, labels):
            said, true = scores > threshold, labels.astype("bool")
            over = None
        else:
            predicted, label = classes_of(scores, labels, axis)
            numbers = class_numbers(scores.shape[axis])
            said = predicted.expand_dims(-1) == numbers
            true = label.expand_dims(-1) == numbers
            over = tuple(range(said.ndim - 1))
        counted = {"hits": said & true, "false": said & ~true, "missed": ~said & true}
        if with_rest:
            counted["rest"] = ~said & ~true
        return {key: x.astype("int64").sum(over) for key, x in counted.items()}

    return statistics


def _score(kind: str, score: Score, meaning: str, with_rest: bool = False) -> Callable[..., Metric]:
    def metric(
        prediction: Tensor | None = None,
        target: Tensor | None = None,
        *,
        average: str = "macro",
        axis: int = -1,
        threshold: float = 0.5,
        name: str = kind,
    ) -> Metric:
        return _averaged(name, score, average, axis, threshold, prediction, target, with_rest)

    metric.__name__ = metric.__qualname__ = kind
    metric.__doc__ = f"Return {meaning}.\n\n" + _ARGUMENTS
    return metric


_ARGUMENTS = """Scores and labels are as for `accuracy`.  Of scores of the positive class, that
class; else ``average`` says: ``"macro"`` the mean over the classes that occur, ``"weighted"``
weighted by their samples, ``"micro"`` all decisions counted together, ``"binary"`` class 1 of two,
``"none"`` an array, one number a class.  A class without a denominator counts as 0.
"""


def _averaged(
    name: str,
    score: Score,
    average: str,
    axis: int,
    threshold: float,
    prediction: Tensor | None,
    target: Tensor | None,
    with_rest: bool = False,
) -> Metric:
    if average not in AVERAGES:
        raise ValueError(f"average {average!r} is not one of {', '.join(AVERAGES)}")

    def finish(sums: Sums) -> Any:
        keys = ("hits", "false", "missed", *(("rest",) if with_rest else ()))
        counts = [np.asarray(sums[key], "float64") for key in keys]
        counts += [np.zeros_like(counts[0])] * (4 - len(counts))
        if average == "micro":
            counts = [count.sum() for count in counts]
        values = np.nan_to_num(score(*counts))
        if not np.ndim(values) or average == "none":
            return values
        if average == "binary":
            return values[1]
        hits, false, missed, _ = counts
        if average == "weighted":
            return divide((values * (hits + missed)).sum(), (hits + missed).sum())
        return values[hits + false + missed > 0].mean()

    return Metric(name, _counts(axis, threshold, with_rest), finish, prediction, target)


def _f(beta: float) -> Score:
    square = beta * beta
    return lambda hits, false, missed, _: divide(
        (1 + square) * hits, (1 + square) * hits + false + square * missed
    )


precision = _score(
    "precision",
    lambda hits, false, missed, _: divide(hits, hits + false),
    "the share of the samples said to be of a class that are",
)
recall = _score(
    "recall",
    lambda hits, false, missed, _: divide(hits, hits + missed),
    "the share of the samples of a class that were found",
)
specificity = _score(
    "specificity",
    lambda hits, false, missed, rest: divide(rest, rest + false),
    "the share of the samples of other classes that were not said to be of a class",
    with_rest=True,
)
f1 = _score("f1", _f(1.0), "the harmonic mean of precision and recall")


def fbeta(
    beta: float,
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    average: str = "macro",
    axis: int = -1,
    threshold: float = 0.5,
    name: str | None = None,
) -> Metric:
    """Return F with recall ``beta`` times as important as precision; arguments as for `f1`."""
    if beta <= 0:
        raise ValueError(f"beta must be positive, not {beta}")
    return _averaged(name or f"f{beta:g}", _f(beta), average, axis, threshold, prediction, target)


# -- the confusion matrix -------------------------------------------------------------------------


def _from_matrix(
    name: str,
    finish: Callable[[np.ndarray], Any],
    prediction: Tensor | None,
    target: Tensor | None,
    axis: int,
    threshold: float,
) -> Metric:
    def statistics(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if is_binary(scores, labels):
            predicted, true, classes = scores > threshold, labels.astype("bool"), 2
        else:
            predicted, true = classes_of(scores, labels, axis)
            classes = scores.shape[axis]
        numbers = class_numbers(classes)
        # float64 counts exactly up to 2**53, and a contraction needs no array of all pairs
        said = (predicted.astype("int64").ravel().expand_dims(-1) == numbers).astype("float64")
        is_true = (true.astype("int64").ravel().expand_dims(-1) == numbers).astype("float64")
        return {"matrix": F.einsum("ni,nj->ij", is_true, said)}

    return Metric(
        name, statistics, lambda sums: finish(np.asarray(sums["matrix"])), prediction, target
    )


def confusion_matrix(
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    axis: int = -1,
    threshold: float = 0.5,
    name: str = "confusion_matrix",
) -> Metric:
    """Return how many samples of class i (row) were said to be of class j (column), int64.

    Scores and labels are as for `accuracy`; labels outside of the classes are not counted.
    """
    return _from_matrix(
        name, lambda m: m.round().astype("int64"), prediction, target, axis, threshold
    )


def balanced_accuracy(
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    axis: int = -1,
    threshold: float = 0.5,
    name: str = "balanced_accuracy",
) -> Metric:
    """Return the mean recall of the classes that occur among the labels."""

    def finish(matrix: np.ndarray) -> Any:
        samples = matrix.sum(1)
        found = divide(matrix.diagonal(), samples)[samples > 0]
        return found.mean() if len(found) else np.nan

    return _from_matrix(name, finish, prediction, target, axis, threshold)


def matthews(
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    axis: int = -1,
    threshold: float = 0.5,
    name: str = "matthews",
) -> Metric:
    """Return Matthews' correlation of said and true classes, 0 where one of them never varies.

    Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", 2004.
    """

    def finish(matrix: np.ndarray) -> Any:
        true, said, samples = matrix.sum(1), matrix.sum(0), matrix.sum()
        above = matrix.trace() * samples - true @ said
        below = np.sqrt(samples**2 - said @ said) * np.sqrt(samples**2 - true @ true)
        return above / below if below else 0.0

    return _from_matrix(name, finish, prediction, target, axis, threshold)


def cohen_kappa(
    prediction: Tensor | None = None,
    target: Tensor | None = None,
    *,
    weights: str | None = None,
    axis: int = -1,
    threshold: float = 0.5,
    name: str = "cohen_kappa",
) -> Metric:
    """Return the agreement beyond chance (Cohen 1960).

    ``weights``: how much a disagreement counts by the distance of the classes, None (all alike),
    ``"linear"`` or ``"quadratic"``.
    """
    if weights not in (None, "linear", "quadratic"):
        raise ValueError(f"weights {weights!r} is not None, 'linear' or 'quadratic'")

    def finish(matrix: np.ndarray) -> Any:
        place = np.arange(len(matrix))
        distance = np.abs(place[:, None] - place)
        power = {None: 0, "linear": 1, "quadratic": 2}[weights]
        cost = np.where(distance > 0, distance.astype("float64") ** power, 0.0)
        chance = divide(np.outer(matrix.sum(1), matrix.sum(0)), matrix.sum())
        return 1.0 - divide((cost * matrix).sum(), (cost * chance).sum())

    return _from_matrix(name, finish, prediction, target, axis, threshold)
