"""Augmentations that mix the samples of a batch, and their labels with them.

The partner of a sample is the one at the other end of the batch; batches are shuffled.
"""

from __future__ import annotations

from ...compiler.ir.dims import format_shape
from ...compiler.ir.types import FLOATS
from .. import functional as F
from ..dropout import is_training
from ..random import Generator, beta
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from .occlusion import box_mask
from .sampling import images_of, in_training


def mixup(
    x: object,
    y: object,
    alpha: float = 0.2,
    num_classes: int | None = None,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return samples and labels, each the mean of two: λ a + (1 - λ) b, λ ~ Beta(alpha, alpha).

    Zhang et al., "mixup: beyond empirical risk minimization", 2018, with a λ for each sample.

    Parameters
    ----------
    x
        ``(batch, …)``, floats.
    y
        Class probabilities ``(batch, classes)`` or any targets of floats; or integer labels
        ``(batch,)``, of which ``num_classes`` makes one-hot rows.

    Returns
    -------
    tuple of Tensor
        Of the shapes of ``x`` and of the targets; in inference, what was given.
    """
    samples, targets = as_tensor(x), _targets("mixup", x, y, num_classes)
    share = beta((samples.shape[0],), alpha, alpha, samples.dtype, generator, training_only=True)
    return _mix(samples, share), _mix(targets, share)


def cutmix(
    x: object,
    y: object,
    alpha: float = 1.0,
    num_classes: int | None = None,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return images with a box of another image, and labels mixed by the areas.

    The box has a share 1 - λ of the area, λ ~ Beta(alpha, alpha), before it is rounded to pixels;
    it lies wholly inside (Yun et al., "CutMix", 2019).  Arguments and results are as for `mixup`,
    with ``x`` (batch, channels, height, width).
    """
    images, targets = images_of("cutmix", x), _targets("cutmix", x, y, num_classes)
    share = beta((images.shape[0],), alpha, alpha, images.dtype, generator, training_only=True)
    height, width = images.shape[2:]
    side = F.sqrt(1.0 - share)
    inside = box_mask(images, (side * height, side * width), generator)
    mixed = F.where(inside, F.flip(images, 0), images)
    kept = 1.0 - inside.astype(images.dtype).mean((1, 2, 3))
    return in_training(mixed, images), _mix(targets, kept)


def _targets(what: str, x: object, y: object, num_classes: int | None) -> Tensor:
    samples, targets = as_tensor(x), as_tensor(y)
    if samples.dtype not in FLOATS or not samples.ndim:
        fail(f"{what}: takes a batch of floats, not {samples.node.type}")
    if targets.dtype not in FLOATS:
        if num_classes is None:
            fail(f"{what}: labels of {targets.dtype} cannot be mixed; give num_classes")
        targets = F.one_hot(targets, num_classes, samples.dtype)
    if not targets.ndim or targets.shape[0] != samples.shape[0]:
        fail(
            f"{what}: targets of shape {format_shape(targets.shape)} do not fit samples of shape "
            f"{format_shape(samples.shape)}"
        )
    return targets


def _mix(x: Tensor, share: Tensor) -> Tensor:
    """Return the mean of ``x`` and its reverse along the batch, ``share`` being that of ``x``."""
    weight = share.astype(x.dtype).reshape((-1, *(1,) * (x.ndim - 1)))
    return F.where(is_training(), x * weight + F.flip(x, 0) * (1.0 - weight), x)
