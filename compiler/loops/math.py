"""Elementary and special functions as straight-line polynomial code over vector lanes.

Every function takes a `Lanes` and lane values and returns a lane value; the same text therefore
runs in the native kernels and in NumPy. `FUNCTIONS` is the table of them all with the accuracy that
tests hold them to. A new function is one body and one entry. The numbers are in
`polynomials.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

from .lanes import FORMATS, Lanes, Value
from .polynomials import (
    ASIN_TAIL,
    ATAN_TAIL,
    COS_TAIL,
    COSH_TAIL,
    ERF_CENTRAL,
    ERF_POINTS_32,
    ERF_STEP,
    ERF_TABLE_32,
    EXP2_TAIL,
    EXP_TAIL,
    INVERSE_CBRT_GUESS,
    LOG2_STEPS,
    LOG_SMALL_TAIL,
    LOG_TAIL_32,
    LOG_TAIL_64,
    SCALED_ERFC,
    SIN_TAIL,
    SINH_TAIL,
    TANH_TAIL_32,
    Coefficients,
)

_INF = float("inf")
_NAN = float("nan")


@dataclass(frozen=True)
class MathFunction:
    """One entry of the table: a function and the accuracy promised for it.

    `max_ulp` bounds the error in units in the last place of the correctly rounded result, per
    dtype. Where `max_absolute` names a dtype, an error below that many is also within the promise
    (functions with zeros that no argument hits exactly).
    """

    name: str
    arity: int
    body: Callable[..., Value]
    max_ulp: Mapping[str, float]
    max_absolute: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


# Polynomials --------------------------------------------------------------------------------------


def _polynomial(b: Lanes, x: Value, coefficients: Coefficients) -> Value:
    """Horner up to 8 terms; beyond, two interleaved chains, which halves the latency for one
    multiply.
    """
    if len(coefficients) <= 8:
        return _horner(b, x, coefficients)
    even, odd = coefficients[0::2], coefficients[1::2]
    square = b.mul(x, x)
    return b.fma(x, _horner(b, square, odd), _horner(b, square, even))


def _horner(b: Lanes, x: Value, coefficients: Coefficients) -> Value:
    result = b.const(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = b.fma(result, x, b.const(coefficient))
    return result


def _odd_polynomial(b: Lanes, x: Value, tail: Coefficients) -> Value:
    """x + x**3 * tail(x**2)."""
    square = b.mul(x, x)
    return b.fma(b.mul(x, square), _polynomial(b, square, tail), x)


# Double-word arithmetic ---------------------------------------------------------------------------
# An unevaluated sum high + low, |low| <= ulp(high)/2, carries about twice the precision.

Pair = tuple[Value, Value]


def _quick_two_sum(b: Lanes, x: Value, y: Value) -> Pair:
    """x + y exactly, for |x| >= |y| or x zero (Dekker 1971)."""
    high = b.add(x, y)
    return high, b.sub(y, b.sub(high, x))


def _two_sum(b: Lanes, x: Value, y: Value) -> Pair:
    """x + y exactly (Knuth, TAOCP 2, 4.2.2)."""
    high = b.add(x, y)
    shadow = b.sub(high, x)
    return high, b.add(b.sub(x, b.sub(high, shadow)), b.sub(y, shadow))


def _two_product(b: Lanes, x: Value, y: Value) -> Pair:
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


def _divide_pairs(b: Lanes, above: Pair, below: Pair) -> Value:
    """The quotient of two double words, corrected once by its remainder: one division."""
    reciprocal = b.div(b.const(1.0), below[0])
    quotient = b.mul(above[0], reciprocal)
    product, product_low = _two_product(b, quotient, below[0])
    remainder = b.sub(b.sub(above[0], product), product_low)
    remainder = b.add(remainder, b.fma(b.neg(quotient), below[1], above[1]))
    return b.fma(remainder, reciprocal, quotient)


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
_TINY = {"float32": 2.0**-26, "float64": 2.0**-55}
_EXP2_RANGE = {"float32": (-151.0, 128.5), "float64": (-1076.0, 1024.5)}


def _clamp(b: Lanes, x: Value, bounds: tuple[float, float]) -> Value:
    """x inside the bounds; NaN passes."""
    low, high = bounds
    return b.maximum(b.const(low), b.minimum(b.const(high), x))


def _nearest(b: Lanes, x: Value, factor: float) -> Pair:
    """(n, shifted): n = x*factor rounded to an integer, never -0, for |n| < 2**22 (2**51).

    The low bits of `shifted` are those of n. Adding 1.5 * 2**mantissa_bits leaves no room for a
    fraction: as cheap as a rounding instruction, and there on machines that have none.
    """
    magic = b.const(1.5 * 2.0 ** FORMATS[b.dtype].mantissa_bits)
    shifted = b.fma(x, b.const(factor), magic)
    return b.sub(shifted, magic), shifted


def _reduce_ln2_high(b: Lanes, x: Value) -> Pair:
    """(n, r) with x = n*(high part of ln 2) + r exactly, n the nearest to x / ln(2)."""
    n, _ = _nearest(b, x, _LOG2_E)
    return n, b.fma(n, b.const(-_LN2_PARTS[b.dtype][0]), x)


def _reduce_ln2(b: Lanes, x: Value) -> Pair:
    """(n, r) with x = n*ln(2) + r, |r| <= ln(2)/2 and n integral."""
    n, r = _reduce_ln2_high(b, x)
    return n, b.fma(n, b.const(-_LN2_PARTS[b.dtype][1]), r)


def _expm1_reduced(b: Lanes, r: Value) -> Value:
    square = b.mul(r, r)
    return b.fma(square, _polynomial(b, r, EXP_TAIL[b.dtype]), r)


def _exp_clamped(b: Lanes, x: Value) -> Value:
    n, r = _reduce_ln2(b, x)
    grown = b.add(b.const(1.0), _expm1_reduced(b, r))
    return b.scale(grown, n)


def exp(b: Lanes, x: Value) -> Value:
    """e**x."""
    return _exp_clamped(b, _clamp(b, x, _EXP_RANGE[b.dtype]))


def exp2(b: Lanes, x: Value) -> Value:
    """2**x."""
    x = _clamp(b, x, _EXP2_RANGE[b.dtype])
    n = b.rint(x)
    r = b.sub(x, n)
    grown = b.fma(r, _polynomial(b, r, EXP2_TAIL[b.dtype]), b.const(1.0))
    return b.scale(grown, n)


def expm1(b: Lanes, x: Value) -> Value:
    """exp(x) - 1, accurate near zero."""
    low, high = _EXP_RANGE[b.dtype]
    clamped = _clamp(b, x, (low / 2, high))
    n, r = _reduce_ln2(b, clamped)
    # Half of 2**n, so that n = 128 does not overflow before the sum is known.
    half_power = b.scale(b.const(0.5), n)
    grown = b.fma(_expm1_reduced(b, r), half_power, b.sub(half_power, b.const(0.5)))
    return b.select(b.lt(b.abs(x), b.const(_TINY[b.dtype])), x, b.add(grown, grown))


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
    n, r = _reduce_ln2(b, doubled)
    one = b.const(1.0)
    power = b.scale(one, n)
    denominator = b.fma(_expm1_reduced(b, r), power, b.add(power, one))
    outer = b.sub(one, b.div(b.const(2.0), denominator))
    inner = _odd_polynomial(b, size, TANH_TAIL_32)
    return b.copysign(b.select(b.lt(size, b.const(0.6)), inner, outer), x)


def _tanh_64(b: Lanes, x: Value) -> Value:
    """E / (E + 2) with E = expm1(2|x|) in double words and the quotient corrected by its
    remainder.
    """
    doubled = b.abs(x)
    doubled = b.minimum(b.const(38.5), b.add(doubled, doubled))
    n, r = _reduce_ln2(b, doubled)
    one, two = b.const(1.0), b.const(2.0)
    power = b.scale(one, n)
    rise = b.mul(b.mul(r, r), _polynomial(b, r, EXP_TAIL[b.dtype]))
    grown, grown_low = _quick_two_sum(b, r, rise)
    high, low = _quick_two_sum(b, b.sub(power, one), b.mul(grown, power))
    low = b.fma(grown_low, power, low)
    total, total_low = _two_sum(b, two, high)
    total_low = b.add(total_low, low)
    return b.copysign(_divide_pairs(b, (high, low), (total, total_low)), x)


# Logarithms ---------------------------------------------------------------------------------------

_LOG10_E = 0.4342944819032518
_LOG10_2 = 0.3010299956639812


def _log1p_tail(b: Lanes, f: Value) -> Value:
    """log(1+f) - f for f in [-0.25, 0.5]."""
    if b.dtype == "float32":
        cubic = b.fma(f, _polynomial(b, f, LOG_TAIL_32), b.const(-0.5))
        return b.mul(b.mul(f, f), cubic)
    s = b.div(f, b.add(b.const(2.0), f))
    z = b.mul(s, s)
    # log(1+f) = 2s + s**3 R(s**2) and 2s = f - s f.
    return b.mul(s, b.fma(z, _polynomial(b, z, LOG_TAIL_64), b.neg(f)))


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
    product, missing = _two_product(b, f, b.const(high))
    return b.add(b.add(product, whole), b.add(missing, rest))


# 1/ln(2) and 1/ln(10) as the nearest float of each dtype and what is left.
_LOG2_E_PARTS = {
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
    return _log_in_base(b, x, _LOG2_E_PARTS[b.dtype], None)


def log10(b: Lanes, x: Value) -> Value:
    """The logarithm to base 10."""
    high, low = _LOG10_2_PARTS[b.dtype]
    return _log_in_base(b, x, _LOG10_E_PARTS[b.dtype], (b.const(high), b.const(low)))


def log1p(b: Lanes, x: Value) -> Value:
    """log(1 + x), accurate near zero."""
    return _log1p_sum(b, x, None)


def _log1p_sum(b: Lanes, x: Value, low: Value | None) -> Value:
    """log(1 + x + low), `low` a small correction to x."""
    one = b.const(1.0)
    u = b.add(one, x)
    m, e = b.split(u)
    # 1 + x = 2**e (1 + f), where f = x*2**-e + (2**-e - 1) is rounded once: no correction term
    # needed.
    power = b.scale(one, b.neg(e))
    f = b.fma(x, power, b.sub(power, one))
    if low is not None:
        f = b.fma(low, power, f)
    finite = b.mand(b.gt(x, b.const(-1.0)), b.lt(x, b.const(_INF)))
    # m*e is -inf for u = 0, inf for inf, and NaN below and for NaN.
    result = b.select(finite, _log_assembled(b, f, e), b.mul(m, e))
    return b.select(b.eq(x, b.const(0.0)), x, result) if low is None else result


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


# Circular functions -------------------------------------------------------------------------------

_PI = 3.141592653589793


@dataclass(frozen=True)
class _CircleReduction:
    """How multiples of pi/2 are subtracted for |x| <= limit: pi/2 in parts of so many bits each.

    The first `exact` differences have no rounding error.
    """

    limit: float
    exact: int
    widths: tuple[int, ...]


# With fma a product is exact whatever its length; without, multiples of a part must fit the
# mantissa.
_CIRCLE = {
    ("float32", True): _CircleReduction(1e5, 1, (24, 24, 24)),
    ("float32", False): _CircleReduction(8e3, 2, (10, 10, 10, 10, 24)),
    ("float64", True): _CircleReduction(1e8, 1, (53, 53, 53)),
    ("float64", False): _CircleReduction(1e6, 1, (32, 32, 32, 53)),
}
_PI_BITS = 1300


@cache
def _pi_scaled() -> int:
    """pi * 2**_PI_BITS rounded down, by Machin's formula."""
    one = 1 << (_PI_BITS + 32)

    def arctan_reciprocal(n: int) -> int:
        term = total = one // n
        k = 1
        while term:
            term //= -n * n
            total += term // (2 * k + 1)
            k += 1
        return total

    return (16 * arctan_reciprocal(5) - 4 * arctan_reciprocal(239)) >> 32


@cache
def _pi_parts(widths: tuple[int, ...], halvings: int) -> tuple[float, ...]:
    """pi / 2**halvings as a sum of floats of `widths` bits each."""
    rest, unit = _pi_scaled(), 1 << (_PI_BITS + halvings)
    result = []
    for width in widths:
        drop = max(rest.bit_length() - width, 0)
        head = rest >> drop << drop
        result.append(head / unit)
        rest -= head
    return tuple(result)


def _pi_pair(b: Lanes, halvings: int) -> tuple[float, float]:
    """pi / 2**halvings as two floats."""
    digits = FORMATS[b.dtype].mantissa_bits + 1
    high, low = _pi_parts((digits, digits), halvings)
    return high, low


# Exponents per row of the table of 2/pi. Wider rows make a smaller table and larger intermediate
# products.
_ROW_EXPONENTS = {"float32": 8, "float64": 16}
_CHUNKS = 4


@cache
def _two_over_pi_table(dtype: str) -> tuple[tuple[float, ...], ...]:
    """Chunk c of row j: the c-th mantissa-sized piece of 2**(w*j) * 2/pi modulo 4, w exponents
    to a row.
    """
    form = FORMATS[dtype]
    digits = form.mantissa_bits + 1
    rows = -(-(form.exponent_bias + 1) // _ROW_EXPONENTS[dtype])
    reciprocal_bits = 1 << (2 * _PI_BITS + 1)
    two_over_pi = reciprocal_bits // _pi_scaled()  # times 2**_PI_BITS
    columns: list[list[float]] = [[] for _ in range(_CHUNKS)]
    for row in range(rows):
        rest = (two_over_pi << (_ROW_EXPONENTS[dtype] * row)) % (4 << _PI_BITS)
        for chunk in range(_CHUNKS):
            # Bits 2**1 down to 2**(2 - digits), then as many again.
            drop = _PI_BITS + 2 - digits * (chunk + 1)
            head = rest >> drop
            columns[chunk].append(head * 2.0 ** (2 - digits * (chunk + 1)))
            rest -= head << drop
    return tuple(tuple(column) for column in columns)


def _reduce_circle(b: Lanes, x: Value) -> tuple[Value, Value, Value]:
    """(n, r, low) with x = n*pi/2 + r + low, |r| <= pi/4, the integral n right modulo 4."""
    plan = _CIRCLE[b.dtype, b.has_fma]
    n, _ = _nearest(b, x, 2.0 / _PI)
    parts = _pi_parts(plan.widths, 1)
    rest = x
    for part in parts[: plan.exact]:
        rest = b.fma(n, b.const(-part), rest)
    # One difference with its rounding error kept, and the remaining digits of pi below it.
    if b.has_fma:
        product, product_low = _two_product(b, n, b.const(-parts[plan.exact]))
        r, low = _two_sum(b, rest, product)
        low = b.add(low, product_low)
    else:
        r, low = _two_sum(b, rest, b.mul(n, b.const(-parts[plan.exact])))
    for part in parts[plan.exact + 1 :]:
        low = b.fma(n, b.const(-part), low)
    if not b.has_fma:  # short parts leave a tail longer than a rounding error
        r, low = _quick_two_sum(b, r, low)
        r = b.select(b.eq(n, b.const(0.0)), x, r)  # keeps -0
    size = b.abs(x)
    huge = b.mand(b.gt(size, b.const(plan.limit)), b.lt(size, b.const(_INF)))

    def reduce_huge() -> tuple[Value, Value, Value]:
        reduced = _reduce_huge_circle(b, b.select(huge, x, b.const(2.0**60)))
        usual = (n, r, low)
        chosen = [b.select(huge, one, other) for one, other in zip(reduced, usual, strict=True)]
        return chosen[0], chosen[1], chosen[2]

    n, r, low = b.any_branch(huge, reduce_huge, lambda: (n, r, low))
    return n, r, low


def _reduce_huge_circle(b: Lanes, x: Value) -> tuple[Value, Value, Value]:
    """Payne and Hanek's reduction (SIGNUM 1983) in floating point.

    x is an integer multiple of 2**(w*row), so bits of 2**(w*row) * 2/pi worth 4 or more contribute
    whole turns and are left out of the table; the products of what remains are summed exactly.
    """
    form = FORMATS[b.dtype]
    width = _ROW_EXPONENTS[b.dtype]
    exponent = b.shr_logical(b.bitcast_int(b.abs(x)), form.mantissa_bits)
    # x = integer * 2**s with s = exponent - bias - mantissa_bits; the row holds 2**(s - s % width).
    s = b.isub(exponent, b.iconst(form.exponent_bias + form.mantissa_bits))
    s = b.select(b.ilt(s, b.iconst(0)), b.iconst(0), s)
    row = b.shr_logical(s, width.bit_length() - 1)
    row_exponent = b.shl(row, width.bit_length() - 1)
    down = b.shl(b.isub(b.iconst(form.exponent_bias), row_exponent), form.mantissa_bits)
    integer = b.mul(x, b.bitcast_float(down))
    columns = [b.gather_table(column, row) for column in _two_over_pi_table(b.dtype)]

    def without_turns(value: Value) -> Value:
        turns = b.rint(b.mul(value, b.const(0.25)))
        return b.sub(value, b.mul(turns, b.const(4.0)))

    first, first_low = _two_product(b, integer, columns[0])
    second, second_low = _two_product(b, integer, columns[1])
    third, third_low = _two_product(b, integer, columns[2])
    fourth = b.mul(integer, columns[3])
    sum_high, sum_low = _two_sum(b, without_turns(first), without_turns(first_low))
    sum_high, carry = _two_sum(b, sum_high, without_turns(second))
    terms = [sum_low, carry, second_low, third, b.add(third_low, fourth)]
    n = b.rint(sum_high)
    high = b.sub(sum_high, n)
    low = b.const(0.0)
    for term in terms:
        high, error = _two_sum(b, high, term)
        low = b.add(low, error)
    high, low = _quick_two_sum(b, high, low)
    unit_high, unit_low = _pi_pair(b, 1)
    product, product_low = _two_product(b, high, b.const(unit_high))
    rest = b.fma(high, b.const(unit_low), b.mul(low, b.const(unit_high)))
    return n, product, b.add(product_low, rest)


def _sine_cosine(b: Lanes, r: Value, low: Value) -> tuple[Value, Value]:
    """(sin(r + low) - r, cos(r + low) - 1) for |r| <= pi/4."""
    square = b.mul(r, r)
    sine_tail = b.fma(b.mul(r, square), _polynomial(b, square, SIN_TAIL[b.dtype]), low)
    cosine_tail = b.fma(square, _polynomial(b, square, COS_TAIL[b.dtype]), b.const(-0.5))
    return sine_tail, b.fma(square, cosine_tail, b.neg(b.mul(r, low)))


def _sine_of_quarter(b: Lanes, quarter: Value, r: Value, low: Value) -> Value:
    """sin(quarter * pi/2 + r + low) for an integer-lane quarter."""
    sine_tail, cosine_tail = _sine_cosine(b, r, low)
    sine = b.copysign(b.add(r, sine_tail), r)
    odd = b.ieq(b.iand(quarter, b.iconst(1)), b.iconst(1))
    chosen = b.select(odd, b.add(b.const(1.0), cosine_tail), sine)
    form = FORMATS[b.dtype]
    flip = b.iand(b.shl(quarter, form.bits - 2), b.iconst(form.sign_mask))
    return b.bitcast_float(b.ixor(b.bitcast_int(chosen), flip))


def sin(b: Lanes, x: Value) -> Value:
    """Sine of x radians, for any finite x."""
    n, r, low = _reduce_circle(b, x)
    return _sine_of_quarter(b, b.to_int(n), r, low)


def cos(b: Lanes, x: Value) -> Value:
    """Cosine of x radians, for any finite x."""
    n, r, low = _reduce_circle(b, x)
    return _sine_of_quarter(b, b.iadd(b.to_int(n), b.iconst(1)), r, low)


def tan(b: Lanes, x: Value) -> Value:
    """Tangent of x radians, for any finite x: one division."""
    n, r, low = _reduce_circle(b, x)
    sine_tail, cosine_tail = _sine_cosine(b, r, low)
    sine = _quick_two_sum(b, r, sine_tail)
    cosine = _quick_two_sum(b, b.const(1.0), cosine_tail)
    odd = b.ieq(b.iand(b.to_int(n), b.iconst(1)), b.iconst(1))
    above = [b.select(odd, b.neg(c), s) for s, c in zip(sine, cosine, strict=True)]
    below = [b.select(odd, s, c) for s, c in zip(sine, cosine, strict=True)]
    ratio = _divide_pairs(b, (above[0], above[1]), (below[0], below[1]))
    return b.select(b.lt(b.abs(x), b.const(_TINY[b.dtype])), x, ratio)


def _asin_parts(b: Lanes, size: Value) -> tuple[Value, Value]:
    """(central, p): asin(size) = p where central, else pi/2 - 2p, for size >= 0."""
    half = b.const(0.5)
    central = b.lt(size, half)
    square = b.select(central, b.mul(size, size), b.mul(b.sub(b.const(1.0), size), half))
    s = b.select(central, size, b.sqrt(square))
    p = b.fma(b.mul(s, square), _polynomial(b, square, ASIN_TAIL[b.dtype]), s)
    return central, p


def asin(b: Lanes, x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose sine is x; NaN outside [-1, 1]."""
    central, p = _asin_parts(b, b.abs(x))
    quarter, quarter_low = _pi_pair(b, 1)
    outer = b.add(b.fma(b.const(-2.0), p, b.const(quarter)), b.const(quarter_low))
    return b.copysign(b.select(central, p, outer), x)


def acos(b: Lanes, x: Value) -> Value:
    """The angle in [0, pi] whose cosine is x; NaN outside [-1, 1]."""
    central, p = _asin_parts(b, b.abs(x))
    quarter, quarter_low = _pi_pair(b, 1)
    turn, turn_low = _pi_pair(b, 0)
    middle = b.sub(b.const(quarter), b.sub(b.copysign(p, x), b.const(quarter_low)))
    doubled = b.add(p, p)
    left = b.sub(b.const(turn), b.sub(doubled, b.const(turn_low)))
    outer = b.select(b.lt(x, b.const(0.0)), left, doubled)
    return b.select(central, middle, outer)


def _angle(b: Lanes, t: Value, base: Pair, backward: Value) -> Value:
    """base + atan(t), or base - atan(t) where backward, for t in [0, 1] and base 0, pi/2 or pi."""
    square = b.mul(t, t)
    tail = b.mul(b.mul(t, square), _polynomial(b, square, ATAN_TAIL[b.dtype]))
    t, tail = b.select(backward, b.neg(t), t), b.select(backward, b.neg(tail), tail)
    high, missing = _quick_two_sum(b, base[0], t)
    return b.add(high, b.add(missing, b.add(tail, base[1])))


def atan(b: Lanes, x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose tangent is x."""
    size = b.abs(x)
    zero, one = b.const(0.0), b.const(1.0)
    steep = b.gt(size, one)
    t = b.div(b.select(steep, one, size), b.select(steep, size, one))
    quarter, quarter_low = _pi_pair(b, 1)
    base = b.select(steep, b.const(quarter), zero), b.select(steep, b.const(quarter_low), zero)
    return b.copysign(_angle(b, t, base, steep), x)


def atan2(b: Lanes, y: Value, x: Value) -> Value:
    """The angle of (x, y), with C99's results for zeros and infinities of either sign."""
    zero, one = b.const(0.0), b.const(1.0)
    rise, run = b.abs(y), b.abs(x)
    steep = b.gt(rise, run)
    over, under = b.select(steep, run, rise), b.select(steep, rise, run)
    t = b.select(b.eq(over, under), one, b.div(over, under))
    t = b.select(b.eq(under, zero), zero, t)
    leftward = b.ilt(b.bitcast_int(x), b.iconst(0))

    def choose_base(quarter: float, turn: float) -> Value:
        return b.select(steep, b.const(quarter), b.select(leftward, b.const(turn), zero))

    (quarter, quarter_low), (turn, turn_low) = _pi_pair(b, 1), _pi_pair(b, 0)
    base = choose_base(quarter, turn), choose_base(quarter_low, turn_low)
    angle = b.copysign(_angle(b, t, base, b.mxor(steep, leftward)), y)
    return b.select(b.mor(b.ne(x, x), b.ne(y, y)), b.const(_NAN), angle)


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
    sinh_tail = b.fma(b.mul(r, square), _polynomial(b, square, SINH_TAIL[b.dtype]), low)
    cosh_tail = b.fma(square, _polynomial(b, square, COSH_TAIL[b.dtype]), b.const(0.5))
    cosh_tail = b.mul(square, cosh_tail)
    # main*(1 + cosh_tail) + other*(r + sinh_tail); |main| >= |other*r| unless main is 0.
    product, product_low = _two_product(b, other, r)
    high, missing = _quick_two_sum(b, main, product)
    rest = b.fma(main, cosh_tail, b.fma(other, sinh_tail, b.add(missing, product_low)))
    half = b.add(high, rest)
    return b.add(half, half)


def sinh(b: Lanes, x: Value) -> Value:
    """(exp(x) - exp(-x)) / 2."""
    result = b.copysign(_hyperbolic(b, x, is_cosh=False), x)
    return b.select(b.lt(b.abs(x), b.const(_TINY[b.dtype])), x, result)


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
    argument = b.select(b.lt(x, one), b.const(_NAN), argument)
    return _log1p_or_log_twice(b, vast, x, argument)


def atanh(b: Lanes, x: Value) -> Value:
    """The inverse of tanh; NaN outside [-1, 1]."""
    size = b.abs(x)
    argument = b.div(b.add(size, size), b.sub(b.const(1.0), size))
    return b.copysign(b.mul(b.const(0.5), log1p(b, argument)), x)


# The error function and the normal distribution ---------------------------------------------------


def _exp_of_pair(b: Lanes, high: Value, low: Value) -> Value:
    """exp(high + low) for `high` inside the exponential's range."""
    n, r = _reduce_ln2(b, high)
    grown = b.add(b.const(1.0), _expm1_reduced(b, b.add(r, low)))
    return b.scale(grown, n)


def _erfc_positive(b: Lanes, x: Value, exponent: Pair) -> Value:
    """exp(high + low of exponent) * exp(x**2) erfc(x) for 0 <= x <= bound."""
    plan = SCALED_ERFC[b.dtype]
    center = b.const(plan.center)
    distance, total = b.sub(x, center), b.add(x, center)
    reciprocal = b.div(b.const(1.0), total)
    t = b.mul(distance, reciprocal)
    t = b.fma(b.fma(b.neg(t), total, distance), reciprocal, t)
    value = _polynomial(b, t, plan.coefficients)
    scaled = b.mul(value, reciprocal)
    total_low = b.sub(b.select(b.lt(x, center), x, center), b.sub(total, b.maximum(x, center)))
    remainder = b.fma(b.neg(scaled), total_low, b.fma(b.neg(scaled), total, value))
    scaled = b.fma(remainder, reciprocal, scaled)
    return b.mul(_exp_of_pair(b, *exponent), scaled)


def _erf_central(b: Lanes, x: Value) -> Value:
    """erf(x) for |x| <= 1/2 (1 for float64)."""
    return b.fma(x, _polynomial(b, b.mul(x, x), ERF_CENTRAL[b.dtype]), x)


def erfc(b: Lanes, x: Value) -> Value:
    """1 - erf(x), accurate in its tail."""
    size = b.minimum(b.const(SCALED_ERFC[b.dtype].bound), b.abs(x))
    high, low = _two_product(b, size, size)
    tail = _erfc_positive(b, size, (b.neg(high), b.neg(low)))
    tail = b.select(b.lt(x, b.const(0.0)), b.sub(b.const(2.0), tail), tail)
    inner = b.lt(size, b.const(0.5))
    return b.select(inner, b.sub(b.const(1.0), _erf_central(b, x)), tail)


def normcdf(b: Lanes, x: Value) -> Value:
    """The standard normal distribution function, erfc(-x / sqrt(2)) / 2."""
    bound = SCALED_ERFC[b.dtype].bound * 2.0**0.5
    size = b.minimum(b.const(bound), b.abs(x))
    high, low = _two_product(b, size, size)
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
    k, shifted = _nearest(b, size, 1.0 / ERF_STEP)
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
    square, low = _two_product(b, size, size)
    central = _erf_central(b, size)
    tail = _erfc_positive(b, size, (b.neg(square), b.neg(low)))
    inner = b.lt(size, b.const(1.0))
    return b.copysign(b.select(inner, central, b.sub(b.const(1.0), tail)), x)


# Powers and roots ---------------------------------------------------------------------------------


def _reciprocal_steps() -> tuple[float, ...]:
    """1/m to 9 bits at the centre of each of 16 intervals of [0.75, 1.5); exactly 1 around 1."""
    centers = [0.75 + 0.75 * (i + 0.5) / 16 for i in range(16)]
    return tuple(1.0 if abs(c - 1.0) < 0.02 else round(512 / c) / 512 for c in centers)


_RECIPROCALS = _reciprocal_steps()


def _log2_pair(b: Lanes, x: Value) -> Pair:
    """log2(x) to about twice the working precision less 8 bits, for positive finite x."""
    m, e = b.split(x)
    steps = len(_RECIPROCALS)
    interval = b.mul(b.sub(m, b.const(0.75)), b.const(steps / 0.75))
    # The clamp is for NaN and for m that rounds up to the end; a neighbouring interval still
    # serves.
    _, shifted = _nearest(b, _clamp(b, b.sub(interval, b.const(0.5)), (0.0, steps - 1.0)), 1.0)
    index = b.iand(b.bitcast_int(shifted), b.iconst(steps - 1))
    reciprocal = b.gather_table(_RECIPROCALS, index)
    step_high, step_low = (b.gather_table(part, index) for part in LOG2_STEPS[b.dtype])

    # m * reciprocal = 1 + r + r_low exactly.
    product, r_low = _two_product(b, m, reciprocal)
    r = b.sub(product, b.const(1.0))
    # log(1 + r + r_low) = r - r**2/2 + r**3 (...) + r_low (1 - r + r**2)
    square, square_low = _two_product(b, r, r)
    half = b.const(-0.5)
    high, low = _quick_two_sum(b, r, b.mul(half, square))
    cubic = b.mul(b.mul(r, square), _polynomial(b, r, LOG_SMALL_TAIL[b.dtype]))
    low = b.add(low, b.fma(half, square_low, b.fma(b.sub(square, r), r_low, r_low)))
    high, low = _quick_two_sum(b, high, b.add(low, cubic))
    # Into base 2, and the exponent and the step on top.
    unit_high, unit_low = _LOG2_E_PARTS[b.dtype]
    scaled, scaled_low = _two_product(b, high, b.const(unit_high))
    scaled_low = b.add(scaled_low, b.fma(high, b.const(unit_low), b.mul(low, b.const(unit_high))))
    total, carry = _quick_two_sum(b, b.add(e, step_high), scaled)
    return _quick_two_sum(b, total, b.add(carry, b.add(scaled_low, step_low)))


def pow(b: Lanes, x: Value, y: Value) -> Value:
    """x**y with C99's special cases; the logarithm is carried in double words."""
    zero, one, infinity = b.const(0.0), b.const(1.0), b.const(_INF)
    size = b.abs(x)
    log_high, log_low = _log2_pair(b, size)
    # Beyond this every |x| other than 1 gives 0 or inf; the clamp keeps the products finite.
    vast = {"float32": 1e12, "float64": 1e25}[b.dtype]
    bounded = _clamp(b, y, (-vast, vast))
    exponent, rest = _two_product(b, bounded, log_high)
    rest = b.fma(bounded, log_low, rest)
    exponent = _clamp(b, exponent, _EXP2_RANGE[b.dtype])
    n, _ = _nearest(b, exponent, 1.0)
    fraction = b.add(b.sub(exponent, n), _clamp(b, rest, (-0.25, 0.25)))
    grown = b.fma(fraction, _polynomial(b, fraction, EXP2_TAIL[b.dtype]), one)
    result = b.scale(grown, n)

    falling = b.lt(y, zero)
    vanishing = b.eq(size, zero)
    limitless = b.mxor(b.eq(size, infinity), falling)
    unbounded = b.mor(vanishing, b.eq(size, infinity))
    result = b.select(unbounded, b.select(limitless, infinity, zero), result)
    half = b.mul(y, b.const(0.5))
    whole = b.eq(b.rint(y), y)
    odd = b.mand(whole, b.ne(b.rint(half), half))
    result = b.select(odd, b.copysign(result, x), result)
    undefined = b.mand(b.mand(b.lt(x, zero), b.gt(x, b.neg(infinity))), b.mnot(whole))
    undefined = b.mor(undefined, b.mor(b.ne(x, x), b.ne(y, y)))
    result = b.select(undefined, b.const(_NAN), result)
    return b.select(b.mor(b.eq(y, zero), b.eq(x, one)), one, result)


def powi(b: Lanes, x: Value, exponent: int) -> Value:
    """x**exponent for an exponent known while compiling, by repeated squaring.

    Each multiplication rounds: about half an ulp for every bit and set bit of the exponent.
    """
    if exponent < 0:
        return b.div(b.const(1.0), powi(b, x, -exponent))
    result, square = None, x
    while exponent:
        if exponent & 1:
            result = square if result is None else b.mul(result, square)
        exponent >>= 1
        if exponent:
            square = b.mul(square, square)
    return b.const(1.0) if result is None else result


def sqrt(b: Lanes, x: Value) -> Value:
    """The square root, correctly rounded."""
    return b.sqrt(x)


def rsqrt(b: Lanes, x: Value) -> Value:
    """1 / sqrt(x)."""
    return b.div(b.const(1.0), b.sqrt(x))


def reciprocal(b: Lanes, x: Value) -> Value:
    """1 / x, correctly rounded."""
    return b.div(b.const(1.0), x)


def cbrt(b: Lanes, x: Value) -> Value:
    """The real cube root, of negative numbers too; no division."""
    size = b.abs(x)
    m, e = b.split(size)
    third, _ = _nearest(b, e, 1.0 / 3.0)
    reduced = b.scale(m, b.fma(third, b.const(-3.0), e))
    inverse = _polynomial(b, reduced, INVERSE_CBRT_GUESS)
    one = b.const(1.0)
    for _ in range({"float32": 1, "float64": 2}[b.dtype]):
        # With h = 1 - a z**3, z (1 + h/3 + 2 h**2/9) leaves an error of 14 h**3 / 81.
        cube = b.mul(b.mul(inverse, inverse), inverse)
        h = b.fma(b.neg(reduced), cube, one)
        step = b.fma(h, b.const(2.0 / 9.0), b.const(1.0 / 3.0))
        inverse = b.fma(b.mul(inverse, h), step, inverse)
    square = b.mul(inverse, inverse)
    root = b.mul(reduced, square)
    # One Newton step on the root itself, its residual in double words.
    product, product_low = _two_product(b, root, root)
    cube, cube_low = _two_product(b, product, root)
    residual = b.sub(b.sub(b.sub(reduced, cube), cube_low), b.mul(product_low, root))
    root = b.fma(b.mul(residual, square), b.const(1.0 / 3.0), root)
    regular = b.mand(b.gt(size, b.const(0.0)), b.lt(size, b.const(_INF)))
    return b.select(regular, b.copysign(b.scale(root, third), x), x)


def sign(b: Lanes, x: Value) -> Value:
    """-1, 0 or 1; zeros and NaN stay as they are."""
    nonzero = b.mor(b.lt(x, b.const(0.0)), b.gt(x, b.const(0.0)))
    return b.select(nonzero, b.copysign(b.const(1.0), x), x)


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
    high, low = _pi_pair(b, 0)
    product, product_low = _two_product(b, rest, b.const(high))
    tail = b.fma(rest, b.const(low), product_low)
    quarter = b.to_int(quarters)
    return (
        _sine_of_quarter(b, quarter, product, tail),
        _sine_of_quarter(b, b.iadd(quarter, b.iconst(1)), product, tail),
    )


def _inverse_square_series(b: Lanes, w: Value, scale: Callable[[int, float], float]) -> Pair:
    """(1/w, sum of scale(k, B_2k) / w**(2k - 2)) over the terms of the asymptotic series."""
    terms = _ASYMPTOTIC[b.dtype].terms
    reciprocal = b.div(b.const(1.0), w)
    square = b.mul(reciprocal, reciprocal)
    coefficients = [scale(k, number) for k, number in enumerate(_BERNOULLI[:terms], start=1)]
    return reciprocal, _horner(b, square, coefficients)


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
    tiny = b.lt(b.abs(x), b.const(_TINY[b.dtype]))
    sine = b.select(tiny, x, sine)
    log_pi = b.select(tiny, b.const(0.0), b.const(1.1447298858494002))
    reflected = b.sub(b.sub(log_pi, log(b, b.abs(sine))), positive)
    unbounded = b.eq(b.abs(x), b.const(_INF))
    whole = b.mand(negative, b.eq(b.rint(x), x))
    result = b.select(negative, reflected, positive)
    return b.select(b.mor(unbounded, whole), b.const(_INF), result)


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
    reflected = b.sub(positive, b.div(b.mul(b.const(_PI), cosine), sine))
    whole = b.mand(negative, b.eq(b.rint(x), x))
    result = b.select(negative, b.select(whole, b.const(_NAN), reflected), positive)
    result = b.select(b.eq(x, b.const(_INF)), x, result)
    tiny = b.lt(b.abs(x), b.const(_TINY[b.dtype]))
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
    ratio = b.div(b.const(_PI), sine)
    result = b.select(negative, b.fma(ratio, ratio, b.neg(positive)), positive)
    whole = b.mand(b.le(x, zero), b.eq(b.rint(x), x))
    return b.select(b.mand(whole, b.gt(x, b.const(-_INF))), b.const(_INF), result)


_LOOSE = MappingProxyType({"float32": 2e-6, "float64": 4e-14})


def _entry(
    name: str,
    body: Callable[..., Value],
    f32: float,
    f64: float,
    arity: int = 1,
    max_absolute: Mapping[str, float] | None = None,
) -> MathFunction:
    bounds = MappingProxyType({"float32": f32, "float64": f64})
    return MathFunction(name, arity, body, bounds, max_absolute or MappingProxyType({}))


# float32 bounds hold for every argument on every machine of the tests; float64 ones for samples.
FUNCTIONS: Mapping[str, MathFunction] = {
    entry.name: entry
    for entry in (
        _entry("exp", exp, 1.0, 1.0),
        _entry("exp2", exp2, 1.25, 1.25),
        _entry("expm1", expm1, 2.0, 2.0),
        _entry("log", log, 1.0, 1.0),
        _entry("log2", log2, 2.0, 2.0),
        _entry("log10", log10, 2.0, 2.0),
        _entry("log1p", log1p, 1.0, 1.0),
        _entry("sigmoid", sigmoid, 2.0, 2.0),
        _entry("softplus", softplus, 2.0, 2.0),
        _entry("sin", sin, 1.5, 1.5),
        _entry("cos", cos, 1.5, 1.5),
        _entry("tan", tan, 2.0, 2.0),
        _entry("asin", asin, 2.0, 2.0),
        _entry("acos", acos, 1.5, 1.5),
        _entry("atan", atan, 2.0, 3.0),
        _entry("atan2", atan2, 2.0, 3.0, arity=2),
        _entry("sinh", sinh, 1.0, 1.0),
        _entry("cosh", cosh, 2.0, 1.5),
        _entry("tanh", tanh, 1.5, 1.5),
        _entry("asinh", asinh, 2.0, 2.0),
        _entry("acosh", acosh, 2.0, 2.0),
        _entry("atanh", atanh, 2.5, 2.0),
        _entry("erf", erf, 1.5, 1.5),
        _entry("erfc", erfc, 5.0, 5.0),
        _entry("normcdf", normcdf, 5.5, 5.5),
        _entry("pow", pow, 1.5, 1.5, arity=2),
        _entry("sqrt", sqrt, 0.5, 0.5),
        _entry("rsqrt", rsqrt, 1.5, 1.5),
        _entry("reciprocal", reciprocal, 0.5, 0.5),
        _entry("cbrt", cbrt, 0.51, 0.51),
        _entry("sign", sign, 0.0, 0.0),
        # These have zeros off the floats, where only the absolute error is small.
        _entry("lgamma", lgamma, 10.0, 10.0, max_absolute=_LOOSE),
        _entry("digamma", digamma, 10.0, 10.0, max_absolute=_LOOSE),
        _entry("trigamma", trigamma, 10.0, 10.0, max_absolute=_LOOSE),
    )
}
