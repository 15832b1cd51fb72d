"""Encodings of positions in a sequence: sinusoids to add, rotations, and biases of attention."""

from __future__ import annotations

import math

from ..compiler.ir.dims import format_shape
from ..compiler.ir.types import FLOATS, Dim
from .creation import arange
from .elementwise import cos, sin
from .manipulation import concatenate, stack
from .tensor import Tensor, as_tensor, constant, floating
from .tracing import fail


def _positions(length: Dim, offset: object, dtype: str) -> Tensor:
    """Return offset, offset + 1, ... as floats; (length,), or (..., length) for offsets (...)."""
    start = as_tensor(offset)
    place = arange(length)
    return ((start.expand_dims(-1) if start.ndim else start) + place).astype(dtype)


def _frequencies(width: int, base: float, dtype: str) -> Tensor:
    """Return base^(-2i/width) for i = 0, 1, ... of the pairs of ``width``."""
    return constant([base ** (-i / width) for i in range(0, width, 2)], dtype)


def sinusoidal_encoding(
    length: Dim,
    width: int,
    offset: object = 0,
    base: float = 10000.0,
    dtype: str = "float32",
) -> Tensor:
    """Return the sinusoids of positions, to add to embeddings.

    Element 2i is sin(p / base^(2i/width)), element 2i + 1 the cosine of the same, for positions
    p = offset, offset + 1, ...

    Parameters
    ----------
    length : int or symbolic dimension
    width : int
    offset : int or integer tensor (...)
        The first position, for sequences that are generated bit by bit.
    base : float

    Returns
    -------
    Tensor
        (..., length, width).

    Source: Vaswani et al., "Attention is all you need", 2017, section 3.5.
    """
    if width < 1:
        fail(f"sinusoidal_encoding: the width must be positive, not {width}")
    angle = _positions(length, offset, dtype).expand_dims(-1) * _frequencies(width, base, dtype)
    pairs = stack([sin(angle), cos(angle)], -1)
    joined = pairs.reshape((*pairs.shape[:-2], pairs.shape[-2] * 2))
    return joined if width % 2 == 0 else joined[..., :width]


def rotary_embedding(
    x: object,
    offset: object = 0,
    base: float = 10000.0,
    interleaved: bool = False,
    positions: object = None,
    rotary_dim: int | None = None,
) -> Tensor:
    """Return ``x`` with each pair of elements turned by an angle that grows with the position.

    The pair i of an element at position p turns by p / base^(2i/width), so that products of two
    rotated vectors depend on the difference of their positions.

    Parameters
    ----------
    x : (..., length, width), float
        Queries or keys; the width is even.
    offset : int or integer tensor
        The position of the first, for cached generation; a tensor has the leading axes of ``x``, or
        broadcasts to them.
    base : float
    interleaved : bool
        Pairs are the elements 2i and 2i + 1 (as in the paper) instead of i and i + width/2 (the
        convention of GPT-NeoX and LLaMA).
    positions : (..., length), optional
        The positions themselves, in place of ``offset``.
    rotary_dim : int, optional
        Turn the first so many elements and leave the rest.

    Returns
    -------
    Tensor
        As ``x``.

    Raises
    ------
    GraphError
        An odd or too great number of elements to turn.

    Source: Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021,
    section 3.2.
    """
    tensor = floating(x)
    if tensor.ndim < 2:
        fail(f"rotary_embedding: needs (..., length, width), not {format_shape(tensor.shape)}")
    length, whole = tensor.shape[-2:]
    if not isinstance(whole, int):
        fail(f"rotary_embedding: the width of {format_shape(tensor.shape)} must be static")
    width = whole if rotary_dim is None else rotary_dim
    if width % 2 or not 0 < width <= whole:
        fail(f"rotary_embedding: {width} of {whole} elements to turn; an even number would fit")
    if positions is None:
        place = _positions(length, offset, tensor.dtype)
    else:
        place = as_tensor(positions).astype(tensor.dtype)
    angle = place.expand_dims(-1) * _frequencies(width, base, tensor.dtype)
    turned = _rotate(tensor[..., :width], cos(angle), sin(angle), interleaved)
    return turned if width == whole else concatenate([turned, tensor[..., width:]], -1)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    half = cosine.shape[-1]
    if interleaved:
        pairs = x.reshape((*x.shape[:-1], half, 2))
        first, second = pairs[..., 0], pairs[..., 1]
    else:
        first, second = x[..., :half], x[..., half:]
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    if interleaved:
        return stack(turned, -1).reshape(x.shape)
    return concatenate(turned, -1)


def alibi_bias(heads: int, queries: Dim, keys: Dim, dtype: str = "float32") -> Tensor:
    """Return the linear biases -m (i - j) of each head; (heads, queries, keys).

    The last query stands at the last key.  Slopes m are 2^(-8h/heads) for h = 1, 2, ...; where
    ``heads`` is no power of two, those of the next lower power and every other one of twice as
    many.  Add them to the scores as a float mask, beside a causal one.

    Source: Press, Smith & Lewis, "Train short, test long: attention with linear biases", 2022.
    """
    if heads < 1:
        fail(f"alibi_bias: needs at least one head, not {heads}")
    if dtype not in FLOATS:
        fail(f"alibi_bias: biases are floats, not {dtype}")
    query = (arange(queries) + (keys - queries)).expand_dims(1)
    distance = (query - arange(keys)).astype(dtype)
    return distance * constant([-m for m in _slopes(heads)], dtype).reshape((heads, 1, 1))


def _slopes(heads: int) -> list[float]:
    power = 2 ** int(math.log2(heads))
    slopes = [2.0 ** (-8.0 * h / power) for h in range(1, power + 1)]
    finer = [2.0 ** (-4.0 * h / power) for h in range(1, 2 * power, 2)]
    return slopes + finer[: heads - power]
