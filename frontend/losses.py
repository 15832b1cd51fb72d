"""Loss functions: PyTorch's numerics under NumPy-style names.

Every function takes ``reduction``: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
Predictions come first, targets second.  Shapes of the two must be equal: broadcasting (batch, 1)
against (batch,) is a mistake far more often than a wish.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.errors import GraphTypeError
from ..compiler.ir.dims import format_shape
from ..compiler.ir.types import FLOATS, INTEGERS
from . import functional as F
from .checks import register_range_check
from .creation import differs_from_index, equals_index
from .shaping import normalize_axis
from .tensor import Tensor, apply, as_tensor
from .tracing import fail


def _float(x: object, like: Tensor | None = None) -> Tensor:
    tensor = as_tensor(x, like)
    return (
        tensor
        if tensor.dtype in FLOATS
        else tensor.astype("float32" if like is None else like.dtype)
    )


def _pair(what: str, first: object, second: object) -> tuple[Tensor, Tensor]:
    """Return both as floats of one shape (a 0-d one stands for all); GraphError otherwise."""
    left = _float(first)
    right = _float(second, left)
    if left.shape != right.shape and left.ndim and right.ndim:
        fail(
            f"{what}: shapes {format_shape(left.shape)} and {format_shape(right.shape)} differ; "
            "they must be equal"
        )
    return left, right


def reduce_loss(loss: Tensor, reduction: str, what: str = "loss") -> Tensor:
    """Return an elementwise loss reduced as ``reduction`` says."""
    match reduction:
        case "mean":
            return loss.mean()
        case "sum":
            return loss.sum()
        case "none":
            return loss
        case "batchmean" if what in _BATCH_MEANS:
            return loss.sum() / (loss.shape[0] if loss.ndim else 1)
    allowed = ["mean", "sum", "none", *(["batchmean"] if what in _BATCH_MEANS else [])]
    fail(f"{what}: reduction {reduction!r} is not one of {', '.join(allowed)}")


_BATCH_MEANS = frozenset({"kl_divergence", "gaussian_kl"})


def _weighted(loss: Tensor, weight: object) -> Tensor:
    return loss if weight is None else loss * weight


def mse(prediction: object, target: object, reduction: str = "mean") -> Tensor:
    """Return the squared error (x - y)²."""
    x, y = _pair("mse", prediction, target)
    return reduce_loss(F.square(x - y), reduction, "mse")


def mae(prediction: object, target: object, reduction: str = "mean") -> Tensor:
    """Return the absolute error |x - y|; its derivative at 0 is 0."""
    x, y = _pair("mae", prediction, target)
    return reduce_loss(F.abs(x - y), reduction, "mae")


def huber(
    prediction: object, target: object, delta: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return d²/2 where |d| < ``delta``, else delta (|d| - delta/2), d = x - y (Huber 1964)."""
    if delta <= 0:
        fail(f"huber: delta must be positive, not {delta}")
    x, y = _pair("huber", prediction, target)
    error = F.abs(x - y)
    loss = F.where(error < delta, F.square(error) * 0.5, (error - 0.5 * delta) * delta)
    return reduce_loss(loss, reduction, "huber")


def smooth_l1(
    prediction: object, target: object, beta: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return d²/(2 beta) where |d| < ``beta``, else |d| - beta/2 (Girshick 2015, Fast R-CNN)."""
    if beta < 0:
        fail(f"smooth_l1: beta must not be negative, but is {beta}")
    if beta == 0:
        return mae(prediction, target, reduction)
    x, y = _pair("smooth_l1", prediction, target)
    error = F.abs(x - y)
    loss = F.where(error < beta, F.square(error) * (0.5 / beta), error - 0.5 * beta)
    return reduce_loss(loss, reduction, "smooth_l1")


_LOG_FLOOR = -100.0
_SMALLEST = math.exp(_LOG_FLOOR)


def _clamped_log(p: Tensor) -> Tensor:
    """Return max(log p, -100), with the derivative 1e12 below, as in PyTorch's BCE."""
    inside = ~(p <= _SMALLEST)
    below = (p - F.stop_gradient(p)) * 1e12 + _LOG_FLOOR
    return F.where(inside, F.log(F.where(inside, p, 1.0)), below)


def binary_crossentropy(
    prediction: object,
    target: object,
    from_logits: bool = False,
    weight: object = None,
    pos_weight: object = None,
    reduction: str = "mean",
) -> Tensor:
    """Return -(y log p + (1 - y) log(1 - p)).

    ``prediction``: probabilities, whose logarithms are clamped at -100, or logits where
    ``from_logits``.  ``weight`` multiplies the loss, ``pos_weight`` its first term (with logits);
    both broadcast.
    """
    x, y = _pair("binary_crossentropy", prediction, target)
    if not from_logits:
        if pos_weight is not None:
            fail("binary_crossentropy: pos_weight needs from_logits=True")
        loss = -(y * _clamped_log(x) + (1.0 - y) * _clamped_log(1.0 - x))
        return reduce_loss(_weighted(loss, weight), reduction, "binary_crossentropy")
    # log(1 + exp(-|x|)) beside one product: no tail cancels, in the value or in the derivative,
    # and the slope at 0 is right.
    positive = x >= 0
    tail = apply("softplus", F.where(positive, -x, x))
    if pos_weight is None:
        loss = x * F.where(positive, 1.0 - y, -y) + tail
    else:
        scale = (as_tensor(pos_weight, x) - 1.0) * y + 1.0
        loss = (1.0 - y) * x + scale * (tail + F.where(positive, 0.0, -x))
    return reduce_loss(_weighted(loss, weight), reduction, "binary_crossentropy")


def _log_probabilities(x: Tensor, from_logits: bool, axis: int) -> Tensor:
    return F.log_softmax(x, axis) if from_logits else _clamped_log(x)


def _check_smoothing(label_smoothing: float, what: str) -> None:
    if not 0 <= label_smoothing <= 1:
        fail(f"{what}: label_smoothing must lie in [0, 1], not {label_smoothing}")


def _class_weights(class_weights: object, x: Tensor, axis: int, what: str) -> Tensor:
    """Return one weight a class, in the place of ``axis``."""
    weights = as_tensor(class_weights, dtype=x.dtype)
    if weights.shape != (x.shape[axis],):
        fail(
            f"{what}: class weights of shape {format_shape(weights.shape)} do not fit the "
            f"{x.shape[axis]} classes on axis {axis}"
        )
    return weights.reshape((-1, *(1,) * (x.ndim - axis - 1)))


def categorical_crossentropy(
    prediction: object,
    target: object,
    from_logits: bool = False,
    axis: int = -1,
    label_smoothing: float = 0.0,
    class_weights: object = None,
    reduction: str = "mean",
) -> Tensor:
    """Return -Σ y log p over the class ``axis``; the mean is over all other axes.

    ``target``: probabilities, of the shape of ``prediction``.  ``label_smoothing`` ε mixes it with
    the uniform distribution, (1 - ε) y + ε / C.  ``class_weights`` (C,) weights the terms.
    """
    what = "categorical_crossentropy"
    _check_smoothing(label_smoothing, what)
    x, y = _pair(what, prediction, target)
    place = normalize_axis(axis, x.ndim, what)
    if label_smoothing:
        y = y * (1.0 - label_smoothing) + _share(label_smoothing, x, place)
    terms = y * _log_probabilities(x, from_logits, place)
    if class_weights is not None:
        terms = terms * _class_weights(class_weights, x, place, what)
    return reduce_loss(-terms.sum(place), reduction, what)


def _share(amount: float, x: Tensor, axis: int) -> Tensor:
    """Return ``amount`` divided by the number of classes."""
    return as_tensor(amount, x) / x.shape[axis]


def sparse_categorical_crossentropy(
    prediction: object,
    target: object,
    from_logits: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    class_weights: object = None,
    reduction: str = "mean",
) -> Tensor:
    """Return -log p[y] for integer class labels y.

    ``prediction``: probabilities (their logarithms are clamped at -100), or logits where
    ``from_logits``, with the C classes on ``axis``.  ``target``: integers in [0, C), of the shape
    of ``prediction`` without ``axis``; others raise IndexRangeError at run time.  Labels equal to
    ``ignore_index`` count nothing.  With ``class_weights`` (C,), the mean divides by the sum of the
    labels' weights; over no labels it is NaN, as in PyTorch.
    """
    what = "sparse_categorical_crossentropy"
    x = _float(prediction)
    place = normalize_axis(axis, x.ndim, what)
    log_p = _log_probabilities(x, from_logits, place)
    return _pick_classes(
        what, log_p, target, place, ignore_index, label_smoothing, class_weights, reduction
    )


def nll(
    log_probabilities: object,
    target: object,
    axis: int = -1,
    ignore_index: int | None = None,
    class_weights: object = None,
    reduction: str = "mean",
) -> Tensor:
    """Return -log p[y] for log-probabilities and integer class labels.

    Arguments as in `sparse_categorical_crossentropy`.
    """
    log_p = _float(log_probabilities)
    place = normalize_axis(axis, log_p.ndim, "nll")
    return _pick_classes("nll", log_p, target, place, ignore_index, 0.0, class_weights, reduction)


def _pick_classes(
    what: str,
    log_p: Tensor,
    target: object,
    axis: int,
    ignore_index: int | None,
    label_smoothing: float,
    class_weights: object,
    reduction: str,
) -> Tensor:
    _check_smoothing(label_smoothing, what)
    labels = as_tensor(target)
    if labels.dtype not in INTEGERS:
        fail(
            f"{what}: labels are integers, not {labels.dtype}; for probabilities use "
            "categorical_crossentropy",
            GraphTypeError,
        )
    expected = (*log_p.shape[:axis], *log_p.shape[axis + 1 :])
    if labels.shape != expected:
        fail(
            f"{what}: labels of shape {format_shape(labels.shape)} do not fit predictions of shape "
            f"{format_shape(log_p.shape)} with classes on axis {axis}; {format_shape(expected)} "
            "would fit"
        )
    classes = log_p.shape[axis]
    if ignore_index is None:
        valid, chosen = None, equals_index(labels, classes, axis)
    else:
        # Equal nodes are one: these are apart from those of a loss on the same labels which ignores
        # none or others of them, or has other classes, so that their requirements do not hold here.
        valid = (labels != ignore_index) & (labels.astype("int64") < classes)
        chosen = ~differs_from_index(labels, classes, axis)
    anchor = chosen if valid is None else valid
    register_range_check(labels.node, 0, classes, ignore_index, f"{what}: class label", anchor.node)
    weights = None
    if class_weights is not None:
        weights = _class_weights(class_weights, log_p, axis, what)
        log_p = log_p * weights
    loss = -F.where(chosen, log_p, 0.0).sum(axis)
    if label_smoothing:
        uniform = -log_p.sum(axis) * _share(label_smoothing, log_p, axis)
        loss = loss * (1.0 - label_smoothing) + uniform
    if valid is not None:
        loss = F.where(valid, loss, 0.0)
    if reduction != "mean" or (weights is None and valid is None):
        return reduce_loss(loss, reduction, what)
    if weights is None:
        counted = F.cast(valid, loss.dtype)
    else:
        counted = F.where(chosen, weights, 0.0).sum(axis)
        counted = counted if valid is None else F.where(valid, counted, 0.0)
    return loss.sum() / counted.sum()


def kl_divergence(
    log_prediction: object,
    target: object,
    reduction: str = "mean",
    log_target: bool = False,
    from_logits: bool = False,
    axis: int = -1,
) -> Tensor:
    """Return y (log y - x) for log-probabilities x, elementwise before the reduction.

    ``from_logits``: x are logits over ``axis``.  ``log_target``: y are log-probabilities too.
    ``reduction="batchmean"`` divides the sum by the size of axis 0 and is the divergence proper.
    """
    x, y = _pair("kl_divergence", log_prediction, target)
    if from_logits:
        x = F.log_softmax(x, axis)
    if log_target:
        loss = F.exp(y) * (y - x)
    else:
        zero = y == 0
        loss = F.where(zero, 0.0, y * (F.log(F.where(zero, 1.0, y)) - x))
    return reduce_loss(loss, reduction, "kl_divergence")


def gaussian_kl(mu: object, logvar: object, reduction: str = "batchmean") -> Tensor:
    """Return KL(N(mu, exp(logvar)) ‖ N(0, 1)) = (mu² + exp(logvar) - 1 - logvar) / 2.

    The default sums over all but the batch (axis 0) (Kingma & Welling 2013, appendix B).
    """
    mean, log_variance = _pair("gaussian_kl", mu, logvar)
    loss = (F.square(mean) + (F.expm1(log_variance) - log_variance)) * 0.5
    return reduce_loss(loss, reduction, "gaussian_kl")


def _above_zero(x: Tensor) -> Tensor:
    """Return max(x, 0) with the derivative 1 at 0, as PyTorch's clamp_min."""
    return x.clip(low=0.0)


def hinge(
    prediction: object, target: object, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return max(0, ``margin`` - y x) for labels y = ±1."""
    x, y = _pair("hinge", prediction, target)
    return reduce_loss(_above_zero(margin - y * x), reduction, "hinge")


def squared_hinge(
    prediction: object, target: object, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return max(0, ``margin`` - y x)² for labels y = ±1."""
    x, y = _pair("squared_hinge", prediction, target)
    return reduce_loss(F.square(_above_zero(margin - y * x)), reduction, "squared_hinge")


def categorical_hinge(
    prediction: object, target: object, axis: int = -1, reduction: str = "mean"
) -> Tensor:
    """Return max(0, 1 + max((1 - y) x) - Σ y x) over ``axis`` for one-hot y, as in Keras."""
    x, y = _pair("categorical_hinge", prediction, target)
    right = (y * x).sum(axis)
    wrong = ((1.0 - y) * x).max(axis)
    return reduce_loss(_above_zero(wrong - right + 1.0), reduction, "categorical_hinge")


def multi_margin(
    prediction: object,
    target: object,
    p: int = 1,
    margin: float = 1.0,
    weight: object = None,
    reduction: str = "mean",
) -> Tensor:
    """Return Σ_{i≠y} w[y] max(0, ``margin`` - x[y] + x[i])ᵖ / C for x (..., C), labels y (...).

    ``weight`` w (C,): one for each class, by default 1.
    """
    if p not in (1, 2):
        fail(f"multi_margin: p is 1 or 2, not {p}")
    x, labels = _float(prediction), as_tensor(target)
    classes = x.shape[-1]
    chosen = equals_index(labels, classes)
    register_range_check(
        labels.node, 0, classes, message="multi_margin: class label", anchor=chosen.node
    )
    right = F.where(chosen, x, 0.0).sum(-1, keepdims=True)
    gap = _above_zero(margin - right + x)
    terms = F.where(chosen, 0.0, gap if p == 1 else F.square(gap))
    loss = terms.sum(-1) / classes
    if weight is not None:
        weights = _class_weights(weight, x, x.ndim - 1, "multi_margin")
        loss = loss * F.where(chosen, weights, 0.0).sum(-1)
    return reduce_loss(loss, reduction, "multi_margin")


def hinge_embedding(
    distance: object, target: object, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return x where y = 1 and max(0, ``margin`` - x) where y = -1."""
    x, y = _pair("hinge_embedding", distance, target)
    near = F.where(y == -1, 0.0, x)
    far = F.where(y == 1, 0.0, _above_zero(margin - x))
    return reduce_loss(near + far, reduction, "hinge_embedding")


def _labels_of_rows(what: str, rows: Tensor, target: object) -> Tensor:
    """Return labels of the shape of ``rows`` without its last axis."""
    y = _float(target, rows)
    if y.ndim and y.shape != rows.shape[:-1]:
        fail(
            f"{what}: targets of shape {format_shape(y.shape)} do not fit embeddings of shape "
            f"{format_shape(rows.shape)}; {format_shape(rows.shape[:-1])} would fit"
        )
    return y


def cosine_embedding(
    first: object, second: object, target: object, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return 1 - cos where y = 1 and max(0, cos - ``margin``) where y = -1.

    ``first`` and ``second`` (..., features), ``target`` (...).
    """
    a, b = _pair("cosine_embedding", first, second)
    y = _labels_of_rows("cosine_embedding", a, target)
    scale = (F.square(a).sum(-1) + 1e-12) * (F.square(b).sum(-1) + 1e-12)
    cosine = (a * b).sum(-1) / F.sqrt(scale)
    loss = F.where(y == 1, 1.0 - cosine, F.where(y == -1, _above_zero(cosine - margin), 0.0))
    return reduce_loss(loss, reduction, "cosine_embedding")


def contrastive(
    distance: object, dissimilar: object, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return d²/2 for similar pairs (y = 0) and max(0, ``margin`` - d)²/2 for others (y = 1).

    Hadsell, Chopra & LeCun, "Dimensionality reduction by learning an invariant mapping", 2006,
    equation 4.
    """
    d, y = _pair("contrastive", distance, dissimilar)
    loss = (1.0 - y) * F.square(d) + y * F.square(_above_zero(margin - d))
    return reduce_loss(loss * 0.5, reduction, "contrastive")


def contrastive_embedding(
    first: object,
    second: object,
    dissimilar: object,
    margin: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Return `contrastive` of the Euclidean distance of embeddings (..., features)."""
    a, b = _pair("contrastive_embedding", first, second)
    y = _labels_of_rows("contrastive_embedding", a, dissimilar)
    return contrastive(F.norm(a - b, 2, -1), y, margin, reduction)


def triplet(
    anchor: object,
    positive: object,
    negative: object,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Return max(0, d(a, p) - d(a, n) + ``margin``), d the ``p``-norm over the last axis.

    ``eps`` is added to the differences.  ``swap``: d(p, n) where that is less than d(a, n) (Balntas
    et al. 2016).
    """
    a, near = _pair("triplet", anchor, positive)
    _, far = _pair("triplet", a, negative)
    to_near, to_far = F.norm(a - near + eps, p, -1), F.norm(a - far + eps, p, -1)
    if swap:
        to_far = F.minimum(to_far, F.norm(near - far + eps, p, -1))
    return reduce_loss(_above_zero(to_near - to_far + margin), reduction, "triplet")


def triplet_with_distance(
    anchor: object,
    positive: object,
    negative: object,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Return the triplet loss for any distance of two tensors, by default the Euclidean one."""
    if margin <= 0:
        fail(f"triplet_with_distance: margin must be positive, not {margin}")
    distance = distance_function or _euclidean
    a, near, far = as_tensor(anchor), as_tensor(positive), as_tensor(negative)
    to_near, to_far = distance(a, near), distance(a, far)
    if swap:
        to_far = F.minimum(to_far, distance(near, far))
    return reduce_loss(_above_zero(to_near - to_far + margin), reduction, "triplet_with_distance")


def _euclidean(x: Tensor, y: Tensor) -> Tensor:
    return F.norm(x - y + 1e-6, 2, -1)


def multilabel_margin(prediction: object, target: object, reduction: str = "mean") -> Tensor:
    """Return Σ_{j in y, i not in y} max(0, 1 - x[j] + x[i]) / C for scores x (..., C).

    ``target`` (..., C): the classes of a sample, ended by -1 where there are fewer than C.
    """
    what = "multilabel_margin"
    x, y = _float(prediction), as_tensor(target)
    if y.dtype not in INTEGERS:
        fail(f"{what}: targets are integers, not {y.dtype}", GraphTypeError)
    if x.shape != y.shape or x.ndim not in (1, 2):
        fail(
            f"{what}: scores {format_shape(x.shape)} and targets {format_shape(y.shape)} must both "
            "be (batch, classes) or (classes,)"
        )
    classes = x.shape[-1]
    register_range_check(y.node, -1, classes, message=f"{what}: class label")
    place, other = F.iota((classes, classes), 0), F.iota((classes, classes), 1)
    # a label counts where no -1 stands at its place or before
    ended = (F.expand_dims(y, -2) < 0) & (other <= place)
    counts = ~F.any(ended, -1)
    named = F.expand_dims(counts, -1) & (F.expand_dims(y, -1) == other)
    is_target = F.any(named, -2)
    right = F.where(named, F.expand_dims(x, -2), 0.0).sum(-1)
    gap = _above_zero(1.0 - F.expand_dims(right, -1) + F.expand_dims(x, -2))
    allowed = F.expand_dims(counts, -1) & ~F.expand_dims(is_target, -2)
    return reduce_loss(F.where(allowed, gap, 0.0).sum((-1, -2)) / classes, reduction, what)


def margin_ranking(
    first: object, second: object, target: object, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return max(0, -y (x1 - x2) + ``margin``) for y = ±1."""
    a, b = _pair("margin_ranking", first, second)
    _, y = _pair("margin_ranking", a, target)
    return reduce_loss(_above_zero(-y * (a - b) + margin), reduction, "margin_ranking")


def soft_margin(prediction: object, target: object, reduction: str = "mean") -> Tensor:
    """Return log(1 + exp(-y x)) for y = ±1."""
    x, y = _pair("soft_margin", prediction, target)
    return reduce_loss(apply("softplus", -y * x), reduction, "soft_margin")


def multilabel_soft_margin(
    prediction: object, target: object, weight: object = None, reduction: str = "mean"
) -> Tensor:
    """Return the binary cross-entropy of logits, averaged over the last axis; y in {0, 1}."""
    loss = binary_crossentropy(prediction, target, True, weight, reduction="none")
    return reduce_loss(loss.mean(-1), reduction, "multilabel_soft_margin")


def poisson_nll(
    prediction: object,
    target: object,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """Return exp(x) - y x, or x - y log(x + ``eps``) where not ``log_input``.

    ``full`` adds Stirling's y log y - y + log(2πy)/2 for y > 1.
    """
    x, y = _pair("poisson_nll", prediction, target)
    loss = F.exp(x) - y * x if log_input else x - y * F.log(x + eps)
    if full:
        many = y > 1
        safe = F.where(many, y, 1.0)
        stirling = safe * F.log(safe) - safe + F.log(safe * (2.0 * math.pi)) * 0.5
        loss = loss + F.where(many, stirling, 0.0)
    return reduce_loss(loss, reduction, "poisson_nll")


def _spreads_over(x: Tensor, y: Tensor) -> bool:
    """Return whether ``x`` has the axes of ``y``, each of its size or of size 1."""
    return x.ndim == y.ndim and all(a in (1, b) for a, b in zip(x.shape, y.shape, strict=True))


def gaussian_nll(
    prediction: object,
    target: object,
    var: object,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Return (log v + (x - y)²/v) / 2 for v = max(``var``, ``eps``).

    ``var``: of the shape of ``prediction``, or without its last axis, or with axes of size 1; the
    limit does not stop its derivative.  ``full`` adds log(2π)/2.
    """
    x, y = _pair("gaussian_nll", prediction, target)
    variance = _float(var, x)
    if variance.ndim and variance.shape == x.shape[:-1]:
        variance = variance.expand_dims(-1)
    elif variance.ndim and not _spreads_over(variance, x):
        fail(
            f"gaussian_nll: var of shape {format_shape(variance.shape)} does not fit "
            f"{format_shape(x.shape)}"
        )
    limited = variance + F.stop_gradient(F.maximum(variance, eps) - variance)
    loss = (F.log(limited) + F.square(x - y) / limited) * 0.5
    if full:
        loss = loss + 0.5 * math.log(2.0 * math.pi)
    return reduce_loss(loss, reduction, "gaussian_nll")


def cross_entropy(
    prediction: object,
    target: object,
    weight: object = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Return PyTorch's cross-entropy: logits with classes on axis 1 (axis 0 for one sample).

    ``target``: integer labels, or probabilities of the shape of ``prediction``.
    """
    x, y = _float(prediction), as_tensor(target)
    axis = 1 if x.ndim > 1 else 0
    if y.dtype in INTEGERS:
        return sparse_categorical_crossentropy(
            x, y, True, axis, ignore_index, label_smoothing, weight, reduction
        )
    return categorical_crossentropy(x, y, True, axis, label_smoothing, weight, reduction)


def nll_loss(
    prediction: object,
    target: object,
    weight: object = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Return PyTorch's negative log-likelihood: classes on axis 1 (axis 0 for one sample)."""
    x = _float(prediction)
    axis = 1 if x.ndim > 1 else 0
    return nll(x, target, axis, ignore_index, weight, reduction)
