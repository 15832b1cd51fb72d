"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", 2015, with batch normalisation."""

from __future__ import annotations

from .. import functional as F
from .. import nn
from ..tensor import Tensor, as_tensor, constant
from ..tracing import fail


class BasicConv2d(nn.Module):
    """A convolution, batch normalisation and ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, **options: int
    ) -> None:
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=False, **options)  # type: ignore[arg-type]
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: object) -> Tensor:
        """Return (batch, out_channels, ...) of ``x`` (batch, in_channels, ...)."""
        return self.bn(self.conv(x)).relu()


class Inception(nn.Module):
    """Four branches side by side: 1 x 1, 3 x 3, twice as wide, and a pool.

    The third branch is a 3 x 3 convolution where the paper has 5 x 5, as in torchvision, so that
    its parameters fit.
    """

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3red: int,
        ch3x3: int,
        ch5x5red: int,
        ch5x5: int,
        pool_proj: int,
    ) -> None:
        self.branch1 = BasicConv2d(in_channels, ch1x1, 1)
        self.branch2 = nn.Sequential(
            BasicConv2d(in_channels, ch3x3red, 1), BasicConv2d(ch3x3red, ch3x3, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(in_channels, ch5x5red, 1), BasicConv2d(ch5x5red, ch5x5, 3, padding=1)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True),
            BasicConv2d(in_channels, pool_proj, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels of all branches, joined."""
        branches = self.branch1, self.branch2, self.branch3, self.branch4
        return F.concatenate([branch(x) for branch in branches], 1)


class InceptionAux(nn.Module):
    """A classifier of inner features, whose loss helps the layers before it."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.7) -> None:
        self.conv = BasicConv2d(in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, num_classes)."""
        y = self.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1)
        return self.fc2(nn.dropout(self.fc1(y).relu(), self.dropout))


class GoogLeNet(nn.Module):
    """Nine `Inception` blocks and two auxiliary classifiers.

    Names and shapes of the parameters are torchvision's.

    Parameters
    ----------
    num_classes
        The width of the result.
    aux_logits
        Have the auxiliary classifiers; see `forward_with_auxiliary`.
    transform_input
        Take images normalised by ImageNet's mean and deviation to the range of the first weights
        published.
    dropout, dropout_aux
        Probabilities before the last layers.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
    ) -> None:
        self.transform_input = transform_input
        self.conv1 = BasicConv2d(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = BasicConv2d(64, 64, 1)
        self.conv3 = BasicConv2d(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = InceptionAux(512, num_classes, dropout_aux) if aux_logits else None
        self.aux2 = InceptionAux(528, num_classes, dropout_aux) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, 0.0, 0.01, -2.0, 2.0)

    def _stem(self, x: object) -> Tensor:
        image = as_tensor(x)
        if self.transform_input:
            scale = constant(_DEVIATIONS, image.dtype).reshape((3, 1, 1)) / 0.5
            shift = (constant(_MEANS, image.dtype).reshape((3, 1, 1)) - 0.5) / 0.5
            image = image * scale + shift
        y = self.maxpool1(self.conv1(image))
        y = self.maxpool2(self.conv3(self.conv2(y)))
        y = self.maxpool3(self.inception3b(self.inception3a(y)))
        return self.inception4a(y)

    def forward(self, x: object) -> Tensor:
        """Return the logits (batch, num_classes) of ``x`` (batch, 3, height, width)."""
        return self._classify(self._before_second(self._stem(x)))

    def forward_with_auxiliary(self, x: object) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits, and those of the second and of the first auxiliary classifier.

        The paper weights their losses by 0.3.  Raises GraphError where the model has none.
        """
        if self.aux1 is None or self.aux2 is None:
            fail("GoogLeNet: made with aux_logits=False, it has no such classifiers")
        first = self._stem(x)
        second = self._before_second(first)
        return self._classify(second), self.aux2(second), self.aux1(first)

    def _before_second(self, y: Tensor) -> Tensor:
        return self.inception4d(self.inception4c(self.inception4b(y)))

    def _classify(self, y: Tensor) -> Tensor:
        y = self.maxpool4(self.inception4e(y))
        y = self.inception5b(self.inception5a(y))
        return self.fc(self.dropout(self.avgpool(y).flatten(1)))


_MEANS = (0.485, 0.456, 0.406)
_DEVIATIONS = (0.229, 0.224, 0.225)


def googlenet(num_classes: int = 1000, **options: object) -> GoogLeNet:
    """Return a `GoogLeNet` with random parameters; ``options``: its other arguments."""
    return GoogLeNet(num_classes, **options)  # type: ignore[arg-type]
