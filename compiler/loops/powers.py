"""Powers and roots over vector lanes."""

from __future__ import annotations

from .exponentials import EXP2_RANGE, LOG2_E_PARTS
from .lane_arithmetic import INF, NAN, Pair, clamp, nearest, polynomial, quick_two_sum, two_product
from .lanes import Lanes, Value
from .polynomials import EXP2_TAIL, INVERSE_CBRT_GUESS, LOG2_STEPS, LOG_SMALL_TAIL


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
    _, shifted = nearest(b, clamp(b, b.sub(interval, b.const(0.5)), (0.0, steps - 1.0)), 1.0)
    index = b.iand(b.bitcast_int(shifted), b.iconst(steps - 1))
    reciprocal = b.gather_table(_RECIPROCALS, index)
    step_high, step_low = (b.gather_table(part, index) for part in LOG2_STEPS[b.dtype])

    # m * reciprocal = 1 + r + r_low exactly.
    product, r_low = two_product(b, m, reciprocal)
    r = b.sub(product, b.const(1.0))
    # log(1 + r + r_low) = r - r**2/2 + r**3 (...) + r_low (1 - r + r**2)
    square, square_low = two_product(b, r, r)
    half = b.const(-0.5)
    high, low = quick_two_sum(b, r, b.mul(half, square))
    cubic = b.mul(b.mul(r, square), polynomial(b, r, LOG_SMALL_TAIL[b.dtype]))
    low = b.add(low, b.fma(half, square_low, b.fma(b.sub(square, r), r_low, r_low)))
    high, low = quick_two_sum(b, high, b.add(low, cubic))
    # Into base 2, and the exponent and the step on top.
    unit_high, unit_low = LOG2_E_PARTS[b.dtype]
    scaled, scaled_low = two_product(b, high, b.const(unit_high))
    scaled_low = b.add(scaled_low, b.fma(high, b.const(unit_low), b.mul(low, b.const(unit_high))))
    total, carry = quick_two_sum(b, b.add(e, step_high), scaled)
    return quick_two_sum(b, total, b.add(carry, b.add(scaled_low, step_low)))


def pow(b: Lanes, x: Value, y: Value) -> Value:
    """x**y with C99's special cases; the logarithm is carried in double words."""
    zero, one, infinity = b.const(0.0), b.const(1.0), b.const(INF)
    size = b.abs(x)
    log_high, log_low = _log2_pair(b, size)
    # Beyond this every |x| other than 1 gives 0 or inf; the clamp keeps the products finite.
    vast = {"float32": 1e12, "float64": 1e25}[b.dtype]
    bounded = clamp(b, y, (-vast, vast))
    exponent, rest = two_product(b, bounded, log_high)
    rest = b.fma(bounded, log_low, rest)
    exponent = clamp(b, exponent, EXP2_RANGE[b.dtype])
    n, _ = nearest(b, exponent, 1.0)
    fraction = b.add(b.sub(exponent, n), clamp(b, rest, (-0.25, 0.25)))
    grown = b.fma(fraction, polynomial(b, fraction, EXP2_TAIL[b.dtype]), one)
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
    result = b.select(undefined, b.const(NAN), result)
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
    third, _ = nearest(b, e, 1.0 / 3.0)
    reduced = b.scale(m, b.fma(third, b.const(-3.0), e))
    inverse = polynomial(b, reduced, INVERSE_CBRT_GUESS)
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
    product, product_low = two_product(b, root, root)
    cube, cube_low = two_product(b, product, root)
    residual = b.sub(b.sub(b.sub(reduced, cube), cube_low), b.mul(product_low, root))
    root = b.fma(b.mul(residual, square), b.const(1.0 / 3.0), root)
    regular = b.mand(b.gt(size, b.const(0.0)), b.lt(size, b.const(INF)))
    return b.select(regular, b.copysign(b.scale(root, third), x), x)


def sign(b: Lanes, x: Value) -> Value:
    """-1, 0 or 1; zeros and NaN stay as they are."""
    nonzero = b.mor(b.lt(x, b.const(0.0)), b.gt(x, b.const(0.0)))
    return b.select(nonzero, b.copysign(b.const(1.0), x), x)
