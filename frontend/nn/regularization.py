"""Penalties on parameters, terms to add to a loss.

    loss = losses.mse(y, target) + nn.regularization.l2(model, 1e-4)

``parameters``: a module (all its trainable parameters of two or more axes: biases and scales of
normalisations are not penalised), a variable, or a sequence of tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from ..tensor import Tensor
from ..tracing import fail
from .module import Module

Penalized = Module | Tensor | Sequence[Tensor]


def l1(parameters: Penalized, weight: float = 1.0) -> Tensor:
    """Return ``weight`` Σ|p|, 0-d (Tibshirani 1996, the lasso); its derivative at 0 is 0."""
    return _total([F.abs(p).sum() for p in _penalized(parameters)]) * weight


def l2(parameters: Penalized, weight: float = 1.0) -> Tensor:
    """Return ``weight`` Σp², 0-d (ridge regression); its gradient is 2 ``weight`` p."""
    return _total([F.square(p).sum() for p in _penalized(parameters)]) * weight


def elastic_net(parameters: Penalized, weight: float = 1.0, l1_ratio: float = 0.5) -> Tensor:
    """Return ``weight`` (r Σ|p| + (1 - r)/2 Σp²), r = ``l1_ratio`` (Zou & Hastie 2005)."""
    if not 0 <= l1_ratio <= 1:
        fail(f"elastic_net: l1_ratio must lie in [0, 1], not {l1_ratio}")
    return l1(parameters, weight * l1_ratio) + l2(parameters, weight * (1 - l1_ratio) / 2)


def group_lasso(parameters: Penalized, weight: float = 1.0) -> Tensor:
    """Return ``weight`` Σ √n |row|₂ over the rows of each matrix (Yuan & Lin 2006).

    A row is a slice along the first axis, an output unit; n is its number of elements.
    """
    terms = []
    for p in _penalized(parameters):
        rows = p.reshape((p.shape[0], -1)) if p.ndim else p.reshape((1, 1))
        size = rows.shape[1]
        terms.append(F.norm(rows, 2, axis=1).sum() * float(size) ** 0.5)  # type: ignore[arg-type]
    return _total(terms) * weight


def orthogonality(parameters: Penalized, weight: float = 1.0) -> Tensor:
    """Return ``weight`` Σ|W Wᵀ - I|² (Wᵀ W where W is tall), trailing axes flattened.

    Brock et al., "Neural photo editing with introspective adversarial networks", 2017.
    """
    terms = []
    for p in _penalized(parameters):
        if p.ndim < 2:
            fail(f"orthogonality: needs matrices, not {p.node.type}")
        matrix = p.reshape((p.shape[0], -1))
        rows, columns = (int(size) for size in matrix.shape)  # type: ignore[arg-type]
        wide = matrix if rows <= columns else matrix.T
        gram = wide @ wide.T
        terms.append(F.square(gram - F.eye(min(rows, columns), dtype=gram.dtype)).sum())
    return _total(terms) * weight


def _penalized(parameters: Penalized) -> list[Tensor]:
    if isinstance(parameters, Module):
        found: list[Tensor] = [p for p in parameters.parameters() if p.trainable and p.ndim >= 2]
    else:
        found = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not found:
        fail("regularization: there is no parameter to penalise")
    return found


def _total(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


__all__ = ["elastic_net", "group_lasso", "l1", "l2", "orthogonality"]
