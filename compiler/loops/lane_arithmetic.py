"""Polynomials, double words and rounding over vector lanes: the tools of the function files."""

from __future__ import annotations

from .lanes import FORMATS, Lanes, Value
from .polynomials import Coefficients

INF = float("inf")
NAN = float("nan")


def polynomial(b: Lanes, x: Value, coefficients: Coefficients) -> Value:
    """Horner up to 8 terms; beyond, two chains: half the latency for one more multiply."""
    if len(coefficients) <= 8:
        return horner(b, x, coefficients)
    even, odd = coefficients[0::2], coefficients[1::2]
    square = b.mul(x, x)
    return b.fma(x, horner(b, square, odd), horner(b, square, even))


def horner(b: Lanes, x: Value, coefficients: Coefficients) -> Value:
    """The polynomial by Horner's rule, one fma a term."""
    result = b.const(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = b.fma(result, x, b.const(coefficient))
    return result


def odd_polynomial(b: Lanes, x: Value, tail: Coefficients) -> Value:
    """x + x**3 * tail(x**2)."""
    square = b.mul(x, x)
    return b.fma(b.mul(x, square), polynomial(b, square, tail), x)


Pair = tuple[Value, Value]
"""A double word: an unevaluated sum high + low, |low| <= ulp(high)/2, twice the precision."""


def quick_two_sum(b: Lanes, x: Value, y: Value) -> Pair:
    """x + y exactly, for |x| >= |y| or x zero (Dekker 1971)."""
    high = b.add(x, y)
    return high, b.sub(y, b.sub(high, x))


def two_sum(b: Lanes, x: Value, y: Value) -> Pair:
    """x + y exactly (Knuth, TAOCP 2, 4.2.2)."""
    high = b.add(x, y)
    shadow = b.sub(high, x)
    return high, b.add(b.sub(x, b.sub(high, shadow)), b.sub(y, shadow))


def two_product(b: Lanes, x: Value, y: Value) -> Pair:
    """x * y exactly barring overflow and underflow; by Dekker's splitting where there is no fma."""
    high = b.mul(x, y)
    if b.has_fma:
        return high, b.fma(x, y, b.neg(high))
    x_high, x_low = _halve_precision(b, x)
    y_high, y_low = _halve_precision(b, y)
    low = b.sub(b.mul(x_high, y_high), high)
    low = b.add(b.add(low, b.mul(x_high, y_low)), b.mul(x_low, y_high))
    return high, b.add(low, b.mul(x_low, y_low))


def _halve_precision(b: Lanes, x: Value) -> Pair:
    """x as a sum of two numbers of half the precision, by rounding away half of the bits."""
    dropped = FORMATS[b.dtype].mantissa_bits // 2 + 1
    bits = b.iadd(b.bitcast_int(x), b.iconst(1 << (dropped - 1)))
    high = b.bitcast_float(b.iand(bits, b.iconst(-(1 << dropped))))
    return high, b.sub(x, high)


def divide_pairs(b: Lanes, above: Pair, below: Pair) -> Value:
    """The quotient of two double words, corrected once by its remainder: one division."""
    reciprocal = b.div(b.const(1.0), below[0])
    quotient = b.mul(above[0], reciprocal)
    product, product_low = two_product(b, quotient, below[0])
    remainder = b.sub(b.sub(above[0], product), product_low)
    remainder = b.add(remainder, b.fma(b.neg(quotient), below[1], above[1]))
    return b.fma(remainder, reciprocal, quotient)


def clamp(b: Lanes, x: Value, bounds: tuple[float, float]) -> Value:
    """x inside the bounds; NaN passes."""
    low, high = bounds
    return b.maximum(b.const(low), b.minimum(b.const(high), x))


def nearest(b: Lanes, x: Value, factor: float) -> Pair:
    """(n, shifted): n = x*factor rounded to an integer, never -0, for |n| < 2**22 (2**51).

    The low bits of `shifted` are those of n. Adding 1.5 * 2**mantissa_bits leaves no room for a
    fraction: as cheap as a rounding instruction, and there on machines that have none.
    """
    magic = b.const(1.5 * 2.0 ** FORMATS[b.dtype].mantissa_bits)
    shifted = b.fma(x, b.const(factor), magic)
    return b.sub(shifted, magic), shifted
