"""SqueezeNet: Iandola et al., "AlexNet-level accuracy with 50x fewer parameters", 2016."""

from __future__ import annotations

from .. import functional as F
from .. import nn
from ..tensor import Tensor
from ..tracing import fail


class Fire(nn.Module):
    """A 1 x 1 convolution that narrows, then 1 x 1 and 3 x 3 side by side."""

    def __init__(
        self, inplanes: int, squeeze_planes: int, expand1x1_planes: int, expand3x3_planes: int
    ) -> None:
        self.squeeze = nn.Conv2d(inplanes, squeeze_planes, 1)
        self.expand1x1 = nn.Conv2d(squeeze_planes, expand1x1_planes, 1)
        self.expand3x3 = nn.Conv2d(squeeze_planes, expand3x3_planes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels of both convolutions, joined."""
        y = self.squeeze(x).relu()
        return F.concatenate([self.expand1x1(y).relu(), self.expand3x3(y).relu()], 1)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _features(version: str) -> nn.Sequential:
    if version == "1_0":
        return nn.Sequential(
            nn.Conv2d(3, 96, 7, stride=2),
            nn.ReLU(),
            _pool(),
            Fire(96, 16, 64, 64),
            Fire(128, 16, 64, 64),
            Fire(128, 32, 128, 128),
            _pool(),
            Fire(256, 32, 128, 128),
            Fire(256, 48, 192, 192),
            Fire(384, 48, 192, 192),
            Fire(384, 64, 256, 256),
            _pool(),
            Fire(512, 64, 256, 256),
        )
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        _pool(),
        Fire(64, 16, 64, 64),
        Fire(128, 16, 64, 64),
        _pool(),
        Fire(128, 32, 128, 128),
        Fire(256, 32, 128, 128),
        _pool(),
        Fire(256, 48, 192, 192),
        Fire(384, 48, 192, 192),
        Fire(384, 64, 256, 256),
        Fire(512, 64, 256, 256),
    )


class SqueezeNet(nn.Module):
    """`Fire` blocks and a convolution as classifier, for images of 21 x 21 pixels or more.

    Names and shapes of the parameters are torchvision's.  ``version``: ``"1_0"`` or ``"1_1"``,
    which computes less.
    """

    def __init__(self, version: str = "1_0", num_classes: int = 1000, dropout: float = 0.5) -> None:
        if version not in ("1_0", "1_1"):
            fail(f"SqueezeNet: version {version!r} is neither '1_0' nor '1_1'")
        self.features = _features(version)
        last = nn.Conv2d(512, num_classes, 1)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), last, nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module is last:
                    nn.init.normal_(module.weight, 0.0, 0.01)
                else:
                    nn.init.kaiming_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: object) -> Tensor:
        """Return the logits (batch, num_classes) of ``x`` (batch, 3, height, width)."""
        return self.classifier(self.features(x)).flatten(1)


def squeezenet1_0(num_classes: int = 1000, dropout: float = 0.5) -> SqueezeNet:
    """Return `SqueezeNet` as in the paper."""
    return SqueezeNet("1_0", num_classes, dropout)


def squeezenet1_1(num_classes: int = 1000, dropout: float = 0.5) -> SqueezeNet:
    """Return `SqueezeNet` 1.1, with 2.4 times less computation."""
    return SqueezeNet("1_1", num_classes, dropout)
