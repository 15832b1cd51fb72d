"""The error function, the normal distribution and the gamma family over vector lanes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .circular import PI, pi_pair, sine_of_quarter
from .exponentials import TINY, expm1_reduced, log, reduce_ln2
from .lane_arithmetic import INF, NAN, Pair, horner, nearest, polynomial, two_product
from .lanes import FORMATS, Lanes, Value
from .polynomials import ERF_CENTRAL, ERF_POINTS_32, ERF_STEP, ERF_TABLE_32, SCALED_ERFC

# The error function and the normal distribution ---------------------------------------------------


def _exp_of_pair(b: Lanes, high: Value, low: Value) -> Value:
    """exp(high + low) for `high` inside the exponential's range."""
    n, r = reduce_ln2(b, high)
    grown = b.add(b.const(1.0), expm1_reduced(b, b.add(r, low)))
    return b.scale(grown, n)


def _erfc_positive(b: Lanes, x: Value, exponent: Pair) -> Value:
    """exp(high + low of exponent) * exp(x**2) erfc(x) for 0 <= x <= bound."""
    plan = SCALED_ERFC[b.dtype]
    center = b.const(plan.center)
    distance, total = b.sub(x, center), b.add(x, center)
    reciprocal = b.div(b.const(1.0), total)
    t = b.mul(distance, reciprocal)
    t = b.fma(b.fma(b.neg(t), total, distance), reciprocal, t)
    value = polynomial(b, t, plan.coefficients)
    scaled = b.mul(value, reciprocal)
    total_low = b.sub(b.select(b.lt(x, center), x, center), b.sub(total, b.maximum(x, center)))
    remainder = b.fma(b.neg(scaled), total_low, b.fma(b.neg(scaled), total, value))
    scaled = b.fma(remainder, reciprocal, scaled)
    return b.mul(_exp_of_pair(b, *exponent), scaled)


def _erf_central(b: Lanes, x: Value) -> Value:
    """erf(x) for |x| <= 1/2 (1 for float64)."""
    return b.fma(x, polynomial(b, b.mul(x, x), ERF_CENTRAL[b.dtype]), x)


def erfc(b: Lanes, x: Value) -> Value:
    """1 - erf(x), accurate in its tail."""
    size = b.minimum(b.const(SCALED_ERFC[b.dtype].bound), b.abs(x))
    high, low = two_product(b, size, size)
    tail = _erfc_positive(b, size, (b.neg(high), b.neg(low)))
    tail = b.select(b.lt(x, b.const(0.0)), b.sub(b.const(2.0), tail), tail)
    inner = b.lt(size, b.const(0.5))
    return b.select(inner, b.sub(b.const(1.0), _erf_central(b, x)), tail)


def normcdf(b: Lanes, x: Value) -> Value:
    """The standard normal distribution function, erfc(-x / sqrt(2)) / 2."""
    bound = SCALED_ERFC[b.dtype].bound * 2.0**0.5
    size = b.minimum(b.const(bound), b.abs(x))
    high, low = two_product(b, size, size)
    half, root = b.const(0.5), b.const(0.5**0.5)
    exponent = b.mul(high, b.neg(half)), b.mul(low, b.neg(half))
    tail = b.mul(half, _erfc_positive(b, b.mul(size, root), exponent))
    tail = b.select(b.gt(x, b.const(0.0)), b.sub(b.const(1.0), tail), tail)
    central = b.fma(half, _erf_central(b, b.mul(x, root)), half)
    return b.select(b.lt(size, half), central, tail)


def erf(b: Lanes, x: Value) -> Value:
    """The error function."""
    return _erf_by_table(b, x) if b.dtype == "float32" else _erf_by_parts(b, x)


def _erf_by_table(b: Lanes, x: Value) -> Value:
    """Sixteen polynomials of degree 6: with a table in a register, cheaper than an exponential."""
    size = b.minimum(b.const(4.0), b.abs(x))
    k, shifted = nearest(b, size, 1.0 / ERF_STEP)
    index = b.iand(b.bitcast_int(shifted), b.iconst(15))
    t = b.sub(size, b.gather_table(ERF_POINTS_32, index))
    rows = [b.gather_table(row, index) for row in ERF_TABLE_32]
    result = rows[-1]
    for row in reversed(rows[:-1]):
        result = b.fma(result, t, row)
    result = b.add(result, b.select(b.eq(k, b.const(0.0)), t, b.const(0.0)))
    return b.copysign(result, x)


def _erf_by_parts(b: Lanes, x: Value) -> Value:
    size = b.minimum(b.const(6.0), b.abs(x))
    square, low = two_product(b, size, size)
    central = _erf_central(b, size)
    tail = _erfc_positive(b, size, (b.neg(square), b.neg(low)))
    inner = b.lt(size, b.const(1.0))
    return b.copysign(b.select(inner, central, b.sub(b.const(1.0), tail)), x)


# Gamma and its derivatives ------------------------------------------------------------------------

# Bernoulli numbers B2, B4, ..., B18.
_BERNOULLI = tuple(
    above / below
    for above, below in (
        (
            1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510), (43867,
            798,
        ),
    )
)  # fmt: skip


@dataclass(frozen=True)
class _AsymptoticSeries:
    """Arguments are raised by whole steps to at least `start`, where `terms` of the series
    suffice.
    """

    start: int
    terms: int


_ASYMPTOTIC = {"float32": _AsymptoticSeries(4, 5), "float64": _AsymptoticSeries(12, 9)}


def _reflect(b: Lanes, x: Value) -> Pair:
    """(negative, w): w = 1 - x for negative x, else x."""
    negative = b.lt(x, b.const(0.0))
    return negative, b.select(negative, b.sub(b.const(1.0), x), x)


def _sine_cosine_of_turns(b: Lanes, x: Value) -> Pair:
    """sin(pi x) and cos(pi x)."""
    quarters = b.rint(b.add(x, x))
    rest = b.fma(quarters, b.const(-0.5), x)
    # Modulo 4, so that the integer conversion holds for any x.
    quarters = b.fma(b.floor(b.mul(quarters, b.const(0.25))), b.const(-4.0), quarters)
    high, low = pi_pair(b, 0)
    product, product_low = two_product(b, rest, b.const(high))
    tail = b.fma(rest, b.const(low), product_low)
    quarter = b.to_int(quarters)
    return (
        sine_of_quarter(b, quarter, product, tail),
        sine_of_quarter(b, b.iadd(quarter, b.iconst(1)), product, tail),
    )


def _inverse_square_series(b: Lanes, w: Value, scale: Callable[[int, float], float]) -> Pair:
    """(1/w, sum of scale(k, B_2k) / w**(2k - 2)) over the terms of the asymptotic series."""
    terms = _ASYMPTOTIC[b.dtype].terms
    reciprocal = b.div(b.const(1.0), w)
    square = b.mul(reciprocal, reciprocal)
    coefficients = [scale(k, number) for k, number in enumerate(_BERNOULLI[:terms], start=1)]
    return reciprocal, horner(b, square, coefficients)


def lgamma(b: Lanes, x: Value) -> Value:
    """log|gamma(x)|, by Stirling's series; infinite at 0 and the negative integers."""
    negative, w = _reflect(b, x)
    one, start = b.const(1.0), b.const(float(_ASYMPTOTIC[b.dtype].start))
    skipped = one
    for _ in range(_ASYMPTOTIC[b.dtype].start):
        low = b.lt(w, start)
        skipped = b.select(low, b.mul(skipped, w), skipped)
        w = b.select(low, b.add(w, one), w)
    reciprocal, series = _inverse_square_series(b, w, lambda k, n: n / (2 * k * (2 * k - 1)))
    half_log_turn = b.const(0.9189385332046728)  # log(2 pi) / 2
    # (w - 1/2) log(w) - w, without inf - inf for infinite w
    main = b.mul(w, b.sub(log(b, w), one))
    main = b.fma(b.const(-0.5), log(b, b.minimum(b.const(FORMATS[b.dtype].max_finite), w)), main)
    positive = b.add(main, b.fma(series, reciprocal, half_log_turn))
    positive = b.sub(positive, log(b, skipped))
    sine, _ = _sine_cosine_of_turns(b, x)
    # sin(pi x) = pi x for tiny x, without a subnormal product.
    tiny = b.lt(b.abs(x), b.const(TINY[b.dtype]))
    sine = b.select(tiny, x, sine)
    log_pi = b.select(tiny, b.const(0.0), b.const(1.1447298858494002))
    reflected = b.sub(b.sub(log_pi, log(b, b.abs(sine))), positive)
    unbounded = b.eq(b.abs(x), b.const(INF))
    whole = b.mand(negative, b.eq(b.rint(x), x))
    result = b.select(negative, reflected, positive)
    return b.select(b.mor(unbounded, whole), b.const(INF), result)


def digamma(b: Lanes, x: Value) -> Value:
    """The derivative of lgamma; NaN at the negative integers, -inf at +0 and inf at -0."""
    negative, w = _reflect(b, x)
    zero, one = b.const(0.0), b.const(1.0)
    start = b.const(float(_ASYMPTOTIC[b.dtype].start))
    # The sum of 1/w over the skipped steps as one fraction.
    over, under = zero, one
    for _ in range(_ASYMPTOTIC[b.dtype].start):
        low = b.lt(w, start)
        over = b.select(low, b.fma(over, w, under), over)
        under = b.select(low, b.mul(under, w), under)
        w = b.select(low, b.add(w, one), w)
    reciprocal, series = _inverse_square_series(b, w, lambda k, n: n / (2 * k))
    tail = b.mul(reciprocal, b.fma(series, reciprocal, b.const(0.5)))
    positive = b.sub(b.sub(log(b, w), tail), b.div(over, under))
    sine, cosine = _sine_cosine_of_turns(b, x)
    reflected = b.sub(positive, b.div(b.mul(b.const(PI), cosine), sine))
    whole = b.mand(negative, b.eq(b.rint(x), x))
    result = b.select(negative, b.select(whole, b.const(NAN), reflected), positive)
    result = b.select(b.eq(x, b.const(INF)), x, result)
    tiny = b.lt(b.abs(x), b.const(TINY[b.dtype]))
    return b.select(tiny, b.div(b.const(-1.0), x), result)


def trigamma(b: Lanes, x: Value) -> Value:
    """The derivative of digamma; infinite at 0 and the negative integers."""
    negative, w = _reflect(b, x)
    zero, one = b.const(0.0), b.const(1.0)
    start = b.const(float(_ASYMPTOTIC[b.dtype].start))
    total = zero
    for _ in range(_ASYMPTOTIC[b.dtype].start):
        low = b.lt(w, start)
        inverse = b.div(one, w)
        total = b.select(low, b.fma(inverse, inverse, total), total)
        w = b.select(low, b.add(w, one), w)
    reciprocal, series = _inverse_square_series(b, w, lambda k, n: n)
    square = b.mul(reciprocal, reciprocal)
    tail = b.fma(b.mul(square, reciprocal), series, b.mul(square, b.const(0.5)))
    positive = b.add(b.add(reciprocal, tail), total)
    sine, _ = _sine_cosine_of_turns(b, x)
    ratio = b.div(b.const(PI), sine)
    result = b.select(negative, b.fma(ratio, ratio, b.neg(positive)), positive)
    whole = b.mand(b.le(x, zero), b.eq(b.rint(x), x))
    return b.select(b.mand(whole, b.gt(x, b.const(-INF))), b.const(INF), result)
