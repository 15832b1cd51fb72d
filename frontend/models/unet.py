"""U-Net: Ronneberger et al., "Convolutional networks for biomedical image segmentation", 2015."""

from __future__ import annotations

from ...compiler.ir.dims import divide_exactly, format_shape
from .. import functional as F
from .. import nn
from ..tensor import Tensor, as_tensor
from ..tracing import fail


def _double(in_channels: int, out_channels: int, batch_norm: bool) -> nn.Sequential:
    """Return two 3 x 3 convolutions that keep the sizes, each with ReLU."""
    layers = nn.Sequential()
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(out_channels))
        layers.append(nn.ReLU())
    return layers


class UNet(nn.Module):
    """An encoder that halves the sizes, and a decoder that joins what the encoder saw at each.

    Convolutions are padded, so that the result has the sizes of the image.

    Parameters
    ----------
    in_channels, out_channels
        The channels of image and result.
    width
        The channels of the first block; each block below has twice as many.
    depth
        How often the sizes are halved.
    batch_norm
        Normalise after each convolution.
    bilinear
        Upsample by interpolation and a 1 x 1 convolution in place of a transposed convolution.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        width: int = 64,
        depth: int = 4,
        batch_norm: bool = True,
        bilinear: bool = False,
    ) -> None:
        widths = [width * 2**level for level in range(depth + 1)]
        before = [in_channels, *widths]
        self.down = nn.ModuleList(
            _double(inner, outer, batch_norm)
            for inner, outer in zip(before[:-1], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        deep_first = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(deep, wide, 1),
            )
            if bilinear
            else nn.ConvTranspose2d(deep, wide, 2, stride=2)
            for deep, wide in deep_first
        )
        self.merge = nn.ModuleList(_double(2 * wide, wide, batch_norm) for _, wide in deep_first)
        self.head = nn.Conv2d(width, out_channels, 1)
        self.depth = depth

    def forward(self, x: object) -> Tensor:
        """Return (batch, out_channels, height, width) of ``x`` (batch, in_channels, ...).

        Raises GraphError where 2^depth does not divide height and width.
        """
        y = as_tensor(x)
        if any(divide_exactly(size, 2**self.depth) is None for size in y.shape[2:]):
            fail(
                f"UNet: an image of shape {format_shape(y.shape)} cannot be halved {self.depth} "
                f"times; multiples of {2**self.depth} would fit"
            )
        seen: list[Tensor] = []
        for level, block in enumerate(self.down):
            y = block(self.pool(y) if level else y)
            seen.append(y)
        for up, merge, skip in zip(self.up, self.merge, reversed(seen[:-1]), strict=True):
            y = merge(F.concatenate([skip, up(y)], 1))
        return self.head(y)


def unet(in_channels: int = 3, out_channels: int = 1, **options: object) -> UNet:
    """Return a `UNet` with random parameters; ``options``: its other arguments."""
    return UNet(in_channels, out_channels, **options)  # type: ignore[arg-type]
