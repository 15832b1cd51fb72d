"""Distances and similarities of pairs of vectors, as modules."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor, floating
from .module import Module


class CosineSimilarity(Module):
    """Returns x·y / (max(|x|, eps) max(|y|, eps)) over axis ``dim``."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim = dim
        self.eps = eps

    def forward(self, x1: object, x2: object) -> Tensor:
        """Return the similarity of ``x1`` and ``x2``, without axis ``dim``."""
        return F.cosine_similarity(x1, x2, self.dim, self.eps)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, eps={self.eps}"


class PairwiseDistance(Module):
    """Returns the ``p``-norm of x - y + ``eps`` over the last axis, which ``keepdim`` keeps."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.norm = p
        self.eps = eps
        self.keepdim = keepdim

    def forward(self, x1: object, x2: object) -> Tensor:
        """Return the distance of ``x1`` and ``x2`` (..., width)."""
        difference = floating(x1) - floating(x2) + self.eps
        return F.norm(difference, self.norm, -1, self.keepdim)

    def extra_repr(self) -> str:
        return f"p={self.norm}, eps={self.eps}, keepdim={self.keepdim}"
