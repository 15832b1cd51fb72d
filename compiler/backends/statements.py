"""Kernel IR statements as LLVM IR: loops, vector and masked memory access, folds, contractions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from llvmlite import ir

from ..errors import VerificationError
from ..ir.affine import linear_coefficient, substitute_index
from ..ir.dims import symbols
from ..ir.types import FLOATS, ITEM_BYTES
from ..loops.ir import (
    Apply,
    Check,
    Contraction,
    Convert,
    Expr,
    Index,
    IndexValue,
    Kernel,
    Let,
    Literal,
    Load,
    Loop,
    Operand,
    Philox,
    Sort,
    Stmt,
    Store,
    Var,
    is_shared,
)
from .elementwise import I1, I32, I64, MEMORY_TYPES, Elementwise, vector_of
from .folds import COMBINE, Carry, lanes_of
from .indices import emit_index
from .llvm_lanes import LaneFeatures
from .microkernels import Gemm, Tile, TileVector, emit_gemm, scratch_bytes
from .microkernels import Store as TileStore
from .microkernels.control_flow import POINTER
from .microkernels.tile import prefix_mask
from .sorting import sort_function
from .vector_target import VectorTarget

#: Work (element operations) below which a kernel is not worth waking a second thread for.
SERIAL_WORK = 16384
#: Threads share out vector loops in blocks of this many vectors, so no cache line is shared.
SHARED_VECTORS = 4


@dataclass
class Scope:
    """Where emission stands: the lanes, the mask, and what names mean."""

    lanes: int
    names: dict[str, ir.Value]
    vector_index: str | None = None
    mask: ir.Value | None = None
    inside_shared: bool = False
    known: dict[int, ir.Value] = field(default_factory=dict)
    keep: list[Expr] = field(default_factory=list)

    def inner(self, **changes: object) -> Scope:
        """Return a scope for a nested body; names bound there stay there."""
        fresh = replace(self, names=dict(self.names), known={}, keep=[])
        for name, value in changes.items():
            setattr(fresh, name, value)
        return fresh


class KernelEmitter:
    """Emits the body of one kernel into an LLVM function."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        kernel: Kernel,
        target: VectorTarget,
        features: LaneFeatures,
        pointers: dict[str, ir.Value],
        sizes: dict[str, ir.Value],
        thread: tuple[ir.Value, ir.Value],
        scratch: ir.Value,
        status: ir.Value,
    ) -> None:
        self.builder = builder
        self.kernel = kernel
        self.target = target
        self.features = features
        self.pointers = pointers
        self.sizes = sizes
        self.tid, self.nthreads = thread
        self.scratch = scratch
        self.status = status
        self.scratch_bytes = 0
        widest = max(
            (ITEM_BYTES[use.dtype] for use in kernel.buffers if use.dtype in FLOATS), default=4
        )
        self.vector_lanes = max(2, target.vector_bytes // widest)

    def emit(self) -> None:
        """Emit the kernel; its loops are shared among as many threads as its work deserves."""
        scope = Scope(1, dict(self.sizes))
        enough = self.builder.icmp_signed(
            ">=", self.index(self.kernel.work, scope), I64(SERIAL_WORK)
        )
        self.nthreads = self.builder.select(enough, self.nthreads, I64(1))
        if is_shared(self.kernel):
            mine = self.builder.icmp_signed("<", self.tid, self.nthreads)
        else:
            mine = self.builder.icmp_signed("==", self.tid, I64(0))
        with self.builder.if_then(mine):
            self.statements(self.kernel.body, scope)

    # -- indices -------------------------------------------------------------------------------

    def index(self, index: Index, scope: Scope) -> ir.Value:
        """Emit an index as an i64; a vector of them where a name in it holds one."""
        return emit_index(self.builder, self.features, index, scope.names)

    def lane_index(self, index: Index, scope: Scope) -> ir.Value:
        """Emit an index for every lane: the vector index counts up from lane to lane."""
        if scope.vector_index is None or scope.lanes == 1:
            return self.index(index, scope)
        if scope.vector_index not in ({} if isinstance(index, int) else symbols(index)):
            return self.index(index, scope)
        ops = Elementwise(self.builder, scope.lanes, self.features)
        base = scope.names[scope.vector_index]
        spread = self.builder.add(ops.splat(base), ops.lane_numbers())
        inner = replace(scope, names={**scope.names, scope.vector_index: spread})
        return self.index(index, inner)

    # -- expressions ---------------------------------------------------------------------------

    def ops(self, scope: Scope) -> Elementwise:
        return Elementwise(self.builder, scope.lanes, self.features)

    def full(self, value: ir.Value, scope: Scope) -> ir.Value:
        """Return ``value`` in every lane of the scope."""
        if lanes_of(value) == scope.lanes:
            return value
        return self.ops(scope).splat(value)

    def expr(self, expr: Expr, scope: Scope) -> ir.Value:
        """Emit an expression: a vector where it varies from lane to lane, else a scalar."""
        found = scope.known.get(id(expr))
        if found is None:
            found = self._expr(expr, scope)
            scope.known[id(expr)] = found
            scope.keep.append(expr)
        return found

    def _expr(self, expr: Expr, scope: Scope) -> ir.Value:
        match expr:
            case Literal(dtype, value):
                return Elementwise(self.builder, 1, self.features).constant(value, dtype)
            case Var(_, name):
                return scope.names[name]
            case IndexValue(_, index):
                return self.lane_index(index, scope)
            case Load():
                return self.load(expr, scope)
            case Apply(_, function, args):
                values = [self.expr(arg, scope) for arg in args]
                ops, values = self.level(values)
                return ops.apply(function, args[-1].dtype, values)
            case Convert(dtype, arg):
                value = self.expr(arg, scope)
                ops = Elementwise(self.builder, lanes_of(value), self.features)
                return ops.convert(value, arg.dtype, dtype)
            case Philox():
                values = [self.expr(expr.element, scope), self.expr(expr.state, scope)]
                ops, (element, state) = self.level(values)
                return ops.philox(expr.word, expr.stream, element, state)
        raise VerificationError(f"cannot emit {expr}")

    def level(self, values: list[ir.Value]) -> tuple[Elementwise, list[ir.Value]]:
        """Bring values to one number of lanes."""
        lanes = max(map(lanes_of, values))
        ops = Elementwise(self.builder, lanes, self.features)
        return ops, [v if lanes_of(v) == lanes else ops.splat(v) for v in values]

    # -- memory --------------------------------------------------------------------------------

    def address(self, buffer: str, offset: ir.Value, dtype: str) -> ir.Value:
        return self.builder.gep(self.pointers[buffer], [offset], source_etype=MEMORY_TYPES[dtype])

    def to_register(self, value: ir.Value, dtype: str) -> ir.Value:
        if dtype != "bool":
            return value
        lanes = lanes_of(value)
        kind = vector_of(I1, lanes)
        return self.builder.trunc(value, kind)

    def to_memory(self, value: ir.Value, dtype: str) -> ir.Value:
        if dtype != "bool":
            return value
        return self.builder.zext(value, vector_of(MEMORY_TYPES["bool"], lanes_of(value)))

    def placement(self, offset: Index, scope: Scope) -> tuple[str, ir.Value]:
        """Return how an offset depends on the lane (uniform, contiguous or scattered), and it."""
        if scope.lanes > 1:
            varying = any(
                lanes_of(scope.names[name]) > 1 for name in _symbols(offset) if name in scope.names
            )
            assert scope.vector_index is not None
            step = linear_coefficient(offset, scope.vector_index)
            if varying or step not in (0, 1):
                return "scattered", self.lane_index(offset, scope)
            if step == 1:
                return "contiguous", self.index(offset, scope)
        return "uniform", self.index(offset, scope)

    def load(self, load: Load, scope: Scope) -> ir.Value:
        kind, offset = self.placement(load.offset, scope)
        guard = None if load.guard is None else self.expr(load.guard, scope)
        if kind == "uniform" and guard is not None and lanes_of(guard) > 1:
            kind, offset = "scattered", self.full(offset, scope)
        element = MEMORY_TYPES[load.dtype]
        align = ITEM_BYTES[load.dtype]
        if kind == "uniform":
            if guard is None:
                pointer = self.address(load.buffer, offset, load.dtype)
                value = self.builder.load(pointer, align=align, typ=element)
                return self.to_register(value, load.dtype)
            return self._guarded_scalar_load(load, offset, guard)
        mask = self.combine(scope.mask, guard, scope)
        if kind == "contiguous":
            pointer = self.address(load.buffer, offset, load.dtype)
            vector = ir.VectorType(element, scope.lanes)
            if mask is None:
                value = self.builder.load(pointer, align=align, typ=vector)
            else:
                value = self.intrinsic(
                    "masked.load", vector, [pointer, I32(align), mask, ir.Constant(vector, None)]
                )
            return self.to_register(value, load.dtype)
        return self._gather(load, offset, mask, scope)

    def _guarded_scalar_load(self, load: Load, offset: ir.Value, guard: ir.Value) -> ir.Value:
        element = MEMORY_TYPES[load.dtype]
        before = self.builder.block
        with self.builder.if_then(guard):
            pointer = self.address(load.buffer, offset, load.dtype)
            value = self.builder.load(pointer, align=ITEM_BYTES[load.dtype], typ=element)
            inside = self.builder.block
        merged = self.builder.phi(element)
        merged.add_incoming(ir.Constant(element, 0), before)
        merged.add_incoming(value, inside)
        return self.to_register(merged, load.dtype)

    def _gather(
        self, load: Load, offset: ir.Value, mask: ir.Value | None, scope: Scope
    ) -> ir.Value:
        element = MEMORY_TYPES[load.dtype]
        vector = ir.VectorType(element, scope.lanes)
        pointers = self.vector_address(load.buffer, offset, load.dtype, scope.lanes)
        if mask is None:
            mask = ir.Constant(ir.VectorType(I1, scope.lanes), [1] * scope.lanes)
        align = I32(ITEM_BYTES[load.dtype])
        value = self.intrinsic(
            "masked.gather", vector, [pointers, align, mask, ir.Constant(vector, None)]
        )
        return self.to_register(value, load.dtype)

    def vector_address(self, buffer: str, offset: ir.Value, dtype: str, lanes: int) -> ir.Value:
        """Emit one address a lane; llvmlite's gep does not type vectors of pointers itself."""
        base = self.builder.ptrtoint(self.pointers[buffer], I64)
        ops = Elementwise(self.builder, lanes, self.features)
        scale = ops.constant(ITEM_BYTES[dtype], "int64")
        numbers = self.builder.add(ops.splat(base), self.builder.mul(offset, scale))
        return self.builder.inttoptr(numbers, ir.VectorType(POINTER, lanes))

    def combine(
        self, mask: ir.Value | None, guard: ir.Value | None, scope: Scope
    ) -> ir.Value | None:
        if guard is None:
            return mask
        guard = self.full(guard, scope)
        return guard if mask is None else self.builder.and_(mask, guard)

    def intrinsic(self, name: str, result: ir.Type, args: list[ir.Value]) -> ir.Value:
        pieces = [f"llvm.{name}"]
        if not isinstance(result, ir.VoidType):
            pieces.append(_mangle(result))
        else:
            pieces.append(_mangle(args[0].type))
        pointer = next(a.type for a in args if _is_pointer(a.type))
        pieces.append(_mangle(pointer))
        full = ".".join(pieces)
        module = self.builder.module
        function = module.globals.get(full) or ir.Function(
            module, ir.FunctionType(result, [a.type for a in args]), full
        )
        return self.builder.call(function, args)

    def store(self, store: Store, scope: Scope) -> None:
        value = self.expr(store.value, scope)
        dtype = store.value.dtype
        kind, offset = self.placement(store.offset, scope)
        if store.accumulate:
            old = self.expr(Load(dtype, store.buffer, store.offset), scope)
            ops, (old, value) = self.level([old, value])
            value = ops.apply("add", dtype, [old, value])
        align = ITEM_BYTES[dtype]
        if kind == "uniform":
            if lanes_of(value) > 1:
                raise VerificationError(f"lanes race to store to {store.buffer}")
            pointer = self.address(store.buffer, offset, dtype)
            self.builder.store(self.to_memory(value, dtype), pointer, align=align)
            return
        memory = self.to_memory(self.full(value, scope), dtype)
        if kind == "contiguous":
            pointer = self.address(store.buffer, offset, dtype)
            if scope.mask is None:
                self.builder.store(memory, pointer, align=align)
            else:
                self.intrinsic(
                    "masked.store", ir.VoidType(), [memory, pointer, I32(align), scope.mask]
                )
            return
        mask = scope.mask
        if mask is None:
            mask = ir.Constant(ir.VectorType(I1, scope.lanes), [1] * scope.lanes)
        pointers = self.vector_address(store.buffer, offset, dtype, scope.lanes)
        self.intrinsic("masked.scatter", ir.VoidType(), [memory, pointers, I32(align), mask])

    # -- statements ----------------------------------------------------------------------------

    def statements(self, stmts: tuple[Stmt, ...], scope: Scope) -> None:
        for stmt in stmts:
            self._STATEMENTS[type(stmt)](self, stmt, scope)

    def let(self, stmt: Let, scope: Scope) -> None:
        scope.names[stmt.name] = self.expr(stmt.value, scope)

    def check(self, stmt: Check, scope: Scope) -> None:
        """Record the first failure; the program stops at its next barrier."""
        condition = self.expr(stmt.condition, scope)
        value = self.expr(stmt.value, scope)
        failed: ir.Value
        if lanes_of(condition) == 1 and scope.lanes == 1:
            failed = self.builder.not_(condition)
            report = value
        else:
            ops = self.ops(scope)
            bad = self.builder.xor(self.full(condition, scope), ops.constant(1, "bool"))
            if scope.mask is not None:
                bad = self.builder.and_(bad, scope.mask)
            bits = self.builder.bitcast(bad, ir.IntType(scope.lanes))
            failed = self.builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))
            highest = ops.constant((1 << 63) - 1, "int64")
            shown = self.builder.select(bad, self.full(value, scope), highest)
            report = self.reduce_lanes("min", shown, "int64")
        with self.builder.if_then(failed, likely=False):
            site = self.builder.gep(self.status, [I64(0)], source_etype=I64)
            before = self.builder.load(site, typ=I64, align=8)
            with self.builder.if_then(self.builder.icmp_signed("==", before, I64(0))):
                shown_at = self.builder.gep(self.status, [I64(1)], source_etype=I64)
                self.builder.store(report, shown_at, align=8)
                self.builder.store(I64(stmt.site + 1), site, align=8)

    def loop(self, loop: Loop, scope: Scope) -> None:
        start, stop = I64(0), self.index(loop.extent, scope)
        if loop.kind == "vector":
            self.vector_loop(loop, scope, stop)
            return
        if loop.shared:
            start, stop = self.share(stop, 1)
        self.counted(loop, scope, start, stop)

    def share(self, extent: ir.Value, unit: int) -> tuple[ir.Value, ir.Value]:
        """Return this thread's part of ``range(extent)``, cut at multiples of ``unit``."""
        b = self.builder
        units = b.sdiv(b.add(extent, I64(unit - 1)), I64(unit))

        def cut(thread: ir.Value) -> ir.Value:
            at = b.mul(b.sdiv(b.mul(units, thread), self.nthreads), I64(unit))
            return b.select(b.icmp_signed("<", at, extent), at, extent)

        return cut(self.tid), cut(b.add(self.tid, I64(1)))

    def counted(self, loop: Loop, scope: Scope, start: ir.Value, stop: ir.Value) -> None:
        """Emit a serial loop, its folds carried in registers of the scope's lanes."""
        carried = [Carry(self, fold, scope.lanes) for fold in loop.folds]
        starts = [self.full(self.expr(carry.start, scope), scope) for carry in loop.carries]
        entry = self.builder.block
        for carry in carried:
            carry.start()
        head = self.builder.append_basic_block(f"{loop.index}.head")
        body = self.builder.append_basic_block(f"{loop.index}.body")
        done = self.builder.append_basic_block(f"{loop.index}.done")
        self.builder.branch(head)
        self.builder.position_at_end(head)
        index = self.builder.phi(I64)
        index.add_incoming(start, entry)
        for carry in carried:
            carry.enter(entry)
        handed = [self.builder.phi(start.type) for start in starts]
        for phi, start in zip(handed, starts, strict=True):
            phi.add_incoming(start, entry)
        self.builder.cbranch(self.builder.icmp_signed("<", index, stop), body, done)
        self.builder.position_at_end(body)
        inner = scope.inner(inside_shared=scope.inside_shared or loop.shared)
        inner.names[loop.index] = index
        for carry, phi in zip(loop.carries, handed, strict=True):
            inner.names[carry.name] = phi
        self.statements(loop.body, inner)
        for carry in carried:
            carry.advance(inner, None)
        nexts = [self.full(self.expr(carry.value, inner), inner) for carry in loop.carries]
        for phi, value in zip(handed, nexts, strict=True):
            phi.add_incoming(value, self.builder.block)
        following = self.builder.add(index, I64(1))
        index.add_incoming(following, self.builder.block)
        for carry in carried:
            carry.close(self.builder.block)
        self.builder.branch(head)
        self.builder.position_at_end(done)
        for carry in carried:
            scope.names[carry.fold.name] = carry.result()

    def vector_loop(self, loop: Loop, scope: Scope, extent: ir.Value) -> None:
        """Emit whole vectors, then one masked vector for the rest."""
        b, lanes = self.builder, self.vector_lanes
        start, stop = I64(0), extent
        if loop.shared:
            start, stop = self.share(extent, lanes * SHARED_VECTORS)
        carried = [Carry(self, fold, lanes) for fold in loop.folds]
        for carry in carried:
            carry.start()
        known = loop.extent if isinstance(loop.extent, int) else None
        only_tail = known is not None and known < lanes
        no_tail = known is not None and known % lanes == 0
        whole_stop = stop
        if not only_tail:
            if not no_tail:
                count = b.sub(stop, start)
                whole_stop = b.add(start, b.and_(count, I64(-lanes)))
            entry = b.block
            head = b.append_basic_block(f"{loop.index}.head")
            body = b.append_basic_block(f"{loop.index}.body")
            done = b.append_basic_block(f"{loop.index}.done")
            b.branch(head)
            b.position_at_end(head)
            index = b.phi(I64)
            index.add_incoming(start, entry)
            for carry in carried:
                carry.enter(entry)
            b.cbranch(b.icmp_signed("<", index, whole_stop), body, done)
            b.position_at_end(body)
            inner = scope.inner(lanes=lanes, vector_index=loop.index, mask=None)
            inner.names[loop.index] = index
            self.statements(loop.body, inner)
            for carry in carried:
                carry.advance(inner, None)
            following = b.add(index, I64(lanes))
            index.add_incoming(following, b.block)
            for carry in carried:
                carry.close(b.block)
            b.branch(head)
            b.position_at_end(done)
        else:
            whole_stop = start
        if not no_tail:
            before = b.block
            kept = [carry.current for carry in carried]
            with b.if_then(b.icmp_signed("<", whole_stop, stop)):
                mask = prefix_mask(b, b.sub(stop, whole_stop), lanes)
                inner = scope.inner(lanes=lanes, vector_index=loop.index, mask=mask)
                inner.names[loop.index] = whole_stop
                self.statements(loop.body, inner)
                for carry in carried:
                    carry.advance(inner, mask)
                after = b.block
            for carry, old in zip(carried, kept, strict=True):
                carry.merge(old, before, after)
        for carry in carried:
            scope.names[carry.fold.name] = carry.across_lanes()

    def reduce_lanes(self, kind: str, value: ir.Value, dtype: str) -> ir.Value:
        """Combine the lanes of a vector in a fixed tree."""
        lanes = lanes_of(value)
        b = self.builder
        while lanes > 1:
            half = lanes // 2
            low, high = (self.pick(value, range(s, s + half)) for s in (0, half))
            ops = Elementwise(b, half, self.features)
            value = (
                ops.apply(COMBINE[kind], dtype, [low, high])
                if dtype != "bool"
                else (
                    ops.apply({"max": "logical_or", "min": "logical_and"}[kind], dtype, [low, high])
                )
            )
            lanes = half
        return value

    def pick(self, value: ir.Value, lanes: range) -> ir.Value:
        if len(lanes) == 1:
            return self.builder.extract_element(value, I32(lanes[0]))
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)

    def sort(self, stmt: Sort, scope: Scope) -> None:
        offset, extent = self.index(stmt.offset, scope), self.index(stmt.extent, scope)
        callee = sort_function(self.builder.module, stmt.dtype, stmt.descending)
        arguments = [
            self.address(stmt.keys, offset, stmt.dtype),
            self.address(stmt.order, offset, "int64"),
            self.address(stmt.spare, offset, "int64"),
        ]
        self.builder.call(callee, [*arguments, extent])

    # -- contractions --------------------------------------------------------------------------

    def contraction(self, stmt: Contraction, scope: Scope) -> None:
        def place(operand: Operand) -> ir.Value:
            offset = self.index(operand.offset, scope)
            return self.address(operand.buffer, offset, stmt.dtype)

        def size(index: Index) -> int | ir.Value:
            return index if isinstance(index, int) else self.index(index, scope)

        def steps(operand: Operand) -> list[int | ir.Value]:
            return [size(step) for step in operand.strides] or [0, 0]

        def tables(operand: Operand) -> tuple[ir.Value, ...]:
            return tuple(self.pointers[name] for name in operand.tables)

        (a_m, a_k), (b_k, b_n) = steps(stmt.left), steps(stmt.right)
        problem = Gemm(
            stmt.dtype,
            size(stmt.rows),
            size(stmt.columns),
            size(stmt.depth),
            place(stmt.left),
            place(stmt.right),
            a_m,
            a_k,
            b_k,
            b_n,
            self.prologue(stmt.left, stmt.dtype),
            self.prologue(stmt.right, stmt.dtype),
            tables(stmt.left),
            tables(stmt.right)[::-1],
        )

        def finish(builder: ir.IRBuilder, tile: Tile) -> None:
            tile.each_vector(builder, lambda vector: self.epilogue(stmt, scope, vector))

        plain = self.plain_store(stmt, scope)
        finish_tile = plain if plain is not None else finish
        tid = I64(0) if scope.inside_shared else self.tid
        nthreads = I64(1) if scope.inside_shared else self.nthreads
        self.scratch_bytes = max(
            self.scratch_bytes, scratch_bytes(self.target, problem, finish_tile)
        )
        emit_gemm(
            self.builder,
            self.target,
            problem,
            finish_tile,
            tid=self.builder.trunc(tid, I32),
            nthreads=self.builder.trunc(nthreads, I32),
            scratch=self.scratch,
        )

    def prologue(
        self, operand: Operand, dtype: str
    ) -> Callable[[ir.IRBuilder, ir.Value], ir.Value] | None:
        """Return what emits the functions applied to an operand while it is packed, if any."""
        if not operand.prologue:
            return None

        def emit(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
            ops = Elementwise(builder, lanes_of(value), self.features)
            for function, number in operand.prologue:
                second = [] if number is None else [ops.constant(number.value, dtype)]
                value = ops.apply(function, dtype, [value, *second])
            return value

        return emit

    def plain_store(self, stmt: Contraction, scope: Scope) -> TileStore | None:
        """Return where the tile kernels can write their sums themselves, with no epilogue."""
        if len(stmt.epilogue) != 1 or not isinstance(stmt.epilogue[0], Store):
            return None
        store = stmt.epilogue[0]
        row = linear_coefficient(store.offset, stmt.row)
        is_sum = isinstance(store.value, Var) and store.value.name == stmt.result
        unit = linear_coefficient(store.offset, stmt.column) == 1
        if not is_sum or not unit or row is None or store.accumulate:
            return None
        start = substitute_index(store.offset, {stmt.row: 0, stmt.column: 0})
        pointer = self.address(store.buffer, self.index(start, scope), stmt.dtype)
        stride = row if isinstance(row, int) else self.index(row, scope)
        return TileStore(pointer, stride)

    def epilogue(self, stmt: Contraction, scope: Scope, vector: TileVector) -> None:
        lanes = lanes_of(vector.value)
        inner = scope.inner(lanes=lanes, vector_index=stmt.column, mask=vector.mask)
        inner.names[stmt.row] = vector.m
        inner.names[stmt.column] = vector.n
        inner.names[stmt.result] = vector.value
        self.statements(stmt.epilogue, inner)

    _STATEMENTS: ClassVar[dict[type, Callable]] = {
        Let: let,
        Store: store,
        Check: check,
        Loop: loop,
        Contraction: contraction,
        Sort: sort,
    }


def _symbols(index: Index) -> frozenset[str]:
    return frozenset() if isinstance(index, int) else symbols(index)


def _is_pointer(kind: ir.Type) -> bool:
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    return isinstance(element, ir.PointerType)


def _mangle(kind: ir.Type) -> str:
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_mangle(kind.element)}"
    if isinstance(kind, ir.PointerType):
        return "p0"
    return {"float": "f32", "double": "f64"}.get(str(kind), str(kind))
