"""Contraction ``C[m, n] = sum_k A[m, k] * B[k, n]``: the loops around the tile kernels.

One panel of B (a k-block deep, a tile wide) is packed or found in place and stays in the nearest
cache while every row tile of a block of A, which stays in the second cache, meets it:

    for each block of rows of A that fits half the second cache
      for each k-block                                        (nearly always one)
        pack the block of A, unless it is read in place
        for each panel of B
          pack the panel, unless it is read in place
          for each row tile: kernel, then, after the last k-block, the epilogue

Threads share one grid of tiles, each takes a contiguous part, and none waits for another. Every
element is summed in the order of k by one thread, so the number of threads changes no bit.
The blocking follows Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication"
(ACM TOMS 34(3), 2008), with B packed a panel at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from ..vector_target import VectorTarget
from .control_flow import I64, POINTER, Flag, Index, IndexMath, counted_loop, when
from .epilogue import Epilogue, Store, Tile
from .family import declare_kernel
from .packing import PackKernel
from .tile import TILE_KERNEL_TYPE, TileKernel, TileSpec, tile_spec

# With an epilogue, up to this depth the sums never leave registers: 64×784×512 in one pass is as
# fast as in four. A plain store splits as soon as a panel of B outgrows the nearest cache.
_ONE_PASS_DEPTH = 1024
# Blocks begin at whole cache lines, and packed panels have room for whole transposed squares.
_DEPTH_UNIT = 16
# Packing pays when its cost is shared by this many uses.
_PACK_A_PANELS = 3
_PACK_B_TILES = 2
# Rows per thread from which threads divide the rows of A and not the grid of tiles. Tiles are
# then 13 or 14 rows high whatever the number of threads, and those sum in the same order.
_ROWS_PER_THREAD = 256
_MOST_TILES = 512
_PARTIAL_TILES = 16
_PARTIAL_PANELS = 8


#: Emits a function of one vector of an operand's elements.
Prologue = Callable[[ir.IRBuilder, ir.Value], ir.Value]


@dataclass(frozen=True)
class Gemm:
    """The operands of ``C[m, n] = sum_k A[m, k] * B[k, n]``.

    Parameters
    ----------
    dtype : ``"float32"`` or ``"float64"``.
    m, n, k : extents; ints where known while compiling, i64 values otherwise. All may be zero.
    a, b : pointers to element (0, 0).
    a_m, a_k, b_k, b_n : element strides, ints or i64 values. What is fast: ``a_k == 1`` or
        ``a_m == 1``, ``b_n == 1`` or ``b_k == 1``, as ints. Anything else is packed one element
        at a time.
    a_tables, b_tables : where not empty, two pointers to i64 offsets that stand for the strides:
        element (m, k) of A is ``a[rows[m] + depth[k]]``, element (k, n) of B is
        ``b[columns[n] + depth[k]]``. Such an operand is packed.
    map_a, map_b : what to apply to the operand's elements: emits a function of a vector. An
        operand with one is packed, and mapped in the packed panel.
    """

    dtype: str
    m: Index
    n: Index
    k: Index
    a: ir.Value
    b: ir.Value
    a_m: Index
    a_k: Index
    b_k: Index
    b_n: Index
    map_a: Prologue | None = None
    map_b: Prologue | None = None
    a_tables: tuple[ir.Value, ...] = ()
    b_tables: tuple[ir.Value, ...] = ()


def emit_gemm(
    builder: ir.IRBuilder,
    target: VectorTarget,
    problem: Gemm,
    epilogue: Store | Epilogue,
    *,
    tid: ir.Value | int,
    nthreads: ir.Value | int,
    scratch: ir.Value,
) -> None:
    """Emit this thread's share of the contraction at ``builder``.

    Parameters
    ----------
    epilogue : a ``Store``, or a callback that emits code for a finished tile. It is called while
        emitting, up to twice: for tiles that are ``whole`` and for tiles that are not.
    tid, nthreads : i32 values (or ints): which thread this is, of how many. No barrier is
        needed inside; C is complete when every thread has passed.
    scratch : pointer to ``scratch_bytes(target, problem, epilogue)`` bytes of this thread's own,
        64-byte aligned.
    """
    if _is_zero(problem.m) or _is_zero(problem.n):
        return
    _GemmEmitter(builder, target, problem, epilogue, scratch).emit(tid, nthreads)


def scratch_bytes(target: VectorTarget, problem: Gemm, epilogue: Store | Epilogue) -> int:
    """Return how much scratch each thread needs, whatever the extents turn out to be."""
    return _ScratchPlan.of(target, problem, epilogue).total


@dataclass(frozen=True)
class _ScratchPlan:
    """Byte offsets of one thread's buffers."""

    tile: int
    b_panel: int
    a_block: int
    partial: int
    total: int
    a_block_bytes: int
    a_tile_bytes: int

    @staticmethod
    def of(target: VectorTarget, problem: Gemm, epilogue: Store | Epilogue) -> _ScratchPlan:
        spec = tile_spec(target, problem.dtype)
        one_pass, block = _depths(target, spec, epilogue)
        deepest = max(one_pass, block)
        if isinstance(problem.k, int):
            deepest = min(deepest, -(-max(problem.k, 1) // _DEPTH_UNIT) * _DEPTH_UNIT)
        tile = spec.rows * spec.columns * spec.element_bytes
        b_panel = deepest * spec.columns * spec.element_bytes
        a_tile = deepest * spec.panel_rows * spec.element_bytes
        a_block = max(target.l2_bytes // 2, a_tile)
        if isinstance(problem.m, int):
            # Balanced tiles: never more than one tile for each `rows` rows, rounded up.
            a_block = min(a_block, -(-max(problem.m, 1) // spec.rows) * a_tile)
        partial = 0
        may_split = not isinstance(problem.k, int) or problem.k > one_pass
        if may_split and not _stores_directly(epilogue):
            partial = tile * _PARTIAL_TILES * _PARTIAL_PANELS
        sizes = [_aligned(size) for size in (tile, b_panel, a_block, partial)]
        starts = [sum(sizes[:i]) for i in range(5)]
        return _ScratchPlan(*starts, a_block_bytes=a_block, a_tile_bytes=a_tile)


def _depths(target: VectorTarget, spec: TileSpec, epilogue: Store | Epilogue) -> tuple[int, int]:
    """Return how deep a single k-block may be, and how deep one of several may be.

    A block's panel of B fills two thirds of the nearest cache: 256 steps on AVX-512 with 48 KiB.
    """
    bytes_per_step = spec.columns * spec.element_bytes
    fitting = target.l1_bytes * 2 // 3 // bytes_per_step
    block = max(_DEPTH_UNIT, fitting // _DEPTH_UNIT * _DEPTH_UNIT)
    return (block if _stores_directly(epilogue) else max(block, _ONE_PASS_DEPTH)), block


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def _stores_directly(epilogue: Store | Epilogue) -> bool:
    return isinstance(epilogue, Store)


@dataclass(frozen=True)
class _RowBlock:
    """Rows ``start ...`` of C cut into ``tiles`` tiles, the first ``taller`` one row higher."""

    start: Index
    tiles: Index
    height: Index
    taller: Index


@dataclass(frozen=True)
class _KBlock:
    start: Index
    depth: Index
    first: Flag
    last: Flag


class _GemmEmitter:
    def __init__(
        self,
        builder: ir.IRBuilder,
        target: VectorTarget,
        problem: Gemm,
        epilogue: Store | Epilogue,
        scratch: ir.Value,
    ) -> None:
        self.builder, self.target, self.problem, self.epilogue = builder, target, problem, epilogue
        self.math = IndexMath(builder)
        self.spec: TileSpec = tile_spec(target, problem.dtype)
        self.plan = _ScratchPlan.of(target, problem, epilogue)
        self.tile_buffer = self._bytes_at(scratch, self.plan.tile)
        self.b_buffer = self._bytes_at(scratch, self.plan.b_panel)
        self.a_buffer = self._bytes_at(scratch, self.plan.a_block)
        self.partial = self._bytes_at(scratch, self.plan.partial)

    # ---- the loop nest ----

    def emit(self, tid: ir.Value | int, nthreads: ir.Value | int) -> None:
        math, spec, p = self.math, self.spec, self.problem
        tid, nthreads = self._widen(tid), self._widen(nthreads)
        by_rows = math.less(math.multiply(nthreads, _ROWS_PER_THREAD - 1), p.m)
        row_begin = math.select(by_rows, self._share(p.m, tid, nthreads), 0)
        row_end = math.select(by_rows, self._share(p.m, math.add(tid, 1), nthreads), p.m)
        self.grid_tid = math.select(by_rows, 0, tid)
        self.grid_threads = math.select(by_rows, 1, nthreads)

        self.panels = math.divide_up(p.n, spec.columns)
        one_pass, block = _depths(self.target, spec, self.epilogue)
        self.k_blocks = math.select(math.less(one_pass, p.k), math.divide_up(p.k, block), 1)
        # Whole cache lines of A and B in each k-block but the last.
        self.depth = self._round_up(math.divide_up(p.k, self.k_blocks), _DEPTH_UNIT)
        self.one_pass = math.equal(self.k_blocks, 1)
        self.a_in_place, self.a_walks_rows = self._choose_a_walk()

        rows = math.subtract(row_end, row_begin)
        block_tiles = self._tiles_per_block()
        blocks = math.divide_up(math.divide_up(rows, spec.rows), block_tiles)
        with counted_loop(self.builder, 0, blocks, name="rows") as block:
            start = math.add(row_begin, self._share(rows, block, blocks))
            stop = math.add(row_begin, self._share(rows, math.add(block, 1), blocks))
            self._emit_row_block(self._cut(start, math.subtract(stop, start)))

    def _emit_row_block(self, block: _RowBlock) -> None:
        math = self.math
        grid = math.multiply(self.panels, block.tiles)
        begin = self._share(grid, self.grid_tid, self.grid_threads)
        end = self._share(grid, math.add(self.grid_tid, 1), self.grid_threads)
        first_panel = math.divide(begin, block.tiles)
        end_panel = math.divide_up(end, block.tiles)
        group = math.select(self._keeps_partial(), _PARTIAL_PANELS, math.maximum(1, self.panels))
        nothing = math.equal(begin, end)
        end_panel = math.select(nothing, first_panel, end_panel)
        with counted_loop(self.builder, first_panel, end_panel, group, name="group") as start:
            stop = math.minimum(math.add(start, group), end_panel)
            with counted_loop(self.builder, 0, self.k_blocks, name="deep") as index:
                k_block = self._k_block(index)
                self._pack_a(block, k_block, begin, end, start, stop)
                with counted_loop(self.builder, start, stop, name="panel") as panel:
                    first = math.multiply(panel, block.tiles)
                    low = math.maximum(0, math.subtract(begin, first))
                    high = math.minimum(block.tiles, math.subtract(end, first))
                    self._emit_panel(block, k_block, panel, math.subtract(panel, start), low, high)

    def _emit_panel(
        self,
        block: _RowBlock,
        k_block: _KBlock,
        panel: ir.Value,
        panel_in_group: Index,
        low: Index,
        high: Index,
    ) -> None:
        b, math, spec = self.builder, self.math, self.spec
        n0 = math.multiply(panel, spec.columns)
        columns = math.minimum(spec.columns, math.subtract(self.problem.n, n0))
        narrow = self._is_narrow(columns)
        b_pointer, b_stride = self._b_panel(block, k_block, n0, columns, narrow)
        with counted_loop(b, low, high, name="tile") as tile:
            taller = math.less(tile, block.taller)
            rows = math.select(taller, math.add(block.height, 1), block.height)
            in_block = math.add(math.multiply(tile, block.height), math.minimum(tile, block.taller))
            m0 = math.add(block.start, in_block)
            a_pointer, a_stride = self._a_tile(k_block, m0, tile)
            kernel = self._kernel(rows, narrow)
            ahead, ahead_stride = self._next_b(k_block, n0, tile, b_pointer)

            def run(c: ir.Value, c_stride: Index, accumulate: Flag) -> None:
                arguments = [
                    math.value(k_block.depth),
                    a_pointer,
                    math.value(a_stride),
                    b_pointer,
                    math.value(b_stride),
                    c,
                    math.value(c_stride),
                    math.value(columns),
                    ahead,
                    math.value(ahead_stride),
                    math.flag(accumulate),
                ]
                b.call(kernel, arguments)

            where = _Place(rows, columns, m0, n0, in_block, panel_in_group)
            self._finish(run, where, k_block)

    # ---- C ----

    def _finish(self, run, where: _Place, k_block: _KBlock) -> None:
        math, spec, epilogue = self.math, self.spec, self.epilogue
        if not isinstance(epilogue, Store):
            self._run_epilogue(run, where, k_block, epilogue)
            return
        direct: Flag = isinstance(epilogue.c_n, int) and epilogue.c_n == 1
        if direct and not self.target.has_masked_memory:
            lanes_left = math.select(self._is_narrow(where.columns), spec.lanes, spec.columns)
            direct = math.equal(where.columns, lanes_left)
        with when(self.builder, direct) as possible:
            if possible:
                offset = math.add(math.multiply(where.m0, epilogue.c_m), where.n0)
                c = self._at(epilogue.c, offset)
                run(c, epilogue.c_m, math.invert(k_block.first))
        with when(self.builder, math.invert(direct)) as possible:
            if possible:
                self._store_through_tile(run, where, k_block, epilogue)

    def _store_through_tile(self, run, where: _Place, k_block: _KBlock, store: Store) -> None:
        b, math, spec = self.builder, self.math, self.spec
        tile = self._tile(where, self.tile_buffer, spec.columns, whole=False)

        def address_in_c(m: ir.Value, n: ir.Value) -> ir.Value:
            return self._at(
                store.c, math.add(math.multiply(m, store.c_m), math.multiply(n, store.c_n))
            )

        def fetch(m: ir.Value, n: ir.Value, in_tile: ir.Value) -> None:
            value = b.load(address_in_c(m, n), align=spec.element_bytes, typ=spec.scalar)
            b.store(value, in_tile, align=spec.element_bytes)

        def write(m: ir.Value, n: ir.Value, in_tile: ir.Value) -> None:
            value = b.load(in_tile, align=spec.element_bytes, typ=spec.scalar)
            b.store(value, address_in_c(m, n), align=spec.element_bytes)

        accumulate = math.invert(k_block.first)
        with when(b, accumulate) as possible:
            if possible:
                tile.each_element(b, fetch)
        run(self.tile_buffer, spec.columns, accumulate)
        tile.each_element(b, write)

    def _run_epilogue(self, run, where: _Place, k_block: _KBlock, epilogue: Epilogue) -> None:
        b, math, spec = self.builder, self.math, self.spec
        keeps = self._keeps_partial()
        stride = math.select(keeps, _PARTIAL_PANELS * spec.columns, spec.columns)
        offset = math.add(
            math.multiply(where.row_in_block, stride),
            math.multiply(where.panel_in_group, spec.columns),
        )
        pointer = self.tile_buffer
        if keeps is not False:
            pointer = math.select_pointer(keeps, self._at(self.partial, offset), pointer)
        run(pointer, stride, math.invert(k_block.first))
        with when(b, k_block.last) as reachable:
            if not reachable:
                return
            whole = math.equal(where.columns, spec.columns)
            if isinstance(self.problem.n, int) and self.problem.n % spec.columns == 0:
                whole = True
            elif isinstance(self.problem.n, int) and self.problem.n < spec.columns:
                whole = False
            for flag, condition in ((True, whole), (False, math.invert(whole))):
                with when(b, condition) as possible:
                    if possible:
                        epilogue(b, self._tile(where, pointer, stride, whole=flag))

    def _tile(self, where: _Place, pointer: ir.Value, stride: Index, *, whole: bool) -> Tile:
        value = self.math.value
        return Tile(
            self.spec,
            value(where.rows),
            value(where.columns),
            value(where.m0),
            value(where.n0),
            pointer,
            stride,
            whole,
        )

    def _keeps_partial(self) -> Flag:
        """Whether sums wait in scratch for the next k-block: an epilogue wants them complete."""
        return False if _stores_directly(self.epilogue) else self.math.invert(self.one_pass)

    # ---- A ----

    def _choose_a_walk(self) -> tuple[Flag, bool]:
        """Decide whether A is read in place, and whether it then lies by rows."""
        p, math = self.problem, self.math
        if p.map_a is not None or p.a_tables:
            return False, False
        few = math.less(self.panels, _PACK_A_PANELS)
        if _is_one(p.a_k) and not _is_one(p.a_m):
            return few, True
        if _is_one(p.a_m):
            return few, False
        return False, False

    def _pack_a(
        self, block: _RowBlock, k_block: _KBlock, begin: Index, end: Index, start, stop
    ) -> None:
        """Pack the row tiles that this thread meets in panels ``start`` to ``stop``."""
        b, math, p = self.builder, self.math, self.problem
        source = _source(p.a_m, p.a_k, p.a_tables)
        with when(b, math.invert(self.a_in_place)) as possible:
            if not possible:
                return
            one_panel = math.equal(math.add(start, 1), stop)
            first = math.multiply(start, block.tiles)
            low = math.maximum(0, math.subtract(begin, first))
            high = math.minimum(block.tiles, math.subtract(end, first))
            low = math.select(one_panel, low, 0)
            high = math.select(one_panel, high, block.tiles)
            with counted_loop(b, low, high, name="pack_a") as tile:
                taller = math.less(tile, block.taller)
                rows = math.select(taller, math.add(block.height, 1), block.height)
                m0 = math.add(
                    block.start,
                    math.add(math.multiply(tile, block.height), math.minimum(tile, block.taller)),
                )
                self._pack(
                    PackKernel(self.spec.panel_rows // self.spec.lanes, source),
                    self._packed_a(k_block, tile),
                    *self._place(p.a, (m0, p.a_m), (k_block.start, p.a_k), p.a_tables),
                    rows,
                    k_block.depth,
                    p.map_a,
                )

    def _a_tile(self, k_block: _KBlock, m0: Index, tile: Index) -> tuple[ir.Value, Index]:
        p, math = self.problem, self.math
        in_place, _ = self._place(p.a, (m0, p.a_m), (k_block.start, p.a_k), p.a_tables)
        packed = self._packed_a(k_block, tile)
        stride = p.a_m if self.a_walks_rows else p.a_k
        return (
            math.select_pointer(self.a_in_place, in_place, packed),
            math.select(self.a_in_place, stride, self.spec.panel_rows),
        )

    def _packed_a(self, k_block: _KBlock, tile: Index) -> ir.Value:
        math = self.math
        return self._at(
            self.a_buffer,
            math.multiply(tile, math.multiply(self.depth, self.spec.panel_rows)),
        )

    # ---- B ----

    def _b_panel(
        self, block: _RowBlock, k_block: _KBlock, n0: Index, columns: Index, narrow: Flag
    ) -> tuple[ir.Value, Index]:
        """Return where the panel of B is, packing it first if that pays."""
        b, math, spec, p = self.builder, self.math, self.spec, self.problem
        source = _source(p.b_n, p.b_k, p.b_tables)
        width = math.select(narrow, spec.lanes, spec.columns)
        in_place: Flag = False
        if source == "copy" and p.map_b is None:
            in_place = math.less(block.tiles, _PACK_B_TILES)
            if not self.target.has_masked_memory:
                in_place = math.both(in_place, math.equal(columns, width))
        original, steps = self._place(p.b, (n0, p.b_n), (k_block.start, p.b_k), p.b_tables)
        with when(b, math.invert(in_place)) as possible:
            if possible:
                for flag, condition in ((False, math.invert(narrow)), (True, narrow)):
                    with when(b, condition) as reachable:
                        if reachable:
                            self._pack(
                                PackKernel(1 if flag else spec.vectors, source),
                                self.b_buffer,
                                original,
                                steps,
                                columns,
                                k_block.depth,
                                p.map_b,
                            )
        return (
            math.select_pointer(in_place, original, self.b_buffer),
            math.select(in_place, p.b_k, width),
        )

    def _next_b(
        self, k_block: _KBlock, n0: Index, tile: Index, b_pointer: ir.Value
    ) -> tuple[ir.Value, Index]:
        """Return what a row tile prefetches: cache line ``tile`` of each k of the next panel.

        Where B is stored by columns, it is as many lines of the next columns, one by one.
        """
        math, spec, p = self.math, self.spec, self.problem
        line = 64 // spec.element_bytes
        if p.b_tables:
            return b_pointer, 0
        if _is_one(p.b_n):
            lines, along_k, along_tile = spec.columns // line, p.b_k, line
        elif _is_one(p.b_k):
            lines, along_k, along_tile = spec.columns // line, line, math.multiply(p.k, line)
        else:
            return b_pointer, 0
        useful = math.less(tile, lines)
        following = self._at(
            p.b,
            math.add(
                math.add(
                    math.multiply(k_block.start, p.b_k),
                    math.multiply(math.add(n0, spec.columns), p.b_n),
                ),
                math.multiply(tile, along_tile),
            ),
        )
        return (
            math.select_pointer(useful, following, b_pointer),
            math.select(useful, along_k, 0),
        )

    def _is_narrow(self, columns: Index) -> Flag:
        """Whether one vector is enough for these columns."""
        p, spec = self.problem, self.spec
        if isinstance(p.n, int) and not 0 < p.n % spec.columns <= spec.lanes:
            return False
        if isinstance(p.n, int) and p.n <= spec.lanes:
            return True
        return self.math.less(columns, spec.lanes + 1)

    # ---- calls ----

    def _place(
        self,
        base: ir.Value,
        across: tuple[Index, Index],
        deep: tuple[Index, Index],
        tables: tuple[ir.Value, ...],
    ) -> tuple[ir.Value, tuple[Index | ir.Value, Index | ir.Value]]:
        """Return where an operand's block begins, and its steps: strides, or tables from there.

        ``across`` and ``deep`` are the position and the stride along the panel's width and k.
        """
        math = self.math
        if tables:
            starts = (math.value(across[0]), math.value(deep[0]))
            first, second = (
                self.builder.gep(table, [start], source_etype=I64)
                for table, start in zip(tables, starts, strict=True)
            )
            return base, (first, second)
        return self._at(base, math.add(math.multiply(*across), math.multiply(*deep))), (
            across[1],
            deep[1],
        )

    def _pack(
        self,
        kernel: PackKernel,
        panel: ir.Value,
        source: ir.Value,
        steps: tuple[Index | ir.Value, Index | ir.Value],
        valid: Index,
        depth: Index,
        prologue: Prologue | None,
    ) -> None:
        math = self.math
        function = declare_kernel(self.builder.module, self.target, self.problem.dtype, kernel)
        needed = {"copy": steps[1:], "transpose": steps[:1]}.get(kernel.source, steps)
        numbers = [*needed, valid, depth]
        self.builder.call(function, [panel, source, *map(math.value, numbers)])
        if prologue is None:
            return
        spec, b = self.spec, self.builder
        size = math.multiply(depth, kernel.vectors * spec.lanes)
        with counted_loop(b, 0, size, spec.lanes, name="prologue") as place:
            at = self._at(panel, place)
            value = b.load(at, align=spec.element_bytes, typ=spec.vector)
            b.store(prologue(b, value), at, align=spec.element_bytes)

    def _kernel(self, rows: Index, narrow: Flag) -> ir.Value:
        """Return the kernel for a tile of ``rows`` rows: a look-up in a table of addresses."""
        b, math = self.builder, self.math
        choices: list[tuple[Flag, ir.GlobalVariable]] = []
        for walk, walk_flag in self._walks():
            for vectors, width_flag in ((1, narrow), (self.spec.vectors, math.invert(narrow))):
                condition = math.both(walk_flag, width_flag)
                if condition is not False:
                    choices.append((condition, self._kernel_table(vectors, walk)))
        table: ir.Value = choices[-1][1]
        for condition, other in reversed(choices[:-1]):
            table = math.select_pointer(condition, other, table)
        address = b.gep(table, [math.value(rows)], source_etype=POINTER)
        return _callable(b, address, TILE_KERNEL_TYPE)

    def _walks(self) -> list[tuple[str, Flag]]:
        if not self.a_walks_rows:
            return [("columns", True)]
        return [("rows", self.a_in_place), ("columns", self.math.invert(self.a_in_place))]

    def _kernel_table(self, vectors: int, walk: str) -> ir.GlobalVariable:
        """Return the table of kernels by rows; the rows that cannot occur have no kernel."""
        module, spec = self.builder.module, self.spec
        heights = self._possible_heights()
        span = f"{heights[0]}to{heights[-1]}"
        name = f"chainrule_tiles_{self.target.isa}_{spec.dtype}_{walk}_{vectors}_{span}"
        if name in module.globals:
            return module.globals[name]
        kind = ir.ArrayType(POINTER, spec.rows + 1)
        kernels = [ir.Constant(POINTER, None)] * (spec.rows + 1)
        for rows in heights:
            key = TileKernel(rows, vectors, walk)
            kernels[rows] = declare_kernel(module, self.target, spec.dtype, key)
        table = ir.GlobalVariable(module, kind, name)
        table.linkage, table.global_constant = "internal", True
        table.initializer = ir.Constant(kind, kernels)
        return table

    def _possible_heights(self) -> range:
        """Which heights a balanced cut of the rows can give its tiles."""
        m, most = self.problem.m, self.spec.rows
        if not isinstance(m, int):
            return range(1, most + 1)
        always_one_block = self.plan.a_block_bytes // self.plan.a_tile_bytes
        if self._keeps_partial() is not False:
            always_one_block = min(always_one_block, _PARTIAL_TILES)
        if m <= min(always_one_block * most, _ROWS_PER_THREAD - 1):
            tiles = -(-m // most)
            return range(m // tiles, -(-m // tiles) + 1)
        # A part of at least `most` rows, cut as evenly as can be.
        return range(-(-most // 2), most + 1)

    # ---- arithmetic ----

    def _k_block(self, index: ir.Value) -> _KBlock:
        math = self.math
        if self.one_pass is True:
            return _KBlock(0, self.problem.k, True, True)
        start = math.multiply(index, self.depth)
        # Rounding depths up may leave the last block short, or, past the end, with nothing.
        left = math.maximum(0, math.subtract(self.problem.k, start))
        return _KBlock(
            start,
            math.minimum(self.depth, left),
            math.equal(index, 0),
            math.equal(math.add(index, 1), self.k_blocks),
        )

    def _tiles_per_block(self) -> Index:
        """How many row tiles of A fit half the second cache, or the buffer of partial sums."""
        math, spec = self.math, self.spec
        tile_bytes = math.multiply(
            math.maximum(1, self.depth), spec.panel_rows * spec.element_bytes
        )
        most = math.maximum(1, math.divide(max(self.plan.a_block_bytes, 1), tile_bytes))
        most = math.minimum(most, _MOST_TILES)
        return math.select(self._keeps_partial(), math.minimum(most, _PARTIAL_TILES), most)

    def _cut(self, start: Index, rows: Index) -> _RowBlock:
        math = self.math
        tiles = math.divide_up(rows, self.spec.rows)
        height = math.divide(rows, math.maximum(1, tiles))
        return _RowBlock(start, tiles, height, math.subtract(rows, math.multiply(height, tiles)))

    def _share(self, total: Index, part: Index, parts: Index) -> Index:
        return self.math.divide(self.math.multiply(total, part), parts)

    def _round_up(self, x: Index, unit: int) -> Index:
        return self.math.multiply(self.math.divide_up(x, unit), unit)

    def _widen(self, x: ir.Value | int) -> Index:
        return x if isinstance(x, int) else self.builder.zext(x, I64)

    def _at(self, pointer: ir.Value, offset: Index) -> ir.Value:
        if isinstance(offset, int) and offset == 0:
            return pointer
        value = self.math.value(offset)
        return self.builder.gep(pointer, [value], source_etype=self.spec.scalar)

    def _bytes_at(self, pointer: ir.Value, offset: int) -> ir.Value:
        if offset == 0:
            return pointer
        return self.builder.gep(pointer, [I64(offset)], source_etype=ir.IntType(8))


@dataclass(frozen=True)
class _Place:
    """Where a tile lies in C, and in the buffer of partial sums."""

    rows: Index
    columns: Index
    m0: Index
    n0: Index
    row_in_block: Index
    panel_in_group: Index


def _is_one(stride: Index) -> bool:
    return isinstance(stride, int) and stride == 1


def _is_zero(extent: Index) -> bool:
    return isinstance(extent, int) and extent == 0


def _source(stride_i: Index, stride_k: Index, tables: tuple[ir.Value, ...]) -> str:
    if tables:
        return "tables"
    if _is_one(stride_i):
        return "copy"
    return "transpose" if _is_one(stride_k) else "strided"


def _callable(builder: ir.IRBuilder, pointer: ir.Value, kind: ir.FunctionType) -> ir.Value:
    """Load an address as something that llvmlite lets one call: it asks a callee for its type."""
    return builder.load(pointer, typ=kind.as_pointer())
