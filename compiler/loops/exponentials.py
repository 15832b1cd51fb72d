"""Exponentials, logarithms, the hyperbolic functions and the logistic ones over vector lanes."""

from __future__ import annotations

from .lane_arithmetic import (
    INF,
    NAN,
    Pair,
    clamp,
    divide_pairs,
    nearest,
    odd_polynomial,
    polynomial,
    quick_two_sum,
    two_product,
    two_sum,
)
from .lanes import Lanes, Value
from .polynomials import (
    COSH_TAIL,
    EXP2_TAIL,
    EXP_TAIL,
    LOG_TAIL_32,
    LOG_TAIL_64,
    SINH_TAIL,
    TANH_TAIL_32,
)

# Exponentials -------------------------------------------------------------------------------------

_LN2 = 0.6931471805599453
_LOG2_E = 1.4426950408889634
# ln(2) in two parts; the high part is short enough that its product with any exponent is exact.
_LN2_PARTS = {
    "float32": (0.693145751953125, 1.4286068203094173e-06),
    "float64": (0.693147180559663, 2.8235290563031577e-13),
}
# Arguments beyond these already give 0 or inf after rounding; the clamp keeps 2**n in range.
_EXP_RANGE = {"float32": (-105.0, 89.0), "float64": (-746.0, 710.0)}
# Below this, expm1(x) and sinh(x) round to x; halving and doubling would cost subnormals a bit.
TINY = {"float32": 2.0**-26, "float64": 2.0**-55}
EXP2_RANGE = {"float32": (-151.0, 128.5), "float64": (-1076.0, 1024.5)}


def _reduce_ln2_high(b: Lanes, x: Value) -> Pair:
    """(n, r) with x = n*(high part of ln 2) + r exactly, n the nearest to x / ln(2)."""
    n, _ = nearest(b, x, _LOG2_E)
    return n, b.fma(n, b.const(-_LN2_PARTS[b.dtype][0]), x)


def reduce_ln2(b: Lanes, x: Value) -> Pair:
    """(n, r) with x = n*ln(2) + r, |r| <= ln(2)/2 and n integral."""
    n, r = _reduce_ln2_high(b, x)
    return n, b.fma(n, b.const(-_LN2_PARTS[b.dtype][1]), r)


def expm1_reduced(b: Lanes, r: Value) -> Value:
    """exp(r) - 1 for |r| <= ln(2)/2."""
    square = b.mul(r, r)
    return b.fma(square, polynomial(b, r, EXP_TAIL[b.dtype]), r)


def _exp_clamped(b: Lanes, x: Value) -> Value:
    n, r = reduce_ln2(b, x)
    grown = b.add(b.const(1.0), expm1_reduced(b, r))
    return b.scale(grown, n)


def exp(b: Lanes, x: Value) -> Value:
    """e**x."""
    return _exp_clamped(b, clamp(b, x, _EXP_RANGE[b.dtype]))


def exp2(b: Lanes, x: Value) -> Value:
    """2**x."""
    x = clamp(b, x, EXP2_RANGE[b.dtype])
    n, _ = nearest(b, x, 1.0)
    r = b.sub(x, n)
    grown = b.fma(r, polynomial(b, r, EXP2_TAIL[b.dtype]), b.const(1.0))
    return b.scale(grown, n)


def expm1(b: Lanes, x: Value) -> Value:
    """exp(x) - 1, accurate near zero."""
    low, high = _EXP_RANGE[b.dtype]
    clamped = clamp(b, x, (low / 2, high))
    n, r = reduce_ln2(b, clamped)
    # Half of 2**n, so that n = 128 does not overflow before the sum is known.
    half_power = b.scale(b.const(0.5), n)
    grown = b.fma(expm1_reduced(b, r), half_power, b.sub(half_power, b.const(0.5)))
    return b.select(b.lt(b.abs(x), b.const(TINY[b.dtype])), x, b.add(grown, grown))


def sigmoid(b: Lanes, x: Value) -> Value:
    """1 / (1 + exp(-x)), without cancellation or overflow on either side.

    With t = exp(-|x|) and u = t / (1 + t) it is 1 - u above zero and t - t*u below: the rounding
    errors of the quotient are scaled down by t, which divisions of t or 1 by 1 + t would keep.
    """
    low, _ = _EXP_RANGE[b.dtype]
    decay = _exp_clamped(b, b.maximum(b.const(low), b.neg(b.abs(x))))
    one = b.const(1.0)
    quotient = b.div(decay, b.add(one, decay))
    limit = b.select(b.lt(x, b.const(0.0)), decay, one)
    return b.fma(b.neg(limit), quotient, limit)


def tanh(b: Lanes, x: Value) -> Value:
    """The hyperbolic tangent."""
    return _tanh_32(b, x) if b.dtype == "float32" else _tanh_64(b, x)


def _tanh_32(b: Lanes, x: Value) -> Value:
    """A polynomial below 0.6; above, 1 - 2 / (exp(2|x|) + 1)."""
    size = b.abs(x)
    doubled = b.minimum(b.const(18.5), b.add(size, size))
    n, r = reduce_ln2(b, doubled)
    one = b.const(1.0)
    power = b.scale(one, n)
    denominator = b.fma(expm1_reduced(b, r), power, b.add(power, one))
    outer = b.sub(one, b.div(b.const(2.0), denominator))
    inner = odd_polynomial(b, size, TANH_TAIL_32)
    return b.copysign(b.select(b.lt(size, b.const(0.6)), inner, outer), x)


def _tanh_64(b: Lanes, x: Value) -> Value:
    """E / (E + 2) with E = expm1(2|x|) in double words and the quotient corrected by its
    remainder.
    """
    doubled = b.abs(x)
    doubled = b.minimum(b.const(38.5), b.add(doubled, doubled))
    n, r = reduce_ln2(b, doubled)
    one, two = b.const(1.0), b.const(2.0)
    power = b.scale(one, n)
    rise = b.mul(b.mul(r, r), polynomial(b, r, EXP_TAIL[b.dtype]))
    grown, grown_low = quick_two_sum(b, r, rise)
    high, low = quick_two_sum(b, b.sub(power, one), b.mul(grown, power))
    low = b.fma(grown_low, power, low)
    total, total_low = two_sum(b, two, high)
    total_low = b.add(total_low, low)
    return b.copysign(divide_pairs(b, (high, low), (total, total_low)), x)


# Logarithms ---------------------------------------------------------------------------------------


def _log1p_tail(b: Lanes, f: Value) -> Value:
    """log(1+f) - f for f in [-0.25, 0.5]."""
    if b.dtype == "float32":
        cubic = b.fma(f, polynomial(b, f, LOG_TAIL_32), b.const(-0.5))
        return b.mul(b.mul(f, f), cubic)
    s = b.div(f, b.add(b.const(2.0), f))
    z = b.mul(s, s)
    # log(1+f) = 2s + s**3 R(s**2) and 2s = f - s f.
    return b.mul(s, b.fma(z, polynomial(b, z, LOG_TAIL_64), b.neg(f)))


def _log_assembled(b: Lanes, f: Value, e: Value) -> Value:
    """log(1+f) + e*ln(2)."""
    tail = _log1p_tail(b, f)
    if b.dtype == "float32" and b.has_fma:
        # The rounding error of float32 ln(2) is 2.7e-9 of the term: below what a low part would
        # save.
        return b.fma(e, b.const(_LN2), b.add(f, tail))
    high, low = _LN2_PARTS[b.dtype]
    return b.fma(e, b.const(high), b.add(f, b.fma(e, b.const(low), tail)))


def log(b: Lanes, x: Value) -> Value:
    """The natural logarithm; NaN below zero, -inf at it."""
    m, e = b.split(x)
    return _log_assembled(b, b.sub(m, b.const(1.0)), e)


def _log_in_base(b: Lanes, x: Value, reciprocal: tuple[float, float], unit: Pair | None) -> Value:
    """log(x) in a base given by 1/ln(base) and log_base(2), each in two parts; None for base 2."""
    m, e = b.split(x)
    f = b.sub(m, b.const(1.0))
    high, low = reciprocal
    rest = b.fma(f, b.const(low), b.mul(_log1p_tail(b, f), b.const(high)))
    if unit is not None:
        rest = b.fma(e, unit[1], rest)
    whole = e if unit is None else b.mul(e, unit[0])
    if b.has_fma:
        # f*high + e is rounded where it has cancelled already (x near 3/4), which costs less.
        return b.add(b.fma(f, b.const(high), whole), rest)
    product, missing = two_product(b, f, b.const(high))
    return b.add(b.add(product, whole), b.add(missing, rest))


# 1/ln(2) and 1/ln(10) as the nearest float of each dtype and what is left.
LOG2_E_PARTS = {
    "float32": (1.4426950216293335, 1.9259629911266175e-08),
    "float64": (1.4426950408889634, 2.0355273740931033e-17),
}
_LOG10_E_PARTS = {
    "float32": (0.4342944920063019, -1.0103050052231683e-08),
    "float64": (0.4342944819032518, 1.098319650216765e-17),
}
# log10(2), its high part short so that multiples by an exponent are exact, its low part positive so
# that an infinite exponent stays infinite.
_LOG10_2_PARTS = {
    "float32": (0.301025390625, 4.605038981195214e-06),
    "float64": (0.30102999566361177, 3.694239077158931e-13),
}


def log2(b: Lanes, x: Value) -> Value:
    """The logarithm to base 2."""
    return _log_in_base(b, x, LOG2_E_PARTS[b.dtype], None)


def log10(b: Lanes, x: Value) -> Value:
    """The logarithm to base 10."""
    high, low = _LOG10_2_PARTS[b.dtype]
    return _log_in_base(b, x, _LOG10_E_PARTS[b.dtype], (b.const(high), b.const(low)))


def log1p(b: Lanes, x: Value) -> Value:
    """log(1 + x), accurate near zero."""
    one = b.const(1.0)
    m, e = b.split(b.add(one, x))
    # 1 + x = 2**e (1 + f), where f = x*2**-e + (2**-e - 1) is rounded once: no correction needed.
    power = b.scale(one, b.neg(e))
    f = b.fma(x, power, b.sub(power, one))
    finite = b.mand(b.gt(x, b.const(-1.0)), b.lt(x, b.const(INF)))
    # m*e is -inf for x = -1, inf for inf, and NaN below and for NaN.
    result = b.select(finite, _log_assembled(b, f, e), b.mul(m, e))
    return b.select(b.eq(x, b.const(0.0)), x, result)


def softplus(b: Lanes, x: Value) -> Value:
    """log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|))."""
    low, _ = _EXP_RANGE[b.dtype]
    decay = _exp_clamped(b, b.maximum(b.const(low), b.neg(b.abs(x))))
    # 1 + decay is in [1, 2]: halve it where above 1.5.
    half, one, zero = b.const(0.5), b.const(1.0), b.const(0.0)
    upper = b.gt(decay, half)
    f = b.select(upper, b.fma(decay, half, b.const(-0.5)), decay)
    e = b.select(upper, one, zero)
    return b.add(b.maximum(zero, x), _log_assembled(b, f, e))


# Hyperbolic functions -----------------------------------------------------------------------------


def _hyperbolic(b: Lanes, x: Value, is_cosh: bool) -> Value:
    """sinh|x| or cosh x as s*cosh(r) + c*sinh(r) or c*cosh(r) + s*sinh(r), |x| = n*ln(2) + r.

    s, c = sinh, cosh(n ln 2) are exact sums of two powers of two, and no division is needed.
    """
    bound = {"float32": 89.5, "float64": 710.5}[b.dtype]
    n, r = _reduce_ln2_high(b, b.minimum(b.const(bound), b.abs(x)))
    low_part = b.const(-_LN2_PARTS[b.dtype][1])
    high_r = r
    r = b.fma(n, low_part, high_r)
    low = b.fma(n, low_part, b.sub(high_r, r))
    # Half of s and c, so that they are finite wherever the result is.
    quarter = b.const(0.25)
    rising, falling = b.scale(quarter, n), b.scale(quarter, b.neg(n))
    s, c = b.sub(rising, falling), b.add(rising, falling)
    main, other = (c, s) if is_cosh else (s, c)
    square = b.mul(r, r)
    sinh_tail = b.fma(b.mul(r, square), polynomial(b, square, SINH_TAIL[b.dtype]), low)
    cosh_tail = b.fma(square, polynomial(b, square, COSH_TAIL[b.dtype]), b.const(0.5))
    cosh_tail = b.mul(square, cosh_tail)
    # main*(1 + cosh_tail) + other*(r + sinh_tail); |main| >= |other*r| unless main is 0.
    product, product_low = two_product(b, other, r)
    high, missing = quick_two_sum(b, main, product)
    rest = b.fma(main, cosh_tail, b.fma(other, sinh_tail, b.add(missing, product_low)))
    half = b.add(high, rest)
    return b.add(half, half)


def sinh(b: Lanes, x: Value) -> Value:
    """(exp(x) - exp(-x)) / 2."""
    result = b.copysign(_hyperbolic(b, x, is_cosh=False), x)
    return b.select(b.lt(b.abs(x), b.const(TINY[b.dtype])), x, result)


def cosh(b: Lanes, x: Value) -> Value:
    """(exp(x) + exp(-x)) / 2."""
    return _hyperbolic(b, x, is_cosh=True)


# Beyond this 1 + x**2 may be replaced by x**2, and x + 1 by x.
_VAST = {"float32": 2.0**30, "float64": 2.0**60}


def _log1p_or_log_twice(b: Lanes, vast: Value, size: Value, argument: Value) -> Value:
    """log1p(argument), or log(2*size) where vast."""
    logarithm = log1p(b, b.select(vast, size, argument))
    return b.add(logarithm, b.select(vast, b.const(_LN2), b.const(0.0)))


def asinh(b: Lanes, x: Value) -> Value:
    """The inverse of sinh."""
    size = b.abs(x)
    one = b.const(1.0)
    vast = b.gt(size, b.const(_VAST[b.dtype]))
    square = b.mul(size, size)
    root = b.sqrt(b.add(one, square))
    argument = b.add(size, b.div(square, b.add(one, root)))
    return b.copysign(_log1p_or_log_twice(b, vast, size, argument), x)


def acosh(b: Lanes, x: Value) -> Value:
    """The inverse of cosh; NaN below 1."""
    one = b.const(1.0)
    vast = b.gt(x, b.const(_VAST[b.dtype]))
    t = b.sub(x, one)
    argument = b.add(t, b.sqrt(b.fma(t, t, b.add(t, t))))
    argument = b.select(b.lt(x, one), b.const(NAN), argument)
    return _log1p_or_log_twice(b, vast, x, argument)


def atanh(b: Lanes, x: Value) -> Value:
    """The inverse of tanh; NaN outside [-1, 1]."""
    size = b.abs(x)
    argument = b.div(b.add(size, size), b.sub(b.const(1.0), size))
    return b.copysign(b.mul(b.const(0.5), log1p(b, argument)), x)
