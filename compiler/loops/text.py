"""The kernel IR as text, one statement a line, the way the grammar in `ir` reads.

    program   = symbols { storage } { site } 'steps' { item } { kernel }
    symbols   = 'symbols' { name }
    storage   = kind name ':' dtype '[' index ']' [ '=' '#'digest ] [ label ]
    site      = 'site' text [ '@' text ':' number text ]
    item      = [ 'barrier' ] kernel name | 'repeat' name 'in' index ':' { item }
              | [ 'barrier' ] 'if' name '[' index ']' ':' { item } 'else' ':' { item }
              | 'test' ':' { item } 'while' name ':' { item }
    kernel    = 'kernel' name '(' { name ':' dtype [ '!' ] } ')' 'flops' index 'bytes' index
                'work' index [ label ] ':' { statement }
    statement = '%'name '=' expr | name '[' index ']' ( '=' | '+=' ) expr
              | 'check' number ':' expr 'else' expr
              | 'for' '%'name 'in' index kind [ 'shared' ] ':' { carry } { statement } { fold }
                { next }
              | 'sort' dtype [ 'descending' ] 'of' index 'at' index ':' keys '->' order ',' spare
              | 'contract' '%'name ':' dtype 'for' '%'row 'in' index ',' '%'column 'in' index
                ',' depth 'in' index ':' operand '*' operand { statement }
    fold      = 'fold' '%'name '=' kind '(' expr [ 'at' index ] ')'
    carry     = 'carry' '%'name '=' expr
    next      = 'next' '%'name '=' expr
    operand   = name '[' offset ';' step ';' step ']' | function '(' operand [ ',' number ] ')'
    step      = stride | 'at' name of a table
    expr      = number ':' dtype | '%'name | 'index' '(' index ')' | function '(' { expr } ')'
              | dtype '(' expr ')' | 'philox' '.' word '.' stream '(' expr ',' expr ')'
              | name '[' index ']' ':' dtype [ 'if' expr ]

``!`` marks a buffer that the kernel writes.  Blocks are indented by two spaces.  Names that are no
plain words are quoted.  `parse` reads this back; a constant's elements are named by their digest,
and the user's lines of check sites are printed on request.
"""

from __future__ import annotations

import json
import re

from ..ir.dims import FloorDiv, Symbol
from .ir import (
    Apply,
    BufferUse,
    Check,
    CheckSite,
    Choice,
    Contraction,
    Convert,
    Expr,
    Fold,
    Index,
    IndexValue,
    Item,
    Kernel,
    Let,
    Literal,
    Load,
    Loop,
    LoopProgram,
    Operand,
    Philox,
    Repeat,
    Sort,
    Step,
    Stmt,
    Storage,
    Store,
    Var,
    While,
)

_WORD = re.compile(r"%?[A-Za-z_][A-Za-z0-9_.]*\Z")
_INDENT = "  "


def format_name(name: str) -> str:
    """Return a name bare where it reads back as one word, else quoted."""
    return name if _WORD.match(name) else json.dumps(name)


def format_index(index: Index) -> str:
    """Return a polynomial, ``784*%m + %n - 1``; a division that may be inexact is ``(…)//4``."""
    if isinstance(index, int):
        return str(index)
    text = ""
    for monomial, coefficient in index.terms:
        factors = [_format_atom(atom) for atom in monomial]
        size = abs(coefficient) if text else coefficient
        if size != 1 or not factors:
            factors.insert(0, str(size))
        sign = "" if not text else " - " if coefficient < 0 else " + "
        text += sign + "*".join(factors)
    return text


def _format_atom(atom: Symbol | FloorDiv) -> str:
    if isinstance(atom, Symbol):
        return format_name(atom.name)
    return f"({format_index(atom.numerator)})//{atom.denominator}"


def format_expr(expr: Expr) -> str:
    """Return an expression on one line."""
    match expr:
        case Literal(dtype, value):
            return f"{value!r}:{dtype}"
        case Load():
            guard = f" if {format_expr(expr.guard)}" if expr.guard is not None else ""
            return f"{_format_place(expr.buffer, expr.offset)}:{expr.dtype}{guard}"
        case Var(_, name):
            return name
        case IndexValue(_, index):
            return f"index({format_index(index)})"
        case Apply():
            return f"{expr.function}({', '.join(map(format_expr, expr.args))})"
        case Convert():
            return f"{expr.dtype}({format_expr(expr.arg)})"
        case Philox():
            inner = f"{format_expr(expr.element)}, {format_expr(expr.state)}"
            return f"philox.{expr.word}.{expr.stream}({inner})"
    raise TypeError(f"no text for {expr!r}")


def _format_place(buffer: str, offset: Index) -> str:
    return f"{format_name(buffer)}[{format_index(offset)}]"


def _format_fold(fold: Fold) -> str:
    at = f" at {format_index(fold.position)}" if fold.kind.startswith("arg") else ""
    return f"fold {fold.name} = {fold.kind}({format_expr(fold.value)}{at})"


def _format_operand(operand: Operand) -> str:
    steps = [
        f"at {format_name(step)}" if isinstance(step, str) else format_index(step)
        for step in (operand.row, operand.column)
    ]
    text = f"{format_name(operand.buffer)}[{format_index(operand.offset)}; {'; '.join(steps)}]"
    for function, number in operand.prologue:
        second = "" if number is None else f", {format_expr(number)}"
        text = f"{function}({text}{second})"
    return text


def format_statement(stmt: Stmt) -> str:
    """Return the first line of a statement: all of it, but for the body of a loop."""
    match stmt:
        case Let():
            return f"{stmt.name} = {format_expr(stmt.value)}"
        case Store():
            sign = "+=" if stmt.accumulate else "="
            place = _format_place(stmt.buffer, stmt.offset)
            return f"{place} {sign} {format_expr(stmt.value)}"
        case Check():
            condition, value = format_expr(stmt.condition), format_expr(stmt.value)
            return f"check {stmt.site}: {condition} else {value}"
        case Loop():
            shared = " shared" if stmt.shared else ""
            return f"for {stmt.index} in {format_index(stmt.extent)} {stmt.kind}{shared}:"
        case Sort():
            direction = " descending" if stmt.descending else ""
            extent, offset = format_index(stmt.extent), format_index(stmt.offset)
            keys, order, spare = map(format_name, (stmt.keys, stmt.order, stmt.spare))
            return (
                f"sort {stmt.dtype}{direction} of {extent} at {offset}: {keys} -> {order}, {spare}"
            )
        case Contraction():
            rows, columns, depth = map(format_index, (stmt.rows, stmt.columns, stmt.depth))
            left, right = map(_format_operand, (stmt.left, stmt.right))
            return (
                f"contract {stmt.result}:{stmt.dtype} for {stmt.row} in {rows}, "
                f"{stmt.column} in {columns}, depth in {depth}: {left} * {right}"
            )
    raise TypeError(f"no text for {stmt!r}")


def _format_block(stmts: tuple[Stmt, ...], indent: str) -> list[str]:
    lines: list[str] = []
    for stmt in stmts:
        lines.append(indent + format_statement(stmt))
        if isinstance(stmt, Loop):
            inside = indent + _INDENT
            lines += [f"{inside}carry {c.name} = {format_expr(c.start)}" for c in stmt.carries]
            lines += _format_block(stmt.body, inside)
            lines += [f"{inside}{_format_fold(fold)}" for fold in stmt.folds]
            lines += [f"{inside}next {c.name} = {format_expr(c.value)}" for c in stmt.carries]
        elif isinstance(stmt, Contraction):
            lines += _format_block(stmt.epilogue, indent + _INDENT)
    return lines


def _format_use(use: BufferUse) -> str:
    return f"{format_name(use.name)}:{use.dtype}{'!' if use.written else ''}"


def format_kernel(kernel: Kernel) -> str:
    """Return a kernel: its buffers, its cost, and its statements."""
    uses = ", ".join(map(_format_use, kernel.buffers))
    costs = (("flops", kernel.flops), ("bytes", kernel.bytes), ("work", kernel.work))
    cost = " ".join(f"{word} {format_index(value)}" for word, value in costs)
    label = f" {json.dumps(kernel.label, ensure_ascii=False)}" if kernel.label else ""
    head = f"kernel {format_name(kernel.name)}({uses}) {cost}{label}:"
    return "\n".join([head, *_format_block(kernel.body, _INDENT)])


def _format_storage(storage: Storage) -> str:
    place = f"{format_name(storage.name)}:{storage.dtype}[{format_index(storage.size)}]"
    digest = f" = #{storage.digest}" if storage.digest else ""
    named = storage.label and storage.label != storage.name
    label = f" {json.dumps(storage.label, ensure_ascii=False)}" if named else ""
    return f"{storage.kind} {place}{digest}{label}"


def _format_site(site: CheckSite, sources: bool) -> str:
    line = f"site {json.dumps(site.message, ensure_ascii=False)}"
    if sources and site.source is not None:
        where, function = json.dumps(site.source.filename), json.dumps(site.source.function)
        line += f" @ {where}:{site.source.lineno} {function}"
    return line


def _format_items(items: tuple[Item, ...], indent: str) -> list[str]:
    lines: list[str] = []
    deeper = indent + _INDENT
    for item in items:
        match item:
            case Step():
                barrier = "barrier " if item.barrier else ""
                lines.append(f"{indent}{barrier}{format_name(item.kernel)}")
            case Repeat():
                lines.append(f"{indent}repeat {item.index} in {format_index(item.extent)}:")
                lines += _format_items(item.items, deeper)
            case Choice():
                barrier = "barrier " if item.barrier else ""
                place = _format_place(item.condition, item.offset)
                lines.append(f"{indent}{barrier}if {place}:")
                lines += _format_items(item.then, deeper)
                lines.append(f"{indent}else:")
                lines += _format_items(item.other, deeper)
            case While():
                lines.append(f"{indent}test:")
                lines += _format_items(item.test, deeper)
                lines.append(f"{indent}while {format_name(item.condition)}:")
                lines += _format_items(item.items, deeper)
    return lines


def format_loop_program(program: LoopProgram, sources: bool = False) -> str:
    """Return the whole program; ``sources`` adds the user's line to every check site."""
    lines = [" ".join(["symbols", *map(format_name, program.symbols)])]
    lines += map(_format_storage, program.storage)
    lines += [_format_site(site, sources) for site in program.sites]
    lines.append("steps")
    lines += _format_items(program.items, _INDENT)
    lines += map(format_kernel, program.kernels)
    return "\n".join(lines) + "\n"
