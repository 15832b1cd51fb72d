"""VGG: Simonyan & Zisserman, "Very deep convolutional networks for image recognition", 2015."""

from __future__ import annotations

from collections.abc import Sequence

from .. import nn
from ..tensor import Tensor

#: The widths of the 3 x 3 convolutions; None is a maximum pool.
_LAYERS: dict[int, Sequence[int | None]] = {
    11: (64, None, 128, None, 256, 256, None, 512, 512, None, 512, 512, None),
    13: (64, 64, None, 128, 128, None, 256, 256, None, 512, 512, None, 512, 512, None),
    16: (64, 64, None, 128, 128, None, *(256,) * 3, None, *(512,) * 3, None, *(512,) * 3, None),
    19: (64, 64, None, 128, 128, None, *(256,) * 4, None, *(512,) * 4, None, *(512,) * 4, None),
}


def _features(layers: Sequence[int | None], batch_norm: bool) -> nn.Sequential:
    result = nn.Sequential()
    channels = 3
    for width in layers:
        if width is None:
            result.append(nn.MaxPool2d(2, 2))
            continue
        result.append(nn.Conv2d(channels, width, 3, padding=1))
        if batch_norm:
            result.append(nn.BatchNorm2d(width))
        result.append(nn.ReLU())
        channels = width
    return result


class VGG(nn.Module):
    """Stacked 3 x 3 convolutions and three dense layers, for images of 32 x 32 pixels or more.

    Names and shapes of the parameters are torchvision's.  ``layers``: the widths of the
    convolutions, None for a pool; the last one must be 512.  ``hidden``: the width of the dense
    layers.
    """

    def __init__(
        self,
        layers: Sequence[int | None],
        num_classes: int = 1000,
        dropout: float = 0.5,
        batch_norm: bool = False,
        hidden: int = 4096,
        init_weights: bool = True,
    ) -> None:
        self.features = _features(layers, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        if init_weights:
            self.apply(_initialize)

    def forward(self, x: object) -> Tensor:
        """Return the logits (batch, num_classes) of ``x`` (batch, 3, height, width)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def vgg11(num_classes: int = 1000, **options: object) -> VGG:
    """Return `VGG` with 8 convolutions."""
    return VGG(_LAYERS[11], num_classes, **options)  # type: ignore[arg-type]


def vgg13(num_classes: int = 1000, **options: object) -> VGG:
    """Return `VGG` with 10 convolutions."""
    return VGG(_LAYERS[13], num_classes, **options)  # type: ignore[arg-type]


def vgg16(num_classes: int = 1000, **options: object) -> VGG:
    """Return `VGG` with 13 convolutions."""
    return VGG(_LAYERS[16], num_classes, **options)  # type: ignore[arg-type]


def vgg19(num_classes: int = 1000, **options: object) -> VGG:
    """Return `VGG` with 16 convolutions."""
    return VGG(_LAYERS[19], num_classes, **options)  # type: ignore[arg-type]


def vgg11_bn(num_classes: int = 1000, **options: object) -> VGG:
    """Return `vgg11` with batch normalisation."""
    return VGG(_LAYERS[11], num_classes, batch_norm=True, **options)  # type: ignore[arg-type]


def vgg13_bn(num_classes: int = 1000, **options: object) -> VGG:
    """Return `vgg13` with batch normalisation."""
    return VGG(_LAYERS[13], num_classes, batch_norm=True, **options)  # type: ignore[arg-type]


def vgg16_bn(num_classes: int = 1000, **options: object) -> VGG:
    """Return `vgg16` with batch normalisation."""
    return VGG(_LAYERS[16], num_classes, batch_norm=True, **options)  # type: ignore[arg-type]


def vgg19_bn(num_classes: int = 1000, **options: object) -> VGG:
    """Return `vgg19` with batch normalisation."""
    return VGG(_LAYERS[19], num_classes, batch_norm=True, **options)  # type: ignore[arg-type]
