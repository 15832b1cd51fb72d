"""Kernels as text, one statement a line, the way the grammar in `ir` reads."""

from __future__ import annotations

from .ir import (
    Apply,
    Check,
    Contraction,
    Convert,
    Expr,
    IndexValue,
    Kernel,
    Let,
    Literal,
    Load,
    Loop,
    LoopProgram,
    Philox,
    Stmt,
    Store,
    Var,
)


def format_expr(expr: Expr) -> str:
    match expr:
        case Literal(dtype, value):
            return f"{value!r}:{dtype}"
        case Load():
            guard = f" if {format_expr(expr.guard)}" if expr.guard is not None else ""
            return f"{expr.buffer}[{expr.offset}]:{expr.dtype}{guard}"
        case Var(_, name):
            return f"%{name}"
        case IndexValue(_, index):
            return f"index({index})"
        case Apply():
            return f"{expr.function}({', '.join(map(format_expr, expr.args))})"
        case Convert():
            return f"{expr.dtype}({format_expr(expr.arg)})"
        case Philox():
            inner = f"{format_expr(expr.element)}, {format_expr(expr.state)}"
            return f"philox.{expr.word}.{expr.stream}({inner})"
    raise TypeError(f"no text for {expr!r}")


def _format_stmt(stmt: Stmt, indent: str) -> list[str]:
    match stmt:
        case Let():
            return [f"{indent}%{stmt.name} = {format_expr(stmt.value)}"]
        case Store():
            sign = "+=" if stmt.accumulate else "="
            return [f"{indent}{stmt.buffer}[{stmt.offset}] {sign} {format_expr(stmt.value)}"]
        case Check():
            condition, value = format_expr(stmt.condition), format_expr(stmt.value)
            return [f"{indent}check {stmt.site}: {condition} else report {value}"]
        case Loop():
            shared = " shared" if stmt.shared else ""
            lines = [f"{indent}for {stmt.index} in {stmt.extent} {stmt.kind}{shared}:"]
            for inner in stmt.body:
                lines += _format_stmt(inner, indent + "  ")
            for fold in stmt.folds:
                at = f" at {fold.position}" if fold.kind.startswith("arg") else ""
                text = format_expr(fold.value)
                lines.append(f"{indent}  fold %{fold.name} = {fold.kind}({text}{at})")
            return lines
        case Contraction():
            left, right = stmt.left, stmt.right
            lines = [
                f"{indent}contract %{stmt.result}:{stmt.dtype} "
                f"for {stmt.row} in {stmt.rows}, {stmt.column} in {stmt.columns}, "
                f"k in {stmt.depth}: "
                f"{left.buffer}[{left.offset} + {stmt.row}*({left.row}) + k*({left.column})] * "
                f"{right.buffer}[{right.offset} + k*({right.row}) + "
                f"{stmt.column}*({right.column})]:"
            ]
            for inner in stmt.epilogue:
                lines += _format_stmt(inner, indent + "  ")
            return lines
    raise TypeError(f"no text for {stmt!r}")


def format_kernel(kernel: Kernel) -> str:
    uses = ", ".join(
        f"{use.name}:{use.dtype}{'!' if use.written else ''}" for use in kernel.buffers
    )
    lines = [f"kernel {kernel.name}({uses}):  # {kernel.label}"]
    for stmt in kernel.body:
        lines += _format_stmt(stmt, "  ")
    return "\n".join(lines)


def format_loop_program(program: LoopProgram) -> str:
    """Return the whole program as text: storage, order, kernels."""
    lines = [f"symbols {' '.join(program.symbols)}".rstrip()]
    for storage in program.storage:
        value = f" = {storage.value.digest}" if storage.value is not None else ""
        lines.append(f"{storage.kind} {storage.name}:{storage.dtype}[{storage.size}]{value}")
    lines.append("steps")
    lines += [f"  {'barrier ' if step.barrier else ''}{step.kernel}" for step in program.steps]
    lines += [format_kernel(kernel) for kernel in program.kernels]
    return "\n".join(lines) + "\n"
