"""Loops, branches and index arithmetic for emitting LLVM IR that is already in SSA form.

The kernels are emitted the way the optimiser would leave them, so they need no IR passes at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

I1 = ir.IntType(1)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
POINTER = ir.PointerType()

Index = int | ir.Value
"""An index: a Python int where it is known while compiling, an i64 value where it is not."""

Flag = bool | ir.Value
"""A condition: a Python bool where it is known while compiling, an i1 value where it is not."""


@contextmanager
def counted_loop(
    builder: ir.IRBuilder, start: Index, stop: Index, step: Index = 1, name: str = "loop"
) -> Iterator[ir.Value]:
    """Emit ``for (i = start; i < stop; i += step)`` around the body; yields ``i``."""
    math = IndexMath(builder)
    entry = builder.block
    head = builder.append_basic_block(f"{name}.head")
    body = builder.append_basic_block(f"{name}.body")
    done = builder.append_basic_block(f"{name}.done")
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64, name=f"{name}.i")
    index.add_incoming(math.value(start), entry)
    builder.cbranch(builder.icmp_signed("<", index, math.value(stop)), body, done)
    builder.position_at_end(body)
    yield index
    following = builder.add(index, math.value(step))
    index.add_incoming(following, builder.block)
    builder.branch(head)
    builder.position_at_end(done)


@contextmanager
def when(builder: ir.IRBuilder, condition: Flag) -> Iterator[bool]:
    """Emit the body under a condition; yields False if it is known to be false.

    A body that Python knows to be dead must not be emitted, so callers write
    ``with when(b, flag) as possible: if possible: ...``.
    """
    if isinstance(condition, bool):
        yield condition
        return
    with builder.if_then(condition):
        yield True


class IndexMath:
    """Arithmetic on ``int | ir.Value`` that folds whatever Python already knows."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def value(self, x: Index) -> ir.Value:
        return ir.Constant(I64, x) if isinstance(x, int) else x

    def add(self, x: Index, y: Index) -> Index:
        if isinstance(x, int) and isinstance(y, int):
            return x + y
        for one, other in ((x, y), (y, x)):
            if isinstance(one, int) and one == 0:
                return other
        return self.builder.add(self.value(x), self.value(y))

    def subtract(self, x: Index, y: Index) -> Index:
        if isinstance(x, int) and isinstance(y, int):
            return x - y
        if isinstance(y, int) and y == 0:
            return x
        return self.builder.sub(self.value(x), self.value(y))

    def multiply(self, x: Index, y: Index) -> Index:
        if isinstance(x, int) and isinstance(y, int):
            return x * y
        for one, other in ((x, y), (y, x)):
            if isinstance(one, int) and one == 0:
                return 0
            if isinstance(one, int) and one == 1:
                return other
        return self.builder.mul(self.value(x), self.value(y))

    def divide(self, x: Index, y: Index) -> Index:
        """Quotient of non-negative numbers, rounded down."""
        if isinstance(x, int) and isinstance(y, int):
            return x // y
        if isinstance(y, int) and y == 1:
            return x
        return self.builder.udiv(self.value(x), self.value(y))

    def divide_up(self, x: Index, y: Index) -> Index:
        return self.divide(self.add(x, self.subtract(y, 1)), y)

    def less(self, x: Index, y: Index) -> Flag:
        if isinstance(x, int) and isinstance(y, int):
            return x < y
        return self.builder.icmp_signed("<", self.value(x), self.value(y))

    def equal(self, x: Index, y: Index) -> Flag:
        if isinstance(x, int) and isinstance(y, int):
            return x == y
        return self.builder.icmp_signed("==", self.value(x), self.value(y))

    def both(self, x: Flag, y: Flag) -> Flag:
        for one, other in ((x, y), (y, x)):
            if isinstance(one, bool):
                return other if one else False
        return self.builder.and_(x, y)

    def either(self, x: Flag, y: Flag) -> Flag:
        for one, other in ((x, y), (y, x)):
            if isinstance(one, bool):
                return True if one else other
        return self.builder.or_(x, y)

    def invert(self, x: Flag) -> Flag:
        return not x if isinstance(x, bool) else self.builder.not_(x)

    def select(self, condition: Flag, x: Index, y: Index) -> Index:
        if isinstance(condition, bool):
            return x if condition else y
        if isinstance(x, int) and isinstance(y, int) and x == y:
            return x
        return self.builder.select(condition, self.value(x), self.value(y))

    def select_pointer(self, condition: Flag, x: ir.Value, y: ir.Value) -> ir.Value:
        if isinstance(condition, bool):
            return x if condition else y
        return self.builder.select(condition, x, y)

    def minimum(self, x: Index, y: Index) -> Index:
        return self.select(self.less(x, y), x, y)

    def maximum(self, x: Index, y: Index) -> Index:
        return self.select(self.less(x, y), y, x)

    def flag(self, x: Flag) -> ir.Value:
        return ir.Constant(I1, int(x)) if isinstance(x, bool) else x
