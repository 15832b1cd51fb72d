"""Linear maps, distances and one-hot codes with PyTorch's arguments."""

from __future__ import annotations

from ....compiler.ir import ops
from ... import functional as F
from ...tensor import Tensor, as_tensor, floating
from ...tracing import fail


def bilinear(input1: object, input2: object, weight: object, bias: object = None) -> Tensor:
    """Return x1ᵀ W x2 for ``weight`` (out, in1, in2): (..., in1) and (..., in2) to (..., out)."""
    result = F.einsum("...i,oij,...j->...o", input1, weight, input2)
    return result if bias is None else result + bias


def cosine_similarity(x1: object, x2: object, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Return x·y / (max(|x|, ``eps``) max(|y|, eps)) over ``dim``."""
    return F.cosine_similarity(x1, x2, dim, eps)


def pairwise_distance(
    x1: object, x2: object, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """Return the ``p``-norm of x - y + ``eps`` over the last axis."""
    return F.norm(floating(x1) - floating(x2) + eps, p, -1, keepdim)


def pdist(input: object, p: float = 2.0) -> Tensor:
    """Return the ``p``-norm distances of all pairs of rows i < j of ``input`` (rows, features)."""
    x = floating(input)
    rows = x.shape[0]
    if x.ndim != 2 or not isinstance(rows, int):
        fail(f"pdist: needs (rows, features) with a known number of rows, not {x.shape}")
    first = [i for i in range(rows) for _ in range(i + 1, rows)]
    second = [j for i in range(rows) for j in range(i + 1, rows)]
    if not first:
        return F.zeros((0,), x.dtype)
    return F.norm(F.take(x, first, 0) - F.take(x, second, 0), p, -1)


def normalize(input: object, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Return x / max(|x|ₚ, ``eps``) over ``dim``."""
    x = floating(input)
    return x / F.norm(x, p, dim, True).clip(eps)


def one_hot(tensor: object, num_classes: int = -1) -> Tensor:
    """Return int64 rows of zeros with a one at each index: (...) to (..., ``num_classes``).

    ``num_classes=-1``, one more than the largest index, needs a constant.
    """
    indices = as_tensor(tensor)
    if num_classes == -1:
        op = indices.node.op
        if not isinstance(op, ops.Constant):
            fail("one_hot: num_classes=-1 needs a constant; give the number of classes")
        num_classes = int(op.value.array.max(initial=-1)) + 1
    return F.one_hot(indices, num_classes, "int64")
