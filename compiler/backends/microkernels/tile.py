"""The register tile: its shape on each instruction set, and the kernel that fills one.

A kernel computes ``C[i, j] (+)= sum_k A[i, k] * B[k, j]`` for one tile whose accumulators never
leave registers: ``rows`` broadcasts of A meet ``vectors`` vector loads of B in each step of k.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from ..vector_target import ELEMENT_BYTES, VectorTarget
from .control_flow import I1, I32, I64, POINTER, IndexMath

SCALAR_TYPES = {"float32": ir.FloatType(), "float64": ir.DoubleType()}

# isa -> (rows, vectors). 14×2: no spills, 99 % of peak on AVX-512; its 28 accumulators and two
# B vectors leave two registers for broadcasts. 6×2 is the same idea with 16 registers.
_TILE_SHAPES = {"avx512": (14, 2), "avx2": (6, 2), "sse2": (6, 2), "neon": (12, 2)}

# A chip with two FMA pipes of latency four idles with fewer chains of dependent additions.
_INDEPENDENT_CHAINS = 8

_UNROLLED_BELOW = 12


@dataclass(frozen=True)
class TileSpec:
    """The shape of the largest register tile of one target and dtype.

    ``rows`` × (``vectors`` · ``lanes``) elements of C; ``panel_rows`` is ``rows`` rounded up to
    whole vectors: the distance in elements between two k-steps of a packed panel of A.
    """

    dtype: str
    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes

    @property
    def panel_rows(self) -> int:
        return -(-self.rows // self.lanes) * self.lanes

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.dtype]

    @property
    def scalar(self) -> ir.Type:
        return SCALAR_TYPES[self.dtype]

    @property
    def vector(self) -> ir.VectorType:
        return ir.VectorType(self.scalar, self.lanes)


def tile_spec(target: VectorTarget, dtype: str) -> TileSpec:
    """Return the tile shape for ``dtype`` on ``target``."""
    rows, vectors = _TILE_SHAPES[target.isa]
    return TileSpec(dtype, rows, vectors, target.lanes(dtype))


@dataclass(frozen=True, order=True)
class TileKernel:
    """Which tile kernel: its rows, its vectors, and the way it walks A.

    ``walk`` is ``"columns"`` (``a[i + k * a_stride]``: packed panels, or A stored by columns) or
    ``"rows"`` (``a[i * a_stride + k]``: A stored by rows, read in place).
    """

    rows: int
    vectors: int
    walk: str

    def name(self, target: VectorTarget, dtype: str) -> str:
        return f"chainrule_tile_{target.isa}_{dtype}_{self.walk}_{self.rows}x{self.vectors}"


# void kernel(k, a, a_stride, b, b_stride, c, c_stride, columns, ahead, ahead_stride, accumulate).
# Strides are in elements. Step k prefetches ``ahead + k * ahead_stride``.
TILE_KERNEL_TYPE = ir.FunctionType(
    ir.VoidType(), [I64, POINTER, I64, POINTER, I64, POINTER, I64, I64, POINTER, I64, I1]
)


def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """Return a vector with ``scalar`` in every lane."""
    vector = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, lanes), None)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def prefix_mask(builder: ir.IRBuilder, count: ir.Value, lanes: int) -> ir.Value:
    """Return the mask ``lane < count`` for any i64 ``count``.

    Made from bits, not by comparing vectors: LLVM then keeps it in a mask register.
    """
    math = IndexMath(builder)
    capped = math.value(math.minimum(math.maximum(count, 0), lanes))
    bits = builder.lshr(I64((1 << lanes) - 1), builder.sub(I64(lanes), capped))
    return builder.bitcast(builder.trunc(bits, ir.IntType(lanes)), ir.VectorType(I1, lanes))


def masked_load(
    builder: ir.IRBuilder,
    pointer: ir.Value,
    vector: ir.VectorType,
    mask: ir.Value,
    otherwise: ir.Value | None = None,
) -> ir.Value:
    """Load the lanes that ``mask`` names; the others are not touched: zero, or ``otherwise``."""
    function = _intrinsic(
        builder.module,
        f"llvm.masked.load.{_mangle(vector)}.p0",
        ir.FunctionType(vector, [POINTER, I32, mask.type, vector]),
    )
    align = I32(_element_bytes(vector))
    kept = ir.Constant(vector, None) if otherwise is None else otherwise
    return builder.call(function, [pointer, align, mask, kept])


def masked_store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, mask: ir.Value) -> None:
    """Store the lanes that ``mask`` names; the others are not touched."""
    function = _intrinsic(
        builder.module,
        f"llvm.masked.store.{_mangle(value.type)}.p0",
        ir.FunctionType(ir.VoidType(), [value.type, POINTER, I32, mask.type]),
    )
    builder.call(function, [value, pointer, I32(_element_bytes(value.type)), mask])


def multiply_add(
    builder: ir.IRBuilder, target: VectorTarget, x: ir.Value, y: ir.Value, z: ir.Value
) -> ir.Value:
    """Return ``x * y + z``, in one rounding where the target has the instruction."""
    if not target.has_fma:
        return builder.fadd(builder.fmul(x, y), z)
    function = _intrinsic(
        builder.module, f"llvm.fma.{_mangle(x.type)}", ir.FunctionType(x.type, [x.type] * 3)
    )
    return builder.call(function, [x, y, z])


def prefetch(builder: ir.IRBuilder, pointer: ir.Value, *, write: bool, locality: int) -> None:
    """Hint that a cache line is about to be used; never faults."""
    function = _intrinsic(
        builder.module,
        "llvm.prefetch.p0",
        ir.FunctionType(ir.VoidType(), [POINTER, I32, I32, I32]),
    )
    builder.call(function, [pointer, I32(int(write)), I32(locality), I32(1)])


def emit_tile_kernel(module: ir.Module, target: VectorTarget, dtype: str, key: TileKernel) -> None:
    """Define one tile kernel in ``module``."""
    _TileEmitter(module, target, tile_spec(target, dtype), key).emit()


class _TileEmitter:
    """Emits one kernel straight into SSA form, so that code generation alone finishes it."""

    def __init__(
        self, module: ir.Module, target: VectorTarget, spec: TileSpec, key: TileKernel
    ) -> None:
        self.target, self.spec, self.key = target, spec, key
        self.function = module.globals.get(key.name(target, spec.dtype)) or ir.Function(
            module, TILE_KERNEL_TYPE, key.name(target, spec.dtype)
        )
        set_kernel_attributes(self.function, target)
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.splits = min(4, -(-_INDEPENDENT_CHAINS // (key.rows * key.vectors)))
        # A large tile hides the loop's own instructions; unrolled, LLVM's scheduler gathers the
        # broadcasts of several steps of k and spills accumulators.
        self.unroll = 1 if key.rows * key.vectors >= _UNROLLED_BELOW else 4

    def emit(self) -> None:
        b, key = self.builder, self.key
        k, a, self.a_stride, b_pointer, self.b_stride = self.function.args[:5]
        self.c, self.c_stride, columns, ahead, self.ahead_stride, accumulate = self.function.args[
            5:
        ]
        self.mask = None
        if self.target.has_masked_memory:
            last = (key.vectors - 1) * self.spec.lanes
            self.mask = prefix_mask(b, b.sub(columns, I64(last)), self.spec.lanes)
        self._prefetch_c()
        zero = ir.Constant(self.spec.vector, None)
        accumulators = [zero] * (key.rows * key.vectors * self.splits)
        a_pointers = self._a_pointers(a)
        walkers = [b_pointer, ahead, *a_pointers]
        if self.unroll > 1:
            main = b.and_(k, I64(-self.unroll))
            walkers, accumulators = self._k_loop(main, self.unroll, walkers, accumulators)
            k = b.and_(k, I64(self.unroll - 1))
        _, accumulators = self._k_loop(k, 1, walkers, accumulators)
        # Forgetting where C is frees the registers that its row addresses would hold in the loop.
        self.c, self.c_stride = forget(b, self.c), forget(b, self.c_stride)
        tile = key.rows * key.vectors
        for split in range(1, self.splits):
            for t in range(tile):
                accumulators[t] = b.fadd(accumulators[t], accumulators[split * tile + t])
        accumulators = self._add_partial_sums(accumulators[:tile], accumulate)
        for i in range(key.rows):
            row = self._c_row(i)
            for j in range(key.vectors):
                self._store_c(accumulators[i * key.vectors + j], row, j)
        b.ret_void()

    def _prefetch_c(self) -> None:
        step = 64 // self.spec.element_bytes
        for i in range(self.key.rows):
            row = self._c_row(i)
            for j in range(0, self.key.vectors * self.spec.lanes, step):
                prefetch(self.builder, self._at(row, I64(j)), write=True, locality=3)

    def _add_partial_sums(self, sums: list[ir.Value], accumulate: ir.Value) -> list[ir.Value]:
        """Add what the k-blocks before left in C; late, for by now C has been prefetched."""
        b, key = self.builder, self.key
        fresh = b.block
        with b.if_then(accumulate):
            resumed_sums = []
            for i in range(key.rows):
                row = self._c_row(i)
                for j in range(key.vectors):
                    partial = self._load(row, j)
                    resumed_sums.append(b.fadd(partial, sums[i * key.vectors + j]))
            resumed = b.block
        result = []
        for value, total in zip(sums, resumed_sums, strict=True):
            phi = b.phi(self.spec.vector)
            phi.add_incoming(value, fresh)
            phi.add_incoming(total, resumed)
            result.append(phi)
        return result

    def _a_pointers(self, a: ir.Value) -> list[ir.Value]:
        """One pointer for a walk by columns; one for every three rows for a walk by rows.

        x86 reaches row 0, 1 and 2 of a group as ``[p]``, ``[p + s]``, ``[p + 2 s]``, so 14 rows
        cost five pointer registers and not fourteen.
        """
        if self.key.walk == "columns":
            return [a]
        b = self.builder
        return [self._at(a, b.mul(self.a_stride, I64(i))) for i in range(0, self.key.rows, 3)]

    def _k_loop(
        self, count: ir.Value, unroll: int, walkers: list[ir.Value], sums: list[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Emit ``count`` steps of k; ``walkers`` are the pointers to B, to what comes, and to A."""
        b = self.builder
        entry = b.block
        body, done = b.append_basic_block("k"), b.append_basic_block("k.done")
        b.cbranch(b.icmp_signed("==", count, I64(0)), done, body)
        b.position_at_end(body)
        initial = [count, *walkers, *sums]
        phis = [b.phi(value.type) for value in initial]
        left, b_now, ahead, *rest = phis
        a_now, sums = rest[: len(walkers) - 2], rest[len(walkers) - 2 :]
        for u in range(unroll):
            prefetch(b, ahead, write=False, locality=2)
            sums = self._k_step(u, a_now, b_now, sums)
            b_now = self._at(b_now, self.b_stride)
            ahead = self._at(ahead, self.ahead_stride)
            if self.key.walk == "columns":
                a_now = [self._at(a_now[0], self.a_stride)]
        if self.key.walk == "rows":
            a_now = [self._at(pointer, I64(unroll)) for pointer in a_now]
        left_next = b.sub(left, I64(unroll))
        final = [left_next, b_now, ahead, *a_now, *sums]
        for phi, first, following in zip(phis, initial, final, strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(following, body)
        b.cbranch(b.icmp_signed("!=", left_next, I64(0)), body, done)
        b.position_at_end(done)
        results = []
        for first, following in zip(initial, final, strict=True):
            phi = b.phi(first.type)
            phi.add_incoming(first, entry)
            phi.add_incoming(following, body)
            results.append(phi)
        split = 1 + len(walkers)
        return results[1:split], results[split:]

    def _k_step(
        self, u: int, a_pointers: list[ir.Value], b_pointer: ir.Value, sums: list[ir.Value]
    ) -> list[ir.Value]:
        b, key, spec = self.builder, self.key, self.spec
        sums = list(sums)
        b_vectors = [self._load(b_pointer, j) for j in range(key.vectors)]
        base = (u % self.splits) * key.rows * key.vectors
        for i in range(key.rows):
            if key.walk == "columns":
                pointer = self._at(a_pointers[0], I64(i))
            else:
                pointer = self._at(a_pointers[i // 3], I64(u))
                if i % 3:
                    pointer = self._at(pointer, b.mul(self.a_stride, I64(i % 3)))
            scalar = b.load(pointer, align=spec.element_bytes, typ=spec.scalar)
            a_vector = splat(b, scalar, spec.lanes)
            for j in range(key.vectors):
                t = base + i * key.vectors + j
                sums[t] = multiply_add(b, self.target, a_vector, b_vectors[j], sums[t])
        return sums

    def _at(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        return self.builder.gep(pointer, [offset], source_etype=self.spec.scalar)

    def _c_row(self, i: int) -> ir.Value:
        return self._at(self.c, self.builder.mul(self.c_stride, I64(i))) if i else self.c

    def _load(self, row: ir.Value, j: int) -> ir.Value:
        pointer = self._at(row, I64(j * self.spec.lanes))
        if self.mask is not None and j == self.key.vectors - 1:
            return masked_load(self.builder, pointer, self.spec.vector, self.mask)
        return self.builder.load(pointer, align=self.spec.element_bytes, typ=self.spec.vector)

    def _store_c(self, value: ir.Value, row: ir.Value, j: int) -> None:
        pointer = self._at(row, I64(j * self.spec.lanes))
        if self.mask is not None and j == self.key.vectors - 1:
            masked_store(self.builder, value, pointer, self.mask)
        else:
            self.builder.store(value, pointer, align=self.spec.element_bytes)


def forget(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Return ``value`` with its origin hidden from the optimiser, at no cost when run."""
    kind = ir.FunctionType(value.type, [value.type])
    return builder.asm(kind, "", "=r,0", [value], side_effect=False)


def set_kernel_attributes(function: ir.Function, target: VectorTarget) -> None:
    """Ask for the target's full vector width: LLVM prefers 256 bits on many AVX-512 chips."""
    function.attributes.add("nounwind")
    bits = 8 * target.vector_bytes
    # llvmlite checks attribute names against a list without string attributes; a set does not.
    set.add(function.attributes, f'"prefer-vector-width"="{bits}"')
    set.add(function.attributes, f'"min-legal-vector-width"="{bits}"')


def _intrinsic(module: ir.Module, name: str, kind: ir.FunctionType) -> ir.Function:
    return module.globals.get(name) or ir.Function(module, kind, name)


def _element_bytes(vector: ir.VectorType) -> int:
    return _SCALAR_BYTES[str(vector.element)]


def _mangle(vector: ir.VectorType) -> str:
    return f"v{vector.count}{_MANGLED[str(vector.element)]}"


_SCALAR_BYTES = {"float": 4, "double": 8, "half": 2, "bfloat": 2} | {
    f"i{bits}": bits // 8 for bits in (8, 16, 32, 64)
}
_MANGLED = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16"} | {
    f"i{bits}": f"i{bits}" for bits in (8, 16, 32, 64)
}
