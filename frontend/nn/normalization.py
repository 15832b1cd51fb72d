"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...compiler.ir.dims import divide_exactly, format_shape
from ..normalization import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
)
from ..state import Variable, register_effect
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from ..windows import batched
from .module import Module


def _affine(shape: tuple[int, ...], weight: bool, bias: bool, dtype: str) -> list[Variable | None]:
    return [
        Variable(np.ones(shape), "weight", dtype=dtype) if weight else None,
        Variable(np.zeros(shape), "bias", dtype=dtype) if bias else None,
    ]


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) over the last axes, then scaled and shifted (Ba et al. 2016).

    ``normalized_shape``: the sizes of those axes; ``weight`` and ``bias`` have this shape.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: str = "float32",
    ) -> None:
        if isinstance(normalized_shape, int):
            normalized_shape = (normalized_shape,)
        self.normalized_shape = tuple(normalized_shape)
        self.eps = eps
        self.weight, self.bias = _affine(
            self.normalized_shape, elementwise_affine, elementwise_affine and bias, dtype
        )

    def forward(self, x: object) -> Tensor:
        """Return ``x`` (..., *normalized_shape) normalised."""
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine = self.weight is not None
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}"


class RMSNorm(Module):
    """x / sqrt(mean(x²) + eps) over the last axes, then scaled (Zhang & Sennrich 2019).

    ``eps``: by default the machine epsilon of the element type, as in PyTorch.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: str = "float32",
    ) -> None:
        if isinstance(normalized_shape, int):
            normalized_shape = (normalized_shape,)
        self.normalized_shape = tuple(normalized_shape)
        self.eps = float(np.finfo(dtype).eps) if eps is None else eps
        self.weight, _ = _affine(self.normalized_shape, elementwise_affine, False, dtype)

    def forward(self, x: object) -> Tensor:
        """Return ``x`` (..., *normalized_shape) normalised."""
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class GroupNorm(Module):
    """Standardises each of ``num_groups`` groups of channels of a sample (Wu & He 2018)."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: str = "float32",
        *,
        bias: bool = True,
    ) -> None:
        if divide_exactly(num_channels, num_groups) is None:
            fail(f"GroupNorm: {num_groups} groups do not divide {num_channels} channels")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.weight, self.bias = _affine((num_channels,), affine, affine and bias, dtype)

    def forward(self, x: object) -> Tensor:
        """Return ``x`` (batch, channels, ...) normalised."""
        tensor = as_tensor(x)
        _check_channels(tensor, self.num_channels, "GroupNorm")
        return group_norm(tensor, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"


def _check_channels(x: Tensor, channels: int, layer: str) -> None:
    if x.ndim < 2 or x.shape[1] != channels:
        fail(
            f"{layer}: an input of shape {format_shape(x.shape)} does not fit; its axis 1 must "
            f"be {channels}"
        )


class _ChannelNorm(Module):
    """Standardises channels; may keep moving averages of their statistics for inference."""

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: str,
        bias: bool,
    ) -> None:
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        shape = (num_features,)
        self.weight, self.bias = _affine(shape, affine, affine and bias, dtype)
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            self.running_mean = Variable(np.zeros(shape), "running_mean", "buffer", dtype=dtype)
            self.running_var = Variable(np.ones(shape), "running_var", "buffer", dtype=dtype)
            self.num_batches_tracked = Variable(
                np.zeros((), np.int64), "num_batches_tracked", "buffer"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_ChannelNorm):
    """Standardises each channel over the batch (Ioffe & Szegedy 2015).

    Training uses the batch's own mean and biased variance and moves ``running_mean`` and
    ``running_var`` (unbiased) towards them by ``momentum`` (None: the average of all batches);
    inference uses those.  A batch with one value a channel counts its variance as 0.
    """

    _ranks: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: str = "float32",
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, bias)

    def forward(self, x: object) -> Tensor:
        """Return ``x`` (batch, num_features, ...) normalised."""
        tensor = as_tensor(x)
        layer = type(self).__name__
        if tensor.ndim not in self._ranks:
            ranks = " or ".join(map(str, self._ranks))
            fail(f"{layer}: needs rank {ranks}, not {format_shape(tensor.shape)}")
        _check_channels(tensor, self.num_features, layer)
        momentum: object = self.momentum
        tracked = self.num_batches_tracked
        if momentum is None and tracked is not None:  # the average of all batches
            momentum = as_tensor(1.0, tensor) / (tracked + 1).astype(tensor.dtype)
        result = batch_norm(
            tensor,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            momentum=momentum,
            eps=self.eps,
        )
        if tracked is not None and result is not tensor:
            register_effect(tracked, result.node, lambda old: old + 1, training_only=True)
        return result


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (batch, features) or (batch, features, length)."""

    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (batch, channels, height, width)."""

    _ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (batch, channels, depth, height, width)."""

    _ranks = (5,)


class _InstanceNorm(_ChannelNorm):
    """Standardises each channel of each sample (Ulyanov et al. 2016).

    ``track_running_stats``: keep moving averages, which inference uses.
    """

    _rank: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        dtype: str = "float32",
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, bias)

    def forward(self, x: object) -> Tensor:
        """Return ``x`` (batch, num_features, ...), with or without the batch, normalised."""
        layer = type(self).__name__
        tensor, single = batched(as_tensor(x), self._rank, layer)
        _check_channels(tensor, self.num_features, layer)
        result = instance_norm(
            tensor,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            use_input_stats=None if self.track_running_stats else True,
            momentum=self.momentum or 0.0,
            eps=self.eps,
        )
        return result.squeeze(0) if single else result


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (batch, channels, length)."""

    _rank = 1


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of (batch, channels, height, width)."""

    _rank = 2


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of (batch, channels, depth, height, width)."""

    _rank = 3


class LocalResponseNorm(Module):
    """Divides by the squares of ``size`` channels around (see `local_response_norm`)."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: object) -> Tensor:
        """Return ``x`` (batch, channels, ...) normalised."""
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
