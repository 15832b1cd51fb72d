"""MobileNetV2: Sandler et al., "Inverted residuals and linear bottlenecks", 2018."""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from .. import nn
from ..tensor import Tensor

#: Expansion, channels, number of blocks, stride of the first.
_SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _rounded(channels: float, divisor: int) -> int:
    """Return the multiple of ``divisor`` nearest to ``channels``, not less than 0.9 of it."""
    near = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near


def _convolution(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """A depthwise convolution between a 1 x 1 that widens and one that narrows."""

    def __init__(self, inp: int, oup: int, stride: int, expand_ratio: float) -> None:
        hidden = round(inp * expand_ratio)
        self.use_res_connect = stride == 1 and inp == oup
        self.conv = nn.Sequential()
        if expand_ratio != 1:
            self.conv.append(_convolution(inp, hidden, 1))
        self.conv.append(_convolution(hidden, hidden, 3, stride, hidden))
        self.conv.append(nn.Conv2d(hidden, oup, 1, bias=False))
        self.conv.append(nn.BatchNorm2d(oup))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, oup, ...) of ``x`` (batch, inp, ...)."""
        y = self.conv(x)
        return x + y if self.use_res_connect else y


class MobileNetV2(nn.Module):
    """Inverted residual blocks.

    Names and shapes of the parameters are torchvision's.

    Parameters
    ----------
    num_classes
        The width of the result.
    width_mult
        By how much all layers are wider than the paper's.
    inverted_residual_setting
        Expansion, channels, number of blocks and stride of the first one, for each group.
    round_nearest
        Widths are multiples of this.
    dropout
        The probability before the last layer.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        inverted_residual_setting: Sequence[Sequence[int]] = _SETTINGS,
        round_nearest: int = 8,
        dropout: float = 0.2,
    ) -> None:
        channels = _rounded(32 * width_mult, round_nearest)
        last = _rounded(1280 * max(1.0, width_mult), round_nearest)
        self.features = nn.Sequential(_convolution(3, channels, stride=2))
        for expansion, width, count, stride in inverted_residual_setting:
            wide = _rounded(width * width_mult, round_nearest)
            for i in range(count):
                step = stride if i == 0 else 1
                self.features.append(InvertedResidual(channels, wide, step, expansion))
                channels = wide
        self.features.append(_convolution(channels, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: object) -> Tensor:
        """Return the logits (batch, num_classes) of ``x`` (batch, 3, height, width)."""
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def mobilenet_v2(num_classes: int = 1000, **options: object) -> MobileNetV2:
    """Return a `MobileNetV2` with random parameters; ``options``: its other arguments."""
    return MobileNetV2(num_classes, **options)  # type: ignore[arg-type]
