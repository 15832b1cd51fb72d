"""The lane protocol over NumPy arrays: any shape, one array element per lane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..compiler.loops.lanes import Lanes
from ..compiler.loops.math import FUNCTIONS

Array = Any


def evaluate_math(name: str, *arguments: Array) -> Array:
    """Evaluate the generated math function `name` on arrays of one float dtype.

    Parameters
    ----------
    name
        A key of `FUNCTIONS`.
    arguments
        float32 or float64 arrays, broadcast together.

    Raises
    ------
    KeyError
        The function is not in the table.
    """
    arrays = np.broadcast_arrays(*arguments)
    lanes = NumpyLanes(str(arrays[0].dtype))
    with np.errstate(all="ignore"):
        result = FUNCTIONS[name].body(lanes, *arrays)
        return np.broadcast_to(result, arrays[0].shape).astype(lanes.float_type, copy=True)


class NumpyLanes(Lanes):
    """Float lanes of `dtype` as NumPy arrays; constants are zero-dimensional.

    `fma` rounds once, by exact arithmetic, except that a float64 result in the subnormal range may
    be rounded twice. Overflow and invalid operations follow `np.errstate`; `evaluate_math` silences
    it.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.has_fma = True
        self.float_type = np.dtype(dtype).type
        self.int_type = {"float32": np.int32, "float64": np.int64}[dtype]
        self._uint_type = {"float32": np.uint32, "float64": np.uint64}[dtype]

    def const(self, value: float) -> Array:
        return np.asarray(value, self.float_type)

    def iconst(self, value: int) -> Array:
        return np.asarray(value, self.int_type)

    def add(self, a: Array, b: Array) -> Array:
        return np.add(a, b)

    def sub(self, a: Array, b: Array) -> Array:
        return np.subtract(a, b)

    def mul(self, a: Array, b: Array) -> Array:
        return np.multiply(a, b)

    def div(self, a: Array, b: Array) -> Array:
        return np.divide(a, b)

    def fma(self, a: Array, b: Array, c: Array) -> Array:
        if self.dtype == "float32":
            product = np.multiply(a, b, dtype=np.float64)  # exact: 24 + 24 bits fit in 53
            return _add_to_odd(product, np.asarray(c, np.float64)).astype(np.float32)
        return _fma_float64(a, b, c)

    def neg(self, x: Array) -> Array:
        return np.negative(x)

    def abs(self, x: Array) -> Array:
        return np.abs(x)

    def sqrt(self, x: Array) -> Array:
        return np.sqrt(x)

    def minimum(self, a: Array, b: Array) -> Array:
        return np.where(np.less(a, b), a, b)

    def maximum(self, a: Array, b: Array) -> Array:
        return np.where(np.greater(a, b), a, b)

    def rint(self, x: Array) -> Array:
        return np.rint(x)

    def floor(self, x: Array) -> Array:
        return np.floor(x)

    def ceil(self, x: Array) -> Array:
        return np.ceil(x)

    def trunc(self, x: Array) -> Array:
        return np.trunc(x)

    def lt(self, a: Array, b: Array) -> Array:
        return np.less(a, b)

    def le(self, a: Array, b: Array) -> Array:
        return np.less_equal(a, b)

    def gt(self, a: Array, b: Array) -> Array:
        return np.greater(a, b)

    def ge(self, a: Array, b: Array) -> Array:
        return np.greater_equal(a, b)

    def eq(self, a: Array, b: Array) -> Array:
        return np.equal(a, b)

    def ne(self, a: Array, b: Array) -> Array:
        return np.not_equal(a, b)

    def mand(self, a: Array, b: Array) -> Array:
        return np.logical_and(a, b)

    def mor(self, a: Array, b: Array) -> Array:
        return np.logical_or(a, b)

    def mxor(self, a: Array, b: Array) -> Array:
        return np.logical_xor(a, b)

    def mnot(self, a: Array) -> Array:
        return np.logical_not(a)

    def select(self, mask: Array, a: Array, b: Array) -> Array:
        return np.where(mask, a, b)

    def any_branch(
        self,
        mask: Array,
        then: Callable[[], tuple[Array, ...]],
        otherwise: Callable[[], tuple[Array, ...]],
    ) -> tuple[Array, ...]:
        return then() if np.any(mask) else otherwise()

    def iadd(self, a: Array, b: Array) -> Array:
        return np.add(a, b)

    def isub(self, a: Array, b: Array) -> Array:
        return np.subtract(a, b)

    def imul(self, a: Array, b: Array) -> Array:
        return np.multiply(a, b)

    def iand(self, a: Array, b: Array) -> Array:
        return np.bitwise_and(a, b)

    def ior(self, a: Array, b: Array) -> Array:
        return np.bitwise_or(a, b)

    def ixor(self, a: Array, b: Array) -> Array:
        return np.bitwise_xor(a, b)

    def shl(self, x: Array, n: int) -> Array:
        return np.left_shift(x, self.int_type(n))

    def shr_logical(self, x: Array, n: int) -> Array:
        unsigned = np.asarray(x).view(self._uint_type)
        return np.right_shift(unsigned, self._uint_type(n)).view(self.int_type)

    def shr_arith(self, x: Array, n: int) -> Array:
        return np.right_shift(x, self.int_type(n))

    def ilt(self, a: Array, b: Array) -> Array:
        return np.less(a, b)

    def igt(self, a: Array, b: Array) -> Array:
        return np.greater(a, b)

    def ieq(self, a: Array, b: Array) -> Array:
        return np.equal(a, b)

    def bitcast_int(self, x: Array) -> Array:
        return np.asarray(x).view(self.int_type)

    def bitcast_float(self, i: Array) -> Array:
        return np.asarray(i).view(self.float_type)

    def to_int(self, x: Array) -> Array:
        return np.asarray(x).astype(self.int_type)

    def to_float(self, i: Array) -> Array:
        return np.asarray(i).astype(self.float_type)

    def gather_table(self, table: Sequence[float], index: Array) -> Array:
        return np.asarray(table, self.float_type)[index]

    def scale(self, x: Array, n: Array) -> Array:
        # Beyond 5000 every finite float is zero or infinite; the clip keeps the cast to int32
        # defined.
        return np.ldexp(x, np.clip(np.nan_to_num(n), -5000.0, 5000.0).astype(np.int32))

    def copysign(self, magnitude: Array, sign: Array) -> Array:
        return np.copysign(magnitude, sign)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """s + t == a + b exactly, s the rounded sum (Knuth 1969, TAOCP 2, 4.2.2)."""
    s = a + b
    shadow = s - a
    return s, (a - (s - shadow)) + (b - shadow)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """p + t == a * b exactly barring overflow and underflow (Dekker 1971)."""
    splitter = 134217729.0  # 2**27 + 1
    p = a * b
    wide_a, wide_b = a * splitter, b * splitter
    a_high = wide_a - (wide_a - a)
    b_high = wide_b - (wide_b - b)
    a_low, b_low = a - a_high, b - b_high
    t = ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low
    return p, t


def _add_to_odd(a: Array, b: Array) -> Array:
    """The float64 sum of a and b rounded to odd, so that a second rounding does no harm.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using
    rounding to odd", IEEE Trans. Comp. 57 (2008).
    """
    s, t = _two_sum(a, b)
    s = np.asarray(s)
    bits = s.view(np.int64)
    inexact_even = (t != 0) & np.isfinite(t) & np.isfinite(s) & ((bits & 1) == 0)
    away = np.where((t > 0) == (s > 0), 1, -1)
    return np.where(inexact_even, bits + away, bits).view(np.float64)


def _fma_float64(a: Array, b: Array, c: Array) -> Array:
    a, b, c = np.broadcast_arrays(a, b, c)
    mantissa_a, exponent_a = np.frexp(a)
    mantissa_b, exponent_b = np.frexp(b)
    exponent = exponent_a + exponent_b
    aligned = np.ldexp(c, -exponent)
    product_high, product_low = _two_product(mantissa_a, mantissa_b)
    t_high, t_low = _two_sum(aligned, product_low)
    v_high, v_low = _two_sum(product_high, t_high)
    exact = np.ldexp(v_high + _add_to_odd(t_low, v_low), exponent)
    plain = a * b + c
    # An addend 2**900 times larger or smaller than the product leaves nothing to correct, and
    # zeros, infinities and NaN are the plain operation's.
    ordinary = np.isfinite(plain) & (mantissa_a * mantissa_b != 0) & (np.abs(aligned) < 2.0**900)
    return np.where(ordinary & np.isfinite(exact), exact, plain)
