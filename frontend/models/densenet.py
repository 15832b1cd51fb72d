"""DenseNet: Huang et al., "Densely connected convolutional networks", 2017."""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from .. import nn
from ..tensor import Tensor


class _DenseLayer(nn.Module):
    """A 1 x 1 and a 3 x 3 convolution, each after normalisation and ReLU."""

    def __init__(self, channels: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        inner = bn_size * growth_rate
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, growth_rate, 3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x: Tensor) -> Tensor:
        """Return the new features (batch, growth_rate, ...) from all before."""
        y = self.conv1(self.norm1(x).relu())
        y = self.conv2(self.norm2(y).relu())
        return nn.dropout(y, self.drop_rate)


class _DenseBlock(nn.Module):
    """Layers of which each sees the features of all before it."""

    def __init__(
        self, count: int, channels: int, growth_rate: int, bn_size: int, drop_rate: float
    ) -> None:
        for i in range(count):
            layer = _DenseLayer(channels + i * growth_rate, growth_rate, bn_size, drop_rate)
            setattr(self, f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` and the features of every layer, joined."""
        features = [x]
        for layer in self.children():
            features.append(layer(F.concatenate(features, 1)))
        return F.concatenate(features, 1)


def _transition(channels: int) -> nn.Sequential:
    """Halve channels and sizes."""
    return nn.Sequential(
        {
            "norm": nn.BatchNorm2d(channels),
            "relu": nn.ReLU(),
            "conv": nn.Conv2d(channels, channels // 2, 1, bias=False),
            "pool": nn.AvgPool2d(2, 2),
        }
    )


class DenseNet(nn.Module):
    """Dense blocks with transitions between them.

    Names and shapes of the parameters are torchvision's.

    Parameters
    ----------
    growth_rate
        How many features each layer adds.
    block_config
        The number of layers of each block.
    num_init_features
        The width of the first convolution.
    bn_size
        The width of the 1 x 1 convolutions over ``growth_rate``.
    drop_rate
        The probability of dropout after each layer.
    num_classes
        The width of the result.
    """

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
    ) -> None:
        channels = num_init_features
        parts: dict[str, nn.Module] = {
            "conv0": nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
            "norm0": nn.BatchNorm2d(channels),
            "relu0": nn.ReLU(),
            "pool0": nn.MaxPool2d(3, stride=2, padding=1),
        }
        for i, count in enumerate(block_config, 1):
            parts[f"denseblock{i}"] = _DenseBlock(count, channels, growth_rate, bn_size, drop_rate)
            channels += count * growth_rate
            if i < len(block_config):
                parts[f"transition{i}"] = _transition(channels)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: object) -> Tensor:
        """Return the logits (batch, num_classes) of ``x`` (batch, 3, height, width)."""
        maps = self.features(x).relu()
        return self.classifier(F.adaptive_avg_pool2d(maps, 1).flatten(1))


def densenet121(num_classes: int = 1000, **options: object) -> DenseNet:
    """Return a `DenseNet` of 121 layers; ``options``: its other arguments."""
    return DenseNet(num_classes=num_classes, **options)  # type: ignore[arg-type]


def densenet169(num_classes: int = 1000, **options: object) -> DenseNet:
    """Return a `DenseNet` of 169 layers."""
    return densenet121(num_classes, **{"block_config": (6, 12, 32, 32), **options})


def densenet201(num_classes: int = 1000, **options: object) -> DenseNet:
    """Return a `DenseNet` of 201 layers."""
    return densenet121(num_classes, **{"block_config": (6, 12, 48, 32), **options})
