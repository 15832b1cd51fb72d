"""Products of vectors, matrices and tensors."""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.ir.dims import format_shape
from ..compiler.ir.infer import broadcast_shapes
from ..compiler.ir.types import INTEGERS, Dim
from . import contraction
from .creation import eye, ones_like
from .manipulation import moveaxis, stack
from .promotion import unify
from .shaping import normalize_axis
from .tensor import Tensor, as_tensor, operand_of
from .tracing import fail


def matmul(x: object, y: object) -> Tensor:
    """Return the matrix product of ``x`` (..., n, k) and ``y`` (..., k, m) by NumPy's rules."""
    return Tensor(contraction.matmul(as_tensor(x).node, as_tensor(y).node))


def _matrices(ranks: Sequence[int], what: str, *operands: object) -> list[Tensor]:
    tensors = [Tensor(node) for node in unify(*map(operand_of, operands))]
    for tensor, rank in zip(tensors, ranks, strict=True):
        if tensor.ndim != rank:
            fail(f"{what}: {format_shape(tensor.shape)} has {tensor.ndim} axes, not {rank}")
    return tensors


def mm(x: object, y: object) -> Tensor:
    """Return the product of two matrices (n, k) and (k, m)."""
    left, right = _matrices((2, 2), "mm", x, y)
    return matmul(left, right)


def mv(x: object, y: object) -> Tensor:
    """Return the product of a matrix (n, k) and a vector (k,)."""
    left, right = _matrices((2, 1), "mv", x, y)
    return matmul(left, right)


def bmm(x: object, y: object) -> Tensor:
    """Return the products of two batches of matrices (b, n, k) and (b, k, m)."""
    left, right = _matrices((3, 3), "bmm", x, y)
    if left.shape[0] != right.shape[0]:
        fail(f"bmm: batches of {left.shape[0]} and {right.shape[0]} do not fit")
    return matmul(left, right)


def _plus(x: object, product: Tensor, beta: object, alpha: object, what: str) -> Tensor:
    """Return ``beta * x + alpha * product``; with ``beta`` 0, ``x`` does not count at all."""

    def scaled(value: Tensor, factor: object) -> Tensor:
        if isinstance(factor, (int, float)) and value.dtype in INTEGERS:
            factor = int(factor)  # as in PyTorch: the factor takes the type, not the product
        if isinstance(factor, (int, float)) and factor == 1:
            return value
        return (value * factor).astype(value.dtype)

    addend = as_tensor(x)
    try:
        fits = broadcast_shapes(addend.shape, product.shape) == product.shape
    except ValueError:
        fits = False
    if not fits:
        shapes = f"{format_shape(addend.shape)} does not broadcast to {format_shape(product.shape)}"
        fail(f"{what}: {shapes}")
    total = scaled(product, alpha)
    if isinstance(beta, (int, float)) and beta == 0:
        return total
    return scaled(addend, beta) + total


def addmm(x: object, a: object, b: object, beta: object = 1, alpha: object = 1) -> Tensor:
    """Return ``beta x + alpha (a @ b)`` for matrices ``a`` (n, k) and ``b`` (k, m)."""
    return _plus(x, mm(a, b), beta, alpha, "addmm")


def addmv(x: object, a: object, b: object, beta: object = 1, alpha: object = 1) -> Tensor:
    """Return ``beta x + alpha (a @ b)`` for a matrix ``a`` (n, k) and a vector ``b`` (k,)."""
    return _plus(x, mv(a, b), beta, alpha, "addmv")


def addr(x: object, a: object, b: object, beta: object = 1, alpha: object = 1) -> Tensor:
    """Return ``beta x + alpha a bᵀ`` for vectors ``a`` (n,) and ``b`` (m,)."""
    left, right = _matrices((1, 1), "addr", a, b)
    return _plus(x, outer(left, right), beta, alpha, "addr")


def baddbmm(x: object, a: object, b: object, beta: object = 1, alpha: object = 1) -> Tensor:
    """Return ``beta x + alpha (a @ b)`` for batches of matrices."""
    return _plus(x, bmm(a, b), beta, alpha, "baddbmm")


def addbmm(x: object, a: object, b: object, beta: object = 1, alpha: object = 1) -> Tensor:
    """Return ``beta x + alpha Σ (a @ b)``, the sum over a batch of matrices."""
    return _plus(x, bmm(a, b).sum(0), beta, alpha, "addbmm")


def dot(x: object, y: object) -> Tensor:
    """Return NumPy's dot: the sum over the last axis of ``x`` and the last but one of ``y``."""
    left, right = as_tensor(x), as_tensor(y)
    if 0 in (left.ndim, right.ndim):
        return left * right
    return tensordot(left, right, ((-1,), (-2 if right.ndim > 1 else -1,)))


def vdot(x: object, y: object) -> Tensor:
    """Return the sum of the products of the elements of two flattened tensors."""
    return dot(as_tensor(x).ravel(), as_tensor(y).ravel())


def inner(x: object, y: object) -> Tensor:
    """Return the sums of products over the last axes of both; a number multiplies."""
    left, right = as_tensor(x), as_tensor(y)
    if 0 in (left.ndim, right.ndim):
        return left * right
    return tensordot(left, right, ((-1,), (-1,)))


def outer(x: object, y: object) -> Tensor:
    """Return the products of all pairs of elements of two flattened tensors; (n, m)."""
    return einsum("i,j->ij", as_tensor(x).ravel(), as_tensor(y).ravel())


def kron(x: object, y: object) -> Tensor:
    """Return the Kronecker product: every element of ``x`` times all of ``y``, in blocks."""
    left, right = as_tensor(x), as_tensor(y)
    rank = max(left.ndim, right.ndim)
    a = (*(1,) * (rank - left.ndim), *left.shape)
    b = (*(1,) * (rank - right.ndim), *right.shape)
    wide = left.reshape(tuple(d for size in a for d in (size, 1)))
    tall = right.reshape(tuple(d for size in b for d in (1, size)))
    return (wide * tall).reshape(tuple(m * n for m, n in zip(a, b, strict=True)))


def cross(x: object, y: object, axis: int = -1) -> Tensor:
    """Return the cross products of the vectors of three along ``axis``; both broadcast."""
    left, right = (Tensor(node) for node in unify(operand_of(x), operand_of(y), numeric=True))
    rank = max(left.ndim, right.ndim)
    place = normalize_axis(axis, rank, "cross") - rank
    for tensor in (left, right):
        if tensor.ndim < -place or tensor.shape[place] != 3:
            fail(f"cross: axis {axis} of {format_shape(tensor.shape)} is not of size 3")
    a, b = ([moveaxis(t, place, 0)[i] for i in range(3)] for t in (left, right))
    parts = [a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)]
    return stack(parts, place)


def einsum(equation: str, *operands: object) -> Tensor:
    """Return the sum of products that ``equation`` describes, such as ``"bij,bjk->bik"``.

    ``...`` stands for axes that broadcast; without ``->`` the result has the labels that occur
    once, in alphabetical order.  Raises GraphError for an equation that does not fit.
    """
    return Tensor(contraction.einsum(equation, [as_tensor(x).node for x in operands]))


def linear(input: object, weight: object, bias: object = None) -> Tensor:
    """Return ``input`` (..., in) times the rows of ``weight`` (out, in) or (in,), plus ``bias``."""
    rows = as_tensor(weight)
    result = einsum("...i,oi->...o" if rows.ndim == 2 else "...i,i->...", input, rows)
    return result if bias is None else result + bias


def tensordot(x: object, y: object, axes: int | Sequence[object] = 2) -> Tensor:
    """Return the sum over ``axes`` of both: a count, or a pair of axes or of sequences of axes."""
    return Tensor(contraction.tensordot(as_tensor(x).node, as_tensor(y).node, axes))


def multi_dot(matrices: Sequence[object]) -> Tensor:
    """Return the product of two or more matrices in the order that costs least.

    The first may be a row and the last a column, vectors both.
    """
    tensors = [as_tensor(x) for x in matrices]
    if len(tensors) < 2:
        fail(f"multi_dot: needs two matrices or more, not {len(tensors)}")
    labels = [f"{chr(97 + i)}{chr(98 + i)}" for i in range(len(tensors))]
    ends = [0, len(tensors) - 1]
    for position, tensor in enumerate(tensors):
        if tensor.ndim != 2 and not (tensor.ndim == 1 and position in ends):
            fail(f"multi_dot: {format_shape(tensor.shape)} in place {position} is no matrix")
    if len(tensors) > 25:
        return matmul(multi_dot(tensors[:13]), multi_dot(tensors[13:]))
    first, last = labels[0][0], labels[-1][1]
    result = first * (tensors[0].ndim == 2) + last * (tensors[-1].ndim == 2)
    labels[0] = labels[0][-tensors[0].ndim :]
    labels[-1] = labels[-1][: tensors[-1].ndim]
    return einsum(",".join(labels) + "->" + result, *tensors)


def matrix_power(x: object, n: int) -> Tensor:
    """Return square matrices (..., m, m) multiplied by themselves; n = 0 gives the identity."""
    tensor = as_tensor(x)
    if tensor.ndim < 2 or tensor.shape[-1] != tensor.shape[-2]:
        fail(f"matrix_power: {format_shape(tensor.shape)} is no square matrix")
    if n < 0:
        fail(f"matrix_power: the power must not be negative, not {n}")
    if n == 0:
        size = tensor.shape[-1]
        return eye(size, size, 0, tensor.dtype).broadcast_to(tensor.shape)
    result: Tensor | None = None
    while n:
        if n & 1:
            result = tensor if result is None else matmul(result, tensor)
        n >>= 1
        if n:
            tensor = matmul(tensor, tensor)
    assert result is not None
    return result


def vander(x: object, columns: Dim | None = None, increasing: bool = False) -> Tensor:
    """Return the powers of a vector (n,) as columns, the highest first unless ``increasing``."""
    tensor = as_tensor(x)
    if tensor.ndim != 1:
        fail(f"vander: takes a vector, not {format_shape(tensor.shape)}")
    count = tensor.shape[0] if columns is None else columns
    if not isinstance(count, int):
        fail("vander: the number of columns must be known")
    powers = [ones_like(tensor)]
    for _ in range(count - 1):
        powers.append(powers[-1] * tensor)
    powers = powers[:count]
    if not powers:
        return tensor.reshape((-1, 1))[:, :0]
    return stack(powers if increasing else powers[::-1], -1)


__all__ = [
    "addbmm",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
    "bmm",
    "cross",
    "dot",
    "einsum",
    "inner",
    "kron",
    "matmul",
    "matrix_power",
    "mm",
    "multi_dot",
    "mv",
    "outer",
    "tensordot",
    "vander",
    "vdot",
]
