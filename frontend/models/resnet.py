"""Residual networks: He et al., "Deep residual learning for image recognition", 2016."""

from __future__ import annotations

from collections.abc import Sequence

from .. import nn
from ..tensor import Tensor
from ..tracing import fail


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, and what enters them added."""

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        if groups != 1 or base_width != 64:
            fail("BasicBlock: groups and width_per_group are for bottleneck blocks")
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation before the sum."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (batch, planes, ...) for ``x`` (batch, inplanes, ...)."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return (y + shortcut).relu()


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1, and what enters them added.

    The stride is that of the 3 x 3 convolution.
    """

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        width = int(planes * (base_width / 64)) * groups
        self.conv1 = nn.Conv2d(inplanes, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation before the sum."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (batch, 4 planes, ...) for ``x`` (batch, inplanes, ...)."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return (y + shortcut).relu()


class ResNet(nn.Module):
    """Four groups of residual blocks.

    Names and shapes of the parameters are torchvision's.

    Parameters
    ----------
    block
        `BasicBlock` or `Bottleneck`.
    layers
        The number of blocks of each group.
    num_classes
        The width of the result.
    zero_init_residual
        Start every block as the identity: the scale before its sum as zero.
    groups, width_per_group
        The groups of the 3 x 3 convolutions of bottlenecks, and their width over 64.
    stem
        ``"imagenet"`` begins with a 7 x 7 convolution of stride 2 and a pool, ``"cifar"``, for
        small images, with a 3 x 3 convolution.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        stem: str = "imagenet",
    ) -> None:
        if stem not in ("imagenet", "cifar"):
            fail(f"ResNet: stem {stem!r} is neither 'imagenet' nor 'cifar'")
        small = stem == "cifar"
        self._inplanes = 64
        self._widths = groups, width_per_group
        kernel, stride, padding = (3, 1, 1) if small else (7, 2, 3)
        self.conv1 = nn.Conv2d(3, 64, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._group(block, 64, layers[0], 1)
        self.layer2 = self._group(block, 128, layers[1], 2)
        self.layer3 = self._group(block, 256, layers[2], 2)
        self.layer4 = self._group(block, 512, layers[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
                weight = module.last_norm.weight
                assert weight is not None
                nn.init.zeros_(weight)

    def _group(
        self, block: type[BasicBlock] | type[Bottleneck], planes: int, count: int, stride: int
    ) -> nn.Sequential:
        outer = planes * block.expansion
        downsample = None
        if stride != 1 or self._inplanes != outer:
            downsample = nn.Sequential(
                nn.Conv2d(self._inplanes, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )
        blocks = [block(self._inplanes, planes, stride, downsample, *self._widths)]
        self._inplanes = outer
        blocks += [block(outer, planes, 1, None, *self._widths) for _ in range(1, count)]
        return nn.Sequential(*blocks)

    def forward(self, x: object) -> Tensor:
        """Return the logits (batch, num_classes) of ``x`` (batch, 3, height, width)."""
        y = self.maxpool(self.bn1(self.conv1(x)).relu())
        y = self.layer4(self.layer3(self.layer2(self.layer1(y))))
        return self.fc(self.avgpool(y).flatten(1))


def resnet18(num_classes: int = 1000, **options: object) -> ResNet:
    """Return a `ResNet` of 18 layers; ``options``: its other arguments."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, **options)  # type: ignore[arg-type]


def resnet34(num_classes: int = 1000, **options: object) -> ResNet:
    """Return a `ResNet` of 34 layers."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, **options)  # type: ignore[arg-type]


def resnet50(num_classes: int = 1000, **options: object) -> ResNet:
    """Return a `ResNet` of 50 layers."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, **options)  # type: ignore[arg-type]


def resnet101(num_classes: int = 1000, **options: object) -> ResNet:
    """Return a `ResNet` of 101 layers."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, **options)  # type: ignore[arg-type]


def resnet152(num_classes: int = 1000, **options: object) -> ResNet:
    """Return a `ResNet` of 152 layers."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, **options)  # type: ignore[arg-type]


def resnext50_32x4d(num_classes: int = 1000, **options: object) -> ResNet:
    """Return a ResNeXt of 50 layers, 32 groups of width 4 (Xie et al. 2017)."""
    return resnet50(num_classes, **{"groups": 32, "width_per_group": 4, **options})


def wide_resnet50_2(num_classes: int = 1000, **options: object) -> ResNet:
    """Return a ResNet of 50 layers, twice as wide inside (Zagoruyko & Komodakis 2016)."""
    return resnet50(num_classes, **{"width_per_group": 128, **options})
