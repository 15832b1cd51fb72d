"""Dropout: random zeros in training, nothing in inference."""

from __future__ import annotations

from ...compiler.ir.types import Dim
from ..dropout import alpha_dropout, dropout
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


def _channels(x: Tensor, unbatched: int | None) -> tuple[Dim, ...]:
    """Return the shape of a mask with one element a channel.

    ``unbatched``: the rank at which axis 0 holds the channels; otherwise axis 1 does.
    """
    kept = 1 if x.ndim == unbatched else 2
    return (*x.shape[:kept], *(1,) * (x.ndim - kept))


class _ChannelDropout(Dropout):
    """Sets whole channels to zero."""

    _unbatched: int | None = None

    def forward(self, x: object) -> Tensor:
        """Return ``x`` (batch, channels, ...) with channels dropped."""
        tensor = as_tensor(x)
        return dropout(tensor, self.p, self.generator, _channels(tensor, self._unbatched))


class Dropout1d(_ChannelDropout):
    """Sets channels of (batch, channels, length) to zero."""

    _unbatched = 2


class Dropout2d(_ChannelDropout):
    """Sets channels of (batch, channels, height, width) to zero."""


class Dropout3d(_ChannelDropout):
    """Sets channels of (batch, channels, depth, height, width) to zero."""

    _unbatched = 4


class AlphaDropout(Dropout):
    """Sets elements to SELU's limit with probability ``p`` in training (see `alpha_dropout`)."""

    def forward(self, x: object) -> Tensor:
        """Return ``x`` with dropout that keeps mean and variance."""
        return alpha_dropout(x, self.p, self.generator)


class FeatureAlphaDropout(Dropout):
    """Sets whole channels (the second axis) to SELU's limit, mean and variance kept."""

    def forward(self, x: object) -> Tensor:
        """Return ``x`` (batch, channels, ...) with channels dropped."""
        tensor = as_tensor(x)
        return alpha_dropout(tensor, self.p, self.generator, _channels(tensor, None))
