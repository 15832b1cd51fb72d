"""Initial values of parameters, drawn from one seeded generator (PyTorch's formulas).

Shapes are PyTorch's: a weight is (out, in, *kernel), so its fan-in is ``in * prod(kernel)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

_generator = np.random.default_rng()


def seed_initializers(seed: int) -> None:
    """Make the initial values that follow a function of ``seed``."""
    global _generator
    _generator = np.random.default_rng(seed)


@contextmanager
def preserve_initializers() -> Iterator[None]:
    """Go on afterwards with the generator as it is now, whatever is seeded and drawn inside."""
    global _generator
    kept = _generator
    try:
        yield
    finally:
        _generator = kept


def generator() -> np.random.Generator:
    """Return the generator that initial values are drawn from."""
    return _generator


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return fan-in and fan-out of a weight; ValueError below two axes."""
    if len(shape) < 2:
        raise ValueError(f"fan-in and fan-out need two or more axes, not shape {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


_GAINS = {
    "linear": 1.0,
    "identity": 1.0,
    "sigmoid": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
}


def gain_of(nonlinearity: str, a: float | None = None) -> float:
    """Return the recommended gain for ``nonlinearity``; ``a`` is leaky ReLU's negative slope."""
    if nonlinearity == "leaky_relu":
        slope = 0.01 if a is None else a
        return math.sqrt(2.0 / (1.0 + slope * slope))
    if nonlinearity not in _GAINS:
        raise ValueError(f"no gain is known for {nonlinearity!r}; known: {', '.join(_GAINS)}")
    return _GAINS[nonlinearity]


def uniform(shape: tuple[int, ...], a: float = 0.0, b: float = 1.0) -> np.ndarray:
    """Return draws from U(a, b)."""
    return _generator.uniform(a, b, shape)


def normal(shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    """Return draws from N(mean, std²)."""
    return _generator.normal(mean, std, shape)


def trunc_normal(
    shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> np.ndarray:
    """Return draws from N(mean, std²) conditioned on [a, b], by rejection."""
    low, high = (a - mean) / std, (b - mean) / std
    if low >= high:
        raise ValueError(f"trunc_normal: the interval [{a}, {b}] is empty")
    if low > 3 or high < -3:
        raise ValueError(f"trunc_normal: [{a}, {b}] is over 3 std from the mean {mean}")
    draws = _generator.standard_normal(shape)
    while (outside := (draws < low) | (draws > high)).any():
        draws[outside] = _generator.standard_normal(int(outside.sum()))
    return draws * std + mean


def xavier_uniform(shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """Return draws from U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out)) (Glorot 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fans(shape)))
    return uniform(shape, -bound, bound)


def xavier_normal(shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """Return draws from N(0, gain² * 2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    return normal(shape, 0.0, gain * math.sqrt(2.0 / sum(fans(shape))))


def _kaiming_std(shape: tuple[int, ...], a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode {mode!r} is neither 'fan_in' nor 'fan_out'")
    return gain_of(nonlinearity, a) / math.sqrt(fans(shape)[mode == "fan_out"])


def kaiming_uniform(
    shape: tuple[int, ...],
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
) -> np.ndarray:
    """Return draws from U(-b, b), b = gain * sqrt(3 / fan) (He et al. 2015)."""
    bound = math.sqrt(3.0) * _kaiming_std(shape, a, mode, nonlinearity)
    return uniform(shape, -bound, bound)


def kaiming_normal(
    shape: tuple[int, ...],
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
) -> np.ndarray:
    """Return draws from N(0, gain² / fan) (He et al. 2015)."""
    return normal(shape, 0.0, _kaiming_std(shape, a, mode, nonlinearity))


def orthogonal(shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """Return a (semi-)orthogonal matrix, all but the first axis flattened (Saxe et al. 2013)."""
    if len(shape) < 2:
        raise ValueError(f"orthogonal needs two or more axes, not shape {shape}")
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(_generator.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return gain * (q.T if rows < columns else q).reshape(shape)


def sparse(shape: tuple[int, ...], sparsity: float, std: float = 0.01) -> np.ndarray:
    """Return a matrix from N(0, std²), a share ``sparsity`` of each column zero (Martens 2010).

    The number of zeros is rounded up, as in PyTorch.
    """
    if len(shape) != 2:
        raise ValueError(f"sparse needs two axes, not shape {shape}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must lie in [0, 1], not {sparsity}")
    values = normal(shape, 0.0, std)
    zeros = math.ceil(sparsity * shape[0])
    order = _generator.random(shape).argsort(axis=0)
    np.put_along_axis(values, order[:zeros], 0.0, axis=0)
    return values


def dirac(shape: tuple[int, ...], groups: int = 1) -> np.ndarray:
    """Return a convolution weight (out, in, *kernel) that hands on as many channels as it can.

    Each of ``groups`` groups of output channels starts again at the first input channel.
    """
    if not 3 <= len(shape) <= 5:
        raise ValueError(f"dirac needs three to five axes, not shape {shape}")
    if groups < 1 or shape[0] % groups:
        raise ValueError(f"dirac: {groups} groups do not divide {shape[0]} channels")
    values = np.zeros(shape)
    centre = tuple(size // 2 for size in shape[2:])
    channels = shape[0] // groups
    for group in range(groups):
        for channel in range(min(channels, shape[1])):
            values[(group * channels + channel, channel, *centre)] = 1.0
    return values


def eye(shape: tuple[int, ...]) -> np.ndarray:
    """Return a matrix with ones on the diagonal and zeros elsewhere."""
    if len(shape) != 2:
        raise ValueError(f"eye needs two axes, not shape {shape}")
    return np.eye(*shape)


def default_weight(shape: tuple[int, ...]) -> np.ndarray:
    """Return PyTorch's default for weights: kaiming_uniform with a = sqrt(5)."""
    if math.prod(shape) == 0:
        return np.zeros(shape)
    return kaiming_uniform(shape, a=math.sqrt(5.0))


def default_bias(shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    """Return PyTorch's default for biases: U(-b, b), b = 1 / sqrt(fan_in)."""
    bound = 1.0 / math.sqrt(fan_in) if fan_in > 0 else 0.0
    return uniform(shape, -bound, bound)


INITIALIZERS: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "zeros": np.zeros,
    "ones": np.ones,
    "uniform": uniform,
    "normal": normal,
    "trunc_normal": trunc_normal,
    "xavier_uniform": xavier_uniform,
    "xavier_normal": xavier_normal,
    "kaiming_uniform": kaiming_uniform,
    "kaiming_normal": kaiming_normal,
    "glorot_uniform": xavier_uniform,
    "glorot_normal": xavier_normal,
    "he_uniform": kaiming_uniform,
    "he_normal": kaiming_normal,
    "orthogonal": orthogonal,
    "dirac": dirac,
    "eye": eye,
}


def initial_values(
    shape: tuple[int, ...], init: str | float | Callable[[tuple[int, ...]], object] | None
) -> object:
    """Return an array of ``shape`` by an initialiser's name, a number, a function, or default."""
    if init is None:
        return default_weight(shape) if len(shape) > 1 else np.zeros(shape)
    if isinstance(init, str):
        if init not in INITIALIZERS:
            raise ValueError(f"no initialiser is called {init!r}; known: {', '.join(INITIALIZERS)}")
        return INITIALIZERS[init](shape)
    if callable(init):
        return init(shape)
    return np.full(shape, init)
