"""Sine, cosine, tangent and their inverses over vector lanes, for arguments of any size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .exponentials import TINY
from .lane_arithmetic import (
    INF,
    NAN,
    Pair,
    divide_pairs,
    nearest,
    polynomial,
    quick_two_sum,
    two_product,
    two_sum,
)
from .lanes import FORMATS, Lanes, Value
from .polynomials import ASIN_TAIL, ATAN_TAIL, COS_TAIL, SIN_TAIL

PI = 3.141592653589793


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


def pi_pair(b: Lanes, halvings: int) -> tuple[float, float]:
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
    n, _ = nearest(b, x, 2.0 / PI)
    parts = _pi_parts(plan.widths, 1)
    rest = x
    for part in parts[: plan.exact]:
        rest = b.fma(n, b.const(-part), rest)
    # One difference with its rounding error kept, and the remaining digits of pi below it.
    if b.has_fma:
        product, product_low = two_product(b, n, b.const(-parts[plan.exact]))
        r, low = two_sum(b, rest, product)
        low = b.add(low, product_low)
    else:
        r, low = two_sum(b, rest, b.mul(n, b.const(-parts[plan.exact])))
    for part in parts[plan.exact + 1 :]:
        low = b.fma(n, b.const(-part), low)
    if not b.has_fma:  # short parts leave a tail longer than a rounding error
        r, low = quick_two_sum(b, r, low)
        r = b.select(b.eq(n, b.const(0.0)), x, r)  # keeps -0
    size = b.abs(x)
    huge = b.mand(b.gt(size, b.const(plan.limit)), b.lt(size, b.const(INF)))

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

    first, first_low = two_product(b, integer, columns[0])
    second, second_low = two_product(b, integer, columns[1])
    third, third_low = two_product(b, integer, columns[2])
    fourth = b.mul(integer, columns[3])
    sum_high, sum_low = two_sum(b, without_turns(first), without_turns(first_low))
    sum_high, carry = two_sum(b, sum_high, without_turns(second))
    terms = [sum_low, carry, second_low, third, b.add(third_low, fourth)]
    n = b.rint(sum_high)
    high = b.sub(sum_high, n)
    low = b.const(0.0)
    for term in terms:
        high, error = two_sum(b, high, term)
        low = b.add(low, error)
    high, low = quick_two_sum(b, high, low)
    unit_high, unit_low = pi_pair(b, 1)
    product, product_low = two_product(b, high, b.const(unit_high))
    rest = b.fma(high, b.const(unit_low), b.mul(low, b.const(unit_high)))
    return n, product, b.add(product_low, rest)


def _sine_cosine(b: Lanes, r: Value, low: Value) -> tuple[Value, Value]:
    """(sin(r + low) - r, cos(r + low) - 1) for |r| <= pi/4."""
    square = b.mul(r, r)
    sine_tail = b.fma(b.mul(r, square), polynomial(b, square, SIN_TAIL[b.dtype]), low)
    cosine_tail = b.fma(square, polynomial(b, square, COS_TAIL[b.dtype]), b.const(-0.5))
    return sine_tail, b.fma(square, cosine_tail, b.neg(b.mul(r, low)))


def sine_of_quarter(b: Lanes, quarter: Value, r: Value, low: Value) -> Value:
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
    return sine_of_quarter(b, b.to_int(n), r, low)


def cos(b: Lanes, x: Value) -> Value:
    """Cosine of x radians, for any finite x."""
    n, r, low = _reduce_circle(b, x)
    return sine_of_quarter(b, b.iadd(b.to_int(n), b.iconst(1)), r, low)


def tan(b: Lanes, x: Value) -> Value:
    """Tangent of x radians, for any finite x: one division."""
    n, r, low = _reduce_circle(b, x)
    sine_tail, cosine_tail = _sine_cosine(b, r, low)
    sine = quick_two_sum(b, r, sine_tail)
    cosine = quick_two_sum(b, b.const(1.0), cosine_tail)
    odd = b.ieq(b.iand(b.to_int(n), b.iconst(1)), b.iconst(1))
    above = [b.select(odd, b.neg(c), s) for s, c in zip(sine, cosine, strict=True)]
    below = [b.select(odd, s, c) for s, c in zip(sine, cosine, strict=True)]
    ratio = divide_pairs(b, (above[0], above[1]), (below[0], below[1]))
    return b.select(b.lt(b.abs(x), b.const(TINY[b.dtype])), x, ratio)


def _asin_parts(b: Lanes, size: Value) -> tuple[Value, Value]:
    """(central, p): asin(size) = p where central, else pi/2 - 2p, for size >= 0."""
    half = b.const(0.5)
    central = b.lt(size, half)
    square = b.select(central, b.mul(size, size), b.mul(b.sub(b.const(1.0), size), half))
    s = b.select(central, size, b.sqrt(square))
    p = b.fma(b.mul(s, square), polynomial(b, square, ASIN_TAIL[b.dtype]), s)
    return central, p


def asin(b: Lanes, x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose sine is x; NaN outside [-1, 1]."""
    central, p = _asin_parts(b, b.abs(x))
    quarter, quarter_low = pi_pair(b, 1)
    outer = b.add(b.fma(b.const(-2.0), p, b.const(quarter)), b.const(quarter_low))
    return b.copysign(b.select(central, p, outer), x)


def acos(b: Lanes, x: Value) -> Value:
    """The angle in [0, pi] whose cosine is x; NaN outside [-1, 1]."""
    central, p = _asin_parts(b, b.abs(x))
    quarter, quarter_low = pi_pair(b, 1)
    turn, turn_low = pi_pair(b, 0)
    middle = b.sub(b.const(quarter), b.sub(b.copysign(p, x), b.const(quarter_low)))
    doubled = b.add(p, p)
    left = b.sub(b.const(turn), b.sub(doubled, b.const(turn_low)))
    outer = b.select(b.lt(x, b.const(0.0)), left, doubled)
    return b.select(central, middle, outer)


def _angle(b: Lanes, t: Value, base: Pair, backward: Value) -> Value:
    """base + atan(t), or base - atan(t) where backward, for t in [0, 1] and base 0, pi/2 or pi."""
    square = b.mul(t, t)
    tail = b.mul(b.mul(t, square), polynomial(b, square, ATAN_TAIL[b.dtype]))
    t, tail = b.select(backward, b.neg(t), t), b.select(backward, b.neg(tail), tail)
    high, missing = quick_two_sum(b, base[0], t)
    return b.add(high, b.add(missing, b.add(tail, base[1])))


def atan(b: Lanes, x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose tangent is x."""
    size = b.abs(x)
    zero, one = b.const(0.0), b.const(1.0)
    steep = b.gt(size, one)
    t = b.div(b.select(steep, one, size), b.select(steep, size, one))
    quarter, quarter_low = pi_pair(b, 1)
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

    (quarter, quarter_low), (turn, turn_low) = pi_pair(b, 1), pi_pair(b, 0)
    base = choose_base(quarter, turn), choose_base(quarter_low, turn_low)
    angle = b.copysign(_angle(b, t, base, b.mxor(steep, leftward)), y)
    return b.select(b.mor(b.ne(x, x), b.ne(y, y)), b.const(NAN), angle)
