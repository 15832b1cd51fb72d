"""Layers that tell where in its sequence an element stands."""

from __future__ import annotations

from ...compiler.ir.dims import format_shape
from .. import functional as F
from ..initializers import normal
from ..state import Variable
from ..tensor import Tensor, as_tensor, floating
from ..tracing import fail
from .module import Module


def _check_width(layer: str, x: Tensor, width: int) -> None:
    if x.ndim < 2 or x.shape[-1] != width:
        fail(f"{layer}: an input of shape {format_shape(x.shape)} is not (..., length, {width})")


class SinusoidalPositionalEncoding(Module):
    """Adds `F.sinusoidal_encoding` to (..., length, d_model), then drops out.

    Works for sequences of any length.  ``batch_first``: False takes (length, batch, d_model).
    """

    def __init__(
        self,
        d_model: int,
        dropout: float = 0.0,
        base: float = 10000.0,
        batch_first: bool = True,
    ) -> None:
        self.d_model = d_model
        self.dropout = dropout
        self.base = base
        self.batch_first = batch_first

    def forward(self, x: object, offset: object = 0) -> Tensor:
        """Return ``x`` plus the encoding of its positions, the first of which is ``offset``."""
        tensor = floating(x)
        _check_width("SinusoidalPositionalEncoding", tensor, self.d_model)
        length_first = not self.batch_first and tensor.ndim > 2
        length = tensor.shape[0 if length_first else -2]
        code = F.sinusoidal_encoding(length, self.d_model, offset, self.base, tensor.dtype)
        return F.dropout(tensor + (code.expand_dims(1) if length_first else code), self.dropout)

    def extra_repr(self) -> str:
        return f"{self.d_model}, dropout={self.dropout}"


class LearnedPositionalEmbedding(Module):
    """Adds row p of ``weight`` (max_len, d_model) to the element at position p, then drops out.

    ``weight`` starts as N(0, 0.02²) (Radford et al. 2018).  A position beyond the table is a
    GraphError, or where sizes are symbolic an IndexRangeError at run time.
    """

    def __init__(
        self, max_len: int, d_model: int, dropout: float = 0.0, dtype: str = "float32"
    ) -> None:
        self.max_len = max_len
        self.d_model = d_model
        self.dropout = dropout
        self.weight = Variable(normal((max_len, d_model), std=0.02), "weight", dtype=dtype)

    def forward(self, x: object, offset: object = 0) -> Tensor:
        """Return ``x`` (..., length, d_model) plus the rows of its positions from ``offset``."""
        tensor = floating(x)
        _check_width("LearnedPositionalEmbedding", tensor, self.d_model)
        length = tensor.shape[-2]
        if isinstance(length, int) and isinstance(offset, int):
            if not 0 <= offset <= offset + length <= self.max_len:
                fail(
                    f"LearnedPositionalEmbedding: positions {offset} to {offset + length - 1} "
                    f"leave the table of {self.max_len}"
                )
            rows = self.weight[offset : offset + length]
        else:
            rows = F.take(self.weight, F.arange(length) + as_tensor(offset), 0)
        return F.dropout(tensor + rows, self.dropout)

    def extra_repr(self) -> str:
        return f"{self.max_len}, {self.d_model}"


class RotaryEmbedding(Module):
    """Applies `F.rotary_embedding` to queries or keys (..., length, dim).

    Arguments are those of the function; there are no parameters.
    """

    def __init__(
        self,
        dim: int,
        base: float = 10000.0,
        interleaved: bool = False,
        rotary_dim: int | None = None,
    ) -> None:
        self.dim = dim
        self.base = base
        self.interleaved = interleaved
        self.rotary_dim = rotary_dim

    def forward(self, x: object, offset: object = 0, positions: object = None) -> Tensor:
        """Return ``x`` rotated by its positions, the first of which is ``offset``."""
        tensor = floating(x)
        _check_width("RotaryEmbedding", tensor, self.dim)
        return F.rotary_embedding(
            tensor, offset, self.base, self.interleaved, positions, self.rotary_dim
        )

    def extra_repr(self) -> str:
        return f"{self.dim}, base={self.base}, interleaved={self.interleaved}"
