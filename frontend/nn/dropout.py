"""Dropout: random zeros in training, nothing in inference."""

from __future__ import annotations

from ...compiler.ir import ops
from .. import functional as F
from ..random import Generator, bernoulli
from ..tensor import Tensor, as_tensor
from ..tracing import build, fail
from .module import Module


def is_training() -> Tensor:
    """Return the 0-d bool that is true in a compiled training step, false in a prediction."""
    return Tensor(build(ops.Training()))


def dropout(
    x: object, p: float = 0.5, generator: Generator | None = None, shape: object = None
) -> Tensor:
    """Return ``x`` with elements set to zero with probability ``p`` and the rest over 1 - p.

    In inference, ``x`` itself (Srivastava et al. 2014, inverted).  ``shape``: the shape of the
    mask, which broadcasts to ``x``; by default that of ``x``.
    Raises GraphError for p outside [0, 1].
    """
    tensor = as_tensor(x)
    if not 0 <= p <= 1:
        fail(f"dropout: the probability must lie in [0, 1], not {p}")
    if p == 0:
        return tensor
    if p == 1:
        return F.where(is_training(), F.zeros_like(tensor), tensor)
    mask = tensor.shape if shape is None else shape
    keep = bernoulli(1.0 - p, mask, generator=generator, training_only=True)
    return F.where(is_training(), F.where(keep, tensor * (1.0 / (1.0 - p)), 0.0), tensor)


class Dropout(Module):
    """Sets elements to zero with probability ``p`` in training (see `dropout`)."""

    def __init__(
        self, p: float = 0.5, inplace: bool = False, generator: Generator | None = None
    ) -> None:
        del inplace  # the compiler decides
        if not 0 <= p <= 1:
            fail(f"Dropout: the probability must lie in [0, 1], not {p}")
        self.p = p
        self.generator = generator

    def forward(self, x: object) -> Tensor:
        """Return ``x`` with dropout."""
        return dropout(x, self.p, self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _ChannelDropout(Dropout):
    """Sets whole channels (the second axis) to zero."""

    def forward(self, x: object) -> Tensor:
        """Return ``x`` (batch, channels, ...) with channels dropped."""
        tensor = as_tensor(x)
        mask = (*tensor.shape[:2], *(1,) * (tensor.ndim - 2))
        return dropout(tensor, self.p, self.generator, mask)


class Dropout1d(_ChannelDropout):
    """Sets channels of (batch, channels, length) to zero."""


class Dropout2d(_ChannelDropout):
    """Sets channels of (batch, channels, height, width) to zero."""
