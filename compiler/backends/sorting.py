"""Sorting a row: one function for each element type and direction, shared by a module's kernels.

A bottom-up merge sort of positions: stable, no recursion, no memory of its own, and the same number
of passes for any data.  A step of a merge chooses by `select`, so that random data costs no
mispredicted branch.
"""

from __future__ import annotations

from llvmlite import ir

from ..ir.types import FLOATS
from .elementwise import I1, I64, MEMORY_TYPES
from .microkernels.control_flow import POINTER, counted_loop

_SORT_TYPE = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, POINTER, I64])


def sort_function(module: ir.Module, dtype: str, descending: bool) -> ir.Function:
    """Return ``void sort(keys, order, spare, n)`` for keys of ``dtype``, defined in ``module``.

    It stores in ``order`` the positions 0 to n-1 in the order of their keys; ``spare`` is scratch
    for as many.  NaN is greater than every number.
    """
    name = f"sort.{dtype}.{'descending' if descending else 'ascending'}"
    found = module.globals.get(name)
    if found is not None:
        return found
    function = ir.Function(module, _SORT_TYPE, name)
    function.linkage = "internal"
    for argument in function.args[:3]:
        argument.attributes.add("noalias")
    keys, order, spare, count = function.args
    merge = _merge_function(module, name, dtype, descending)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    # the result of the last pass must land in `order`, so an odd number of passes starts in `spare`
    bits = b.ctlz(b.sub(count, I64(1)), I1(1))
    several = b.icmp_signed(">", count, I64(1))
    passes = b.select(several, b.sub(I64(64), bits), I64(0))
    odd = b.trunc(passes, I1)
    first, second = b.select(odd, spare, order), b.select(odd, order, spare)
    with counted_loop(b, 0, count, name="number") as position:
        b.store(position, b.gep(first, [position], source_etype=I64), align=8)
    entry = b.block
    head, body, done = (b.append_basic_block(f"pass.{part}") for part in ("head", "body", "done"))
    b.branch(head)
    b.position_at_end(head)
    width, source, target = b.phi(I64), b.phi(POINTER), b.phi(POINTER)
    width.add_incoming(I64(1), entry)
    source.add_incoming(first, entry)
    target.add_incoming(second, entry)
    b.cbranch(b.icmp_signed("<", width, count), body, done)
    b.position_at_end(body)
    twice = b.shl(width, I64(1))
    with counted_loop(b, 0, count, twice, name="pair") as low:
        b.call(merge, [keys, source, target, low, width, count])
    width.add_incoming(twice, b.block)
    source.add_incoming(target, b.block)
    target.add_incoming(source, b.block)
    b.branch(head)
    b.position_at_end(done)
    b.ret_void()
    return function


def _merge_function(module: ir.Module, name: str, dtype: str, descending: bool) -> ir.Function:
    """Define ``merge(keys, source, target, low, width, count)``: two runs of ``width`` become one.

    A run that has no partner is copied.
    """
    kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, POINTER, I64, I64, I64])
    function = ir.Function(module, kind, f"{name}.merge")
    function.linkage = "internal"
    function.args[2].attributes.add("noalias")
    keys, source, target, low, width, count = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))

    def limited(end: ir.Value) -> ir.Value:
        return b.select(b.icmp_signed("<", end, count), end, count)

    def place(array: ir.Value, index: ir.Value) -> ir.Value:
        return b.gep(array, [index], source_etype=I64)

    def key(position: ir.Value) -> ir.Value:
        element = MEMORY_TYPES[dtype]
        return b.load(b.gep(keys, [position], source_etype=element), typ=element)

    middle = limited(b.add(low, width))
    high = limited(b.add(middle, width))
    entry = b.block
    head, both, step, rest = (
        b.append_basic_block(part) for part in ("head", "both", "step", "rest")
    )
    b.branch(head)
    b.position_at_end(head)
    left, right, out = (b.phi(I64) for _ in range(3))
    for phi, start in ((left, low), (right, middle), (out, low)):
        phi.add_incoming(start, entry)
    b.cbranch(b.icmp_signed("<", left, middle), both, rest)
    b.position_at_end(both)
    b.cbranch(b.icmp_signed("<", right, high), step, rest)
    b.position_at_end(step)
    ours = b.load(place(source, left), typ=I64, align=8)
    theirs = b.load(place(source, right), typ=I64, align=8)
    later = _precedes(b, key(theirs), key(ours), dtype, descending)
    b.store(b.select(later, theirs, ours), place(target, out), align=8)
    moved = b.zext(later, I64)
    right.add_incoming(b.add(right, moved), b.block)
    left.add_incoming(b.add(left, b.sub(I64(1), moved)), b.block)
    out.add_incoming(b.add(out, I64(1)), b.block)
    b.branch(head)
    b.position_at_end(rest)
    for start, stop in ((left, middle), (right, high)):
        # what remains of either run; at most one of the two has anything left
        shift = b.sub(out, start)
        with counted_loop(b, start, stop, name="copy") as index:
            value = b.load(place(source, index), typ=I64, align=8)
            b.store(value, place(target, b.add(index, shift)), align=8)
    b.ret_void()
    return function


def _precedes(
    b: ir.IRBuilder, a: ir.Value, other: ir.Value, dtype: str, descending: bool
) -> ir.Value:
    """Return whether ``a`` must stand before ``other``: strictly, so that equals keep their order.

    Ascending: NaN is greater than every number, and equal to itself.
    """
    low, high = (other, a) if descending else (a, other)
    if dtype in FLOATS:
        greater = b.fcmp_unordered(">", high, low)
        return b.and_(greater, b.fcmp_ordered("ord", low, low))
    compare = b.icmp_unsigned if dtype in {"uint32", "bool"} else b.icmp_signed
    return compare(">", high, low)
