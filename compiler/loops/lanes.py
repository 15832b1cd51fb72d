"""The lane protocol: what a piece of branch-free numeric code may ask of a vector machine.

Code written against `Lanes` (see `math.py`) runs unchanged over NumPy arrays, over LLVM vectors of
any width, and over scalars. A lane value is one of three kinds, all of the same length: *float*
lanes of `dtype`, *integer* lanes of the same bit width (two's complement, wrapping), and *masks* of
booleans.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Value = Any
"""A lane value; its concrete type belongs to the implementation."""


@dataclass(frozen=True)
class FloatFormat:
    """The IEEE 754 binary format behind a float dtype name."""

    bits: int
    mantissa_bits: int
    exponent_bias: int
    max_finite: float
    min_normal: float

    @property
    def sign_mask(self) -> int:
        """The bit pattern of -0.0, as a signed integer of the same width."""
        return -(1 << (self.bits - 1))


FORMATS = {
    "float32": FloatFormat(32, 23, 127, 3.4028234663852886e38, 2.0**-126),
    "float64": FloatFormat(64, 52, 1023, 1.7976931348623157e308, 2.0**-1022),
}


class Lanes(Protocol):
    """A machine with vector lanes of one float dtype.

    The abstract methods are the machine; the methods with bodies are defined through them, and an
    implementation overrides one where its hardware has an instruction for it.
    """

    dtype: str
    """ "float32" or "float64"."""

    has_fma: bool
    """Whether `fma` rounds once. Without it `fma` is a multiply and an add."""

    # Constants -----------------------------------------------------------------------------------

    @abstractmethod
    def const(self, value: float) -> Value:
        """All float lanes equal to `value`, rounded to `dtype`."""

    @abstractmethod
    def iconst(self, value: int) -> Value:
        """All integer lanes equal to `value`."""

    # Float arithmetic, correctly rounded ---------------------------------------------------------

    @abstractmethod
    def add(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def sub(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def mul(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def div(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once when `has_fma`."""

    @abstractmethod
    def neg(self, x: Value) -> Value:
        """x with its sign bit flipped, NaN and zero included."""

    @abstractmethod
    def abs(self, x: Value) -> Value:
        """x with its sign bit cleared."""

    @abstractmethod
    def sqrt(self, x: Value) -> Value: ...

    @abstractmethod
    def minimum(self, a: Value, b: Value) -> Value:
        """a < b ? a : b. So a NaN in `b` passes, a NaN in `a` gives `b`, and of two zeros `b`
        wins.
        """

    @abstractmethod
    def maximum(self, a: Value, b: Value) -> Value:
        """a > b ? a : b, with the same NaN and zero rule as `minimum`."""

    @abstractmethod
    def rint(self, x: Value) -> Value:
        """The nearest integer, ties to even."""

    @abstractmethod
    def floor(self, x: Value) -> Value: ...

    @abstractmethod
    def ceil(self, x: Value) -> Value: ...

    @abstractmethod
    def trunc(self, x: Value) -> Value: ...

    # Comparisons: float lanes to mask; ordered (false on NaN) except `ne` ------------------------

    @abstractmethod
    def lt(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def le(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def gt(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def ge(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def eq(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def ne(self, a: Value, b: Value) -> Value:
        """Not equal, true where either is NaN; `ne(x, x)` finds the NaNs."""

    # Masks ---------------------------------------------------------------------------------------

    @abstractmethod
    def mand(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def mor(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def mxor(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def mnot(self, a: Value) -> Value: ...

    @abstractmethod
    def select(self, mask: Value, a: Value, b: Value) -> Value:
        """`a` where the mask holds, else `b`; float or integer lanes."""

    @abstractmethod
    def any_branch(
        self,
        mask: Value,
        then: Callable[[], tuple[Value, ...]],
        otherwise: Callable[[], tuple[Value, ...]],
    ) -> tuple[Value, ...]:
        """`then()` if any lane of the mask holds, else `otherwise()`: tuples of float lanes.

        For results that do not depend on which lanes sit together, `then` must itself select per
        lane. The mask is expected to be rarely true.
        """

    # Integer lanes -------------------------------------------------------------------------------

    @abstractmethod
    def iadd(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def isub(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def imul(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def iand(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def ior(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def ixor(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def shl(self, x: Value, n: int) -> Value: ...

    @abstractmethod
    def shr_logical(self, x: Value, n: int) -> Value: ...

    @abstractmethod
    def shr_arith(self, x: Value, n: int) -> Value: ...

    @abstractmethod
    def ilt(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def igt(self, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def ieq(self, a: Value, b: Value) -> Value: ...

    # Between floats and integers -----------------------------------------------------------------

    @abstractmethod
    def bitcast_int(self, x: Value) -> Value: ...

    @abstractmethod
    def bitcast_float(self, i: Value) -> Value: ...

    @abstractmethod
    def to_int(self, x: Value) -> Value:
        """An integral float below 2**31 (2**51 for float64) in magnitude; any other gives any
        integer.
        """

    @abstractmethod
    def to_float(self, i: Value) -> Value:
        """An integer below 2**31 (2**51 for float64) in magnitude."""

    @abstractmethod
    def gather_table(self, table: Sequence[float], index: Value) -> Value:
        """`table[index]` as float lanes; every index must lie inside the table, NaN lanes
        included.
        """

    # Defined through the above -------------------------------------------------------------------

    def copysign(self, magnitude: Value, sign: Value) -> Value:
        """`magnitude` (taken absolute) with the sign bit of `sign`."""
        bit = self.iconst(FORMATS[self.dtype].sign_mask)
        kept = self.bitcast_int(self.abs(magnitude))
        return self.bitcast_float(self.ior(kept, self.iand(self.bitcast_int(sign), bit)))

    def scale(self, x: Value, n: Value) -> Value:
        """x * 2**n for integral float lanes `n`, rounded once.

        Requires 2**-40 <= |x| <= 2**40 (or x zero) and |n| <= 250 (2040 for float64), which is what
        the end of an exponential needs; two half-sized powers reach subnormals and overflow.
        """
        form = FORMATS[self.dtype]
        whole = self.to_int(n)
        half = self.shr_arith(whole, 1)
        rest = self.isub(whole, half)
        bias = self.iconst(form.exponent_bias)
        first = self.bitcast_float(self.shl(self.iadd(half, bias), form.mantissa_bits))
        second = self.bitcast_float(self.shl(self.iadd(rest, bias), form.mantissa_bits))
        return self.mul(self.mul(x, first), second)

    def split(self, x: Value) -> tuple[Value, Value]:
        """(m, e) with x = m * 2**e, m in [0.75, 1.5), e integral float lanes; subnormals included.

        Specials are chosen so that log(m) + e*log(2) comes out right without more tests:
        zero gives e = -inf with m = ±1, +inf gives (1, inf), negative and NaN give m = NaN.
        """
        form = FORMATS[self.dtype]
        lift = form.mantissa_bits + 2
        small = self.lt(x, self.const(form.min_normal))
        lifted = self.select(small, self.mul(x, self.const(2.0**lift)), x)
        bits = self.bitcast_int(lifted)
        low = (form.exponent_bias << form.mantissa_bits) - (1 << (form.mantissa_bits - 1))
        whole = self.shr_arith(self.isub(bits, self.iconst(low)), form.mantissa_bits)
        m = self.bitcast_float(self.isub(bits, self.shl(whole, form.mantissa_bits)))
        e = self.sub(self.to_float(whole), self.select(small, self.const(lift), self.const(0.0)))
        infinity, zero, one = self.const(float("inf")), self.const(0.0), self.const(1.0)
        regular = self.mand(self.gt(x, zero), self.lt(x, infinity))
        m_special = self.select(self.ge(x, zero), one, self.const(float("nan")))
        e_special = self.select(self.eq(x, zero), self.const(float("-inf")), x)
        return self.select(regular, m, m_special), self.select(regular, e, e_special)
