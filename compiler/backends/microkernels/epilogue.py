"""What happens to a finished tile of C: a plain store, or code that the caller emits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from .control_flow import I64, Index, IndexMath, counted_loop
from .tile import TileSpec, masked_load, masked_store, prefix_mask


@dataclass(frozen=True)
class Store:
    """Write C as it is: element (m, n) goes to ``c[m * c_m + n * c_n]``.

    With ``c_n == 1`` the tile kernels write C themselves.
    """

    c: ir.Value
    c_m: Index
    c_n: Index = 1


@dataclass(frozen=True)
class TileVector:
    """Up to ``lanes`` neighbouring elements of one row of a finished tile.

    ``m`` and ``n`` are the i64 coordinates in C of the first element; ``value`` holds the sums.
    ``mask`` is None where every lane is valid. Lanes that are not valid hold stale numbers.
    """

    builder: ir.IRBuilder
    m: ir.Value
    n: ir.Value
    value: ir.Value
    mask: ir.Value | None

    def at(self, base: ir.Value, stride_m: Index, stride_n: int = 1, scalar=None) -> ir.Value:
        """Return the address of ``base[m * stride_m + n * stride_n]``."""
        math = IndexMath(self.builder)
        offset = math.add(math.multiply(self.m, stride_m), math.multiply(self.n, stride_n))
        kind = scalar or self.value.type.element
        return self.builder.gep(base, [math.value(offset)], source_etype=kind)

    def load(self, pointer: ir.Value, scalar: ir.Type | None = None) -> ir.Value:
        """Load the elements at ``pointer`` that pair with the valid lanes; others are zero."""
        element = scalar or self.value.type.element
        vector = ir.VectorType(element, self.value.type.count)
        if self.mask is not None:
            return masked_load(self.builder, pointer, vector, self.mask)
        return self.builder.load(pointer, align=_natural_alignment(element), typ=vector)

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        """Store the valid lanes of ``value`` at ``pointer``."""
        if self.mask is not None:
            masked_store(self.builder, value, pointer, self.mask)
        else:
            self.builder.store(value, pointer, align=_natural_alignment(value.type.element))


@dataclass(frozen=True)
class Tile:
    """A finished tile of C, waiting in a buffer in the nearest cache.

    ``rows`` × ``columns`` (i64 values) elements are valid; the first is C[``m0``, ``n0``]. Row i
    starts at ``pointer + i * row_stride`` (elements) and may be read in whole vectors up to the
    full width of the tile. ``whole`` says that every column is valid, so no mask is needed.
    """

    spec: TileSpec
    rows: ir.Value
    columns: ir.Value
    m0: ir.Value
    n0: ir.Value
    pointer: ir.Value
    row_stride: Index
    whole: bool

    def each_vector(self, builder: ir.IRBuilder, body: Callable[[TileVector], None]) -> None:
        """Emit a loop over the rows, and over the vectors of a row; ``body`` emits the inside.

        ``body`` runs once per vector of a row when the tile is whole, else once.
        """
        spec = self.spec
        with counted_loop(builder, 0, self.rows, name="row") as i:
            if self.whole:
                for j in range(spec.vectors):
                    body(self._vector(builder, i, I64(j * spec.lanes), None))
                return
            with counted_loop(builder, 0, self.columns, spec.lanes, name="column") as first:
                mask = prefix_mask(builder, builder.sub(self.columns, first), spec.lanes)
                body(self._vector(builder, i, first, mask))

    def each_element(
        self, builder: ir.IRBuilder, body: Callable[[ir.Value, ir.Value, ir.Value], None]
    ) -> None:
        """Emit loops over single elements; ``body(m, n, address_in_tile)`` emits the inside."""
        with (
            counted_loop(builder, 0, self.rows, name="row") as i,
            counted_loop(builder, 0, self.columns, name="column") as j,
        ):
            body(builder.add(self.m0, i), builder.add(self.n0, j), self.address(builder, i, j))

    def address(self, builder: ir.IRBuilder, i: ir.Value, j: ir.Value) -> ir.Value:
        """Return where element (i, j) of the tile is."""
        math = IndexMath(builder)
        offset = math.value(math.add(math.multiply(i, self.row_stride), j))
        return builder.gep(self.pointer, [offset], source_etype=self.spec.scalar)

    def _vector(
        self, builder: ir.IRBuilder, i: ir.Value, first: ir.Value, mask: ir.Value | None
    ) -> TileVector:
        spec = self.spec
        value = builder.load(
            self.address(builder, i, first), align=spec.element_bytes, typ=spec.vector
        )
        m, n = builder.add(self.m0, i), builder.add(self.n0, first)
        return TileVector(builder, m, n, value, mask)


Epilogue = Callable[[ir.IRBuilder, Tile], None]


def _natural_alignment(element: ir.Type) -> int:
    return _ALIGNMENTS[str(element)]


_ALIGNMENTS = {"float": 4, "double": 8, "half": 2, "bfloat": 2, "i1": 1} | {
    f"i{bits}": bits // 8 for bits in (8, 16, 32, 64)
}
