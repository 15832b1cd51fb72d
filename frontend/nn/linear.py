"""Affine maps, and layers that only reshape."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...compiler.ir.dims import format_shape
from .. import functional as F
from ..initializers import default_bias, default_weight
from ..products import linear
from ..state import Variable
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from .module import Module


class Linear(Module):
    """``x @ weight.T + bias``: (..., in_features) to (..., out_features).

    ``weight`` (out_features, in_features) and ``bias`` (out_features) start uniform in
    ±1/sqrt(in_features), as in PyTorch.  Raises GraphError for an input of another width.
    """

    bias: Variable | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: str = "float32"
    ) -> None:
        self.in_features = in_features
        self.out_features = out_features
        shape = (out_features, in_features)
        self.weight = Variable(default_weight(shape), "weight", dtype=dtype)
        values = default_bias((out_features,), in_features)
        self.bias = Variable(values, "bias", dtype=dtype) if bias else None

    def forward(self, input: object) -> Tensor:
        """Return the affine map of ``input`` (..., in_features)."""
        tensor = as_tensor(input)
        if tensor.ndim == 0 or tensor.shape[-1] != self.in_features:
            fail(
                f"Linear: an input of shape {format_shape(tensor.shape)} does not fit weight "
                f"{format_shape(self.weight.shape)}; its last axis must be {self.in_features}"
            )
        return linear(tensor, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """``x1ᵀ weight x2 + bias``: (..., in1) and (..., in2) to (..., out)."""

    bias: Variable | None

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True
    ) -> None:
        shape = (out_features, in1_features, in2_features)
        self.weight = Variable(default_bias(shape, in1_features), "weight", dtype="float32")
        values = default_bias((out_features,), in1_features)
        self.bias = Variable(values, "bias", dtype="float32") if bias else None

    def forward(self, first: object, second: object) -> Tensor:
        """Return the bilinear form for ``first`` (..., in1) and ``second`` (..., in2)."""
        result = F.einsum("...i,oij,...j->...o", first, self.weight, second)
        return result if self.bias is None else result + self.bias


class Identity(Module):
    """Returns its input; takes and ignores any arguments, as in PyTorch."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        del args, kwargs

    def forward(self, x: object) -> Tensor:
        """Return ``x``."""
        return as_tensor(x)


class Flatten(Module):
    """Makes axes ``start_dim`` to ``end_dim`` (inclusive) one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: object) -> Tensor:
        """Return ``x`` flattened."""
        return as_tensor(x).flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Gives axis ``dim`` the sizes ``unflattened_size``, one of which may be -1."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, x: object) -> Tensor:
        """Return ``x`` with the axis split."""
        tensor = as_tensor(x)
        place = self.dim % tensor.ndim
        before, after = tensor.shape[:place], tensor.shape[place + 1 :]
        return tensor.reshape((*before, *self.unflattened_size, *after))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Lambda(Module):
    """A function of tensors as a module without parameters."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def forward(self, *args: object) -> Tensor:
        """Return the function of ``args``."""
        return self.function(*args)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))
