"""LeNet-5: LeCun et al., "Gradient-based learning applied to document recognition", 1998."""

from __future__ import annotations

from .. import nn
from ..tensor import Tensor
from ..tracing import fail


class LeNet5(nn.Module):
    """Two convolutions with average pools and three dense layers, joined by tanh.

    ``image_size``: 32, as in the paper, or 28, which the first convolution pads to 32.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        if image_size not in (28, 32):
            fail(f"LeNet5: images have 28 or 32 pixels a side, not {image_size}")
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=(32 - image_size) // 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: object) -> Tensor:
        """Return the logits (batch, num_classes) of ``x`` (batch, in_channels, size, size)."""
        maps = self.pool(self.conv1(x).tanh())
        maps = self.pool(self.conv2(maps).tanh())
        hidden = self.fc1(maps.flatten(1)).tanh()
        return self.fc3(self.fc2(hidden).tanh())


def lenet5(num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> LeNet5:
    """Return a `LeNet5` with random parameters."""
    return LeNet5(num_classes, in_channels, image_size)
