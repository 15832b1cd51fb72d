"""Convolution layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...compiler.ir.dims import divide_exactly, format_shape
from .. import convolution
from ..convolution import fold, unfold
from ..initializers import default_bias, default_weight
from ..padding import pad_last
from ..state import Variable
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from ..windows import PerAxis, batched, per_axis
from .module import Module

#: PyTorch's padding_mode -> the mode of `pad_last`.
_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate",
          "circular": "circular"}  # fmt: skip


class _Convolution(Module):
    """What all convolution layers share: geometry, parameters and their first values."""

    _rank: int
    bias: Variable | None
    padding: Any  # ints, or for forward convolutions a word

    def _set_up(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis,
        padding: PerAxis | str,
        dilation: PerAxis,
        groups: int,
        padding_mode: str,
        transposed: bool,
        bias: bool,
        dtype: str,
    ) -> None:
        layer, rank = type(self).__name__, self._rank
        for channels, name in ((in_channels, "in_channels"), (out_channels, "out_channels")):
            if groups < 1 or divide_exactly(channels, groups) is None:
                fail(f"{layer}: groups={groups} do not divide {name}={channels}")
        if padding_mode not in _MODES:
            fail(
                f"{layer}: padding_mode {padding_mode!r} is not one of "
                f"{', '.join(map(repr, _MODES))}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = per_axis(kernel_size, rank, "kernel_size", layer)
        self.stride = per_axis(stride, rank, "stride", layer)
        self.dilation = per_axis(dilation, rank, "dilation", layer)
        self.padding = (
            padding
            if isinstance(padding, str)
            else per_axis(padding, rank, "padding", layer, least=0)
        )
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                fail(f"{layer}: padding is 'same', 'valid' or ints, not {padding!r}")
            if padding == "same" and any(s != 1 for s in self.stride):
                fail(f"{layer}: padding='same' goes with stride 1, not {self.stride}")
        self.padding_mode = padding_mode
        first, second = in_channels, out_channels
        if not transposed:
            first, second = out_channels, in_channels
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Variable(default_weight(shape), "weight", dtype=dtype)
        values = default_bias((out_channels,), shape[1] * math.prod(self.kernel_size))
        self.bias = Variable(values, "bias", dtype=dtype) if bias else None

    def extra_repr(self) -> str:
        parts = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        for name, default in (("padding", 0), ("dilation", 1)):
            value = getattr(self, name)
            if value != (default,) * self._rank:
                parts.append(f"{name}={value}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _Forward(_Convolution):
    """Cross-correlation with a learned weight."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: PerAxis | str = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        dtype: str = "float32",
    ) -> None:
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
            padding_mode, False, bias, dtype,
        )  # fmt: skip

    def _sides(self) -> list[int]:
        """Return the padding as `pad_last` takes it."""
        sides: list[int] = []
        for axis in reversed(range(self._rank)):
            if isinstance(self.padding, tuple):
                sides += [self.padding[axis]] * 2
            else:
                total = self.dilation[axis] * (self.kernel_size[axis] - 1)
                total *= self.padding == "same"
                sides += [total // 2, total - total // 2]
        return sides

    def forward(self, x: object) -> Tensor:
        """Return the convolution of ``x`` (batch, in_channels, ...), with or without the batch."""
        tensor, padding = as_tensor(x), self.padding
        batched(tensor, self._rank, type(self).__name__)
        if self.padding_mode != "zeros":
            tensor = pad_last(tensor, self._sides(), _MODES[self.padding_mode])
            padding = 0
        function = getattr(convolution, f"conv{self._rank}d")
        return function(
            tensor, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class Conv1d(_Forward):
    """Convolution of (batch, in_channels, length) with ``weight`` (out, in/groups, kernel).

    Arguments as in `chainrule.conv1d`; ``padding_mode``: ``"zeros"``, ``"reflect"``,
    ``"replicate"`` or ``"circular"``.  ``weight`` and ``bias`` (out_channels,) start uniform in
    ±1/sqrt(fan-in), as in PyTorch.
    """

    _rank = 1


class Conv2d(_Forward):
    """Convolution of (batch, in_channels, height, width); see `Conv1d`."""

    _rank = 2


class Conv3d(_Forward):
    """Convolution of (batch, in_channels, depth, height, width); see `Conv1d`."""

    _rank = 3


class _Transposed(_Convolution):
    """Transposed convolution with a learned weight."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: PerAxis = 0,
        output_padding: PerAxis = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: PerAxis = 1,
        padding_mode: str = "zeros",
        dtype: str = "float32",
    ) -> None:
        layer = type(self).__name__
        if padding_mode != "zeros":
            fail(f"{layer}: padding_mode {padding_mode!r} does not fit; only 'zeros' does")
        if isinstance(padding, str):
            fail(f"{layer}: padding is ints, not {padding!r}")
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
            padding_mode, True, bias, dtype,
        )  # fmt: skip
        self.output_padding = per_axis(output_padding, self._rank, "output_padding", layer, least=0)

    def forward(self, x: object, output_size: Sequence[int] | None = None) -> Tensor:
        """Return the transposed convolution of ``x``, with or without the batch.

        ``output_size``: the spatial sizes of the result (or its whole shape) in place of
        ``output_padding``.  Raises GraphError where no output_padding below the stride gives it.
        """
        tensor = as_tensor(x)
        batched(tensor, self._rank, type(self).__name__)
        extra = self.output_padding if output_size is None else self._extra(tensor, output_size)
        function = getattr(convolution, f"conv_transpose{self._rank}d")
        return function(
            tensor, self.weight, self.bias, self.stride, self.padding, extra, self.groups,
            self.dilation,
        )  # fmt: skip

    def _extra(self, x: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """Return the output_padding that leads to ``output_size``."""
        layer, rank = type(self).__name__, self._rank
        sizes = (output_size,) if isinstance(output_size, int) else tuple(output_size)
        if len(sizes) not in (rank, x.ndim):
            fail(f"{layer}: output_size {sizes} does not fit; {rank} or {x.ndim} sizes would")
        sizes = sizes[-rank:]
        extra: list[int] = []
        least: list[int] = []
        for size, s, p, k, d, wanted in zip(
            x.shape[-rank:], self.stride, self.padding, self.kernel_size, self.dilation, sizes,
            strict=True,
        ):  # fmt: skip
            if not isinstance(size, int):
                fail(
                    f"{layer}: output_size needs known sizes, not {format_shape(x.shape)}; "
                    "give output_padding to the layer"
                )
            least.append((size - 1) * s - 2 * p + d * (k - 1) + 1)
            extra.append(wanted - least[-1])
        if any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            most = [low + s - 1 for low, s in zip(least, self.stride, strict=True)]
            fail(
                f"{layer}: output_size {sizes} does not fit an input of shape "
                f"{format_shape(x.shape)}; {tuple(least)} to {tuple(most)} would"
            )
        return tuple(extra)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        if any(self.output_padding):
            text += f", output_padding={self.output_padding}"
        return text


class ConvTranspose1d(_Transposed):
    """Transposed convolution of (batch, in_channels, length), weight (in, out/groups, kernel).

    Arguments as in `chainrule.conv_transpose1d`; first values as in `Conv1d`.
    """

    _rank = 1


class ConvTranspose2d(_Transposed):
    """Transposed convolution of (batch, in_channels, height, width); see `ConvTranspose1d`."""

    _rank = 2


class ConvTranspose3d(_Transposed):
    """Transposed convolution of (batch, in_channels, depth, height, width)."""

    _rank = 3


class Unfold(Module):
    """Makes every window of an image a column (see `chainrule.unfold`)."""

    def __init__(
        self,
        kernel_size: PerAxis,
        dilation: PerAxis = 1,
        padding: PerAxis = 0,
        stride: PerAxis = 1,
    ) -> None:
        self.arguments = (kernel_size, dilation, padding, stride)

    def forward(self, x: object) -> Tensor:
        """Return (batch, channels * taps, windows) of ``x`` (batch, channels, height, width)."""
        return unfold(x, *self.arguments)

    def extra_repr(self) -> str:
        names = "kernel_size", "dilation", "padding", "stride"
        return ", ".join(f"{n}={v}" for n, v in zip(names, self.arguments, strict=True))


class Fold(Module):
    """Sums columns up to an image (see `chainrule.fold`)."""

    def __init__(
        self,
        output_size: PerAxis,
        kernel_size: PerAxis,
        dilation: PerAxis = 1,
        padding: PerAxis = 0,
        stride: PerAxis = 1,
    ) -> None:
        self.output_size = output_size
        self.arguments = (kernel_size, dilation, padding, stride)

    def forward(self, x: object) -> Tensor:
        """Return (batch, channels, height, width) of ``x`` (batch, channels * taps, windows)."""
        return fold(x, self.output_size, *self.arguments)

    def extra_repr(self) -> str:
        names = "kernel_size", "dilation", "padding", "stride"
        parts = [f"{n}={v}" for n, v in zip(names, self.arguments, strict=True)]
        return ", ".join([f"output_size={self.output_size}", *parts])
