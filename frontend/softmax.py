"""Softmax and its relatives: exponentials normalised by their sum, none of which overflows."""

from __future__ import annotations

import math

from .elementwise import exp, isfinite, log, stop_gradient, where
from .shaping import Axes
from .tensor import Tensor, floating
from .tracing import fail


def logsumexp(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return log(sum(exp(x))) over ``axis``, without overflow; rows of -inf give -inf."""
    tensor = floating(x)
    peak = stop_gradient(tensor.max(axis, keepdims=True))
    peak = where(isfinite(peak), peak, 0.0)
    total = log(exp(tensor - peak).sum(axis, keepdims=True)) + peak
    return total if keepdims else total.squeeze(_axes(axis, tensor))


def _axes(axis: Axes, x: Tensor) -> Axes:
    return tuple(range(x.ndim)) if axis is None else axis


def softmax(x: object, axis: Axes = -1, temperature: object = 1.0) -> Tensor:
    """Return exp(x / temperature), normalised to sum to 1 over ``axis``."""
    tensor = _tempered(x, temperature)
    if 0 in tensor.shape:
        return tensor
    weights = exp(tensor - stop_gradient(tensor.max(axis, keepdims=True)))
    return weights / weights.sum(axis, keepdims=True)


def masked_softmax(x: object, axis: Axes = -1) -> Tensor:
    """Return `softmax`, and zeros with the derivative 0 where all of ``x`` is -inf."""
    tensor = floating(x)
    peak = stop_gradient(tensor.max(axis, keepdims=True))
    weights = exp(tensor - where(peak == -math.inf, 0.0, peak))
    total = weights.sum(axis, keepdims=True)
    return weights / where(total == 0, 1.0, total)


def log_softmax(x: object, axis: Axes = -1, temperature: object = 1.0) -> Tensor:
    """Return the logarithm of `softmax`, without overflow or cancellation."""
    tensor = _tempered(x, temperature)
    if 0 in tensor.shape:
        return tensor
    shifted = tensor - stop_gradient(tensor.max(axis, keepdims=True))
    return shifted - log(exp(shifted).sum(axis, keepdims=True))


def _tempered(x: object, temperature: object) -> Tensor:
    tensor = floating(x)
    if isinstance(temperature, (int, float)):
        if temperature <= 0:
            fail(f"softmax: the temperature must be positive, not {temperature}")
        return tensor if temperature == 1 else tensor / temperature
    return tensor / temperature
