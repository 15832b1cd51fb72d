"""Folds: reductions that a loop carries in registers, lane by lane and then across lanes."""

from __future__ import annotations

from typing import Any, Protocol

from llvmlite import ir

from ..ir.types import FLOATS, greatest_value, least_value
from ..loops.ir import Expr, Fold, Index
from .elementwise import Elementwise
from .llvm_lanes import LaneFeatures


class BodyEmitter(Protocol):
    """What a fold needs of whatever emits the body of its loop; a scope is that emitter's own."""

    builder: ir.IRBuilder
    features: LaneFeatures

    def expr(self, expr: Expr, scope: Any) -> ir.Value:
        """Emit an expression."""
        ...

    def lane_index(self, index: Index, scope: Any) -> ir.Value:
        """Emit an index for every lane."""
        ...

    def reduce_lanes(self, kind: str, value: ir.Value, dtype: str) -> ir.Value:
        """Combine the lanes of a vector in a fixed tree."""
        ...

    def pick(self, value: ir.Value, lanes: range) -> ir.Value:
        """Return some lanes of a vector."""
        ...


def lanes_of(value: ir.Value) -> int:
    """Return how many lanes ``value`` has: 1 for a scalar."""
    return value.type.count if isinstance(value.type, ir.VectorType) else 1


def fold_identity(kind: str, dtype: str) -> float | int:
    """Return the value that a fold starts from."""
    if kind == "sum":
        return 0
    if kind == "prod":
        return 1
    return least_value(dtype) if kind in {"max", "argmax"} else greatest_value(dtype)


COMBINE = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}


class Carry:
    """A fold while its loop is emitted: one accumulator, or a best value and its position."""

    def __init__(self, emitter: BodyEmitter, fold: Fold, lanes: int) -> None:
        self.emitter = emitter
        self.fold = fold
        self.lanes = lanes
        self.positional = fold.kind.startswith("arg")
        self.dtype = fold.value.dtype
        self.current: tuple[ir.Value, ...] = ()
        self.phis: tuple[ir.PhiInstr, ...] = ()

    def ops(self) -> Elementwise:
        return Elementwise(self.emitter.builder, self.lanes, self.emitter.features)

    def start(self) -> None:
        ops = self.ops()
        first = ops.constant(fold_identity(self.fold.kind, self.dtype), self.dtype)
        self.current = (first,)
        if self.positional:
            self.current = (first, ops.constant((1 << 63) - 1, "int64"))

    def enter(self, entry: ir.Block) -> None:
        phis = []
        for value in self.current:
            phi = self.emitter.builder.phi(value.type)
            phi.add_incoming(value, entry)
            phis.append(phi)
        self.phis = self.current = tuple(phis)

    def advance(self, scope: Any, mask: ir.Value | None) -> None:
        """Take one more value in; lanes outside ``mask`` keep what they have."""
        emitter, ops = self.emitter, self.ops()
        value = emitter.expr(self.fold.value, scope)
        if lanes_of(value) != self.lanes:
            value = ops.splat(value)
        if self.positional:
            position = emitter.lane_index(self.fold.position, scope)
            if lanes_of(position) != self.lanes:
                position = ops.splat(position)
            new = self.better(ops, self.current, (value, position))
        elif self.dtype == "bool":
            function = {"max": "logical_or", "min": "logical_and"}[self.fold.kind]
            new = (ops.apply(function, "bool", [self.current[0], value]),)
        else:
            function = COMBINE[self.fold.kind]
            new = (ops.apply(function, self.dtype, [self.current[0], value]),)
        if mask is not None:
            new = tuple(
                emitter.builder.select(mask, n, old)
                for n, old in zip(new, self.current, strict=True)
            )
        self.current = new

    def better(
        self, ops: Elementwise, old: tuple[ir.Value, ...], new: tuple[ir.Value, ...]
    ) -> tuple[ir.Value, ...]:
        """The better of two candidates; the earlier position on a tie, and NaN beats all."""
        b = self.emitter.builder
        wins = "gt" if self.fold.kind == "argmax" else "lt"
        dtype = self.dtype
        ahead = ops.apply(wins, dtype, [new[0], old[0]])
        level = ops.apply("eq", dtype, [new[0], old[0]])
        if dtype in FLOATS:
            new_nan = ops.apply("isnan", dtype, [new[0]])
            old_nan = ops.apply("isnan", dtype, [old[0]])
            ahead = b.or_(ahead, b.and_(new_nan, ops.apply("logical_not", "bool", [old_nan])))
            level = b.or_(level, b.and_(new_nan, old_nan))
        earlier = ops.apply("lt", "int64", [new[1], old[1]])
        take = b.or_(ahead, b.and_(level, earlier))
        return tuple(b.select(take, n, o) for n, o in zip(new, old, strict=True))

    def close(self, block: ir.Block) -> None:
        for phi, value in zip(self.phis, self.current, strict=True):
            phi.add_incoming(value, block)
        self.current = self.phis

    def merge(self, old: tuple[ir.Value, ...], before: ir.Block, after: ir.Block) -> None:
        merged = []
        for kept, new in zip(old, self.current, strict=True):
            phi = self.emitter.builder.phi(new.type)
            phi.add_incoming(kept, before)
            phi.add_incoming(new, after)
            merged.append(phi)
        self.current = tuple(merged)

    def result(self) -> ir.Value:
        return self.current[-1]

    def across_lanes(self) -> ir.Value:
        emitter = self.emitter
        if not self.positional:
            return emitter.reduce_lanes(self.fold.kind, self.current[0], self.dtype)
        pair, lanes = self.current, self.lanes
        while lanes > 1:
            half = lanes // 2
            ops = Elementwise(emitter.builder, half, emitter.features)
            low = tuple(emitter.pick(v, range(half)) for v in pair)
            high = tuple(emitter.pick(v, range(half, lanes)) for v in pair)
            pair = self.better(ops, low, high)
            lanes = half
        return pair[1]
