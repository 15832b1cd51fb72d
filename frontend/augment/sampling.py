"""What augmentations share: a checked batch of images, draws for each sample, the switch."""

from __future__ import annotations

from collections.abc import Sequence

from ...compiler.ir.dims import format_shape
from ...compiler.ir.types import FLOATS, Dim
from .. import functional as F
from ..dropout import is_training
from ..random import Generator, bernoulli, uniform
from ..tensor import Tensor, as_tensor
from ..tracing import fail

Range = float | tuple[float, float]


def images_of(what: str, x: object) -> Tensor:
    """Return ``x`` as a batch of images; GraphError where it is none."""
    tensor = as_tensor(x)
    if tensor.ndim != 4 or tensor.dtype not in FLOATS:
        fail(
            f"{what}: takes floats (batch, channels, height, width), not {tensor.dtype} "
            f"{format_shape(tensor.shape)}"
        )
    return tensor


def in_training(changed: Tensor, otherwise: Tensor) -> Tensor:
    """Return ``changed`` in a training step, ``otherwise`` in inference; shapes are equal."""
    return F.where(is_training(), changed, otherwise)


def draw(
    x: Tensor, low: float, high: float, generator: Generator | None, shape: Sequence[Dim] = ()
) -> Tensor:
    """Return a number from U[low, high) for each sample, ``(batch, *shape)``, of the type of ``x``.

    Equal bounds give the number itself, and no randomness.
    """
    full = (x.shape[0], *shape)
    if low == high:
        return F.full(full, low, x.dtype)
    return uniform(full, low, high, x.dtype, generator, training_only=True)


def wide(values: Tensor) -> Tensor:
    """Return one value a sample, ``(batch,)``, as ``(batch, 1, 1, 1)``."""
    return values.reshape((-1, 1, 1, 1))


def sometimes(
    x: Tensor, changed: Tensor, p: float, generator: Generator | None, what: str
) -> Tensor:
    """Return ``changed`` for a share ``p`` of the samples in training, else ``x``."""
    if not 0 <= p <= 1:
        fail(f"{what}: the probability must lie in [0, 1], not {p}")
    if p == 0:
        return x
    if p < 1:
        chosen = bernoulli(p, (x.shape[0],), generator=generator, training_only=True)
        changed = F.where(wide(chosen), changed, x)
    return in_training(changed, x)


def range_of(
    what: str, given: Range, centre: float = 0.0, least: float | None = None
) -> tuple[float, float]:
    """Return the bounds that ``given`` stands for: a pair, or ``centre`` ± a number."""
    if isinstance(given, (int, float)):
        if given < 0:
            fail(f"{what}: a number stands for ± and must not be negative, but is {given}")
        low, high = centre - given, centre + given
        low = low if least is None else max(low, least)
    else:
        low, high = given
    if low > high or (least is not None and low < least):
        fail(f"{what}: ({low}, {high}) is no range" + ("" if least is None else f" from {least}"))
    return float(low), float(high)


def static_field(what: str, x: Tensor) -> tuple[int, int]:
    """Return height and width; GraphError where they are symbolic."""
    height, width = x.shape[2:]
    if not (isinstance(height, int) and isinstance(width, int)):
        fail(f"{what}: height and width must be known, not {format_shape(x.shape)}")
    return height, width


def positions(x: Tensor, axis: int) -> Tensor:
    """Return the index along ``axis`` (2 or 3), shaped to broadcast against images."""
    shape = tuple(x.shape[a] if a == axis else 1 for a in range(4))
    return F.iota(shape, axis, x.dtype)
