"""Every elementary scalar function, written by hand with NumPy: the meaning of `Map`.

One row per name of `SCALAR_FUNCTIONS`.  Each takes arrays of one element type (``where`` takes a
bool array first), broadcasts, and keeps the element type.  The functions that NumPy lacks are
computed in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..compiler.ir.scalars import Formula, subterms

ScalarEvaluator = Callable[..., np.ndarray]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))``; the exponential's argument is never positive, so nothing overflows."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, np.ones_like(x), small) / (small + np.ones_like(x))


def _softplus(x: np.ndarray) -> np.ndarray:
    """``log(1 + exp(x))`` as ``max(x, 0) + log1p(exp(-|x|))``."""
    return np.maximum(x, np.zeros_like(x)) + np.log1p(np.exp(-np.abs(x)))


def _lgamma(x: float) -> float:
    if math.isinf(x):
        return math.inf
    try:
        return math.lgamma(x)
    except (ValueError, OverflowError):  # a pole, or a value beyond the largest double
        return math.inf


def _in_double(function: Callable[[float], float]) -> ScalarEvaluator:
    """Return ``function`` over the elements of an array, computed in float64."""
    elementwise = np.frompyfunc(function, 1, 1)

    def evaluate(x: np.ndarray) -> np.ndarray:
        return np.asarray(elementwise(np.asarray(x, np.float64)), dtype=x.dtype)

    return evaluate


# Bernoulli numbers B_2 … B_14: the tails of the asymptotic series of digamma and trigamma
# (Abramowitz and Stegun 6.3.18 and 6.4.12).  From 12 on, the first term left out is below 1e-17.
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
_ASYMPTOTIC_FROM = 12


def _distance_to_integer(x: np.ndarray) -> np.ndarray:
    return x - np.rint(x)


def _digamma(x: np.ndarray) -> np.ndarray:
    """Reflection below 0, recurrence up to 12, asymptotic series beyond."""
    wide = np.asarray(x, np.float64)
    z = np.where(wide < 0, 1 - wide, wide)
    correction = np.zeros_like(z)
    for _ in range(_ASYMPTOTIC_FROM):
        small = z < _ASYMPTOTIC_FROM
        correction = correction - np.where(small, 1 / z, 0)
        z = np.where(small, z + 1, z)
    tail = sum(b / (2 * n * z ** (2 * n)) for n, b in enumerate(_BERNOULLI, start=1))
    result = np.log(z) - 0.5 / z - tail + correction
    reflected = result - np.pi / np.tan(np.pi * _distance_to_integer(wide))
    result = np.where(wide < 0, reflected, result)
    pole = np.where(wide == 0, np.copysign(np.inf, -wide), np.nan)
    return np.where((wide <= 0) & (wide == np.rint(wide)), pole, result).astype(x.dtype)


def _trigamma(x: np.ndarray) -> np.ndarray:
    """Reflection below 0, recurrence up to 12, asymptotic series beyond; infinite at its poles."""
    wide = np.asarray(x, np.float64)
    z = np.where(wide < 0, 1 - wide, wide)
    correction = np.zeros_like(z)
    for _ in range(_ASYMPTOTIC_FROM):
        small = z < _ASYMPTOTIC_FROM
        correction = correction + np.where(small, 1 / (z * z), 0)
        z = np.where(small, z + 1, z)
    tail = sum(b / z ** (2 * n + 1) for n, b in enumerate(_BERNOULLI, start=1))
    result = 1 / z + 0.5 / (z * z) + tail + correction
    reflected = (np.pi / np.sin(np.pi * _distance_to_integer(wide))) ** 2 - result
    result = np.where(wide < 0, reflected, result)
    pole = (wide <= 0) & (wide == np.rint(wide)) & np.isfinite(wide)
    return np.where(pole, np.inf, result).astype(x.dtype)


#: Elementary name -> its meaning.
NUMPY_FUNCTIONS: dict[str, ScalarEvaluator] = {
    # arithmetic
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "square": np.square,
    "relu": lambda x: np.maximum(x, np.zeros_like(x)),
    "stop_gradient": lambda x: x,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    # float
    "reciprocal": lambda x: np.ones_like(x) / x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: np.ones_like(x) / np.sqrt(x),
    "cbrt": np.cbrt,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "erf": _in_double(math.erf),
    "erfc": _in_double(math.erfc),
    "lgamma": _in_double(_lgamma),
    "digamma": _digamma,
    "trigamma": _trigamma,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "rint": np.rint,
    "div": np.divide,
    "pow": np.power,
    "atan2": np.arctan2,
    "copysign": np.copysign,
    # compare
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    # logic
    "logical_not": np.logical_not,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    # bits; a shift by the width or more leaves no bits (all sign bits, to the right of an int)
    "bit_not": np.bitwise_not,
    "bit_and": np.bitwise_and,
    "bit_or": np.bitwise_or,
    "bit_xor": np.bitwise_xor,
    "shift_left": np.left_shift,
    "shift_right": np.right_shift,
    # select and test
    "where": np.where,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
}


def evaluate_function(function: str | Formula, args: list[np.ndarray]) -> np.ndarray:
    """Return an elementary function or a formula of ``args``, in their element type.

    A formula's numbers take the element type of its parameters.
    """
    if isinstance(function, str):
        return np.asarray(NUMPY_FUNCTIONS[function](*args))
    dtype = args[0].dtype if args else np.dtype("float32")
    named = dict(zip(function.params, args, strict=True))
    values: dict[int, np.ndarray] = {}
    for term in subterms(function.body):
        if term.op == "param":
            values[id(term)] = named[str(term.value)]
        elif term.op == "number":
            values[id(term)] = np.asarray(term.value, dtype=dtype)
        else:
            operands = [values[id(x)] for x in term.args]
            values[id(term)] = np.asarray(NUMPY_FUNCTIONS[term.op](*operands))
    return values[id(function.body)]
