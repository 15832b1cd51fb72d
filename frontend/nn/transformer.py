"""Transformer encoders and decoders (Vaswani et al. 2017), with PyTorch's arguments and names."""

from __future__ import annotations

import copy
from collections.abc import Callable

from ...compiler.ir.dims import format_shape
from ...compiler.ir.types import Dim
from .. import functional as F
from ..activations import activation as find_activation
from ..attention import causal_mask
from ..initializers import xavier_uniform
from ..tensor import Tensor, as_tensor, constant
from ..tracing import fail
from .attention import MultiheadAttention
from .containers import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .normalization import LayerNorm

Activation = str | Callable[[Tensor], Tensor]


class TransformerEncoderLayer(Module):
    """Self-attention, then a network of two layers at each place, with residuals and norms.

    Parameters
    ----------
    d_model, nhead : int
        The width and the number of heads, which divides it.
    dim_feedforward : int
        The width between the two layers.
    dropout : float
        Of the attention's weights, of the hidden layer, and of both results before they are added.
    activation : str or function
        A name of `activations.ACTIVATIONS`, or a function of a tensor.
    layer_norm_eps : float
    batch_first : bool
        (batch, length, width) instead of (length, batch, width).
    norm_first : bool
        Normalise what goes into each part instead of what comes out (Xiong et al. 2020).
    bias : bool
        Whether projections, layers and norms have biases.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype: str = "float32",
    ) -> None:
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = find_activation(activation)

    def forward(
        self,
        src: object,
        src_mask: object = None,
        src_key_padding_mask: object = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Return the encoded ``src``, of its shape.

        Masks as ``attn_mask`` and ``key_padding_mask`` of `MultiheadAttention`; ``is_causal``
        counts where ``src_mask`` is None.
        """
        x = as_tensor(src)

        def attention(y: Tensor) -> Tensor:
            found, _ = self.self_attn(
                y, y, y, src_key_padding_mask, False, src_mask, is_causal=is_causal
            )
            return self.dropout1(found)

        x = _residual(x, attention, self.norm1, self.norm_first)
        return _residual(x, self._feed_forward, self.norm2, self.norm_first)

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(self.linear1(x)))
        return self.dropout2(self.linear2(hidden))


class TransformerDecoderLayer(Module):
    """Self-attention, attention to the encoder's memory, then a network of two layers.

    Arguments as those of `TransformerEncoderLayer`.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype: str = "float32",
    ) -> None:
        def attention() -> MultiheadAttention:
            return MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype
            )

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)

        self.self_attn = attention()
        self.multihead_attn = attention()
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype)
        self.norm_first = norm_first
        self.norm1, self.norm2, self.norm3 = norm(), norm(), norm()
        self.dropout1, self.dropout2, self.dropout3 = (Dropout(dropout) for _ in range(3))
        self.activation = find_activation(activation)

    def forward(
        self,
        tgt: object,
        memory: object,
        tgt_mask: object = None,
        memory_mask: object = None,
        tgt_key_padding_mask: object = None,
        memory_key_padding_mask: object = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Return the decoded ``tgt``, of its shape, given the encoder's ``memory``.

        Masks as ``attn_mask`` and ``key_padding_mask`` of `MultiheadAttention`, those of the memory
        (target length, memory length); ``..._is_causal`` counts where there is no such mask.
        """
        x, memory = as_tensor(tgt), as_tensor(memory)

        def look_back(y: Tensor) -> Tensor:
            found, _ = self.self_attn(
                y, y, y, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal
            )
            return self.dropout1(found)

        def look_across(y: Tensor) -> Tensor:
            found, _ = self.multihead_attn(
                y,
                memory,
                memory,
                memory_key_padding_mask,
                False,
                memory_mask,
                is_causal=memory_is_causal,
            )
            return self.dropout2(found)

        x = _residual(x, look_back, self.norm1, self.norm_first)
        x = _residual(x, look_across, self.norm2, self.norm_first)
        return _residual(x, self._feed_forward, self.norm3, self.norm_first)

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(self.linear1(x)))
        return self.dropout3(self.linear2(hidden))


def _residual(
    x: Tensor, part: Callable[[Tensor], Tensor], norm: LayerNorm, norm_first: bool
) -> Tensor:
    return x + part(norm(x)) if norm_first else norm(x + part(x))


def _copies(layer: Module, count: int) -> ModuleList:
    return ModuleList(copy.deepcopy(layer) for _ in range(count))


class TransformerEncoder(Module):
    """``num_layers`` copies of ``encoder_layer``, one after the other, then ``norm`` if given.

    The copies start with equal parameters, as in PyTorch.  ``enable_nested_tensor`` and
    ``mask_check`` are taken and have no effect.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        del enable_nested_tensor, mask_check
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        src: object,
        mask: object = None,
        src_key_padding_mask: object = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """Return the encoded ``src``, of its shape; masks as in `TransformerEncoderLayer`."""
        x = as_tensor(src)
        for layer in self.layers:
            x = layer(
                x,
                src_mask=mask,
                src_key_padding_mask=src_key_padding_mask,
                is_causal=bool(is_causal),
            )
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(Module):
    """``num_layers`` copies of ``decoder_layer``, one after the other, then ``norm`` if given."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: object,
        memory: object,
        tgt_mask: object = None,
        memory_mask: object = None,
        tgt_key_padding_mask: object = None,
        memory_key_padding_mask: object = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Return the decoded ``tgt``, of its shape; masks as in `TransformerDecoderLayer`."""
        x, memory = as_tensor(tgt), as_tensor(memory)
        for layer in self.layers:
            x = layer(
                x,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=bool(tgt_is_causal),
                memory_is_causal=memory_is_causal,
            )
        return x if self.norm is None else self.norm(x)


class Transformer(Module):
    """An encoder, and a decoder that attends to what it encodes.

    Arguments as those of `TransformerEncoderLayer`, and the numbers of layers;
    ``custom_encoder`` and ``custom_decoder`` take the places of both.  Matrices start as
    ``xavier_uniform``.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype: str = "float32",
    ) -> None:
        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)

        def layer(kind: Callable[..., Module]) -> Module:
            return kind(
                d_model,
                nhead,
                dim_feedforward,
                dropout,
                activation,
                layer_norm_eps,
                batch_first,
                norm_first,
                bias,
                dtype,
            )

        if custom_encoder is None:
            custom_encoder = TransformerEncoder(
                layer(TransformerEncoderLayer), num_encoder_layers, norm()
            )
        if custom_decoder is None:
            custom_decoder = TransformerDecoder(
                layer(TransformerDecoderLayer), num_decoder_layers, norm()
            )
        self.encoder = custom_encoder
        self.decoder = custom_decoder
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
        for variable in self.parameters():
            if variable.ndim > 1:
                variable.assign(xavier_uniform(variable.value.shape))

    def forward(
        self,
        src: object,
        tgt: object,
        src_mask: object = None,
        tgt_mask: object = None,
        memory_mask: object = None,
        src_key_padding_mask: object = None,
        tgt_key_padding_mask: object = None,
        memory_key_padding_mask: object = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Return the decoded ``tgt``, of its shape.

        ``src`` (S, N, d_model) and ``tgt`` (T, N, d_model), (N, S, d_model) where ``batch_first``,
        without N for one sequence; masks as in `MultiheadAttention`.
        """
        source, target = as_tensor(src), as_tensor(tgt)
        self._check(source, target)
        memory = self.encoder(
            source,
            mask=src_mask,
            src_key_padding_mask=src_key_padding_mask,
            is_causal=src_is_causal,
        )
        return self.decoder(
            target,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    def _check(self, source: Tensor, target: Tensor) -> None:
        given = f"src {format_shape(source.shape)} and tgt {format_shape(target.shape)}"
        if source.ndim != target.ndim or source.ndim not in (2, 3):
            fail(f"Transformer: {given} must both have rank 3, or 2 for one sequence")
        axis = 0 if self.batch_first else 1
        if source.ndim == 3 and source.shape[axis] != target.shape[axis]:
            fail(f"Transformer: {given} differ in the batch, axis {axis}")
        if not source.shape[-1] == target.shape[-1] == self.d_model:
            fail(f"Transformer: {given} must end in d_model, {self.d_model}")

    @staticmethod
    def generate_square_subsequent_mask(sz: Dim, dtype: str = "float32") -> Tensor:
        """Return the float mask that hides later keys: 0 at j ≤ i, -inf elsewhere; (sz, sz)."""
        return F.where(causal_mask(sz, sz), constant(0.0, dtype), constant(float("-inf"), dtype))
