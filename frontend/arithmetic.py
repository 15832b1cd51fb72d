"""Elementwise functions composed of the elementary ones."""

from __future__ import annotations

import math

import numpy as np

from ..compiler.ir.types import FLOATS
from .creation import ones_like
from .elementwise import abs, copysign, exp2, isinf, isnan, log, log1p, sign, sin, trunc, where
from .promotion import unify
from .tensor import Tensor, apply, as_tensor, floating, operand_of


def _pair(x: object, y: object, floats: bool = False) -> tuple[Tensor, Tensor]:
    left, right = unify(operand_of(x), operand_of(y), numeric=True, floating=floats)
    return Tensor(left), Tensor(right)


def remainder(x: object, y: object) -> Tensor:
    """Return ``x - y * floor(x / y)``: the remainder with the sign of ``y``, as ``%``."""
    return apply("mod", x, y)


def fmod(x: object, y: object) -> Tensor:
    """Return the remainder with the sign of ``x``; NaN for an infinite ``x`` or zero ``y``."""
    left, right = _pair(x, y)
    rest = apply("mod", abs(left), abs(right))
    if left.dtype in FLOATS:
        return copysign(rest, left)
    return where(left < 0, -rest, rest)


def trunc_divide(x: object, y: object) -> Tensor:
    """Return the quotient rounded towards zero."""
    left, right = _pair(x, y)
    if left.dtype in FLOATS:
        return trunc(left / right)
    quotient = apply("floordiv", abs(left), abs(right))
    return where((left < 0) != (right < 0), -quotient, quotient)


def lerp(x: object, y: object, weight: object) -> Tensor:
    """Return ``x + weight * (y - x)``, exact at both ends."""
    left, right, share = (
        Tensor(n) for n in unify(operand_of(x), operand_of(y), operand_of(weight), floating=True)
    )
    near = left + share * (right - left)
    far = right - (right - left) * (1 - share)
    return where(abs(share) < 0.5, near, far)


def addcmul(x: object, a: object, b: object, value: object = 1) -> Tensor:
    """Return ``x + value * a * b``."""
    product = as_tensor(a) * b
    return as_tensor(x) + (product if _is_one(value) else product * value)


def addcdiv(x: object, a: object, b: object, value: object = 1) -> Tensor:
    """Return ``x + value * a / b``."""
    quotient = floating(a) / b
    return as_tensor(x) + (quotient if _is_one(value) else quotient * value)


def _is_one(value: object) -> bool:
    return isinstance(value, (int, float)) and value == 1


def nan_to_num(
    x: object, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Return ``x`` with NaN and infinities replaced; infinities by the extreme finite numbers."""
    tensor = as_tensor(x)
    if tensor.dtype not in FLOATS:
        return tensor
    largest = float(np.finfo(tensor.dtype).max)
    high = largest if posinf is None else posinf
    low = -largest if neginf is None else neginf
    finite = where(tensor == math.inf, high, where(tensor == -math.inf, low, tensor))
    return where(isnan(tensor), nan, finite)


def isclose(
    x: object, y: object, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Return whether ``|x - y| <= atol + rtol |y|``; infinities are close to their equals alone."""
    left, right = (Tensor(node) for node in unify(operand_of(x), operand_of(y)))
    if left.dtype not in FLOATS:
        if left.dtype == "bool":
            return left == right
        left, right = left.astype("float64"), right.astype("float64")
    near = abs(left - right) <= atol + rtol * abs(right)
    close = (left == right) | (near & ~isinf(right) & ~isinf(left))
    return close | (isnan(left) & isnan(right)) if equal_nan else close


def allclose(
    x: object, y: object, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Return whether all elements are close; see `isclose`."""
    return isclose(x, y, rtol, atol, equal_nan).all()


def array_equal(x: object, y: object) -> Tensor:
    """Return whether two tensors have one shape and equal elements."""
    left, right = as_tensor(x), as_tensor(y)
    if left.shape != right.shape:
        return as_tensor(False)
    return (left == right).all()


def fmax(x: object, y: object) -> Tensor:
    """Return the greater, or the number where one is NaN; ties share the derivative."""
    left, right = (Tensor(node) for node in unify(operand_of(x), operand_of(y)))
    return _skip_nan("maximum", left, right)


def fmin(x: object, y: object) -> Tensor:
    """Return the less, or the number where one is NaN; ties share the derivative."""
    left, right = (Tensor(node) for node in unify(operand_of(x), operand_of(y)))
    return _skip_nan("minimum", left, right)


def _skip_nan(function: str, left: Tensor, right: Tensor) -> Tensor:
    if left.dtype not in FLOATS:
        return apply(function, left, right)
    best = apply(function, left, right)
    return where(isnan(left), right, where(isnan(right), left, best))


def frac(x: object) -> Tensor:
    """Return ``x`` without its integer part, with the sign of ``x``."""
    tensor = as_tensor(x)
    return tensor - trunc(tensor)


def float_power(x: object, y: object) -> Tensor:
    """Return ``x ** y`` in float64."""
    left, right = (as_tensor(v).astype("float64") for v in (x, y))
    return apply("pow", left, right)


def logit(x: object, eps: float | None = None) -> Tensor:
    """Return log(x / (1 - x)), the inverse of sigmoid; ``eps`` limits ``x`` to [eps, 1 - eps]."""
    tensor = floating(x)
    if eps is not None:
        tensor = tensor.clip(eps, 1 - eps)
    return log(tensor) - log1p(-tensor)


def xlogy(x: object, y: object) -> Tensor:
    """Return ``x log y``, and 0 where ``x`` is 0, unless ``y`` is NaN."""
    return _times_log(x, y, log)


def xlog1py(x: object, y: object) -> Tensor:
    """Return ``x log(1 + y)``, and 0 where ``x`` is 0, unless ``y`` is NaN."""
    return _times_log(x, y, log1p)


def _times_log(x: object, y: object, function: object) -> Tensor:
    left, right = _pair(x, y, floats=True)
    nothing = (left == 0) & ~isnan(right)
    return where(nothing, 0, left * function(where(nothing, 1, right)))  # type: ignore[operator]


def entr(x: object) -> Tensor:
    """Return ``-x log x``: 0 at 0, -inf below."""
    tensor = floating(x)
    inside = tensor > 0
    value = -tensor * log(where(inside, tensor, 1.0))
    below = where(tensor == 0, 0.0, -math.inf)
    return where(inside | isnan(tensor), value, below)


def sinc(x: object) -> Tensor:
    """Return sin(πx) / (πx), and 1 at 0."""
    tensor = floating(x)
    zero = tensor == 0
    angle = math.pi * where(zero, 1.0, tensor)
    return where(zero, 1.0, sin(angle) / angle)


def heaviside(x: object, values: object) -> Tensor:
    """Return 0 below 0, 1 above, and ``values`` at 0; NaN stays NaN."""
    left, right = _pair(x, values)
    step = where(left == 0, right, (left > 0).astype(left.dtype))
    return where(isnan(left), left, step) if left.dtype in FLOATS else step


def deg2rad(x: object) -> Tensor:
    """Return an angle of degrees in radians."""
    return floating(x) * (math.pi / 180.0)


def rad2deg(x: object) -> Tensor:
    """Return an angle of radians in degrees."""
    return floating(x) * (180.0 / math.pi)


def signbit(x: object) -> Tensor:
    """Return whether the sign is negative, that of zero and NaN included."""
    tensor = as_tensor(x)
    if tensor.dtype == "bool":
        return tensor & False
    if tensor.dtype not in FLOATS:
        return tensor < 0
    return copysign(ones_like(tensor), tensor) < 0


def isposinf(x: object) -> Tensor:
    """Return whether the element is inf."""
    return as_tensor(x) == math.inf


def isneginf(x: object) -> Tensor:
    """Return whether the element is -inf."""
    return as_tensor(x) == -math.inf


def logaddexp2(x: object, y: object) -> Tensor:
    """Return log2(2ˣ + 2ʸ) without overflow."""
    left, right = _pair(x, y, floats=True)
    high, low = apply("maximum", left, right), apply("minimum", left, right)
    same = left == right  # two infinities have no difference
    gap = where(same, 0.0, low - high)
    return high + log1p(exp2(gap)) * (1.0 / math.log(2.0))


def ldexp(x: object, exponent: object) -> Tensor:
    """Return ``x * 2ᵉ``."""
    base, power = (Tensor(n) for n in unify(operand_of(x), operand_of(exponent), floating=True))
    return base * exp2(power)


def positive(x: object) -> Tensor:
    """Return ``x``."""
    return as_tensor(x)


def sgn(x: object) -> Tensor:
    """Return the sign, -1, 0 or 1."""
    return sign(x)


def bitwise_and(x: object, y: object) -> Tensor:
    """Return ``x & y`` of bools or integers."""
    return as_tensor(x) & y


def bitwise_or(x: object, y: object) -> Tensor:
    """Return ``x | y`` of bools or integers."""
    return as_tensor(x) | y


def bitwise_xor(x: object, y: object) -> Tensor:
    """Return ``x ^ y`` of bools or integers."""
    return as_tensor(x) ^ y


def bitwise_not(x: object) -> Tensor:
    """Return ``~x`` of bools or integers."""
    return ~as_tensor(x)


def bitwise_left_shift(x: object, y: object) -> Tensor:
    """Return ``x << y`` of integers."""
    return as_tensor(x) << y


def bitwise_right_shift(x: object, y: object) -> Tensor:
    """Return ``x >> y`` of integers."""
    return as_tensor(x) >> y


def isin(x: object, elements: object, invert: bool = False) -> Tensor:
    """Return whether each element of ``x`` is one of ``elements``."""
    left, right = (Tensor(n) for n in unify(operand_of(x), operand_of(elements)))
    found = (left.expand_dims(-1) == right.ravel()).any(-1)
    return ~found if invert else found


def ndtr(x: object) -> Tensor:
    """Return the distribution function of the standard normal distribution."""
    return apply("erfc", floating(x) * -math.sqrt(0.5)) * 0.5


__all__ = [
    "addcdiv",
    "addcmul",
    "allclose",
    "array_equal",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "deg2rad",
    "entr",
    "float_power",
    "fmax",
    "fmin",
    "fmod",
    "frac",
    "heaviside",
    "isclose",
    "isin",
    "isneginf",
    "isposinf",
    "ldexp",
    "lerp",
    "logaddexp2",
    "logit",
    "nan_to_num",
    "ndtr",
    "positive",
    "rad2deg",
    "remainder",
    "sgn",
    "signbit",
    "sinc",
    "trunc_divide",
    "xlog1py",
    "xlogy",
]
