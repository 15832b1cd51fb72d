"""BERT: an encoder of text that is trained to fill in masked tokens.

Devlin et al., "BERT: pre-training of deep bidirectional transformers", 2019.  Parameters have the
names of the published checkpoints (``bert.encoder.layer.0.attention.self.query.weight``, ...).
"""

from __future__ import annotations

import numpy as np

from ...compiler.ir.dims import format_shape
from .. import functional as F
from ..activations import gelu
from ..initializers import normal
from ..nn.containers import ModuleList
from ..nn.dropout import Dropout
from ..nn.embedding import Embedding
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.normalization import LayerNorm
from ..state import Variable
from ..tensor import Tensor, as_tensor
from ..tracing import fail

_EPS = 1e-12


class _Embeddings(Module):
    def __init__(
        self, vocab_size: int, positions: int, types: int, width: int, dropout: float, dtype: str
    ) -> None:
        self.word_embeddings = Embedding(vocab_size, width, dtype=dtype)
        self.position_embeddings = Embedding(positions, width, dtype=dtype)
        self.token_type_embeddings = Embedding(types, width, dtype=dtype)
        self.LayerNorm = LayerNorm(width, _EPS, dtype=dtype)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, token_types: object) -> Tensor:
        types = F.zeros_like(tokens) if token_types is None else token_types
        places = self.position_embeddings(F.arange(tokens.shape[1]))
        total = self.word_embeddings(tokens) + places + self.token_type_embeddings(types)
        return self.dropout(self.LayerNorm(total))


class _Result(Module):
    """What stands at the end of both parts of a layer: dense, dropout, residual, norm."""

    def __init__(self, given: int, width: int, dropout: float, dtype: str) -> None:
        self.dense = Linear(given, width, dtype=dtype)
        self.LayerNorm = LayerNorm(width, _EPS, dtype=dtype)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class _Heads(Module):
    def __init__(self, width: int, heads: int, dropout: float, dtype: str) -> None:
        self.heads = heads
        self.dropout = dropout
        self.query = Linear(width, width, dtype=dtype)
        self.key = Linear(width, width, dtype=dtype)
        self.value = Linear(width, width, dtype=dtype)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (
            layer(x).reshape(shape).transpose(0, 2, 1, 3)
            for layer in (self.query, self.key, self.value)
        )
        out = F.scaled_dot_product_attention(q, k, v, seen, self.dropout)
        return out.transpose(0, 2, 1, 3).reshape(x.shape)


class _Attention(Module):
    def __init__(self, width: int, heads: int, dropout: float, dtype: str) -> None:
        self.self = _Heads(width, heads, dropout, dtype)
        self.output = _Result(width, width, dropout, dtype)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        return self.output(self.self(x, seen), x)


class _Dense(Module):
    def __init__(self, given: int, width: int, dtype: str) -> None:
        self.dense = Linear(given, width, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


class _Layer(Module):
    def __init__(self, width: int, heads: int, inner: int, dropout: float, dtype: str) -> None:
        self.attention = _Attention(width, heads, dropout, dtype)
        self.intermediate = _Dense(width, inner, dtype)
        self.output = _Result(inner, width, dropout, dtype)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        x = self.attention(x, seen)
        return self.output(gelu(self.intermediate(x)), x)


class _Encoder(Module):
    def __init__(self, layers: list[_Layer]) -> None:
        self.layer = ModuleList(layers)


class Bert(Module):
    """Tokens (batch, length) to vectors (batch, length, hidden_size).

    Parameters
    ----------
    vocab_size : int
    hidden_size, num_hidden_layers, num_attention_heads, intermediate_size : int
        The width, the layers, the heads that divide the width, and the width inside a layer
        (4 widths by default); the defaults are BERT-base.
    max_position_embeddings, type_vocab_size : int
    dropout : float
        In training alone.
    initializer_range : float
        The standard deviation of first values.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int | None = None,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        dropout: float = 0.1,
        initializer_range: float = 0.02,
        dtype: str = "float32",
    ) -> None:
        if hidden_size % num_attention_heads:
            fail(f"Bert: {num_attention_heads} heads do not divide the width {hidden_size}")
        inner = 4 * hidden_size if intermediate_size is None else intermediate_size
        self.embeddings = _Embeddings(
            vocab_size, max_position_embeddings, type_vocab_size, hidden_size, dropout, dtype
        )
        self.encoder = _Encoder(
            [
                _Layer(hidden_size, num_attention_heads, inner, dropout, dtype)
                for _ in range(num_hidden_layers)
            ]
        )
        _draw_weights(self, initializer_range)

    def forward(
        self, tokens: object, attention_mask: object = None, token_type_ids: object = None
    ) -> Tensor:
        """Return the last hidden states (batch, length, hidden_size) of ``tokens``."""
        return self.hidden_states(tokens, attention_mask, token_type_ids)[-1]

    def hidden_states(
        self, tokens: object, attention_mask: object = None, token_type_ids: object = None
    ) -> list[Tensor]:
        """Return the embeddings of ``tokens`` (batch, length) and what each layer makes of them.

        ``attention_mask`` (batch, length): non-zero where a token is to be seen.
        ``token_type_ids`` (batch, length): which part of the text a token belongs to; zeros.
        """
        given = as_tensor(tokens)
        if given.ndim != 2:
            fail(f"Bert: tokens are (batch, length), not {format_shape(given.shape)}")
        seen = None
        if attention_mask is not None:
            seen = as_tensor(attention_mask).astype("bool")
            if seen.shape != given.shape:
                fail(
                    f"Bert: attention_mask {format_shape(seen.shape)} does not fit tokens "
                    f"{format_shape(given.shape)}; they must be equal"
                )
            seen = seen.expand_dims((1, 2))
        states = [self.embeddings(given, token_type_ids)]
        for layer in self.encoder.layer:
            states.append(layer(states[-1], seen))
        return states


def _draw_weights(module: Module, std: float) -> None:
    """Set matrices to N(0, std²) and biases of linear layers to zero."""
    for part in module.modules():
        if isinstance(part, (Linear, Embedding)):
            part.weight.assign(normal(part.weight.value.shape, std=std))
        if isinstance(part, Linear) and part.bias is not None:
            part.bias.assign(np.zeros(part.bias.value.shape))


class _Transform(Module):
    def __init__(self, width: int, dtype: str) -> None:
        self.dense = Linear(width, width, dtype=dtype)
        self.LayerNorm = LayerNorm(width, _EPS, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(gelu(self.dense(x)))


class _Predictions(Module):
    def __init__(self, vocab_size: int, width: int, dtype: str) -> None:
        self.bias = Variable(np.zeros(vocab_size), "bias", dtype=dtype)
        self.transform = _Transform(width, dtype)


class _Head(Module):
    def __init__(self, vocab_size: int, width: int, dtype: str) -> None:
        self.predictions = _Predictions(vocab_size, width, dtype)


class BertForMaskedLM(Module):
    """A `Bert` and what predicts the token at every place; arguments are those of `Bert`.

    The embedding of tokens is the last layer too.
    """

    def __init__(self, vocab_size: int, hidden_size: int = 768, **options: object) -> None:
        dtype = str(options.get("dtype", "float32"))
        self.bert = Bert(vocab_size, hidden_size, **options)  # type: ignore[arg-type]
        self.cls = _Head(vocab_size, hidden_size, dtype)
        _draw_weights(self.cls, float(options.get("initializer_range", 0.02)))  # type: ignore[arg-type]

    def forward(
        self, tokens: object, attention_mask: object = None, token_type_ids: object = None
    ) -> Tensor:
        """Return the logits (batch, length, vocab_size) for ``tokens`` (batch, length)."""
        return self.predict(self.bert(tokens, attention_mask, token_type_ids))

    def predict(self, hidden: Tensor) -> Tensor:
        """Return the logits for the last hidden states (batch, length, hidden_size)."""
        predictions = self.cls.predictions
        words = self.bert.embeddings.word_embeddings.weight
        return F.einsum("...i,vi->...v", predictions.transform(hidden), words) + predictions.bias
