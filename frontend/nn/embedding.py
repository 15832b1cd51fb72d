"""Embedding: rows of a table, chosen by integers."""

from __future__ import annotations

from ...compiler.errors import GraphTypeError
from ...compiler.ir.types import INTEGERS
from .. import functional as F
from ..initializers import normal
from ..state import Variable
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from .module import Module


class Embedding(Module):
    """Looks integers up in ``weight`` (num_embeddings, embedding_dim): (...) to (..., dim).

    ``weight`` starts as N(0, 1); row ``padding_idx`` starts as zeros and never changes.  Indices
    outside of the table raise IndexRangeError at run time.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        dtype: str = "float32",
    ) -> None:
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                fail(f"Embedding: padding_idx {padding_idx} leaves the {num_embeddings} rows")
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        values = normal((num_embeddings, embedding_dim))
        if padding_idx is not None:
            values[padding_idx] = 0.0
        self.weight = Variable(values, "weight", dtype=dtype)

    def forward(self, indices: object) -> Tensor:
        """Return the rows at ``indices``, integers of any shape."""
        places = as_tensor(indices)
        if places.dtype not in INTEGERS:
            fail(f"Embedding: needs integer indices, not {places.dtype}", GraphTypeError)
        rows = F.take(self.weight, places, 0)
        if self.padding_idx is None:
            return rows
        padding = (places == self.padding_idx).expand_dims(-1)
        return F.where(padding, F.stop_gradient(rows), rows)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
