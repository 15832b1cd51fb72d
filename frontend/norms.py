"""Norms, and the distances and similarities made of them."""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.ir.dims import format_shape
from .elementwise import abs, maximum, power, sqrt, square, where
from .manipulation import broadcast_to
from .promotion import unify
from .shaping import Axes, normalize_axes
from .tensor import Tensor, floating, operand_of
from .tracing import fail


def norm(x: object, ord: float | str = 2, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the vector norm (Σ|x|ᵖ)^(1/p) over ``axis``, p = ``ord``: a number, inf or -inf.

    The derivative of the 2-norm at the origin is 0, as in PyTorch.
    """
    tensor = floating(x)
    order = float(ord) if ord != "fro" else 2.0
    magnitude = abs(tensor)
    empty = any(tensor.shape[a] == 0 for a in normalize_axes(axis, tensor.ndim, "norm"))
    if order in {float("inf"), float("-inf")}:
        if empty and order > 0:
            return magnitude.sum(axis, keepdims)
        return magnitude.max(axis, keepdims) if order > 0 else magnitude.min(axis, keepdims)
    if order == 0:
        return (tensor != 0).astype(tensor.dtype).sum(axis, keepdims)
    if order == 1:
        return magnitude.sum(axis, keepdims)
    if order == 2:
        return safe_sqrt(square(tensor).sum(axis, keepdims))
    # |x|ᵖ⁻¹ of zero is taken as zero, so that the derivative at the origin is 0 too
    zero = magnitude == 0
    of_zero = 0.0 if order > 0 else float("inf")
    powers = where(zero, of_zero, power(where(zero, 1.0, magnitude), order))
    total = powers.sum(axis, keepdims)
    nothing = total == 0
    of_nothing = 0.0 if order > 0 else float("inf")
    return where(nothing, of_nothing, power(where(nothing, 1.0, total), 1.0 / order))


def safe_sqrt(x: Tensor) -> Tensor:
    """Return the square root, with the derivative 0 at 0 instead of infinity."""
    zero = x == 0
    return where(zero, 0.0, sqrt(where(zero, 1.0, x)))


def normalize(x: object, p: float = 2.0, axis: Axes = 1, eps: float = 1e-12) -> Tensor:
    """Return ``x / max(|x|, eps)``, the p-norm taken over ``axis``."""
    tensor = floating(x)
    return tensor / maximum(norm(tensor, p, axis, keepdims=True), eps)


def dist(x: object, y: object, p: float = 2) -> Tensor:
    """Return the p-norm of ``x - y`` over all elements."""
    left, right = (Tensor(node) for node in unify(operand_of(x), operand_of(y), floating=True))
    return norm(left - right, p)


def pairwise_distance(
    x: object, y: object, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False
) -> Tensor:
    """Return the p-norm of ``x - y + eps`` over the last axis; both broadcast."""
    left, right = (Tensor(node) for node in unify(operand_of(x), operand_of(y), floating=True))
    return norm(left - right + eps, p, -1, keepdims)


def cdist(x: object, y: object, p: float = 2.0) -> Tensor:
    """Return the p-norm distances of all rows of ``x`` (..., n, d) and ``y`` (..., m, d).

    The differences themselves are summed, so near rows lose no digits.
    """
    left, right = (Tensor(node) for node in unify(operand_of(x), operand_of(y), floating=True))
    if min(left.ndim, right.ndim) < 2 or left.shape[-1] != right.shape[-1]:
        fail(
            f"cdist: {format_shape(left.shape)} and {format_shape(right.shape)} do not fit: "
            "rows of one length, (..., n, d) and (..., m, d), would"
        )
    if p < 0:
        fail(f"cdist: p must not be negative, not {p}")
    return norm(left.expand_dims(-2) - right.expand_dims(-3), p, -1)


def cosine_similarity(x: object, y: object, axis: int = -1, eps: float = 1e-8) -> Tensor:
    """Return x·y / (max(|x|, eps) max(|y|, eps)) over ``axis``, as in PyTorch."""
    left, right = floating(x), floating(y)
    product = left * right  # the axis counts in what both broadcast to
    left, right = broadcast_to(left, product.shape), broadcast_to(right, product.shape)
    scale = norm(left, 2, axis).clip(eps) * norm(right, 2, axis).clip(eps)
    return product.sum(axis) / scale


def renorm(x: object, p: float, axis: int, maxnorm: float) -> Tensor:
    """Return ``x`` with the slices along ``axis`` whose p-norm exceeds ``maxnorm`` scaled to it."""
    tensor = floating(x)
    (place,) = normalize_axes(axis, tensor.ndim, "renorm")
    others: Sequence[int] = [a for a in range(tensor.ndim) if a != place]
    length = norm(tensor, p, others, keepdims=True)
    return tensor * where(length > maxnorm, maxnorm / (length + 1e-7), 1.0)


__all__ = [
    "cdist",
    "cosine_similarity",
    "dist",
    "norm",
    "normalize",
    "pairwise_distance",
    "renorm",
    "safe_sqrt",
]
