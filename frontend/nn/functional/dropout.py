"""Dropout with PyTorch's arguments; ``training=True`` means: where the program trains."""

from __future__ import annotations

from ....compiler.ir.types import Shape
from ... import dropout as _dropout
from ...tensor import Tensor, as_tensor


def dropout(input: object, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Return elements zeroed with probability ``p``, the rest over 1 - p, in training."""
    return _dropout.dropout(input, p) if training else as_tensor(input)


def _mask(x: Tensor, spatial: int) -> Shape:
    """Return the shape of a mask of whole channels of (batch, channels, *spatial) or without."""
    kept = x.ndim - spatial
    return (*x.shape[:kept], *(1,) * spatial)


def _channels(input: object, p: float, training: bool, spatial: int) -> Tensor:
    x = as_tensor(input)
    return _dropout.dropout(x, p, shape=_mask(x, spatial)) if training else x


def dropout1d(
    input: object, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Return whole channels of (batch, channels, length) zeroed with probability ``p``."""
    return _channels(input, p, training, 1)


def dropout2d(
    input: object, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Return whole channels of (batch, channels, height, width) zeroed with probability ``p``."""
    return _channels(input, p, training, 2)


def dropout3d(
    input: object, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Return whole channels of (batch, channels, d, h, w) zeroed with probability ``p``."""
    return _channels(input, p, training, 3)


def alpha_dropout(
    input: object, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Return dropout that keeps mean and variance, for `selu` (Klambauer et al. 2017)."""
    return _dropout.alpha_dropout(input, p) if training else as_tensor(input)


def feature_alpha_dropout(
    input: object, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Return `alpha_dropout` of whole channels (axis 1)."""
    x = as_tensor(input)
    return _dropout.alpha_dropout(x, p, shape=_mask(x, x.ndim - 2)) if training else x
