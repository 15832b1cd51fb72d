"""Activation functions, with PyTorch's arguments, defaults and derivatives at the kinks.

A branch that `where` does not choose is still computed, so branches that could overflow get an
argument that cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.ir.dims import divide_exactly
from . import functional as F
from . import random
from .dropout import is_training
from .shaping import normalize_axis
from .tensor import Tensor, apply, as_tensor, floating
from .tracing import fail

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def relu(x: object) -> Tensor:
    """Return max(x, 0); the derivative at 0 is 0."""
    return apply("relu", x)


def sigmoid(x: object) -> Tensor:
    """Return 1 / (1 + exp(-x))."""
    return apply("sigmoid", x)


def tanh(x: object) -> Tensor:
    """Return the hyperbolic tangent."""
    return apply("tanh", x)


def leaky_relu(x: object, negative_slope: float = 0.01) -> Tensor:
    """Return x where x > 0, else ``negative_slope`` * x."""
    x = floating(x)
    return F.where(x > 0, x, x * negative_slope)


def prelu(x: object, weight: object) -> Tensor:
    """Return x where x > 0, else ``weight`` * x (He et al. 2015).

    ``weight``: one value, or one for each channel of ``x`` (batch, channels, ...).
    """
    x, slope = floating(x), as_tensor(weight)
    if slope.ndim == 1 and x.ndim > 2 and slope.shape[0] != 1:
        slope = slope.reshape((-1, *(1,) * (x.ndim - 2)))
    return F.where(x > 0, x, x * slope)


def rrelu(x: object, lower: float = 1.0 / 8.0, upper: float = 1.0 / 3.0) -> Tensor:
    """Return x where x > 0, else a * x: in training a is drawn from U(``lower``, ``upper``).

    For each element by itself; in inference a is the mean of both (Xu et al. 2015).
    """
    if not 0 <= lower <= upper:
        fail(f"rrelu: needs 0 <= lower <= upper, not {lower} and {upper}")
    x = floating(x)
    drawn = random.uniform(x.shape, lower, upper, x.dtype, training_only=True)
    slope = F.where(is_training(), drawn, (lower + upper) / 2.0)
    return F.where(x > 0, x, x * slope)


def elu(x: object, alpha: float = 1.0) -> Tensor:
    """Return x where x > 0, else ``alpha`` * (exp(x) - 1) (Clevert et al. 2015)."""
    x = floating(x)
    return F.where(x > 0, x, F.expm1(_below_zero(x)) * alpha)


def celu(x: object, alpha: float = 1.0) -> Tensor:
    """Return x where x > 0, else ``alpha`` * (exp(x / ``alpha``) - 1) (Barron 2017)."""
    x = floating(x)
    if alpha == 0:
        fail("celu: alpha must not be 0")
    return F.where(x > 0, x, F.expm1(_below_zero(x) / alpha) * alpha)


def selu(x: object) -> Tensor:
    """Return 1.0507 * elu(x, 1.6733) (Klambauer et al. 2017)."""
    return elu(x, _SELU_ALPHA) * _SELU_SCALE


def _below_zero(x: Tensor) -> Tensor:
    """Return x where it is not positive, else 0, so that exp(x) stays finite."""
    return F.where(x > 0, 0.0, x)


def gelu(x: object, approximate: str = "none") -> Tensor:
    """Return x Φ(x) (Hendrycks & Gimpel 2016).

    ``approximate``: ``"none"`` uses the error function, ``"tanh"`` the approximation of section 2.
    """
    x = floating(x)
    if approximate == "none":
        return x * 0.5 * (F.erf(x * math.sqrt(0.5)) + 1.0)
    if approximate == "tanh":
        inner = (x + F.power(x, 3) * 0.044715) * math.sqrt(2.0 / math.pi)
        return x * 0.5 * (F.tanh(inner) + 1.0)
    fail(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")


def silu(x: object) -> Tensor:
    """Return x * sigmoid(x), also called swish (Elfwing et al. 2017)."""
    x = floating(x)
    return x * F.sigmoid(x)


def mish(x: object) -> Tensor:
    """Return x * tanh(softplus(x)) (Misra 2019)."""
    x = floating(x)
    return x * F.tanh(apply("softplus", x))


def softplus(x: object, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return log(1 + exp(``beta`` * x)) / ``beta``, and x itself where beta * x > ``threshold``."""
    x = floating(x)
    scaled = x if beta == 1 else x * beta
    smooth = apply("softplus", scaled)
    return F.where(scaled > threshold, x, smooth if beta == 1 else smooth / beta)


def softsign(x: object) -> Tensor:
    """Return x / (1 + |x|)."""
    x = floating(x)
    return x / (F.abs(x) + 1.0)


def hardtanh(x: object, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Return x limited to [``min_val``, ``max_val``]; the derivative at the limits is 0."""
    if min_val > max_val:
        fail(f"hardtanh: min_val {min_val} is above max_val {max_val}")
    x = as_tensor(x)
    return F.where(x <= min_val, min_val, F.where(x >= max_val, max_val, x))


def relu6(x: object) -> Tensor:
    """Return x limited to [0, 6]."""
    return hardtanh(x, 0.0, 6.0)


def hardsigmoid(x: object) -> Tensor:
    """Return relu6(x + 3) / 6."""
    return relu6(floating(x) + 3.0) / 6.0


def hardswish(x: object) -> Tensor:
    """Return x * relu6(x + 3) / 6 (Howard et al. 2019)."""
    x = floating(x)
    return F.where(x <= -3.0, 0.0, F.where(x >= 3.0, x, x * (x + 3.0) / 6.0))


def log_sigmoid(x: object) -> Tensor:
    """Return log(sigmoid(x)) without overflow."""
    return -apply("softplus", -floating(x))


def tanhshrink(x: object) -> Tensor:
    """Return x - tanh(x)."""
    x = floating(x)
    return x - F.tanh(x)


def hardshrink(x: object, lambd: float = 0.5) -> Tensor:
    """Return 0 where |x| <= ``lambd``, else x."""
    x = floating(x)
    return F.where((x >= -lambd) & (x <= lambd), 0.0, x)


def softshrink(x: object, lambd: float = 0.5) -> Tensor:
    """Return x moved towards 0 by ``lambd``, and 0 where |x| <= ``lambd``."""
    x = floating(x)
    return F.where(x > lambd, x - lambd, F.where(x < -lambd, x + lambd, x * 0.0))


def threshold(x: object, threshold: float, value: float) -> Tensor:
    """Return x where x > ``threshold``, else ``value``."""
    x = floating(x)
    return F.where(x <= threshold, value, x)


def glu(x: object, axis: int = -1) -> Tensor:
    """Return a * sigmoid(b) for the halves a, b of ``x`` along ``axis`` (Dauphin et al. 2016)."""
    x = floating(x)
    place = normalize_axis(axis, x.ndim, "glu")
    half = divide_exactly(x.shape[place], 2)
    if half is None:
        fail(f"glu: axis {axis} of size {x.shape[place]} has no halves")
    before = (slice(None),) * place
    return x[*before, :half] * F.sigmoid(x[*before, half:])


def softmax(x: object, axis: int = -1, temperature: object = 1.0) -> Tensor:
    """Return exp(x / ``temperature``) normalised to sum to 1 over ``axis``."""
    return F.softmax(x, axis, temperature)


def log_softmax(x: object, axis: int = -1, temperature: object = 1.0) -> Tensor:
    """Return the logarithm of `softmax`."""
    return F.log_softmax(x, axis, temperature)


def softmin(x: object, axis: int = -1) -> Tensor:
    """Return softmax(-x)."""
    return F.softmax(-floating(x), axis)


def identity(x: object) -> Tensor:
    """Return ``x``."""
    return as_tensor(x)


#: Name -> function, for activations given by name.
ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "linear": identity,
    "swish": silu,
    **{
        function.__name__: function
        for function in (
            celu,
            elu,
            gelu,
            glu,
            hardshrink,
            hardsigmoid,
            hardswish,
            hardtanh,
            identity,
            leaky_relu,
            log_sigmoid,
            log_softmax,
            mish,
            relu,
            relu6,
            rrelu,
            selu,
            sigmoid,
            silu,
            softmax,
            softmin,
            softplus,
            softshrink,
            softsign,
            tanh,
            tanhshrink,
        )
    },
}


def activation(name: str | Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return the activation called ``name``, or ``name`` itself where it is a function."""
    if callable(name):
        return name
    if name not in ACTIVATIONS:
        fail(f"no activation is called {name!r}; known: {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]
