"""Index polynomials as LLVM IR."""

from __future__ import annotations

from collections.abc import Mapping

from llvmlite import ir

from ..ir.dims import FloorDiv, Symbol
from ..loops.ir import Index
from .elementwise import I64, Elementwise
from .folds import lanes_of
from .llvm_lanes import LaneFeatures


def emit_index(
    builder: ir.IRBuilder, features: LaneFeatures, index: Index, names: Mapping[str, ir.Value]
) -> ir.Value:
    """Emit an index as an i64; a vector of them where a name in it holds one."""
    if isinstance(index, int):
        return I64(index)

    def atom_value(atom: Symbol | FloorDiv) -> ir.Value:
        if isinstance(atom, Symbol):
            return names[atom.name]
        numerator = emit_index(builder, features, atom.numerator, names)
        ops = Elementwise(builder, lanes_of(numerator), features)
        return ops.apply("floordiv", "int64", [numerator, ops.constant(atom.denominator, "int64")])

    def integer(operation: str, a: ir.Value, b: ir.Value) -> ir.Value:
        lanes = max(lanes_of(a), lanes_of(b))
        ops = Elementwise(builder, lanes, features)
        a, b = (x if lanes_of(x) == lanes else ops.splat(x) for x in (a, b))
        return getattr(builder, operation)(a, b)

    total: ir.Value | None = None
    for monomial, coefficient in index.terms:
        product: ir.Value | None = None
        for atom in monomial:
            factor = atom_value(atom)
            product = factor if product is None else integer("mul", product, factor)
        if product is None:
            product = I64(coefficient)
        elif coefficient != 1:
            product = integer("mul", product, I64(coefficient))
        total = product if total is None else integer("add", total, product)
    return I64(0) if total is None else total
