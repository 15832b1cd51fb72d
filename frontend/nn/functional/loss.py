"""Losses with PyTorch's arguments.

``size_average`` and ``reduce`` are PyTorch's former spelling of ``reduction``.
"""

from __future__ import annotations

from collections.abc import Callable

from ... import functional as F
from ... import losses
from ...products import linear
from ...tensor import Tensor


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


def _weighted(loss: Tensor, weight: object, reduction: str) -> Tensor:
    """Reduce an elementwise loss; the mean of a weighted one divides by the weights' sum."""
    if weight is None:
        return losses.reduce_loss(loss, reduction)
    weighted = loss * weight
    if reduction == "mean":
        return weighted.sum() / F.broadcast_to(weight, loss.shape).sum()
    return losses.reduce_loss(weighted, reduction)


def mse_loss(
    input: object,
    target: object,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: object = None,
) -> Tensor:
    """Return the squared error (x - y)²."""
    reduction = _reduction(size_average, reduce, reduction)
    return _weighted(losses.mse(input, target, "none"), weight, reduction)


def l1_loss(
    input: object,
    target: object,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: object = None,
) -> Tensor:
    """Return the absolute error |x - y|."""
    reduction = _reduction(size_average, reduce, reduction)
    return _weighted(losses.mae(input, target, "none"), weight, reduction)


def smooth_l1_loss(
    input: object,
    target: object,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Return d²/(2 ``beta``) where |d| < beta, else |d| - beta/2."""
    return losses.smooth_l1(input, target, beta, _reduction(size_average, reduce, reduction))


def huber_loss(
    input: object,
    target: object,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: object = None,
) -> Tensor:
    """Return d²/2 where |d| < ``delta``, else delta (|d| - delta/2)."""
    return _weighted(losses.huber(input, target, delta, "none"), weight, reduction)


def binary_cross_entropy(
    input: object,
    target: object,
    weight: object = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return -(y log p + (1 - y) log(1 - p)) of probabilities."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.binary_crossentropy(input, target, False, weight, None, reduction)


def binary_cross_entropy_with_logits(
    input: object,
    target: object,
    weight: object = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: object = None,
) -> Tensor:
    """Return the binary cross-entropy of logits."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.binary_crossentropy(input, target, True, weight, pos_weight, reduction)


def cross_entropy(
    input: object,
    target: object,
    weight: object = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy of logits with classes on axis 1; see `losses.cross_entropy`."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.cross_entropy(input, target, weight, ignore_index, label_smoothing, reduction)


def nll_loss(
    input: object,
    target: object,
    weight: object = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return -log p[y] of log-probabilities with classes on axis 1."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.nll_loss(input, target, weight, ignore_index, reduction)


def kl_div(
    input: object,
    target: object,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Return y (log y - x) for log-probabilities x."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.kl_divergence(input, target, reduction, log_target)


def poisson_nll_loss(
    input: object,
    target: object,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return exp(x) - y x, or x - y log(x + ``eps``) where not ``log_input``."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.poisson_nll(input, target, log_input, full, eps, reduction)


def gaussian_nll_loss(
    input: object,
    target: object,
    var: object,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Return (log v + (x - y)²/v) / 2 for v = max(``var``, ``eps``)."""
    return losses.gaussian_nll(input, target, var, full, eps, reduction)


def hinge_embedding_loss(
    input: object,
    target: object,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return x where y = 1 and max(0, ``margin`` - x) where y = -1."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.hinge_embedding(input, target, margin, reduction)


def cosine_embedding_loss(
    input1: object,
    input2: object,
    target: object,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return 1 - cos where y = 1 and max(0, cos - ``margin``) where y = -1."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.cosine_embedding(input1, input2, target, margin, reduction)


def margin_ranking_loss(
    input1: object,
    input2: object,
    target: object,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return max(0, -y (x1 - x2) + ``margin``) for y = ±1."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.margin_ranking(input1, input2, target, margin, reduction)


def soft_margin_loss(
    input: object,
    target: object,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return log(1 + exp(-y x)) for y = ±1."""
    return losses.soft_margin(input, target, _reduction(size_average, reduce, reduction))


def multi_margin_loss(
    input: object,
    target: object,
    p: int = 1,
    margin: float = 1.0,
    weight: object = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return Σ_{i≠y} w[y] max(0, ``margin`` - x[y] + x[i])ᵖ / C."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.multi_margin(input, target, p, margin, weight, reduction)


def multilabel_margin_loss(
    input: object,
    target: object,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return Σ_{j in y, i not in y} max(0, 1 - x[j] + x[i]) / C; ``target`` ends with -1."""
    return losses.multilabel_margin(input, target, _reduction(size_average, reduce, reduction))


def multilabel_soft_margin_loss(
    input: object,
    target: object,
    weight: object = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return the binary cross-entropy of logits, averaged over the last axis."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.multilabel_soft_margin(input, target, weight, reduction)


def triplet_margin_loss(
    anchor: object,
    positive: object,
    negative: object,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return max(0, d(anchor, positive) - d(anchor, negative) + ``margin``)."""
    reduction = _reduction(size_average, reduce, reduction)
    return losses.triplet(anchor, positive, negative, margin, p, eps, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: object,
    positive: object,
    negative: object,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Return the triplet loss for any distance, by default the Euclidean one."""
    return losses.triplet_with_distance(
        anchor, positive, negative, distance_function, margin, swap, reduction
    )


def linear_cross_entropy(
    input: object,
    linear_weight: object,
    target: object,
    *,
    linear_bias: object = None,
    weight: object = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy of the logits ``input @ linear_weight.T + linear_bias``.

    ``input`` (..., features), ``linear_weight`` (classes, features), ``target`` (...).
    """
    logits = linear(input, linear_weight, linear_bias)
    logits = logits.reshape((-1, logits.shape[-1]))
    labels = F.reshape(target, (-1,))
    ignored = -100 if ignore_index is None else ignore_index
    return losses.cross_entropy(logits, labels, weight, ignored, label_smoothing, reduction)
