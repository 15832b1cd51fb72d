"""Normalisation as functions, with the arguments of PyTorch's functional interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..compiler.ir.dims import divide_exactly, format_shape, product
from ..compiler.ir.types import Dim
from .dropout import is_training
from .elementwise import maximum, rsqrt, square, where
from .pooling import Pool, window_sums
from .state import Variable, register_effect
from .tensor import Tensor, as_tensor
from .tracing import fail


def scale_and_shift(x: Tensor, weight: object, bias: object) -> Tensor:
    """Return ``x * weight + bias``, without those that are None."""
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


def standardize(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """Return ``(x - mean) / sqrt(var + eps)`` over ``axes``, with the biased variance."""
    centred = x - x.mean(axes, keepdims=True)
    return centred * rsqrt(x.var(axes, keepdims=True) + eps)


def last_axes(x: Tensor, shape: int | Sequence[Dim], what: str) -> tuple[int, ...]:
    """Return the last axes of ``x``, which must be of ``shape``."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if not sizes or x.shape[-len(sizes) :] != sizes:
        fail(
            f"{what}: an input of shape {format_shape(x.shape)} does not end in "
            f"{format_shape(sizes)}"
        )
    return tuple(range(x.ndim - len(sizes), x.ndim))


def by_channel(values: object, x: Tensor) -> Tensor | None:
    """Return one value a channel (axis 1) in a shape that broadcasts to ``x``."""
    if values is None:
        return None
    tensor = as_tensor(values)
    return tensor if x.ndim == 2 else tensor.reshape((-1, *(1,) * (x.ndim - 2)))


def layer_norm(
    x: object,
    normalized_shape: int | Sequence[Dim],
    weight: object = None,
    bias: object = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) over the last axes, scaled and shifted (Ba et al. 2016).

    ``normalized_shape``: the sizes of those axes; ``weight`` and ``bias`` are of this shape.
    """
    tensor = as_tensor(x)
    axes = last_axes(tensor, normalized_shape, "layer_norm")
    return scale_and_shift(standardize(tensor, axes, eps), weight, bias)


def rms_norm(
    x: object,
    normalized_shape: int | Sequence[Dim],
    weight: object = None,
    eps: float | None = None,
) -> Tensor:
    """Return x / sqrt(mean(x²) + eps) over the last axes, scaled (Zhang & Sennrich 2019).

    ``eps``: by default the machine epsilon of the element type, as in PyTorch.
    """
    tensor = as_tensor(x)
    axes = last_axes(tensor, normalized_shape, "rms_norm")
    small = float(np.finfo(tensor.dtype).eps) if eps is None else eps
    scale = rsqrt(square(tensor).mean(axes, keepdims=True) + small)
    return scale_and_shift(tensor * scale, weight, None)


def group_norm(
    x: object, num_groups: int, weight: object = None, bias: object = None, eps: float = 1e-5
) -> Tensor:
    """Standardise each of ``num_groups`` groups of channels (axis 1) of a sample (Wu & He 2018).

    ``weight`` and ``bias``: one value a channel.
    """
    tensor = as_tensor(x)
    if tensor.ndim < 2 or divide_exactly(tensor.shape[1], num_groups) is None:
        fail(
            f"group_norm: {num_groups} groups do not divide the channels (axis 1) of an input of "
            f"shape {format_shape(tensor.shape)}"
        )
    if 0 in tensor.shape:
        return tensor
    grouped = tensor.reshape((tensor.shape[0], num_groups, -1))
    normal = standardize(grouped, (2,), eps).reshape(tensor.shape)
    return scale_and_shift(normal, by_channel(weight, tensor), by_channel(bias, tensor))


def batch_norm(
    x: object,
    running_mean: object = None,
    running_var: object = None,
    weight: object = None,
    bias: object = None,
    training: bool | None = None,
    momentum: object = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Standardise each channel (axis 1) over the batch (Ioffe & Szegedy 2015).

    Parameters
    ----------
    x : (batch, channels, ...)
    running_mean, running_var : (channels,), optional
        What inference uses.  Those that are Variables move in training by ``momentum`` towards the
        batch's mean and unbiased variance; without them the batch's own are always used.
    training : bool, optional
        Whether the batch's own statistics are used; by default where the compiled program trains.
    """
    tensor = as_tensor(x)
    axes = (0, *range(2, tensor.ndim))
    if any(tensor.shape[axis] == 0 for axis in axes):  # nothing to standardise or learn from
        return tensor
    mean, var = tensor.mean(axes), tensor.var(axes)
    own_mean, own_var = mean, var
    if running_mean is not None and running_var is not None and training is not True:
        if training is False:
            mean, var = as_tensor(running_mean), as_tensor(running_var)
        else:
            mean = where(is_training(), own_mean, running_mean)
            var = where(is_training(), own_var, running_var)
    wide_mean, wide_scale = by_channel(mean, tensor), by_channel(rsqrt(var + eps), tensor)
    assert wide_mean is not None and wide_scale is not None
    result = scale_and_shift(
        (tensor - wide_mean) * wide_scale, by_channel(weight, tensor), by_channel(bias, tensor)
    )
    if training is not False:
        count = product(tuple(tensor.shape[axis] for axis in axes))
        _track(result, own_mean, own_var, count, momentum, (running_mean, running_var))
    return result


def _track(
    result: Tensor,
    mean: Tensor,
    var: Tensor,
    count: Dim,
    momentum: object,
    running: tuple[object, object],
) -> None:
    """Attach the updates of running statistics to ``result``."""
    size = as_tensor(count, dtype=var.dtype)
    unbiased = var * (size / maximum(size - 1.0, 1.0))
    factor = as_tensor(momentum, var)

    def towards(new: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda old: old * (1.0 - factor) + new * factor

    for state, new in zip(running, (mean, unbiased), strict=True):
        if isinstance(state, Variable):
            register_effect(state, result.node, towards(new), training_only=True)


def instance_norm(
    x: object,
    running_mean: object = None,
    running_var: object = None,
    weight: object = None,
    bias: object = None,
    use_input_stats: bool | None = True,
    momentum: object = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Standardise each channel of each sample over its spatial axes (Ulyanov et al. 2016).

    Parameters
    ----------
    x : (batch, channels, ...)
    running_mean, running_var : (channels,), optional
        What is used in place of the sample's own statistics.  Those that are Variables move in
        training towards the batch's average of the samples' means and unbiased variances.
    use_input_stats : bool, optional
        Whether the sample's own statistics are used; None: where the compiled program trains.

    Raises
    ------
    GraphError
        There are no spatial axes, or they hold only one element.
    """
    tensor = as_tensor(x)
    axes = tuple(range(2, tensor.ndim))
    count = product(tuple(tensor.shape[axis] for axis in axes))
    if not axes or (count == 1 and use_input_stats):
        fail(
            f"instance_norm: an input of shape {format_shape(tensor.shape)} has only one element "
            "a channel to take statistics of; two or more would fit"
        )
    given = running_mean is not None and running_var is not None
    if not given and not use_input_stats:
        fail("instance_norm: needs running_mean and running_var where use_input_stats is not True")
    mean, var = tensor.mean(axes, keepdims=True), tensor.var(axes, keepdims=True)
    own_mean, own_var = mean, var
    if not use_input_stats:
        mean, var = by_channel(running_mean, tensor), by_channel(running_var, tensor)
        if use_input_stats is None:
            mean = where(is_training(), own_mean, mean)
            var = where(is_training(), own_var, var)
    assert mean is not None and var is not None
    result = scale_and_shift(
        (tensor - mean) * rsqrt(var + eps), by_channel(weight, tensor), by_channel(bias, tensor)
    )
    if given and use_input_stats is not False:
        means, variances = (own.mean((0, *axes)) for own in (own_mean, own_var))
        _track(result, means, variances, count, momentum, (running_mean, running_var))
    return result


def local_response_norm(
    x: object, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Return x / (k + alpha * mean of x² over ``size`` channels around)^beta.

    ``x``: (batch, channels, ...), with one spatial axis or more.  (Krizhevsky et al. 2012; the mean
    counts channels beyond the ends as 0, as PyTorch's does.)
    """
    tensor = as_tensor(x)
    if tensor.ndim < 3 or size < 1:
        fail(
            f"local_response_norm: {size} channels of an input of shape "
            f"{format_shape(tensor.shape)}; one or more of (batch, channels, ...) would fit"
        )
    pool = Pool(1, tensor.shape[1], size, 1, size // 2, 1, tensor.shape[1])
    mean = window_sums(square(tensor), [pool]) / size
    return tensor / (mean * alpha + k) ** beta
