"""Augmentations of the pixels' values: brightness, contrast, saturation, noise, normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import functional as F
from ..random import Generator, normal
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from .sampling import Range, draw, images_of, in_training, range_of, sometimes, wide

#: Shares of red, green and blue in the brightness that is seen (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


def random_brightness(
    x: object, amount: Range = 0.2, p: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Return images times a factor from 1 ± ``amount`` (not below 0), or from a range."""
    images = images_of("random_brightness", x)
    factor = draw(images, *range_of("random_brightness", amount, 1.0, 0.0), generator)
    return sometimes(images, images * wide(factor), p, generator, "random_brightness")


def random_contrast(
    x: object, amount: Range = 0.2, p: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Return images whose distance from their mean is scaled by a factor from 1 ± ``amount``."""
    images = images_of("random_contrast", x)
    factor = draw(images, *range_of("random_contrast", amount, 1.0, 0.0), generator)
    mean = images.mean((1, 2, 3), keepdims=True)
    changed = mean + (images - mean) * wide(factor)
    return sometimes(images, changed, p, generator, "random_contrast")


def random_saturation(
    x: object, amount: Range = 0.2, p: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Return colour images whose distance from grey is scaled by a factor from 1 ± ``amount``."""
    images = images_of("random_saturation", x)
    grey = _grey("random_saturation", images)
    factor = draw(images, *range_of("random_saturation", amount, 1.0, 0.0), generator)
    changed = grey + (images - grey) * wide(factor)
    return sometimes(images, changed, p, generator, "random_saturation")


def random_grayscale(x: object, p: float = 0.1, generator: Generator | None = None) -> Tensor:
    """Return colour images of which a share ``p`` has lost its colours; three channels stay."""
    images = images_of("random_grayscale", x)
    grey = _grey("random_grayscale", images)
    return sometimes(images, F.broadcast_to(grey, images.shape), p, generator, "random_grayscale")


def _grey(what: str, images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        fail(f"{what}: takes images of 3 channels, not {images.shape[1]}")
    weights = as_tensor(np.array(_LUMA).reshape(1, 3, 1, 1), dtype=images.dtype)
    return (images * weights).sum(1, keepdims=True)


def gaussian_noise(x: object, std: float = 0.1, generator: Generator | None = None) -> Tensor:
    """Return ``x`` (of any shape) plus noise from N(0, std²) in training."""
    tensor = as_tensor(x)
    if std < 0:
        fail(f"gaussian_noise: std must not be negative, but is {std}")
    if std == 0:
        return tensor
    noise = normal(tensor.shape, 0.0, std, tensor.dtype, generator, training_only=True)
    return in_training(tensor + noise, tensor)


def normalize(x: object, mean: float | Sequence[float], std: float | Sequence[float]) -> Tensor:
    """Return (x - mean) / std of each channel, in training and in inference."""
    images = images_of("normalize", x)

    def by_channel(given: float | Sequence[float], name: str) -> Tensor:
        values = np.asarray(given, "float64")
        if values.ndim > 1 or (values.ndim and values.shape != (images.shape[1],)):
            fail(
                f"normalize: {name} of shape {values.shape} does not fit {images.shape[1]} channels"
            )
        return as_tensor(values.reshape(1, -1, 1, 1), dtype=images.dtype)

    scale = by_channel(std, "std")
    if not (np.asarray(std) > 0).all():
        fail(f"normalize: std must be positive, not {std}")
    return (images - by_channel(mean, "mean")) / scale
