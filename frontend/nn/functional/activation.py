"""Activation functions with PyTorch's arguments.

``inplace`` is taken and means nothing: the compiler decides what is computed in place.
"""

from __future__ import annotations

from ... import activations
from ... import functional as F
from ...random import gumbel
from ...tensor import Tensor, as_tensor, floating


def relu(input: object, inplace: bool = False) -> Tensor:
    """Return max(x, 0); its derivative at 0 is 0."""
    return activations.relu(input)


def relu6(input: object, inplace: bool = False) -> Tensor:
    """Return min(max(x, 0), 6)."""
    return activations.relu6(input)


def leaky_relu(input: object, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """Return x where x > 0, else ``negative_slope`` x."""
    return activations.leaky_relu(input, negative_slope)


def prelu(input: object, weight: object) -> Tensor:
    """Return x where x > 0, else ``weight`` x; one weight, or one for each channel (axis 1)."""
    return activations.prelu(input, weight)


def rrelu(
    input: object,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Return x where x > 0, else a x (Xu et al. 2015).

    a is uniform in [``lower``, ``upper``) for each element in training, their mean otherwise.
    """
    return (
        activations.rrelu(input, lower, upper)
        if training
        else activations.leaky_relu(input, (lower + upper) / 2)
    )


def elu(input: object, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Return x where x > 0, else ``alpha`` (exp(x) - 1) (Clevert et al. 2015)."""
    return activations.elu(input, alpha)


def celu(input: object, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Return max(x, 0) + min(0, ``alpha`` (exp(x / alpha) - 1)) (Barron 2017)."""
    return activations.celu(input, alpha)


def selu(input: object, inplace: bool = False) -> Tensor:
    """Return the scaled exponential linear unit (Klambauer et al. 2017)."""
    return activations.selu(input)


def gelu(input: object, approximate: str = "none") -> Tensor:
    """Return x Φ(x), or its ``"tanh"`` approximation (Hendrycks & Gimpel 2016)."""
    return activations.gelu(input, approximate)


def silu(input: object, inplace: bool = False) -> Tensor:
    """Return x sigmoid(x)."""
    return activations.silu(input)


def mish(input: object, inplace: bool = False) -> Tensor:
    """Return x tanh(softplus(x)) (Misra 2019)."""
    return activations.mish(input)


def sigmoid(input: object) -> Tensor:
    """Return 1 / (1 + exp(-x))."""
    return activations.sigmoid(input)


def logsigmoid(input: object) -> Tensor:
    """Return log(sigmoid(x))."""
    return activations.log_sigmoid(input)


def tanh(input: object) -> Tensor:
    """Return the hyperbolic tangent."""
    return activations.tanh(input)


def tanhshrink(input: object) -> Tensor:
    """Return x - tanh(x)."""
    return activations.tanhshrink(input)


def softplus(input: object, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return log(1 + exp(``beta`` x)) / beta, and x where beta x > ``threshold``."""
    return activations.softplus(input, beta, threshold)


def softsign(input: object) -> Tensor:
    """Return x / (1 + |x|)."""
    return activations.softsign(input)


def hardtanh(
    input: object, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """Return x kept between ``min_val`` and ``max_val``."""
    return activations.hardtanh(input, min_val, max_val)


def hardsigmoid(input: object, inplace: bool = False) -> Tensor:
    """Return relu6(x + 3) / 6."""
    return activations.hardsigmoid(input)


def hardswish(input: object, inplace: bool = False) -> Tensor:
    """Return x relu6(x + 3) / 6 (Howard et al. 2019)."""
    return activations.hardswish(input)


def hardshrink(input: object, lambd: float = 0.5) -> Tensor:
    """Return x where |x| > ``lambd``, else 0."""
    return activations.hardshrink(input, lambd)


def softshrink(input: object, lambd: float = 0.5) -> Tensor:
    """Return x moved towards 0 by ``lambd``, and 0 where |x| <= lambd."""
    return activations.softshrink(input, lambd)


def threshold(input: object, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """Return x where x > ``threshold``, else ``value``."""
    return activations.threshold(input, threshold, value)


def glu(input: object, dim: int = -1) -> Tensor:
    """Return a sigmoid(b) for the halves a and b of ``dim`` (Dauphin et al. 2016)."""
    return activations.glu(input, dim)


def _axis(dim: int | None, x: Tensor) -> int:
    """Return the axis that PyTorch takes where none is given."""
    if dim is not None:
        return dim
    return 0 if x.ndim in (0, 1, 3) else 1


def _as_type(input: object, dtype: str | None) -> Tensor:
    x = floating(input)
    return x if dtype is None else x.astype(dtype)


def softmax(input: object, dim: int | None = None, dtype: str | None = None) -> Tensor:
    """Return exp(x) normalised to sum to 1 over ``dim``, computed as ``dtype``."""
    x = _as_type(input, dtype)
    return F.softmax(x, _axis(dim, x))


def log_softmax(input: object, dim: int | None = None, dtype: str | None = None) -> Tensor:
    """Return the logarithm of `softmax`."""
    x = _as_type(input, dtype)
    return F.log_softmax(x, _axis(dim, x))


def softmin(input: object, dim: int | None = None, dtype: str | None = None) -> Tensor:
    """Return softmax(-x)."""
    x = _as_type(input, dtype)
    return F.softmax(-x, _axis(dim, x))


def gumbel_softmax(
    logits: object, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """Return a sample of the Gumbel-softmax distribution (Jang et al. 2016).

    ``eps`` is PyTorch's, and means nothing there either.
    ``tau``: the temperature. ``hard``: the result is one-hot, with the gradient of the soft sample.
    """
    x = floating(logits)
    soft = F.softmax((x + gumbel(x.shape, dtype=x.dtype)) / tau, dim)
    if not hard:
        return soft
    place = dim % soft.ndim
    index = as_tensor(soft.argmax(dim, keepdims=True))
    one_hot = (F.iota(soft.shape, place) == index).astype(soft.dtype)
    return one_hot + (soft - F.stop_gradient(soft))
