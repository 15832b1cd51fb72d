"""PyTorch's former names of `interpolate`."""

from __future__ import annotations

from collections.abc import Sequence

from ...resampling import interpolate
from ...tensor import Tensor


def upsample(
    input: object,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Return `interpolate` of the same arguments."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: object,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Tensor:
    """Return nearest-neighbour interpolation."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(
    input: object,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Tensor:
    """Return bilinear interpolation with aligned corners."""
    return interpolate(input, size, scale_factor, "bilinear", True)
