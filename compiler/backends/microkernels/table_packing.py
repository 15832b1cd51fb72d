"""Packing through tables: element (i, k) of a panel is ``source[offsets_i[i] + offsets_k[k]]``.

Convolutions come this way: neighbours in a panel are neighbours in memory along runs, the rows of
an image. For each vector of a panel the table of i tells, once for all k, how many runs it has: one
is a plain load for each k, a few are masked loads of one piece each, and what lies within two
vectors (the pixels of a convolution with stride 2) is loaded with them and picked out. Elsewhere a
square of the panel is loaded along k, if that lies in runs, and transposed; the rest is gathered.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ..vector_target import VectorTarget
from .control_flow import I1, I32, I64, POINTER, IndexMath, counted_loop
from .tile import TileSpec, masked_load, prefix_mask, splat
from .transposition import transpose_square

#: Emits whether a way to load the vectors applies; emits the loads and stores for all k.
Way = tuple[Callable[[], ir.Value], Callable[[], None]]


def emit_table_packing(
    b: ir.IRBuilder, target: VectorTarget, spec: TileSpec, vectors: int, args: list[ir.Value]
) -> None:
    """Emit the body of a packing routine; ``args`` as `packing.PACK_TABLES_TYPE` lists them."""
    panel, source, offsets_i, offsets_k, valid, k = args
    spread = b.alloca(ir.VectorType(I64, spec.lanes))
    with counted_loop(b, 0, vectors * spec.lanes, spec.lanes, name="vector") as first:
        count = b.sub(valid, first)
        with b.if_then(b.icmp_signed(">", count, I64(0))):
            _VectorPacking(b, target, spec, vectors, spread).emit(
                _at(b, spec, panel, first),
                source,
                b.gep(offsets_i, [first], source_etype=I64),
                offsets_k,
                count,
                k,
            )


class _VectorPacking:
    """Packs one vector of i for all k."""

    def __init__(
        self,
        b: ir.IRBuilder,
        target: VectorTarget,
        spec: TileSpec,
        vectors: int,
        spread: ir.Value,
    ) -> None:
        self.b, self.target, self.spec = b, target, spec
        self.lanes = spec.lanes
        self.width = vectors * spec.lanes
        self.spread = spread
        self.math = IndexMath(b)

    def emit(
        self,
        panel: ir.Value,
        source: ir.Value,
        offsets_i: ir.Value,
        offsets_k: ir.Value,
        count: ir.Value,
        k: ir.Value,
    ) -> None:
        b = self.b
        self.panel, self.source, self.offsets_k, self.k = panel, source, offsets_k, k
        across = _Runs(self, offsets_i, count)
        self.places = across.offsets
        b.store(across.offsets, self.spread, align=8)
        single = b.and_(across.is_single(), across.is_full())

        def otherwise(ways: list[Way]) -> None:
            if not ways:
                self.pack_squares()
                return
            applies, pack = ways[0]
            with b.if_else(applies()) as (suited, unsuited):
                with suited:
                    pack()
                with unsuited:
                    otherwise(ways[1:])

        def pieces(most: int) -> Way:
            return lambda: across.has_at_most(most), lambda: self.pack_pieces(across, most)

        with b.if_else(single) as (whole, broken):
            with whole:
                start = self.element(source, across.first())
                self.each_step(lambda at: self.load(self.element(start, at)))
            with broken:
                ways: list[Way] = []
                if self.target.isa in {"avx512", "avx2"}:
                    ways.append(pieces(2))
                if self.target.isa == "avx512":
                    ways.append((across.is_near, lambda: self.pack_near(across)))
                    ways.append(pieces(4))
                otherwise(ways)

    # -- along i -------------------------------------------------------------------------------

    def each_step(self, load: Callable[[ir.Value], ir.Value]) -> None:
        """Store a vector for every k; ``load`` gets the offset of k."""
        with counted_loop(self.b, 0, self.k, name="step") as step:
            self.store(load(self.offset_of(step)), step)

    def pack_pieces(self, runs: _Runs, most: int) -> None:
        pieces = [(self.element(self.source, start), mask) for start, mask in runs.split(most)]
        self.each_step(lambda at: self.load_pieces(pieces, at))

    def pack_near(self, runs: _Runs) -> None:
        """Pick every vector out of the two that begin at its first element; see `_Runs.is_near`."""
        b, lanes, spec = self.b, self.lanes, self.spec
        number = ir.IntType(8 * spec.element_bytes)
        picks = runs.distances()
        if spec.element_bytes < 8:
            picks = b.trunc(picks, ir.VectorType(number, lanes))
        reach = b.add(runs.farthest(), I64(1))
        masks = [prefix_mask(b, b.sub(reach, I64(start)), lanes) for start in (0, lanes)]
        start = self.element(self.source, runs.first())
        kind = "ps" if spec.dtype == "float32" else "pd"
        name = f"llvm.x86.avx512.vpermi2var.{kind}.512"
        permute = b.module.globals.get(name) or ir.Function(
            b.module, ir.FunctionType(spec.vector, [spec.vector, picks.type, spec.vector]), name
        )

        def load(at: ir.Value) -> ir.Value:
            low = self.element(start, at)
            high = self.element(low, I64(lanes))
            halves = [
                masked_load(b, pointer, spec.vector, mask)
                for pointer, mask in zip((low, high), masks, strict=True)
            ]
            return b.call(permute, [halves[0], picks, halves[1]])

        self.each_step(load)

    def load_pieces(self, pieces: list[tuple[ir.Value, ir.Value]], at: ir.Value) -> ir.Value:
        value = None
        for start, mask in pieces:
            value = masked_load(self.b, self.element(start, at), self.spec.vector, mask, value)
        assert value is not None
        return value

    # -- along k -------------------------------------------------------------------------------

    def pack_squares(self) -> None:
        """Transpose the squares of the panel that lie in runs along k, gather the others."""
        b, lanes = self.b, self.lanes
        with counted_loop(b, 0, self.k, lanes, name="square") as step:
            left = b.sub(self.k, step)
            table = b.gep(self.offsets_k, [step], source_etype=I64)
            deep = _Runs(self, table, left)
            regular = deep.is_single()
            if not self.target.has_masked_memory:
                regular = b.and_(regular, deep.is_full())
            with b.if_else(regular) as (in_order, mixed):
                with in_order:
                    self.transpose(step, self.whole_row(deep))
                with mixed:
                    self.pack_mixed(step, left, deep)

    def pack_mixed(self, step: ir.Value, left: ir.Value, deep: _Runs) -> None:
        b = self.b
        if not self.target.has_masked_memory:
            self.gather(step, left)
            return
        with b.if_else(deep.has_at_most(2)) as (two, many):
            with two:
                pieces = deep.split(2)
                starts = [(self.element(self.source, start), mask) for start, mask in pieces]
                self.transpose(step, lambda at: self.load_pieces(starts, at))
            with many:
                self.gather(step, left)

    def whole_row(self, deep: _Runs) -> Callable[[ir.Value], ir.Value]:
        start = self.element(self.source, deep.first())
        if not self.target.has_masked_memory:
            return lambda at: self.load(self.element(start, at))
        return lambda at: masked_load(self.b, self.element(start, at), self.spec.vector, deep.valid)

    def transpose(self, step: ir.Value, load: Callable[[ir.Value], ir.Value]) -> None:
        b = self.b
        rows = []
        for lane in range(self.lanes):
            place = b.gep(self.spread, [I64(lane)], source_etype=I64)
            rows.append(load(b.load(place, typ=I64, align=8)))
        for number, column in enumerate(transpose_square(b, rows)):
            self.store(column, b.add(step, I64(number)))

    def gather(self, step: ir.Value, left: ir.Value) -> None:
        b, lanes = self.b, self.lanes
        stop = self.math.value(self.math.minimum(left, lanes))
        size = ir.Constant(self.places.type, [self.spec.element_bytes] * lanes)
        base = splat(b, b.ptrtoint(self.source, I64), lanes)
        fixed = b.add(b.mul(self.places, size), base)
        with counted_loop(b, 0, stop, name="gather") as number:
            at = b.add(step, number)
            moved = b.mul(self.offset_of(at), I64(self.spec.element_bytes))
            addresses = b.add(fixed, splat(b, moved, lanes))
            self.store(self.gather_load(addresses), at)

    def gather_load(self, addresses: ir.Value) -> ir.Value:
        b, vector = self.b, self.spec.vector
        pointers = b.inttoptr(addresses, ir.VectorType(POINTER, self.lanes))
        mask = ir.Constant(ir.VectorType(I1, self.lanes), [1] * self.lanes)
        kind = "f32" if self.spec.dtype == "float32" else "f64"
        name = f"llvm.masked.gather.v{self.lanes}{kind}.v{self.lanes}p0"
        function = b.module.globals.get(name) or ir.Function(
            b.module, ir.FunctionType(vector, [pointers.type, I32, mask.type, vector]), name
        )
        align = I32(self.spec.element_bytes)
        return b.call(function, [pointers, align, mask, ir.Constant(vector, None)])

    # -- memory --------------------------------------------------------------------------------

    def offset_of(self, step: ir.Value) -> ir.Value:
        place = self.b.gep(self.offsets_k, [step], source_etype=I64)
        return self.b.load(place, typ=I64, align=8)

    def element(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        return _at(self.b, self.spec, pointer, offset)

    def load(self, pointer: ir.Value) -> ir.Value:
        return self.b.load(pointer, align=self.spec.element_bytes, typ=self.spec.vector)

    def store(self, value: ir.Value, step: ir.Value) -> None:
        out = self.element(self.panel, self.b.mul(step, I64(self.width)))
        self.b.store(value, out, align=self.spec.element_bytes)


class _Runs:
    """A vector's worth of table entries, cut into runs of consecutive offsets.

    Lanes at or past ``count`` repeat the first offset and begin no run.
    """

    def __init__(self, packing: _VectorPacking, table: ir.Value, count: ir.Value) -> None:
        b, lanes = packing.b, packing.lanes
        self.b, self.lanes, self.table, self.count = b, lanes, table, count
        self.valid = prefix_mask(b, count, lanes)
        vector = ir.VectorType(I64, lanes)
        loaded = masked_load(b, table, vector, self.valid)
        self.offsets = b.select(self.valid, loaded, splat(b, self.first(), lanes))
        shifted = ir.Constant(
            ir.VectorType(I32, lanes), [max(lane - 1, 0) for lane in range(lanes)]
        )
        before = b.shuffle_vector(self.offsets, self.offsets, shifted)
        following = b.add(before, ir.Constant(vector, [1] * lanes))
        starts = b.and_(b.icmp_signed("!=", self.offsets, following), self.valid)
        self.starts = b.zext(b.bitcast(starts, ir.IntType(lanes)), I64)

    def first(self) -> ir.Value:
        return self.b.load(self.table, typ=I64, align=8)

    def is_full(self) -> ir.Value:
        return self.b.icmp_signed(">=", self.count, I64(self.lanes))

    def is_single(self) -> ir.Value:
        return self.b.icmp_unsigned("==", self.starts, I64(1))

    def has_at_most(self, runs: int) -> ir.Value:
        return self.b.icmp_unsigned("<=", self.b.ctpop(self.starts), I64(runs))

    def distances(self) -> ir.Value:
        """Return how far each lane is from the first."""
        return self.b.sub(self.offsets, splat(self.b, self.first(), self.lanes))

    def farthest(self) -> ir.Value:
        distances = self.distances()
        name = f"llvm.vector.reduce.umax.v{self.lanes}i64"
        module = self.b.module
        reduce = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(I64, [distances.type]), name
        )
        return self.b.call(reduce, [distances])

    def is_near(self) -> ir.Value:
        """Whether all lanes lie within two vectors from the first lane on."""
        return self.b.icmp_unsigned("<", self.farthest(), I64(2 * self.lanes))

    def split(self, most: int) -> list[tuple[ir.Value, ir.Value]]:
        """Return for each of ``most`` runs where lane 0 of its line would be, and its lanes."""
        b = self.b
        bits = I64((1 << self.lanes) - 1)
        inside = b.zext(b.bitcast(self.valid, ir.IntType(self.lanes)), I64)
        pieces = []
        rest = self.starts
        for _ in range(most):
            # Past the last run: lane 0, and no lanes.
            none = b.icmp_unsigned("==", rest, I64(0))
            lane = b.select(none, I64(0), b.cttz(rest, I1(0)))
            lowest = b.and_(rest, b.neg(rest))
            rest = b.xor(rest, lowest)
            # From this run's start up to the next one's: all ones below each, subtracted.
            below_next = b.and_(b.sub(b.and_(rest, b.neg(rest)), I64(1)), bits)
            lanes = b.and_(b.and_(below_next, b.xor(b.sub(lowest, I64(1)), I64(-1))), inside)
            lanes = b.select(none, I64(0), lanes)
            mask = b.bitcast(b.trunc(lanes, ir.IntType(self.lanes)), ir.VectorType(I1, self.lanes))
            place = b.gep(self.table, [lane], source_etype=I64)
            pieces.append((b.sub(b.load(place, typ=I64, align=8), lane), mask))
        return pieces


def _at(b: ir.IRBuilder, spec: TileSpec, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    return b.gep(pointer, [offset], source_etype=spec.scalar)
