"""Multi-head attention as a layer, with PyTorch's parameters, layouts and masks."""

from __future__ import annotations

import numpy as np

from ...compiler.errors import GraphTypeError
from ...compiler.ir.dims import format_shape
from ...compiler.ir.types import FLOATS, Dim
from .. import functional as F
from ..attention import attend, causal_mask
from ..initializers import xavier_normal, xavier_uniform
from ..products import linear
from ..state import Variable
from ..tensor import Tensor, as_tensor, constant, floating
from ..tracing import fail
from .linear import Linear
from .module import Module

_LAYER = "MultiheadAttention"


class MultiheadAttention(Module):
    """Attention in ``num_heads`` subspaces of ``embed_dim``, projected in and out.

    Source: Vaswani et al., "Attention is all you need", 2017, section 3.2.2.

    Parameters
    ----------
    embed_dim, num_heads : int
        The width of queries and of the output, and the heads, which divide it.
    dropout : float
        The probability that a weight is dropped, in training alone.
    bias : bool
        Whether the projections have biases.
    add_bias_kv : bool
        Append a learned key and value, ``bias_k`` and ``bias_v`` (1, 1, embed_dim).
    add_zero_attn : bool
        Append a key and a value of zeros.
    kdim, vdim : int, optional
        The widths of keys and values, ``embed_dim`` by default.
    batch_first : bool
        Sequences are (batch, length, width) instead of (length, batch, width).

    The projections are ``in_proj_weight`` (3 embed_dim, embed_dim), or ``q_proj_weight``,
    ``k_proj_weight`` and ``v_proj_weight`` where the widths differ, with ``in_proj_bias``, and
    ``out_proj``.  Raises GraphError where the heads do not divide ``embed_dim``.
    """

    in_proj_weight: Variable | None
    q_proj_weight: Variable | None
    k_proj_weight: Variable | None
    v_proj_weight: Variable | None
    in_proj_bias: Variable | None
    bias_k: Variable | None
    bias_v: Variable | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: str = "float32",
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            fail(f"{_LAYER}: embed_dim {embed_dim} and num_heads {num_heads} must be positive")
        if embed_dim % num_heads:
            fits = [str(n) for n in range(1, embed_dim + 1) if embed_dim % n == 0]
            fail(
                f"{_LAYER}: {num_heads} heads do not divide embed_dim {embed_dim}; "
                f"{', '.join(fits)} would"
            )
        if not 0 <= dropout <= 1:
            fail(f"{_LAYER}: the dropout probability must lie in [0, 1], not {dropout}")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.add_zero_attn = add_zero_attn
        self.batch_first = batch_first
        self.q_proj_weight = self.k_proj_weight = self.v_proj_weight = self.in_proj_weight = None
        self.in_proj_bias = self.bias_k = self.bias_v = None

        def weight(name: str, rows: int, columns: int) -> Variable:
            return Variable(xavier_uniform((rows, columns)), name, dtype=dtype)

        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = weight("in_proj_weight", 3 * embed_dim, embed_dim)
        else:
            self.q_proj_weight = weight("q_proj_weight", embed_dim, embed_dim)
            self.k_proj_weight = weight("k_proj_weight", embed_dim, self.kdim)
            self.v_proj_weight = weight("v_proj_weight", embed_dim, self.vdim)
        if bias:
            self.in_proj_bias = Variable(np.zeros(3 * embed_dim), "in_proj_bias", dtype=dtype)
        if add_bias_kv:
            shape = (1, 1, embed_dim)
            self.bias_k = Variable(xavier_normal(shape), "bias_k", dtype=dtype)
            self.bias_v = Variable(xavier_normal(shape), "bias_v", dtype=dtype)
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype)
        if self.out_proj.bias is not None:
            self.out_proj.bias.assign(np.zeros(embed_dim))

    def forward(
        self,
        query: object,
        key: object,
        value: object,
        key_padding_mask: object = None,
        need_weights: bool = True,
        attn_mask: object = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output and, where ``need_weights``, the weights.

        Parameters
        ----------
        query, key, value : (L, N, embed_dim), (S, N, kdim), (S, N, vdim)
            (N, L, embed_dim) and so on where ``batch_first``; without N for one sequence.
        key_padding_mask : (N, S) or (S), bool or float
            True hides a key from every query; floats are added.
        attn_mask : (L, S) or (N * num_heads, L, S), bool or float
            True hides a key from a query (the opposite of `F.scaled_dot_product_attention`);
            floats are added.
        average_attn_weights : bool
            Return the mean over the heads instead of each.
        is_causal : bool
            Query i sees keys 0 to i, where no ``attn_mask`` says which.

        Returns
        -------
        tuple of Tensor, and Tensor or None
            The output, laid out as ``query``, and the weights (N, L, S) or (N, num_heads, L, S), N
            where the inputs have it.  A query that sees no key has weights of 0.

        Raises
        ------
        GraphError, GraphTypeError
            Shapes or masks that do not fit.
        """
        tensors = [floating(x) for x in (query, key, value)]
        self._check(*tensors)
        batched = tensors[0].ndim == 3
        x, y, z = (self._batch_first(tensor) for tensor in tensors)
        batch, length, _ = x.shape
        keys = y.shape[1]
        q, k, v = self._project(x, y, z)
        k, v, extra = self._append(k, v)
        mask = self._merge_masks(attn_mask, key_padding_mask, batch, length, keys, batched)
        hide_later = is_causal and attn_mask is None
        if hide_later and (extra or mask is not None):
            mask = _both(~causal_mask(length, keys), mask, q)
            hide_later = False
        if mask is not None and extra:
            mask = _widen(mask, extra)
        if mask is not None and mask.dtype == "bool":
            mask = ~mask
        output, weights = attend(
            self._split_heads(q),
            self._split_heads(k),
            self._split_heads(v),
            mask,
            self.dropout,
            hide_later,
            what=_LAYER,
        )
        output = output.transpose(0, 2, 1, 3).reshape((batch, length, self.embed_dim))
        output = self.out_proj(output)
        if not batched:
            output = output.squeeze(0)
        elif not self.batch_first:
            output = output.swapaxes(0, 1)
        if not need_weights:
            return output, None
        if average_attn_weights:
            weights = weights.mean(1)
        return output, weights if batched else weights.squeeze(0)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        shapes = ", ".join(
            f"{name} {format_shape(x.shape)}"
            for name, x in (("query", query), ("key", key), ("value", value))
        )
        layout = "(batch, length, width)" if self.batch_first else "(length, batch, width)"
        if not query.ndim == key.ndim == value.ndim or query.ndim not in (2, 3):
            fail(f"{_LAYER}: {shapes}: all are {layout}, or all (length, width)")
        widths = (self.embed_dim, self.kdim, self.vdim)
        if tuple(x.shape[-1] for x in (query, key, value)) != widths:
            fail(f"{_LAYER}: {shapes}: the last axes must be {', '.join(map(str, widths))}")
        if key.shape[:-1] != value.shape[:-1]:
            fail(f"{_LAYER}: {shapes}: key and value must agree in all but the last axis")
        axis = 0 if self.batch_first else 1
        if query.ndim == 3 and query.shape[axis] != key.shape[axis]:
            fail(f"{_LAYER}: {shapes}: the batch, axis {axis} of {layout}, must be the same in all")

    def _batch_first(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return x.expand_dims(0)
        return x if self.batch_first else x.swapaxes(0, 1)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values (batch, length, embed_dim), of one product if equal."""
        width, weight, bias = self.embed_dim, self.in_proj_weight, self.in_proj_bias
        if weight is not None and query.node is key.node is value.node:
            return tuple(F.split(linear(query, weight, bias), 3, -1))
        if weight is not None:
            weights = F.split(weight, 3)
        else:
            assert self.q_proj_weight is not None
            assert self.k_proj_weight is not None
            assert self.v_proj_weight is not None
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        biases = [None if bias is None else bias[width * i : width * (i + 1)] for i in range(3)]
        return tuple(map(linear, (query, key, value), weights, biases))

    def _append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return keys and values with those that belong to no input, and how many these are."""
        batch, _, width = k.shape
        keys, values = [k], [v]
        if self.bias_k is not None and self.bias_v is not None:
            keys.append(self.bias_k.broadcast_to((batch, 1, width)))
            values.append(self.bias_v.broadcast_to((batch, 1, width)))
        if self.add_zero_attn:
            nothing = F.zeros((batch, 1, width), k.dtype)
            keys.append(nothing)
            values.append(nothing)
        return F.concatenate(keys, 1), F.concatenate(values, 1), len(keys) - 1

    def _split_heads(self, x: Tensor) -> Tensor:
        """Return ``x`` (batch, length, embed_dim) as (batch, heads, length, head_dim)."""
        shape = (*x.shape[:2], self.num_heads, self.head_dim)
        return x.reshape(shape).transpose(0, 2, 1, 3)

    def _merge_masks(
        self,
        attn_mask: object,
        key_padding_mask: object,
        batch: Dim,
        length: Dim,
        keys: Dim,
        batched: bool,
    ) -> Tensor | None:
        """Return both masks as one that broadcasts to (batch, heads, length, keys), True hiding."""
        merged = None
        if attn_mask is not None:
            mask = _mask_of(attn_mask, "attn_mask")
            stack = (batch * self.num_heads, length, keys)
            if mask.shape == stack:
                mask = mask.reshape((batch, self.num_heads, length, keys))
            elif mask.shape != (length, keys):
                fail(
                    f"{_LAYER}: attn_mask {format_shape(mask.shape)} does not fit; "
                    f"{format_shape((length, keys))} or {format_shape(stack)} would"
                )
            merged = mask
        if key_padding_mask is not None:
            padding = _mask_of(key_padding_mask, "key_padding_mask")
            expected = (batch, keys) if batched else (keys,)
            if padding.shape != expected:
                fail(
                    f"{_LAYER}: key_padding_mask {format_shape(padding.shape)} does not fit; "
                    f"{format_shape(expected)} would"
                )
            merged = _both(padding.reshape((batch, 1, 1, keys)), merged, padding)
        return merged

    def extra_repr(self) -> str:
        return (
            f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, "
            f"batch_first={self.batch_first}"
        )


def _mask_of(value: object, name: str) -> Tensor:
    mask = as_tensor(value)
    if mask.dtype != "bool" and mask.dtype not in FLOATS:
        fail(
            f"{_LAYER}: {name} is bool (True: hide) or float (added), not {mask.dtype}; cast it",
            GraphTypeError,
        )
    return mask


def _both(first: Tensor, second: Tensor | None, like: Tensor) -> Tensor:
    """Return the mask that hides what either hides: bool where both are, else floats to add."""
    if second is None:
        return first
    if first.dtype == second.dtype == "bool":
        return first | second
    return _additive(first, like) + _additive(second, like)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != "bool":
        return mask
    dtype = like.dtype if like.dtype in FLOATS else "float32"
    return F.where(mask, constant(float("-inf"), dtype), constant(0.0, dtype))


def _widen(mask: Tensor, extra: int) -> Tensor:
    """Return ``mask`` with ``extra`` more keys, which it does not hide."""
    shown = F.zeros((*mask.shape[:-1], extra), mask.dtype)
    return F.concatenate([mask, shown], -1)
