"""Elementary functions and conversions as LLVM instructions, over vectors or scalars.

Transcendental functions come from ``loops/math.py`` as one internal function each; what is a few
instructions is written here, in tables keyed by the class of the element type.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ..ir.types import FLOATS
from ..loops.math import FUNCTIONS
from .llvm_lanes import LaneFeatures, LlvmLanes, emit_math_function

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)

REGISTER_TYPES: dict[str, ir.Type] = {
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
    "int32": I32,
    "int64": I64,
    "uint32": I32,
    "bool": I1,
}
MEMORY_TYPES = {**REGISTER_TYPES, "bool": I8}

_PHILOX_MULTIPLIER = 0xD256D193
_PHILOX_WEYL = 0x9E3779B9
_PHILOX_ROUNDS = 10


def vector_of(element: ir.Type, lanes: int) -> ir.Type:
    """Return the type of ``lanes`` elements: the element itself for one lane."""
    return element if lanes == 1 else ir.VectorType(element, lanes)


class Elementwise:
    """Emits elementary functions over ``lanes`` lanes at the builder's position."""

    def __init__(self, builder: ir.IRBuilder, lanes: int, features: LaneFeatures) -> None:
        self.builder = builder
        self.lanes = lanes
        self.features = features

    def type_of(self, dtype: str) -> ir.Type:
        return vector_of(REGISTER_TYPES[dtype], self.lanes)

    def constant(self, value: float | int | bool, dtype: str) -> ir.Value:
        if dtype in FLOATS:
            return LlvmLanes(self.builder, dtype, self.lanes, self.features).const(float(value))
        element = REGISTER_TYPES[dtype]
        number = int(value)
        if dtype == "uint32" and number >= 1 << 31:
            number -= 1 << 32
        return self.splat(ir.Constant(element, number))

    def splat(self, scalar: ir.Value) -> ir.Value:
        if self.lanes == 1:
            return scalar
        vector = ir.VectorType(scalar.type, self.lanes)
        if isinstance(scalar, ir.Constant):
            return ir.Constant(vector, [scalar] * self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def lane_numbers(self) -> ir.Value:
        if self.lanes == 1:
            return I64(0)
        return ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))

    def apply(self, function: str, dtype: str, args: list[ir.Value]) -> ir.Value:
        """Emit ``function``; ``dtype`` is the element type of its (last) arguments."""
        if function == "where":
            return self.builder.select(*args)
        if function == "stop_gradient":
            return args[0]
        if dtype in FLOATS:
            lanes = LlvmLanes(self.builder, dtype, self.lanes, self.features)
            simple = _FLOAT.get(function)
            if simple is not None:
                return simple(lanes, *args)
            if function not in FUNCTIONS:
                raise NotImplementedError(f"{function} has no machine code for {dtype}")
            callee = emit_math_function(
                self.builder.module, function, dtype, self.lanes, self.features
            )
            return self.builder.call(callee, args)
        if dtype == "bool":
            return _BOOL[function](self, *args)
        return _INTEGER[function](self, dtype, *args)

    def convert(self, value: ir.Value, source: str, target: str) -> ir.Value:
        if source == target:
            return value
        b, kind = self.builder, self.type_of(target)
        if target == "bool":
            zero = self.constant(0, source)
            if source in FLOATS:
                return b.fcmp_unordered("!=", value, zero)
            return b.icmp_signed("!=", value, zero)
        if source in FLOATS:
            if target in FLOATS:
                return b.fpext(value, kind) if target == "float64" else b.fptrunc(value, kind)
            return self._saturating(value, source, target)
        if target in FLOATS:
            unsigned = source in {"bool", "uint32"}
            return b.uitofp(value, kind) if unsigned else b.sitofp(value, kind)
        width = {"bool": 1, "int32": 32, "uint32": 32, "int64": 64}
        if width[target] < width[source]:
            return b.trunc(value, kind)
        if width[target] == width[source]:
            return value
        return b.zext(value, kind) if source in {"bool", "uint32"} else b.sext(value, kind)

    def _saturating(self, value: ir.Value, source: str, target: str) -> ir.Value:
        """Float to integer without poison: out of range gives the nearest bound, NaN gives 0."""
        kind = self.type_of(target)
        letter = "u" if target == "uint32" else "s"
        name = f"llvm.fpto{letter}i.sat.{self._suffix(target)}.{self._suffix(source)}"
        function = self.builder.module.globals.get(name) or ir.Function(
            self.builder.module, ir.FunctionType(kind, [value.type]), name
        )
        return self.builder.call(function, [value])

    def _suffix(self, dtype: str) -> str:
        short = {
            "float32": "f32",
            "float64": "f64",
            "int32": "i32",
            "uint32": "i32",
            "int64": "i64",
        }[dtype]
        return short if self.lanes == 1 else f"v{self.lanes}{short}"

    def philox(self, word: int, stream: int, element: ir.Value, state: ir.Value) -> ir.Value:
        """Emit Philox 2x32-10 over int64 element numbers; see `ir.ops.RandomBits`."""
        b = self.builder
        narrow, wide = self.type_of("int32"), self.type_of("int64")
        thirty_two = self.constant(32, "int64")
        left = b.trunc(element, narrow)
        right = b.trunc(state, narrow)
        seed = b.trunc(b.lshr(state, thirty_two), narrow)
        start = (stream * _PHILOX_WEYL) & 0xFFFFFFFF
        key = b.xor(seed, self.constant(start, "uint32"))
        multiplier = self.splat(I64(_PHILOX_MULTIPLIER))
        weyl = self.constant(_PHILOX_WEYL, "uint32")
        for number in range(_PHILOX_ROUNDS):
            product = b.mul(b.zext(left, wide), multiplier)
            high = b.trunc(b.lshr(product, thirty_two), narrow)
            left, right = b.xor(b.xor(high, key), right), b.trunc(product, narrow)
            if number < _PHILOX_ROUNDS - 1:
                key = b.add(key, weyl)
        return (left, right)[word]


def _nan_or(lanes: LlvmLanes, better: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """``a`` where it is better or NaN, else ``b``: NaN passes from either side."""
    return lanes.select(lanes.mor(better, lanes.ne(a, a)), a, b)


def _float_mod(m: LlvmLanes, a: ir.Value, b: ir.Value) -> ir.Value:
    """Remainder with the sign of the divisor, as Python and NumPy have it."""
    zero = m.const(0.0)
    r = m.builder.frem(a, b)
    wrong_sign = m.mand(m.ne(r, zero), m.mxor(m.lt(r, zero), m.lt(b, zero)))
    adjusted = m.select(wrong_sign, m.add(r, b), r)
    return m.select(m.eq(r, zero), m.copysign(zero, b), adjusted)


def _float_floordiv(m: LlvmLanes, a: ir.Value, b: ir.Value) -> ir.Value:
    """Quotient rounded down, made from the remainder so that it is exact (as NumPy has it)."""
    zero, one = m.const(0.0), m.const(1.0)
    r = m.builder.frem(a, b)
    quotient = m.div(m.sub(a, r), b)
    wrong_sign = m.mand(m.ne(r, zero), m.mxor(m.lt(r, zero), m.lt(b, zero)))
    quotient = m.select(wrong_sign, m.sub(quotient, one), quotient)
    rounded = m.floor(quotient)
    far = m.gt(m.sub(quotient, rounded), m.const(0.5))
    nearest = m.select(far, m.add(rounded, one), rounded)
    whole = m.select(m.eq(quotient, zero), m.copysign(zero, m.div(a, b)), nearest)
    return m.select(m.eq(b, zero), m.div(a, b), whole)


def _is_infinite(m: LlvmLanes, x: ir.Value) -> ir.Value:
    return m.eq(m.abs(x), m.const(float("inf")))


def _float_sign(m: LlvmLanes, x: ir.Value) -> ir.Value:
    zero = m.const(0.0)
    negative = m.select(m.lt(x, zero), m.const(-1.0), x)
    return m.select(m.gt(x, zero), m.const(1.0), negative)


_FLOAT: dict[str, Callable[..., ir.Value]] = {
    "neg": LlvmLanes.neg,
    "abs": LlvmLanes.abs,
    "sign": _float_sign,
    "square": lambda m, x: m.mul(x, x),
    # 0 > x ? 0 : x is one instruction and lets NaN through
    "relu": lambda m, x: m.select(m.lt(x, m.const(0.0)), m.const(0.0), x),
    "add": LlvmLanes.add,
    "sub": LlvmLanes.sub,
    "mul": LlvmLanes.mul,
    "div": LlvmLanes.div,
    "minimum": lambda m, a, b: _nan_or(m, m.lt(a, b), a, b),
    "maximum": lambda m, a, b: _nan_or(m, m.gt(a, b), a, b),
    "mod": _float_mod,
    "floordiv": _float_floordiv,
    "reciprocal": lambda m, x: m.div(m.const(1.0), x),
    "sqrt": LlvmLanes.sqrt,
    "floor": LlvmLanes.floor,
    "ceil": LlvmLanes.ceil,
    "trunc": LlvmLanes.trunc,
    "rint": LlvmLanes.rint,
    "copysign": LlvmLanes.copysign,
    "lt": LlvmLanes.lt,
    "le": LlvmLanes.le,
    "gt": LlvmLanes.gt,
    "ge": LlvmLanes.ge,
    "eq": LlvmLanes.eq,
    "ne": LlvmLanes.ne,
    "isnan": lambda m, x: m.ne(x, x),
    "isinf": _is_infinite,
    "isfinite": lambda m, x: m.lt(m.abs(x), m.const(float("inf"))),
}


def _compare(symbol: str) -> Callable[..., ir.Value]:
    def emit(e: Elementwise, dtype: str, a: ir.Value, b: ir.Value) -> ir.Value:
        if dtype == "uint32":
            return e.builder.icmp_unsigned(symbol, a, b)
        return e.builder.icmp_signed(symbol, a, b)

    return emit


def _integer_sign(e: Elementwise, dtype: str, x: ir.Value) -> ir.Value:
    zero, one = e.constant(0, dtype), e.constant(1, dtype)
    positive = e.builder.select(_compare(">")(e, dtype, x, zero), one, zero)
    return e.builder.select(_compare("<")(e, dtype, x, zero), e.constant(-1, dtype), positive)


def _safe_divisor(e: Elementwise, dtype: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """A divisor that neither traps nor overflows; division by zero is zero, as in NumPy."""
    one = e.constant(1, dtype)
    bad = e.builder.icmp_signed("==", b, e.constant(0, dtype))
    if dtype != "uint32":
        lowest = e.constant(-(1 << (63 if dtype == "int64" else 31)), dtype)
        overflow = e.builder.and_(
            e.builder.icmp_signed("==", a, lowest),
            e.builder.icmp_signed("==", b, e.constant(-1, dtype)),
        )
        bad = e.builder.or_(bad, overflow)
    return e.builder.select(bad, one, b)


def _integer_floordiv(e: Elementwise, dtype: str, a: ir.Value, b: ir.Value) -> ir.Value:
    build = e.builder
    zero = e.constant(0, dtype)
    by_zero = build.icmp_signed("==", b, zero)
    divisor = _safe_divisor(e, dtype, a, b)
    if dtype == "uint32":
        return build.select(by_zero, zero, build.udiv(a, divisor))
    quotient, rest = build.sdiv(a, divisor), build.srem(a, divisor)
    signs_differ = build.icmp_signed("<", build.xor(rest, divisor), zero)
    lower = build.and_(build.icmp_signed("!=", rest, zero), signs_differ)
    floored = build.select(lower, build.sub(quotient, e.constant(1, dtype)), quotient)
    return build.select(by_zero, zero, floored)


def _integer_mod(e: Elementwise, dtype: str, a: ir.Value, b: ir.Value) -> ir.Value:
    build = e.builder
    zero = e.constant(0, dtype)
    by_zero = build.icmp_signed("==", b, zero)
    divisor = _safe_divisor(e, dtype, a, b)
    if dtype == "uint32":
        return build.select(by_zero, zero, build.urem(a, divisor))
    rest = build.srem(a, divisor)
    signs_differ = build.icmp_signed("<", build.xor(rest, divisor), zero)
    wrong = build.and_(build.icmp_signed("!=", rest, zero), signs_differ)
    return build.select(by_zero, zero, build.select(wrong, build.add(rest, divisor), rest))


def _integer_abs(e: Elementwise, dtype: str, x: ir.Value) -> ir.Value:
    if dtype == "uint32":
        return x
    negative = e.builder.icmp_signed("<", x, e.constant(0, dtype))
    return e.builder.select(negative, e.builder.neg(x), x)


def _choose(symbol: str) -> Callable[..., ir.Value]:
    def emit(e: Elementwise, dtype: str, a: ir.Value, b: ir.Value) -> ir.Value:
        return e.builder.select(_compare(symbol)(e, dtype, a, b), a, b)

    return emit


def _shift(e: Elementwise, dtype: str, a: ir.Value, b: ir.Value, left: bool) -> ir.Value:
    """Shift; by the width or more gives what shifting every bit out gives."""
    build = e.builder
    width = 64 if dtype == "int64" else 32
    inside = build.icmp_unsigned("<", b, e.constant(width, dtype))
    safe = build.select(inside, b, e.constant(0, dtype))
    if left:
        return build.select(inside, build.shl(a, safe), e.constant(0, dtype))
    if dtype == "uint32":
        return build.select(inside, build.lshr(a, safe), e.constant(0, dtype))
    all_out = build.ashr(a, e.constant(width - 1, dtype))
    return build.select(inside, build.ashr(a, safe), all_out)


_INTEGER: dict[str, Callable[..., ir.Value]] = {
    "neg": lambda e, d, x: e.builder.neg(x),
    "abs": _integer_abs,
    "sign": _integer_sign,
    "square": lambda e, d, x: e.builder.mul(x, x),
    "relu": lambda e, d, x: _choose(">")(e, d, x, e.constant(0, d)),
    "add": lambda e, d, a, b: e.builder.add(a, b),
    "sub": lambda e, d, a, b: e.builder.sub(a, b),
    "mul": lambda e, d, a, b: e.builder.mul(a, b),
    "minimum": _choose("<"),
    "maximum": _choose(">"),
    "floordiv": _integer_floordiv,
    "mod": _integer_mod,
    "lt": _compare("<"),
    "le": _compare("<="),
    "gt": _compare(">"),
    "ge": _compare(">="),
    "eq": _compare("=="),
    "ne": _compare("!="),
    "bit_not": lambda e, d, x: e.builder.not_(x),
    "bit_and": lambda e, d, a, b: e.builder.and_(a, b),
    "bit_or": lambda e, d, a, b: e.builder.or_(a, b),
    "bit_xor": lambda e, d, a, b: e.builder.xor(a, b),
    "shift_left": lambda e, d, a, b: _shift(e, d, a, b, True),
    "shift_right": lambda e, d, a, b: _shift(e, d, a, b, False),
}

_BOOL: dict[str, Callable[..., ir.Value]] = {
    "logical_not": lambda e, x: e.builder.xor(x, e.constant(1, "bool")),
    "logical_and": lambda e, a, b: e.builder.and_(a, b),
    "logical_or": lambda e, a, b: e.builder.or_(a, b),
    "logical_xor": lambda e, a, b: e.builder.xor(a, b),
    "eq": lambda e, a, b: e.builder.xor(e.builder.xor(a, b), e.constant(1, "bool")),
    "ne": lambda e, a, b: e.builder.xor(a, b),
    "lt": lambda e, a, b: e.builder.icmp_unsigned("<", a, b),
    "le": lambda e, a, b: e.builder.icmp_unsigned("<=", a, b),
    "gt": lambda e, a, b: e.builder.icmp_unsigned(">", a, b),
    "ge": lambda e, a, b: e.builder.icmp_unsigned(">=", a, b),
}
