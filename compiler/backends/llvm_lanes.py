"""The lane protocol over LLVM vectors, and math functions emitted once per module."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from ..loops.lanes import FORMATS, Lanes
from ..loops.math import FUNCTIONS

Value = Any


@dataclass(frozen=True)
class LaneFeatures:
    """The instructions that change which lane code is emitted. Wrong flags cost speed or fail to
    select.

    `fma`: fused multiply-add. `round`: vector rounding (SSE4.1, NEON). `avx2`: 256-bit permutes.
    `avx512`: AVX-512 F, DQ and VL.
    """

    fma: bool = False
    round: bool = False
    avx2: bool = False
    avx512: bool = False

    @classmethod
    def parse(cls, features: str, triple: str = "x86_64") -> LaneFeatures:
        """Read an LLVM feature string such as "+avx2,+fma,-avx512f"; AArch64 has fma and
        rounding always.
        """
        if triple.startswith(("aarch64", "arm64")):
            return cls(fma=True, round=True)
        state: dict[str, bool] = {}
        for item in features.split(","):
            if item[:1] in "+-" and item:
                state[item[1:]] = item[0] == "+"
        has = state.get
        return cls(
            fma=bool(has("fma")),
            round=bool(has("sse4.1") or has("avx")),
            avx2=bool(has("avx2")),
            avx512=bool(has("avx512f") and has("avx512dq") and has("avx512vl")),
        )


def emit_math_function(
    module: ir.Module,
    name: str,
    dtype: str,
    lanes: int,
    features: LaneFeatures = LaneFeatures(),
) -> ir.Function:
    """The function `name` over `lanes` lanes of `dtype`, emitted into the module on first request.

    Parameters
    ----------
    module
        Must be compiled for one target; the first request's `features` stay.
    name
        A key of `FUNCTIONS`.
    lanes
        Vector width in elements; 1 gives a scalar function.

    Returns
    -------
    ir.Function
        `T (T, ...)` with T the vector type, internal, pure; its symbol is like `cr.exp.f32x16`.

    Raises
    ------
    KeyError
        The function is not in the table.
    """
    entry = FUNCTIONS[name]
    symbol = f"cr.{name}.f{FORMATS[dtype].bits}x{lanes}"
    if symbol in module.globals:
        return module.globals[symbol]
    value_type = _vector_of(_FLOAT_TYPES[dtype], lanes)
    function = ir.Function(module, ir.FunctionType(value_type, [value_type] * entry.arity), symbol)
    function.linkage = "internal"
    for attribute in ("alwaysinline", "nounwind", "readnone", "norecurse"):
        function.attributes.add(attribute)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    machine = LlvmLanes(builder, dtype, lanes, features)
    builder.ret(entry.body(machine, *function.args))
    return function


_FLOAT_TYPES = {"float32": ir.FloatType(), "float64": ir.DoubleType()}


class _TextConstant(ir.Constant):
    """A constant given as LLVM text: `splat (...)` prints and parses 16 lanes as fast as one."""

    def __init__(self, kind: ir.Type, text: str) -> None:
        self.type = kind
        self.constant = text

    def _get_reference(self) -> str:
        return self.constant


def _vector_of(element: ir.Type, lanes: int) -> ir.Type:
    return element if lanes == 1 else ir.VectorType(element, lanes)


class LlvmLanes(Lanes):
    """`lanes` lanes of `dtype` as LLVM vectors (scalars for one lane), emitted at the builder's
    position.

    `any_branch` ends the current block and leaves the builder in a new one.
    """

    def __init__(
        self,
        builder: ir.IRBuilder,
        dtype: str,
        lanes: int,
        features: LaneFeatures = LaneFeatures(),
    ) -> None:
        self.dtype = dtype
        self.lanes = lanes
        self.builder = builder
        self.features = features
        self.has_fma = features.fma
        self._format = FORMATS[dtype]
        self._float = _FLOAT_TYPES[dtype]
        self._int = ir.IntType(self._format.bits)
        self.float_type = _vector_of(self._float, lanes)
        self.int_type = _vector_of(self._int, lanes)
        self.mask_type = _vector_of(ir.IntType(1), lanes)
        letter = f"f{self._format.bits}"
        self._suffix = letter if lanes == 1 else f"v{lanes}{letter}"

    # Constants

    def _splat(self, vector: ir.Type, element: ir.Type, text: str) -> Value:
        if self.lanes == 1:
            return _TextConstant(element, text)
        return _TextConstant(vector, f"splat ({element} {text})")

    def const(self, value: float) -> Value:
        rounded = value if self.dtype == "float64" else _round_to_float32(value)
        (bits,) = struct.unpack("<Q", struct.pack("<d", rounded))
        return self._splat(self.float_type, self._float, f"0x{bits:016X}")

    def iconst(self, value: int) -> Value:
        return self._splat(self.int_type, self._int, str(value))

    # Float arithmetic

    def add(self, a: Value, b: Value) -> Value:
        return self.builder.fadd(a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self.builder.fsub(a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self.builder.fmul(a, b)

    def div(self, a: Value, b: Value) -> Value:
        return self.builder.fdiv(a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        if self.has_fma:
            return self._float_intrinsic("fma", a, b, c)
        return self.builder.fadd(self.builder.fmul(a, b), c)

    def neg(self, x: Value) -> Value:
        return self.builder.fneg(x)

    def abs(self, x: Value) -> Value:
        return self._float_intrinsic("fabs", x)

    def copysign(self, magnitude: Value, sign: Value) -> Value:
        return self._float_intrinsic("copysign", magnitude, sign)

    def sqrt(self, x: Value) -> Value:
        return self._float_intrinsic("sqrt", x)

    def minimum(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.lt(a, b), a, b)

    def maximum(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.gt(a, b), a, b)

    def rint(self, x: Value) -> Value:
        if self.features.round:
            return self._float_intrinsic("rint", x)
        # Adding 2**mantissa_bits leaves no room for a fraction; larger numbers have none to begin
        # with.
        magic = self.const(2.0**self._format.mantissa_bits)
        size = self.abs(x)
        rounded = self.copysign(self.sub(self.add(size, magic), magic), x)
        return self.select(self.lt(size, magic), rounded, x)

    def floor(self, x: Value) -> Value:
        if self.features.round:
            return self._float_intrinsic("floor", x)
        near = self.rint(x)
        lowered = self.sub(near, self.const(1.0))
        return self.copysign(self.select(self.gt(near, x), lowered, near), x)

    def ceil(self, x: Value) -> Value:
        if self.features.round:
            return self._float_intrinsic("ceil", x)
        return self.neg(self.floor(self.neg(x)))

    def trunc(self, x: Value) -> Value:
        if self.features.round:
            return self._float_intrinsic("trunc", x)
        return self.copysign(self.floor(self.abs(x)), x)

    # Comparisons, masks

    def lt(self, a: Value, b: Value) -> Value:
        return self.builder.fcmp_ordered("<", a, b)

    def le(self, a: Value, b: Value) -> Value:
        return self.builder.fcmp_ordered("<=", a, b)

    def gt(self, a: Value, b: Value) -> Value:
        return self.builder.fcmp_ordered(">", a, b)

    def ge(self, a: Value, b: Value) -> Value:
        return self.builder.fcmp_ordered(">=", a, b)

    def eq(self, a: Value, b: Value) -> Value:
        return self.builder.fcmp_ordered("==", a, b)

    def ne(self, a: Value, b: Value) -> Value:
        return self.builder.fcmp_unordered("!=", a, b)

    def mand(self, a: Value, b: Value) -> Value:
        return self.builder.and_(a, b)

    def mor(self, a: Value, b: Value) -> Value:
        return self.builder.or_(a, b)

    def mxor(self, a: Value, b: Value) -> Value:
        return self.builder.xor(a, b)

    def mnot(self, a: Value) -> Value:
        return self.builder.xor(a, self._splat(self.mask_type, ir.IntType(1), "true"))

    def select(self, mask: Value, a: Value, b: Value) -> Value:
        return self.builder.select(mask, a, b)

    def any_branch(
        self,
        mask: Value,
        then: Callable[[], tuple[Value, ...]],
        otherwise: Callable[[], tuple[Value, ...]],
    ) -> tuple[Value, ...]:
        builder = self.builder
        if self.lanes == 1:
            any_lane = mask
        else:
            packed_type = ir.IntType(self.lanes)
            packed = builder.bitcast(mask, packed_type)
            any_lane = builder.icmp_unsigned("!=", packed, ir.Constant(packed_type, 0))
        rare = builder.append_basic_block("rare")
        usual = builder.append_basic_block("usual")
        joined = builder.append_basic_block("joined")
        builder.cbranch(any_lane, rare, usual).set_weights([1, 1000])
        arrivals = []
        for block, produce in ((rare, then), (usual, otherwise)):
            builder.position_at_end(block)
            values = produce()
            arrivals.append((values, builder.block))
            builder.branch(joined)
        builder.position_at_end(joined)
        merged = []
        for position in range(len(arrivals[0][0])):
            phi = builder.phi(self.float_type)
            for values, block in arrivals:
                phi.add_incoming(values[position], block)
            merged.append(phi)
        return tuple(merged)

    # Integer lanes

    def iadd(self, a: Value, b: Value) -> Value:
        return self.builder.add(a, b)

    def isub(self, a: Value, b: Value) -> Value:
        return self.builder.sub(a, b)

    def imul(self, a: Value, b: Value) -> Value:
        return self.builder.mul(a, b)

    def iand(self, a: Value, b: Value) -> Value:
        return self.builder.and_(a, b)

    def ior(self, a: Value, b: Value) -> Value:
        return self.builder.or_(a, b)

    def ixor(self, a: Value, b: Value) -> Value:
        return self.builder.xor(a, b)

    def shl(self, x: Value, n: int) -> Value:
        return self.builder.shl(x, self.iconst(n))

    def shr_logical(self, x: Value, n: int) -> Value:
        return self.builder.lshr(x, self.iconst(n))

    def shr_arith(self, x: Value, n: int) -> Value:
        return self.builder.ashr(x, self.iconst(n))

    def ilt(self, a: Value, b: Value) -> Value:
        return self.builder.icmp_signed("<", a, b)

    def igt(self, a: Value, b: Value) -> Value:
        return self.builder.icmp_signed(">", a, b)

    def ieq(self, a: Value, b: Value) -> Value:
        return self.builder.icmp_signed("==", a, b)

    # Between floats and integers

    def bitcast_int(self, x: Value) -> Value:
        return self.builder.bitcast(x, self.int_type)

    def bitcast_float(self, i: Value) -> Value:
        return self.builder.bitcast(i, self.float_type)

    def to_int(self, x: Value) -> Value:
        if self.dtype == "float64" and self.lanes > 1 and not self.features.avx512:
            # No packed double to int64 before AVX-512: the sum's low bits are the integer.
            magic = 1.5 * 2.0**52
            shifted = self.bitcast_int(self.add(x, self.const(magic)))
            return self.isub(shifted, self.iconst(_bits_of_double(magic)))
        # Out of range is poison in LLVM; frozen, it is merely some integer.
        builder = self.builder
        converted = builder.fptosi(x, self.int_type)
        frozen = ir.Instruction(builder.block, self.int_type, "freeze", (converted,))
        builder._insert(frozen)  # llvmlite has no freeze of its own
        return frozen

    def to_float(self, i: Value) -> Value:
        if self.dtype == "float64" and self.lanes > 1 and not self.features.avx512:
            magic = 1.5 * 2.0**52
            shifted = self.iadd(i, self.iconst(_bits_of_double(magic)))
            return self.sub(self.bitcast_float(shifted), self.const(magic))
        return self.builder.sitofp(i, self.float_type)

    def gather_table(self, table: Sequence[float], index: Value) -> Value:
        permuted = self._permute_table(table, index)
        if permuted is not None:
            return permuted
        array = self._table_global(table)
        i32 = ir.IntType(32)
        if self.lanes == 1:
            return self._load_element(array, index)
        result = ir.Constant(self.float_type, ir.Undefined)
        for lane in range(self.lanes):
            position = ir.Constant(i32, lane)
            element = self._load_element(array, self.builder.extract_element(index, position))
            result = self.builder.insert_element(result, element, position)
        return result

    # AVX-512 has 2**n scaling and mantissa/exponent splitting in hardware, specials included.

    def scale(self, x: Value, n: Value) -> Value:
        if not self._has_avx512_form():
            return super().scale(x, n)
        return self._avx512_masked("scalef", (x, n))

    def split(self, x: Value) -> tuple[Value, Value]:
        if not self._has_avx512_form():
            return super().split(x)
        # Interval [0.75, 1.5), NaN for negative numbers.
        m = self._avx512_masked("getmant", (x, ir.Constant(ir.IntType(32), 0b1011)))
        e = self.sub(self._avx512_masked("getexp", (x,)), self._avx512_masked("getexp", (m,)))
        return m, e

    def _register_bits(self) -> int:
        return self.lanes * self._format.bits

    def _has_avx512_form(self) -> bool:
        return self.features.avx512 and self._register_bits() in (128, 256, 512)

    def _avx512_masked(self, operation: str, operands: tuple[Value, ...]) -> Value:
        bits = self._register_bits()
        kind = "ps" if self.dtype == "float32" else "pd"
        mask_type = ir.IntType(max(self.lanes, 8))
        arguments = [*operands, ir.Constant(self.float_type, ir.Undefined)]
        arguments.append(ir.Constant(mask_type, (1 << mask_type.width) - 1))
        if bits == 512:
            arguments.append(ir.Constant(ir.IntType(32), 4))  # the current rounding mode
        name = f"llvm.x86.avx512.mask.{operation}.{kind}.{bits}"
        return self._call(name, self.float_type, arguments)

    def _permute_table(self, table: Sequence[float], index: Value) -> Value | None:
        """The table held in one or two registers, or None if it does not fit this machine."""
        kind = "sf" if self.dtype == "float32" else "df"
        packed = "ps" if self.dtype == "float32" else "pd"
        size, lanes = len(table), self.lanes
        if self.features.avx512 and self._register_bits() == 512 and size <= 2 * lanes:
            if size <= lanes:
                name = f"llvm.x86.avx512.permvar.{kind}.512"
                return self._call(name, self.float_type, [self._vector(table), index])
            low, high = self._vector(table[:lanes]), self._vector(table[lanes:])
            name = f"llvm.x86.avx512.vpermi2var.{packed}.512"
            return self._call(name, self.float_type, [low, index, high])
        if self.features.avx2 and self.dtype == "float32" and lanes == 8 and size <= 16:
            name = "llvm.x86.avx2.permps"
            low = self._call(name, self.float_type, [self._vector(table[:8]), index])
            if size <= 8:
                return low
            high = self._call(name, self.float_type, [self._vector(table[8:]), index])
            return self.select(self.igt(index, self.iconst(7)), high, low)
        return None

    def _vector(self, table: Sequence[float]) -> Value:
        padded = [*table, *([0.0] * (self.lanes - len(table)))]
        return ir.Constant(self.float_type, [self._element(value) for value in padded])

    def _element(self, value: float) -> Value:
        return ir.Constant(self._float, value)

    def _table_global(self, table: Sequence[float]) -> ir.GlobalVariable:
        module = self.builder.module
        kind = ir.ArrayType(self._float, len(table))
        name = f"cr.table.{_hash_table(table, self.dtype)}"
        if name in module.globals:
            return module.globals[name]
        variable = ir.GlobalVariable(module, kind, name)
        variable.linkage = "internal"
        variable.global_constant = True
        variable.initializer = ir.Constant(kind, [self._element(value) for value in table])
        return variable

    def _load_element(self, array: ir.GlobalVariable, index: Value) -> Value:
        zero = ir.Constant(index.type, 0)
        return self.builder.load(self.builder.gep(array, [zero, index], inbounds=True))

    # Intrinsics

    def _float_intrinsic(self, name: str, *arguments: Value) -> Value:
        return self._call(f"llvm.{name}.{self._suffix}", self.float_type, list(arguments))

    def _call(self, name: str, result: ir.Type, arguments: list[Value]) -> Value:
        module = self.builder.module
        if name in module.globals:
            function = module.globals[name]
        else:
            kind = ir.FunctionType(result, [argument.type for argument in arguments])
            function = ir.Function(module, kind, name)
        return self.builder.call(function, arguments)


def _hash_table(table: Sequence[float], dtype: str) -> str:
    """A short name for a table's contents, the same in every process."""
    packed = struct.pack(f"<{len(table)}d", *table)
    return f"{dtype}.{hashlib.blake2b(packed, digest_size=8).hexdigest()}"


def _round_to_float32(value: float) -> float:
    if value != value or abs(value) == float("inf"):
        return value
    return struct.unpack("<f", struct.pack("<f", value))[0]


def _bits_of_double(value: float) -> int:
    return struct.unpack("<q", struct.pack("<d", value))[0]
