"""Dropout: random zeros in training, nothing in inference."""

from __future__ import annotations

from ..dropout import dropout
from ..random import Generator
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from .module import Module


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
