"""Scaled dot-product attention, with PyTorch's arguments and conventions for masks."""

from __future__ import annotations

import math

from ..compiler.errors import GraphTypeError
from ..compiler.ir.dims import divide_exactly, format_shape
from ..compiler.ir.infer import broadcast_shapes
from ..compiler.ir.types import FLOATS, Dim, Shape
from .creation import iota
from .dropout import dropout
from .elementwise import rsqrt, where
from .softmax import masked_softmax, softmax
from .tensor import Tensor, as_tensor, floating
from .tracing import fail

_NEVER = float("-inf")


def scaled_dot_product_attention(
    query: object,
    key: object,
    value: object,
    attn_mask: object = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return softmax(``query`` ``key``ᵀ ``scale`` + mask) ``value``.

    Parameters
    ----------
    query, key, value : (..., L, E), (..., S, E), (..., S, V), float
        Leading axes broadcast.
    attn_mask : broadcasts to (..., L, S), bool or float
        True lets a query see a key; floats are added.  A query that sees no key gets zeros, as in
        PyTorch.
    dropout_p : float
        The probability that a weight is dropped, in training alone.
    is_causal : bool
        Query i sees keys 0 to i, and of those the ones that the mask leaves.
    scale : float, optional
        1/sqrt(E) by default.
    enable_gqa : bool
        Axis -3 counts heads, and that of ``key`` and ``value`` divides the query's: each of their
        heads serves as many consecutive heads of the query (Ainslie et al. 2023).

    Returns
    -------
    Tensor
        (..., L, V).

    Raises
    ------
    GraphError, GraphTypeError
        Shapes, numbers of heads or a mask that do not fit.

    Source: Vaswani et al., "Attention is all you need", 2017, equation 1.
    """
    output, _ = attend(
        query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa=enable_gqa
    )
    return output


def attend(
    query: object,
    key: object,
    value: object,
    attn_mask: object = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    enable_gqa: bool = False,
    what: str = "scaled_dot_product_attention",
) -> tuple[Tensor, Tensor]:
    """Return `scaled_dot_product_attention` and its weights (..., L, S), after their dropout."""
    q, k, v = floating(query), floating(key), floating(value)
    _check_operands(q, k, v, enable_gqa, what)
    scores = _grouped_matmul(q, k.mT, enable_gqa) * _scale_of(q, scale)
    if scores.shape[-1] == 0:
        weights = scores
    elif attn_mask is None:
        weights = softmax(where(_causal(scores), scores, _NEVER) if is_causal else scores)
    else:
        mask = _check_mask(as_tensor(attn_mask), scores.shape, what)
        if is_causal:
            scores = where(_causal(scores), scores, _NEVER)
        if mask.dtype == "bool":
            scores = where(mask, scores, _NEVER)
        else:
            scores = scores + mask.astype(scores.dtype)
        weights = masked_softmax(scores)
    weights = dropout(weights, dropout_p)
    return _grouped_matmul(weights, v, enable_gqa), weights


def causal_mask(queries: Dim, keys: Dim) -> Tensor:
    """Return where query i may see key j, j ≤ i; (queries, keys), bool."""
    shape = (queries, keys)
    return iota(shape, 0) >= iota(shape, 1)


def _causal(scores: Tensor) -> Tensor:
    return causal_mask(scores.shape[-2], scores.shape[-1])


def _scale_of(query: Tensor, scale: float | None) -> Tensor | float:
    if scale is not None:
        return scale
    width = query.shape[-1]
    if isinstance(width, int):
        return 1.0 / math.sqrt(width) if width else 1.0
    return rsqrt(as_tensor(width, dtype=query.dtype))


def _check_operands(q: Tensor, k: Tensor, v: Tensor, enable_gqa: bool, what: str) -> None:
    shapes = [format_shape(x.shape) for x in (q, k, v)]
    given = f"{what}: query {shapes[0]}, key {shapes[1]}, value {shapes[2]}"
    least = 3 if enable_gqa else 2
    if min(q.ndim, k.ndim, v.ndim) < least:
        axes = "(..., heads, length, width)" if enable_gqa else "(..., length, width)"
        fail(f"{given}: each must be {axes}")
    if q.shape[-1] != k.shape[-1]:
        fail(
            f"{given}: the last axes of query and key have {q.shape[-1]} and {k.shape[-1]}; they "
            "must be equal"
        )
    if k.shape[-2] != v.shape[-2]:
        fail(f"{given}: {k.shape[-2]} keys and {v.shape[-2]} values; they must be as many")
    for name, other in (("key", k), ("value", v)):
        if enable_gqa and divide_exactly(q.shape[-3], other.shape[-3]) is None:
            fail(
                f"{given}: the {other.shape[-3]} heads of the {name} do not divide the query's "
                f"{q.shape[-3]}"
            )
        if not enable_gqa:
            _check_leading(q, other, f"{given}: leading axes of query and {name}")


def _check_leading(q: Tensor, other: Tensor, what: str) -> None:
    try:
        broadcast_shapes(q.shape[:-2], other.shape[:-2])
    except ValueError as error:
        heads = min(q.ndim, other.ndim) > 2 and divide_exactly(q.shape[-3], other.shape[-3])
        hint = "; for heads that share keys, enable_gqa=True" if heads else ""
        fail(f"{what}: {error}{hint}")


def _check_mask(mask: Tensor, scores: Shape, what: str) -> Tensor:
    if mask.dtype != "bool" and mask.dtype not in FLOATS:
        fail(
            f"{what}: attn_mask is bool (True: take part) or float (added), not {mask.dtype}; "
            "cast it",
            GraphTypeError,
        )
    try:
        fits = broadcast_shapes(mask.shape, scores) == scores
    except ValueError:
        fits = False
    if not fits:
        fail(
            f"{what}: attn_mask {format_shape(mask.shape)} does not broadcast to the weights "
            f"{format_shape(scores)}; {format_shape(scores[-2:])} would fit"
        )
    return mask


def _grouped_matmul(left: Tensor, right: Tensor, grouped: bool) -> Tensor:
    """Return ``left @ right``, where each head of ``right`` may serve several of ``left``."""
    if not grouped or left.shape[-3] == right.shape[-3]:
        return left @ right
    heads = right.shape[-3]
    group = divide_exactly(left.shape[-3], heads)
    wide = left.reshape((*left.shape[:-3], heads, group, *left.shape[-2:]))
    product = wide @ right.expand_dims(-3)
    return product.reshape((*product.shape[:-4], left.shape[-3], *product.shape[-2:]))
