"""Elementwise functions of tensors, one row each."""

from __future__ import annotations

from collections.abc import Callable

from . import elementary
from .tensor import Tensor, apply, as_tensor, operand_of


def _unary(function: str, meaning: str) -> Callable[[object], Tensor]:
    def elementwise(x: object) -> Tensor:
        return apply(function, x)

    elementwise.__name__ = elementwise.__qualname__ = function
    elementwise.__doc__ = f"Return {meaning}, elementwise."
    return elementwise


def _binary(function: str, meaning: str) -> Callable[[object, object], Tensor]:
    def elementwise(x: object, y: object) -> Tensor:
        return apply(function, x, y)

    elementwise.__name__ = elementwise.__qualname__ = function
    elementwise.__doc__ = f"Return {meaning}, elementwise; ``x`` and ``y`` broadcast."
    return elementwise


abs = _unary("abs", "the absolute value; its derivative at 0 is 0")
negative = _unary("neg", "-x")
sign = _unary("sign", "-1, 0 or 1")
square = _unary("square", "x²")
reciprocal = _unary("reciprocal", "1 / x")
sqrt = _unary("sqrt", "the square root")
rsqrt = _unary("rsqrt", "1 / sqrt(x)")
cbrt = _unary("cbrt", "the real cube root")
exp = _unary("exp", "eˣ")
exp2 = _unary("exp2", "2ˣ")
expm1 = _unary("expm1", "exp(x) - 1, accurate near 0")
log = _unary("log", "the natural logarithm")
log2 = _unary("log2", "the logarithm to base 2")
log10 = _unary("log10", "the logarithm to base 10")
log1p = _unary("log1p", "log(1 + x), accurate near 0")
sin = _unary("sin", "the sine")
cos = _unary("cos", "the cosine")
tan = _unary("tan", "the tangent")
asin = _unary("asin", "the inverse sine")
acos = _unary("acos", "the inverse cosine")
atan = _unary("atan", "the inverse tangent")
sinh = _unary("sinh", "the hyperbolic sine")
cosh = _unary("cosh", "the hyperbolic cosine")
tanh = _unary("tanh", "the hyperbolic tangent")
asinh = _unary("asinh", "the inverse hyperbolic sine")
acosh = _unary("acosh", "the inverse hyperbolic cosine")
atanh = _unary("atanh", "the inverse hyperbolic tangent")
erf = _unary("erf", "the error function")
erfc = _unary("erfc", "1 - erf(x), accurate where it is small")
lgamma = _unary("lgamma", "the logarithm of |Γ(x)|")
digamma = _unary("digamma", "the derivative of log Γ")
trigamma = _unary("trigamma", "the second derivative of log Γ")
floor = _unary("floor", "the greatest integer that is not above")
ceil = _unary("ceil", "the least integer that is not below")
trunc = _unary("trunc", "the integer part")
round = _unary("rint", "the nearest integer, halves to even")
isnan = _unary("isnan", "whether x is NaN")
isinf = _unary("isinf", "whether x is infinite")
isfinite = _unary("isfinite", "whether x is neither infinite nor NaN")
logical_not = _unary("logical_not", "whether x is zero")
stop_gradient = _unary("stop_gradient", "x as a constant for differentiation")

add = _binary("add", "x + y")
subtract = _binary("sub", "x - y")
multiply = _binary("mul", "x * y")
divide = _binary("div", "x / y")
floor_divide = _binary("floordiv", "the quotient rounded down")
mod = _binary("mod", "the remainder, with the sign of ``y``")
atan2 = _binary("atan2", "the angle of the point (y, x) for ``atan2(y, x)``")
copysign = _binary("copysign", "the magnitude of ``x`` with the sign of ``y``")
maximum = _binary("maximum", "the greater; NaN where either is; ties share the derivative")
minimum = _binary("minimum", "the less; NaN where either is; ties share the derivative")
equal = _binary("eq", "x == y")
not_equal = _binary("ne", "x != y")
less = _binary("lt", "x < y")
less_equal = _binary("le", "x <= y")
greater = _binary("gt", "x > y")
greater_equal = _binary("ge", "x >= y")
logical_and = _binary("logical_and", "whether both are non-zero")
logical_or = _binary("logical_or", "whether either is non-zero")
logical_xor = _binary("logical_xor", "whether just one is non-zero")


def power(x: object, y: object) -> Tensor:
    """Return ``x ** y``, elementwise; small constant powers become products and roots."""
    return Tensor(elementary.power(operand_of(x), operand_of(y)))


def where(condition: object, x: object, y: object) -> Tensor:
    """Return ``x`` where ``condition`` is true (non-zero), else ``y``; all three broadcast.

    The branch that is not chosen gets the derivative 0, but is computed: guard it where its
    derivative may be infinite.
    """
    return apply("where", condition, x, y)


def clip(x: object, low: object = None, high: object = None) -> Tensor:
    """Return ``x`` limited to ``[low, high]``; None leaves a side open.

    NaN stays NaN, and the derivative at a bound itself is 1, as in PyTorch.
    """
    return as_tensor(x).clip(low, high)


def cast(x: object, dtype: object) -> Tensor:
    """Return ``x`` converted to ``dtype``; floats to integers truncate."""
    return as_tensor(x).astype(dtype)


def logaddexp(x: object, y: object) -> Tensor:
    """Return log(exp(x) + exp(y)) without overflow."""
    return maximum(x, y) + apply("softplus", -abs(apply("sub", x, y)))


def hypot(x: object, y: object) -> Tensor:
    """Return sqrt(x² + y²)."""
    return sqrt(square(x) + square(y))
