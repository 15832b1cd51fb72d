"""Embedding layers: tables whose rows are chosen by integers."""

from __future__ import annotations

import numpy as np

from ...compiler.ir.dims import format_shape
from ..embedding import checked_padding, embedding, embedding_bag
from ..initializers import normal
from ..promotion import array_of
from ..state import Variable
from ..tensor import Tensor
from ..tracing import fail
from .module import Module


class _Table(Module):
    """A table (num_embeddings, embedding_dim), and how its rows are read."""

    weight: Variable

    def _set_table(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        weight: object,
        dtype: str,
    ) -> None:
        layer = type(self).__name__
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = checked_padding(layer, padding_idx, num_embeddings)
        if weight is None:
            values = normal((num_embeddings, embedding_dim))
            if self.padding_idx is not None:
                values[self.padding_idx] = 0.0
        else:
            values = array_of(weight)
            if values.shape != (num_embeddings, embedding_dim):
                fail(
                    f"{layer}: a table of shape {format_shape(values.shape)} is not "
                    f"({num_embeddings}, {embedding_dim})"
                )
        self.weight = Variable(values, "weight", dtype=dtype)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


def _matrix(what: str, embeddings: object) -> np.ndarray:
    values = array_of(embeddings)
    if values.ndim != 2:
        fail(f"{what}: the table is (rows, width), not {format_shape(values.shape)}")
    return values


class Embedding(_Table):
    """Looks integers up in ``weight`` (num_embeddings, embedding_dim): (...) to (..., dim).

    ``weight`` starts as N(0, 1), or as ``_weight``; row ``padding_idx`` starts as zeros and has no
    gradient.  The other arguments are those of `F.embedding`.  Indices outside of the table raise
    IndexRangeError at run time.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: object = None,
        _freeze: bool = False,
        dtype: str = "float32",
    ) -> None:
        self._set_table(num_embeddings, embedding_dim, padding_idx, _weight, dtype)
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        self.weight.set_trainable(not _freeze)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: object,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """Return a layer with the table ``embeddings`` (rows, width), not trained if ``freeze``."""
        values = _matrix("Embedding.from_pretrained", embeddings)
        return cls(
            *values.shape,
            padding_idx=padding_idx,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            sparse=sparse,
            _weight=values,
            _freeze=freeze,
            dtype=values.dtype.name,
        )

    def forward(self, indices: object) -> Tensor:
        """Return the rows at ``indices``, integers of any shape."""
        return embedding(
            indices,
            self.weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
        )


class EmbeddingBag(_Table):
    """Sums, means or maxima of bags of rows of ``weight`` (num_embeddings, embedding_dim).

    Arguments are those of `F.embedding_bag`; ``weight`` starts as that of `Embedding`.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: object = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        dtype: str = "float32",
    ) -> None:
        self._set_table(num_embeddings, embedding_dim, padding_idx, _weight, dtype)
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.mode = mode
        self.sparse = sparse
        self.include_last_offset = include_last_offset

    @classmethod
    def from_pretrained(
        cls,
        embeddings: object,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> EmbeddingBag:
        """Return a layer with the table ``embeddings`` (rows, width), not trained if ``freeze``."""
        values = _matrix("EmbeddingBag.from_pretrained", embeddings)
        layer = cls(
            *values.shape,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            mode=mode,
            sparse=sparse,
            _weight=values,
            include_last_offset=include_last_offset,
            padding_idx=padding_idx,
            dtype=values.dtype.name,
        )
        layer.weight.set_trainable(not freeze)
        return layer

    def forward(
        self, input: object, offsets: object = None, per_sample_weights: object = None
    ) -> Tensor:
        """Return bags (bags, embedding_dim) of ``input`` (bags, n), or (total,) with offsets."""
        return embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mode={self.mode!r}"
