"""Dropout as a function, and whether the program that is compiled trains or predicts."""

from __future__ import annotations

from ..compiler.ir import ops
from .creation import zeros_like
from .elementwise import where
from .random import Generator, bernoulli
from .tensor import Tensor, as_tensor
from .tracing import build, fail


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
        return where(is_training(), zeros_like(tensor), tensor)
    mask = tensor.shape if shape is None else shape
    keep = bernoulli(1.0 - p, mask, generator=generator, training_only=True)
    return where(is_training(), where(keep, tensor * (1.0 / (1.0 - p)), 0.0), tensor)


def alpha_dropout(
    x: object, p: float = 0.5, generator: Generator | None = None, shape: object = None
) -> Tensor:
    """Return ``x`` with elements set to SELU's limit with probability ``p``.

    Mean and variance are kept.  In inference, ``x`` itself (Klambauer et al., "Self-normalizing
    neural networks", 2017, section 3).  ``shape``: as for `dropout`.  Raises GraphError for p
    outside [0, 1].
    """
    tensor = as_tensor(x)
    if not 0 <= p <= 1:
        fail(f"alpha_dropout: the probability must lie in [0, 1], not {p}")
    if p == 0:
        return tensor
    if p == 1:
        return where(is_training(), zeros_like(tensor), tensor)
    scale = ((_SELU_LIMIT**2 * p + 1) * (1 - p)) ** -0.5
    shift = _SELU_LIMIT * scale * p
    mask = tensor.shape if shape is None else shape
    keep = bernoulli(1.0 - p, mask, generator=generator, training_only=True)
    dropped = shift - _SELU_LIMIT * scale
    return where(is_training(), where(keep, tensor * scale + shift, dropped), tensor)


#: SELU's scale times its alpha: minus what it tends to at minus infinity.
_SELU_LIMIT = 1.7580993408473766
