"""Augmentations that hide a part of each image."""

from __future__ import annotations

import math

from .. import functional as F
from ..random import Generator, normal
from ..tensor import Tensor
from ..tracing import fail
from .sampling import draw, images_of, positions, sometimes, wide


def cutout(
    x: object,
    size: int,
    fill: float = 0.0,
    p: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return images with a square of ``size`` pixels set to ``fill``.

    Its centre is uniform over the image, so that a part of it may lie outside (DeVries & Taylor,
    "Improved regularization of convolutional neural networks with cutout", 2017).
    """
    images = images_of("cutout", x)
    if size < 1:
        fail(f"cutout: size must be at least 1, not {size}")
    hidden: Tensor | None = None
    for axis in (2, 3):
        length = images.shape[axis]
        centre = F.floor(draw(images, 0.0, 1.0, generator) * length)
        start = wide(centre) - size // 2
        place = positions(images, axis)
        inside = (place >= start) & (place < start + size)
        hidden = inside if hidden is None else hidden & inside
    assert hidden is not None
    return sometimes(images, F.where(hidden, fill, images), p, generator, "cutout")


def random_erasing(
    x: object,
    p: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value: float | str = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return images of which a share ``p`` has a rectangle erased (Zhong et al. 2017).

    ``scale``: range of its share of the area; ``ratio``: of its height over its width, drawn on a
    logarithmic scale; a side longer than the image is cut.  ``value``: what takes its place,
    ``"random"`` for N(0, 1).
    """
    what = "random_erasing"
    images = images_of(what, x)
    if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
        fail(f"{what}: scale {scale} or ratio {ratio} is no range of positive numbers")
    if isinstance(value, str) and value != "random":
        fail(f"{what}: value {value!r} is neither a number nor 'random'")
    height, width = images.shape[2:]
    area = draw(images, *scale, generator) * height * width
    aspect = F.exp(draw(images, math.log(ratio[0]), math.log(ratio[1]), generator))
    inside = box_mask(images, (F.sqrt(area * aspect), F.sqrt(area / aspect)), generator)
    noise = value
    if isinstance(value, str):
        noise = normal(images.shape, dtype=images.dtype, generator=generator, training_only=True)
    return sometimes(images, F.where(inside, noise, images), p, generator, what)


def box_mask(x: Tensor, sides: tuple[Tensor, Tensor], generator: Generator | None) -> Tensor:
    """Return (batch, 1, height, width): whether a pixel lies in a box that is wholly inside.

    ``sides``: height and width in pixels, ``(batch,)``; rounded, and cut to the image.
    """
    mask: Tensor | None = None
    for axis, side in zip((2, 3), sides, strict=True):
        length = x.shape[axis]
        pixels = F.minimum(F.round(side), F.full((), 1.0, x.dtype) * length)
        room = F.floor(draw(x, 0.0, 1.0, generator) * (length - pixels + 1.0))
        start = wide(F.minimum(room, length - pixels))
        place = positions(x, axis)
        inside = (place >= start) & (place < start + wide(pixels))
        mask = inside if mask is None else mask & inside
    assert mask is not None
    return mask
