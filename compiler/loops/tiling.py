"""Arrange a kernel's loops: merge axes, choose the vector axis, and share out the outermost loop.

The body comes with an index symbol ``%a0, %a1, …`` for each axis of the group and a placeholder
loop named ``inner`` for each pass over the inner axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..ir.affine import linear_coefficient, substitute_index
from ..ir.dims import SymbolicDim
from ..ir.types import Dim
from ..schedule.plan import KernelGroup
from .ir import (
    Apply,
    Carry,
    Check,
    Convert,
    Expr,
    Fold,
    Index,
    IndexValue,
    Let,
    Load,
    Loop,
    Philox,
    Stmt,
    Store,
    Var,
    children,
    expressions,
    walk,
)


def axis_name(axis: int) -> str:
    """Return the index of a group's axis; no dimension symbol of a user starts with ``%``."""
    return f"%a{axis}"


def _indices(stmts: tuple[Stmt, ...]) -> Iterator[tuple[Index, bool]]:
    """Yield every index in ``stmts`` with whether it addresses memory."""
    for stmt in walk(stmts):
        if isinstance(stmt, Store):
            yield stmt.offset, True
        if isinstance(stmt, Loop):
            for fold in stmt.folds:
                yield fold.position, False
        stack = list(expressions(stmt))
        while stack:
            expr = stack.pop()
            if isinstance(expr, Load):
                yield expr.offset, True
            elif isinstance(expr, IndexValue):
                yield expr.index, False
            stack.extend(children(expr))


def _substitute_expr(expr: Expr, values: dict[str, Index]) -> Expr:
    match expr:
        case Load():
            guard = None if expr.guard is None else _substitute_expr(expr.guard, values)
            return Load(expr.dtype, expr.buffer, substitute_index(expr.offset, values), guard)
        case IndexValue():
            return IndexValue(expr.dtype, substitute_index(expr.index, values))
        case Apply():
            args = tuple(_substitute_expr(arg, values) for arg in expr.args)
            return Apply(expr.dtype, expr.function, args)
        case Convert():
            return Convert(expr.dtype, _substitute_expr(expr.arg, values))
        case Philox():
            element = _substitute_expr(expr.element, values)
            state = _substitute_expr(expr.state, values)
            return Philox(expr.dtype, expr.word, expr.stream, element, state)
        case _:
            return expr


def substitute(stmts: tuple[Stmt, ...], values: dict[str, Index]) -> tuple[Stmt, ...]:
    """Return ``stmts`` with index symbols replaced."""
    result: list[Stmt] = []
    for stmt in stmts:
        match stmt:
            case Let():
                result.append(Let(stmt.name, _substitute_expr(stmt.value, values)))
            case Store():
                offset = substitute_index(stmt.offset, values)
                value = _substitute_expr(stmt.value, values)
                result.append(Store(stmt.buffer, offset, value, stmt.accumulate))
            case Check():
                condition = _substitute_expr(stmt.condition, values)
                result.append(Check(condition, stmt.site, _substitute_expr(stmt.value, values)))
            case Loop():
                folds = tuple(
                    Fold(
                        f.name,
                        f.kind,
                        _substitute_expr(f.value, values),
                        substitute_index(f.position, values),
                    )
                    for f in stmt.folds
                )
                carries = tuple(
                    Carry(
                        c.name,
                        _substitute_expr(c.start, values),
                        _substitute_expr(c.value, values),
                    )
                    for c in stmt.carries
                )
                body = substitute(stmt.body, values)
                result.append(replace(stmt, body=body, folds=folds, carries=carries))
            case _:
                result.append(stmt)
    return tuple(result)


def _merge_axes(
    body: tuple[Stmt, ...], domain: list[Dim], inner: frozenset[int]
) -> tuple[tuple[Stmt, ...], dict[int, Dim]]:
    """Merge an axis into the next where every index runs through both without a gap."""
    extents: dict[int, Dim] = dict(enumerate(domain))
    for axis in reversed(range(len(domain) - 1)):
        after = axis + 1
        if (axis in inner) != (after in inner):
            continue
        outer_name, inner_name = axis_name(axis), axis_name(after)
        contiguous = True
        for index, _ in _indices(body):
            a = linear_coefficient(index, outer_name)
            b = linear_coefficient(index, inner_name)
            if a is None or b is None or b * extents[after] != a:
                contiguous = False
                break
        if contiguous:
            body = substitute(body, {outer_name: 0})
            extents[after] = extents[after] * extents.pop(axis)
            # the merged axis keeps the inner name; move it so that the next pair lines up
            body = _rename(body, inner_name, outer_name)
            extents[axis] = extents.pop(after)
    return body, extents


def _rename(body: tuple[Stmt, ...], old: str, new: str) -> tuple[Stmt, ...]:
    return substitute(body, {old: SymbolicDim.of(new)})


#: An axis of fewer elements (the window of a convolution) leaves most lanes of a vector empty.
_FEW_LANES = 8


def _vector_axis(body: tuple[Stmt, ...], extents: dict[int, Dim]) -> int:
    """Return the axis along which most accesses are contiguous, the last one on a tie."""
    score = dict.fromkeys(extents, 0)
    for index, memory in _indices(body):
        if not memory:
            continue
        for axis in extents:
            coefficient = linear_coefficient(index, axis_name(axis))
            if coefficient == 1:
                score[axis] += 2
            elif coefficient != 0:
                score[axis] -= 3
    best = max(extents, key=lambda axis: (score[axis], axis))
    if _is_below(extents[best], _FEW_LANES):
        wide = [a for a in extents if score[a] > 0 and not _is_below(extents[a], _FEW_LANES)]
        return max(wide, key=lambda axis: (score[axis], axis), default=best)
    return best


def _is_below(dim: Dim, limit: int) -> bool:
    return isinstance(dim, int) and dim < limit


def arrange_loops(
    group: KernelGroup, body: tuple[Stmt, ...], domain: list[Dim]
) -> tuple[Stmt, ...]:
    """Return the loops of a kernel around ``body``."""
    if not domain:
        return body
    body, extents = _merge_axes(body, domain, group.inner)
    vector = _vector_axis(body, extents)
    inner = [axis for axis in extents if axis in group.inner]
    outer = [axis for axis in extents if axis not in group.inner and axis != vector]
    inner.sort(key=lambda axis: (axis == vector, axis))
    outer.sort()
    if group.inner:
        body = tuple(
            _nest(stmt, inner, extents, vector)
            if isinstance(stmt, Loop) and stmt.index == "inner"
            else stmt
            for stmt in body
        )
    if vector not in group.inner:
        shared = not outer
        body = (Loop(axis_name(vector), extents[vector], "vector", body, shared=shared),)
    for axis in reversed(outer):
        body = (Loop(axis_name(axis), extents[axis], "serial", body, shared=axis == outer[0]),)
    return body


def _nest(placeholder: Loop, axes: list[int], extents: dict[int, Dim], vector: int) -> Loop:
    """Return the loops over the inner axes, folds carried from each to the one around it."""
    body, folds = placeholder.body, placeholder.folds
    loop: Loop | None = None
    for depth, axis in enumerate(reversed(axes)):
        outermost = depth == len(axes) - 1
        suffix = "" if outermost else f"_{axis}"
        named = tuple(Fold(f.name + suffix, f.kind, f.value, f.position) for f in folds)
        kind = "vector" if axis == vector else "serial"
        loop = Loop(axis_name(axis), extents[axis], kind, body, named)
        body = (loop,)
        folds = tuple(
            Fold(f.name, f.kind, Var(n.dtype, n.name)) for f, n in zip(folds, named, strict=True)
        )
    assert loop is not None
    return loop
