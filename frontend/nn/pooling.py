"""Pooling layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import adaptive_pooling, pooling, unpooling
from ..adaptive_pooling import Windows
from ..random import Generator
from ..state import Variable
from ..windows import PerAxis
from .module import Module


class _Pool(Module):
    """Applies ``_function`` with the arguments that the layer was made with."""

    _function: Callable[..., Any]

    def _keep(self, **arguments: Any) -> None:
        self.arguments = arguments

    def forward(self, x: object, *others: Any, **named: Any) -> Any:
        """Return the pool of ``x`` (batch, channels, ...), with or without the batch."""
        return type(self)._function(x, *others, **named, **self.arguments)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.arguments.items())


class _MaxPool(_Pool):
    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        dilation: PerAxis = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self._keep(
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            return_indices=return_indices,
            ceil_mode=ceil_mode,
        )


class MaxPool1d(_MaxPool):
    """The maximum of every window of (batch, channels, length); see `chainrule.max_pool1d`."""

    _function = staticmethod(pooling.max_pool1d)


class MaxPool2d(_MaxPool):
    """The maximum of every window of (batch, channels, height, width)."""

    _function = staticmethod(pooling.max_pool2d)


class MaxPool3d(_MaxPool):
    """The maximum of every window of (batch, channels, depth, height, width)."""

    _function = staticmethod(pooling.max_pool3d)


class _MaxUnpool(_Pool):
    """Called with the maxima, their indices and, where it is not the default, ``output_size``."""

    def __init__(
        self, kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0
    ) -> None:
        self._keep(kernel_size=kernel_size, stride=stride, padding=padding)


class MaxUnpool1d(_MaxUnpool):
    """Undoes `MaxPool1d` with ``return_indices``; see `chainrule.max_unpool1d`."""

    _function = staticmethod(unpooling.max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    """Undoes `MaxPool2d` with ``return_indices``."""

    _function = staticmethod(unpooling.max_unpool2d)


class MaxUnpool3d(_MaxUnpool):
    """Undoes `MaxPool3d` with ``return_indices``."""

    _function = staticmethod(unpooling.max_unpool3d)


class AvgPool1d(_Pool):
    """The mean of every window of (batch, channels, length); see `chainrule.avg_pool1d`."""

    _function = staticmethod(pooling.avg_pool1d)

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self._keep(
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self._keep(
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            divisor_override=divisor_override,
        )


class AvgPool2d(_AvgPool):
    """The mean of every window of (batch, channels, height, width)."""

    _function = staticmethod(pooling.avg_pool2d)


class AvgPool3d(_AvgPool):
    """The mean of every window of (batch, channels, depth, height, width)."""

    _function = staticmethod(pooling.avg_pool3d)


class _LPPool(_Pool):
    def __init__(
        self,
        norm_type: float,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        ceil_mode: bool = False,
    ) -> None:
        self._keep(norm_type=norm_type, kernel_size=kernel_size, stride=stride, ceil_mode=ceil_mode)


class LPPool1d(_LPPool):
    """The p-norm of every window of (batch, channels, length); see `chainrule.lp_pool1d`."""

    _function = staticmethod(pooling.lp_pool1d)


class LPPool2d(_LPPool):
    """The p-norm of every window of (batch, channels, height, width)."""

    _function = staticmethod(pooling.lp_pool2d)


class LPPool3d(_LPPool):
    """The p-norm of every window of (batch, channels, depth, height, width)."""

    _function = staticmethod(pooling.lp_pool3d)


class _AdaptiveAvgPool(_Pool):
    def __init__(self, output_size: Windows) -> None:
        self._keep(output_size=output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of ``output_size`` windows that cover (batch, channels, length)."""

    _function = staticmethod(adaptive_pooling.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The means of ``output_size`` windows that cover (batch, channels, height, width)."""

    _function = staticmethod(adaptive_pooling.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The means of ``output_size`` windows that cover (batch, channels, depth, height, width)."""

    _function = staticmethod(adaptive_pooling.adaptive_avg_pool3d)


class _AdaptiveMaxPool(_Pool):
    def __init__(self, output_size: Windows, return_indices: bool = False) -> None:
        self._keep(output_size=output_size, return_indices=return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The maxima of ``output_size`` windows that cover (batch, channels, length)."""

    _function = staticmethod(adaptive_pooling.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The maxima of ``output_size`` windows that cover (batch, channels, height, width)."""

    _function = staticmethod(adaptive_pooling.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The maxima of ``output_size`` windows that cover (batch, channels, depth, height, width)."""

    _function = staticmethod(adaptive_pooling.adaptive_max_pool3d)


class _FractionalMaxPool(_Pool):
    """``_random_samples``, where given, is a buffer: the same windows in every call."""

    _random_samples: Variable | None

    def __init__(
        self,
        kernel_size: PerAxis,
        output_size: PerAxis | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: object | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.register_buffer("_random_samples", _random_samples)
        self._keep(
            kernel_size=kernel_size,
            output_size=output_size,
            output_ratio=output_ratio,
            return_indices=return_indices,
            generator=generator,
        )

    def forward(self, x: object, *others: Any, **named: Any) -> Any:
        """Return the pool of ``x`` (batch, channels, ...), with or without the batch."""
        return super().forward(x, *others, _random_samples=self._random_samples, **named)


class FractionalMaxPool2d(_FractionalMaxPool):
    """The maxima of windows at pseudo-random distances in (batch, channels, height, width)."""

    _function = staticmethod(adaptive_pooling.fractional_max_pool2d)


class FractionalMaxPool3d(_FractionalMaxPool):
    """The maxima of windows at pseudo-random distances in (batch, channels, d, h, w)."""

    _function = staticmethod(adaptive_pooling.fractional_max_pool3d)
