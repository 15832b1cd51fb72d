"""Activation functions as modules: one row each, with PyTorch's names and arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ...compiler.ir.dims import format_shape
from .. import activations
from ..state import Variable
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from .module import Module


class _Activation(Module):
    """A module that applies ``function`` with the arguments it was made with."""

    function: Callable[..., Tensor]
    renamed: dict[str, str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("inplace", None)  # the compiler decides
        kwargs = {self.renamed.get(name, name): value for name, value in kwargs.items()}
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        signature = inspect.Signature(parameters)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        bound.apply_defaults()
        self.arguments = dict(bound.arguments)

    def forward(self, x: object) -> Tensor:
        """Return the activation of ``x``, of its shape."""
        return type(self).function(x, **self.arguments)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.arguments.items())


def _module(name: str, function: Callable[..., Tensor], **renamed: str) -> type[_Activation]:
    """Return the module called ``name``; ``renamed`` maps PyTorch's argument names to ours."""
    body = {
        "function": staticmethod(function),
        "renamed": renamed,
        "__doc__": function.__doc__,
        "__module__": __name__,
    }
    return type(name, (_Activation,), body)


ReLU = _module("ReLU", activations.relu)
LeakyReLU = _module("LeakyReLU", activations.leaky_relu)
RReLU = _module("RReLU", activations.rrelu)
ReLU6 = _module("ReLU6", activations.relu6)
ELU = _module("ELU", activations.elu)
CELU = _module("CELU", activations.celu)
SELU = _module("SELU", activations.selu)
GELU = _module("GELU", activations.gelu)
SiLU = _module("SiLU", activations.silu)
Mish = _module("Mish", activations.mish)
Sigmoid = _module("Sigmoid", activations.sigmoid)
LogSigmoid = _module("LogSigmoid", activations.log_sigmoid)
Tanh = _module("Tanh", activations.tanh)
Tanhshrink = _module("Tanhshrink", activations.tanhshrink)
Softplus = _module("Softplus", activations.softplus)
Softsign = _module("Softsign", activations.softsign)
Hardtanh = _module("Hardtanh", activations.hardtanh)
Hardsigmoid = _module("Hardsigmoid", activations.hardsigmoid)
Hardswish = _module("Hardswish", activations.hardswish)
Hardshrink = _module("Hardshrink", activations.hardshrink)
Softshrink = _module("Softshrink", activations.softshrink)
Threshold = _module("Threshold", activations.threshold)
GLU = _module("GLU", activations.glu, dim="axis")
Softmax = _module("Softmax", activations.softmax, dim="axis")
LogSoftmax = _module("LogSoftmax", activations.log_softmax, dim="axis")
Softmin = _module("Softmin", activations.softmin, dim="axis")


class PReLU(Module):
    """Returns x where x > 0, else ``weight`` * x, with learned ``weight`` (num_parameters).

    ``num_parameters``: 1, or one for each channel (axis 1).
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, dtype: str = "float32") -> None:
        self.num_parameters = num_parameters
        self.weight = Variable(np.full(num_parameters, init), "weight", dtype=dtype)

    def forward(self, x: object) -> Tensor:
        """Return the activation of ``x``, of its shape."""
        return activations.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Softmax2d(Module):
    """Softmax over the channels of (batch, channels, height, width), or without the batch."""

    def forward(self, x: object) -> Tensor:
        """Return the softmax of ``x`` over axis -3, of its shape."""
        tensor = as_tensor(x)
        if tensor.ndim not in (3, 4):
            fail(f"Softmax2d: needs rank 3 or 4, not {format_shape(tensor.shape)}")
        return activations.softmax(tensor, -3)
