"""GPT-2: a causal language model, with cached generation as one compiled loop.

Radford et al., "Language models are unsupervised multitask learners", 2019.  Parameters have the
names and layouts of the published checkpoint (``h.0.attn.c_attn.weight`` (in, out), ...).
"""

from __future__ import annotations

import math

import numpy as np

from ...compiler.errors import GraphTypeError
from ...compiler.ir.dims import format_shape
from ...compiler.ir.types import INTEGERS, Dim
from .. import functional as F
from .. import random
from ..activations import gelu
from ..control_flow import scan
from ..initializers import normal
from ..nn.containers import ModuleList
from ..nn.dropout import Dropout
from ..nn.embedding import Embedding
from ..nn.module import Module
from ..nn.normalization import LayerNorm
from ..nn.positions import LearnedPositionalEmbedding
from ..state import Variable
from ..tensor import Tensor, as_tensor
from ..tracing import fail

#: Keys and values of the tokens so far, each (batch, heads, places, width of a head).
Cache = tuple[Tensor, Tensor]


class Projection(Module):
    """``x @ weight + bias``, ``weight`` (in_features, out_features): (..., in) to (..., out)."""

    def __init__(self, in_features: int, out_features: int, dtype: str = "float32") -> None:
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Variable(normal((in_features, out_features), std=0.02), "weight", dtype=dtype)
        self.bias = Variable(np.zeros(out_features), "bias", dtype=dtype)

    def forward(self, x: object) -> Tensor:
        """Return the affine map of ``x`` (..., in_features)."""
        return F.einsum("...i,io->...o", x, self.weight) + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


class _Attention(Module):
    def __init__(self, width: int, heads: int, dropout: float, dtype: str) -> None:
        self.heads = heads
        self.dropout = dropout
        self.c_attn = Projection(width, 3 * width, dtype=dtype)
        self.c_proj = Projection(width, width, dtype)

    def forward(
        self, x: Tensor, cache: Cache | None = None, position: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """Return the output for ``x`` (batch, length, width), and the keys and values.

        With a ``cache``, ``x`` is the one token at ``position``, which sees those before it.
        """
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        parts = F.split(self.c_attn(x), 3, -1)
        q, k, v = (part.reshape(shape).transpose(0, 2, 1, 3) for part in parts)
        if cache is None or position is None:
            out = F.scaled_dot_product_attention(q, k, v, None, self.dropout, is_causal=True)
        else:
            places = F.arange(cache[0].shape[2])
            here = (places == position).expand_dims(-1)
            k, v = F.where(here, k, cache[0]), F.where(here, v, cache[1])
            out = F.scaled_dot_product_attention(q, k, v, places <= position)
        return self.c_proj(out.transpose(0, 2, 1, 3).reshape(x.shape)), (k, v)


class _FeedForward(Module):
    def __init__(self, width: int, dtype: str) -> None:
        self.c_fc = Projection(width, 4 * width, dtype=dtype)
        self.c_proj = Projection(4 * width, width, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(gelu(self.c_fc(x), "tanh"))


class _Block(Module):
    def __init__(self, width: int, heads: int, dropout: float, dtype: str) -> None:
        self.ln_1 = LayerNorm(width, dtype=dtype)
        self.attn = _Attention(width, heads, dropout, dtype)
        self.ln_2 = LayerNorm(width, dtype=dtype)
        self.mlp = _FeedForward(width, dtype)
        self.drop = Dropout(dropout)

    def forward(
        self, x: Tensor, cache: Cache | None = None, position: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        found, remembered = self.attn(self.ln_1(x), cache, position)
        x = x + self.drop(found)
        return x + self.drop(self.mlp(self.ln_2(x))), remembered


class GPT(Module):
    """Tokens (batch, length) to logits of the next ones (batch, length, vocab_size).

    Parameters
    ----------
    vocab_size, n_positions : int
        The number of tokens there are, and the greatest length.
    n_embd, n_layer, n_head : int
        The width, the blocks, and the heads, which divide the width; 768, 12 and 12 are GPT-2.
    dropout : float
        Of embeddings, weights of attention and residuals, in training alone.
    initializer_range : float
        The standard deviation of first values; narrow models learn faster from more than 0.02.

    The embedding of tokens is the last layer too.
    """

    def __init__(
        self,
        vocab_size: int,
        n_positions: int,
        n_embd: int = 768,
        n_layer: int = 12,
        n_head: int = 12,
        dropout: float = 0.1,
        initializer_range: float = 0.02,
        dtype: str = "float32",
    ) -> None:
        if n_embd % n_head:
            fail(f"GPT: {n_head} heads do not divide the width {n_embd}")
        self.vocab_size = vocab_size
        self.n_positions = n_positions
        table = normal((vocab_size, n_embd), std=initializer_range)
        self.wte = Embedding(vocab_size, n_embd, _weight=table, dtype=dtype)
        self.wpe = LearnedPositionalEmbedding(n_positions, n_embd, dropout, dtype)
        self.h = ModuleList(_Block(n_embd, n_head, dropout, dtype) for _ in range(n_layer))
        self.ln_f = LayerNorm(n_embd, dtype=dtype)
        # a block adds to the residual stream twice
        residual = initializer_range / math.sqrt(2 * n_layer)
        for name, module in self.named_modules():
            if isinstance(module, Projection):
                std = residual if name.endswith("c_proj") else initializer_range
                module.weight.assign(normal(module.weight.value.shape, std=std))

    def forward(self, tokens: object) -> Tensor:
        """Return the logits (batch, length, vocab_size) for ``tokens`` (batch, length)."""
        logits, _ = self.read(tokens)
        return logits

    def read(self, tokens: object) -> tuple[Tensor, list[Cache]]:
        """Return the logits for ``tokens`` (batch, length), and what each block remembers."""
        given = _checked_tokens(tokens)
        x = self.wpe(self.wte(given))
        caches = []
        for block in self.h:
            x, cache = block(x)
            caches.append(cache)
        return self._logits(x), caches

    def read_one(
        self, token: Tensor, position: Tensor, caches: list[Cache]
    ) -> tuple[Tensor, list[Cache]]:
        """Return the logits (batch, vocab_size) after one ``token`` (batch,), and the new caches.

        ``position`` (): where the token stands; ``caches`` have a place for it.
        """
        x = self.wpe(self.wte(token.expand_dims(1)), position)
        grown = []
        for block, cache in zip(self.h, caches, strict=True):
            x, cache = block(x, cache, position)
            grown.append(cache)
        return self._logits(x)[:, 0], grown

    def _logits(self, x: Tensor) -> Tensor:
        return F.einsum("...i,vi->...v", self.ln_f(x), self.wte.weight)


def _checked_tokens(tokens: object) -> Tensor:
    given = as_tensor(tokens)
    if given.dtype not in INTEGERS:
        fail(f"GPT: tokens are integers, not {given.dtype}", GraphTypeError)
    if given.ndim != 2:
        fail(f"GPT: tokens are (batch, length), not {format_shape(given.shape)}")
    return given


def generate(
    model: GPT,
    prompt: object,
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Return ``length`` tokens that continue ``prompt`` (batch, prompt length); (batch, length).

    The prompt is read at once; then a compiled loop reads one token a step and remembers keys and
    values, so that a step costs the same wherever it stands.

    Parameters
    ----------
    temperature : float
        Tokens are drawn from softmax(logits / temperature); 0 takes the likeliest.
    top_k : int, optional
        Draw from the ``top_k`` likeliest alone.
    top_p : float, optional
        Draw from the likeliest whose probabilities reach ``top_p``, alone (Holtzman et al. 2020).

    Raises
    ------
    GraphError
        Prompt and continuation are longer than the model's positions (IndexRangeError at run time
        where the prompt's length is symbolic).
    """
    given = _checked_tokens(prompt)
    start = given.shape[1]
    if length < 1:
        fail(f"generate: the length must be positive, not {length}")
    if isinstance(start, int) and start + length - 1 > model.n_positions:
        fail(
            f"generate: {start} tokens and {length} more do not fit the model's "
            f"{model.n_positions} positions"
        )
    if temperature < 0:
        fail(f"generate: the temperature must not be negative, but is {temperature}")
    if top_k is not None and not 1 <= top_k <= model.vocab_size:
        fail(f"generate: top_k {top_k} is not from 1 to the {model.vocab_size} tokens there are")
    if top_p is not None and not 0 < top_p <= 1:
        fail(f"generate: top_p must lie in (0, 1], not {top_p}")

    def draw(scores: Tensor) -> Tensor:
        if temperature == 0:
            return scores.argmax(-1)
        return random.categorical(_likeliest(scores / temperature, top_k, top_p))

    logits, caches = model.read(given)
    first = draw(logits[:, -1])
    if length == 1:
        return first.expand_dims(1)

    def step(carry: tuple, _: None) -> tuple[tuple, Tensor]:
        token, position, remembered = carry
        scores, remembered = model.read_one(token, position, remembered)
        chosen = draw(scores)
        return (chosen, position + 1, remembered), chosen

    roomy = [tuple(_with_room(part, length - 1) for part in cache) for cache in caches]
    begin = (first, as_tensor(start, dtype="int64"), roomy)
    _, rest = scan(step, begin, length=length - 1)
    return F.concatenate([first.expand_dims(1), rest.transpose()], 1)


def _with_room(remembered: Tensor, places: Dim) -> Tensor:
    """Return ``remembered`` (batch, heads, length, width) with that many ``places`` more."""
    batch, heads, _, width = remembered.shape
    nothing = F.zeros((batch, heads, places, width), remembered.dtype)
    return F.concatenate([remembered, nothing], 2)


def _likeliest(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Return ``logits`` (batch, vocabulary) with those that are not to be drawn set to -inf."""
    if top_k is not None:
        least = F.topk(logits, top_k)[0][:, -1:]
        logits = F.where(logits < least, -math.inf, logits)
    if top_p is not None:
        ordered = F.sort(logits, descending=True)
        chances = F.softmax(ordered)
        before = F.cumsum(chances, -1) - chances  # the likeliest one has none before it
        least = F.where(before < top_p, ordered, math.inf).min(-1, keepdims=True)
        logits = F.where(logits < least, -math.inf, logits)
    return logits
