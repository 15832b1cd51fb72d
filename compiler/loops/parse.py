"""Reading kernels back from their text; `text` gives the grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from ..errors import GraphError, SourceLine
from ..ir import ops
from ..ir.dims import SymbolicDim
from ..ir.infer import infer_type
from ..ir.scalars import SCALAR_FUNCTIONS
from ..ir.types import ITEM_BYTES, TensorType
from .ir import (
    Apply,
    BufferUse,
    Carry,
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

Part = TypeVar("Part")

STORAGE_KINDS = ("input", "output", "state", "constant", "arena")
_TOKEN = re.compile(
    r"""\s*(?: (?P<text>"(?:[^"\\]|\\.)*")
    | (?P<number>\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+|\d+)
    | (?P<digest>\#[0-9a-f]+)
    | (?P<word>%?[A-Za-z_][A-Za-z0-9_.]*)
    | (?P<mark>\+=|->|//|[()\[\],;=:+\-*!@]) )""",
    re.VERBOSE | re.ASCII,
)
_NAMED_NUMBERS = {
    "inf": float("inf"),
    "nan": float("nan"),
    "True": True,
    "False": False,
}


class _Line:
    """The tokens of one line, read from left to right; ``dtypes`` types the names in scope."""

    def __init__(self, number: int, line: str, dtypes: dict[str, str]) -> None:
        self.number = number
        self.indent = len(line) - len(line.lstrip(" "))
        self.dtypes = dtypes
        self.tokens: list[tuple[str, str]] = []
        self.position = 0
        start, line = 0, line.rstrip()
        while start < len(line):
            match = _TOKEN.match(line, start)
            if match is None:
                raise self.error(f"cannot read {line[start:].strip()[:40]!r}")
            kind = match.lastgroup or ""
            self.tokens.append((kind, match.group(kind)))
            start = match.end()

    def error(self, message: str) -> GraphError:
        return GraphError(f"line {self.number}: {message}")

    # -- tokens --------------------------------------------------------------------------------

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        at = self.position + ahead
        return self.tokens[at] if at < len(self.tokens) else ("end", "the end of the line")

    def take(self, kind: str) -> str:
        found, text = self.peek()
        if found != kind:
            raise self.error(f"expected a {kind}, found {text}")
        self.position += 1
        return text

    def accept(self, text: str) -> bool:
        kind, found = self.peek()
        if found != text or kind == "text":
            return False
        self.position += 1
        return True

    def expect(self, *texts: str) -> None:
        for text in texts:
            if not self.accept(text):
                raise self.error(f"expected {text!r}, found {self.peek()[1]}")

    def end(self) -> None:
        if self.peek()[0] != "end":
            raise self.error(f"unexpected {self.peek()[1]}")

    def sequence(self, close: str, item: Callable[[], Part]) -> tuple[Part, ...]:
        """Read comma-separated items up to and with ``close``."""
        items: list[Part] = []
        while not self.accept(close):
            if items:
                self.expect(",")
            items.append(item())
        return tuple(items)

    # -- names and indices ---------------------------------------------------------------------

    def text(self) -> str:
        return json.loads(self.take("text"))

    def optional_text(self) -> str:
        return self.text() if self.peek()[0] == "text" else ""

    def name(self) -> str:
        """Read a name, bare or quoted."""
        return self.text() if self.peek()[0] == "text" else self.take("word")

    def bound(self) -> str:
        """Read a name that the kernel binds."""
        name = self.take("word")
        if not name.startswith("%"):
            raise self.error(f"{name} is bound in a kernel and must start with '%'")
        return name

    def dtype(self) -> str:
        self.expect(":")
        word = self.take("word")
        if word not in ITEM_BYTES:
            raise self.error(f"unknown dtype {word}; known: {', '.join(ITEM_BYTES)}")
        return word

    def integer(self) -> int:
        text = self.take("number")
        if not text.isdigit():
            raise self.error(f"expected an integer, found {text}")
        return int(text)

    def index(self) -> Index:
        total = self.product(-1 if self.accept("-") else 1)
        while True:
            if self.accept("+"):
                total = self.product(1) + total
            elif self.accept("-"):
                total = self.product(-1) + total
            else:
                return total

    def product(self, sign: int) -> Index:
        result = self.factor() * sign
        while self.accept("*"):
            result = self.factor() * result
        return result

    def factor(self) -> Index:
        if self.peek()[0] == "number":
            return self.integer()
        if self.accept("("):
            numerator = self.index()
            self.expect(")", "//")
            divisor = self.integer()
            if divisor == 0:
                raise self.error("an index is divided by zero")
            return numerator // divisor
        return SymbolicDim.of(self.name())

    # -- expressions ---------------------------------------------------------------------------

    def expr(self) -> Expr:
        kind, text = self.peek()
        following = self.peek(1)[1]
        if kind == "number" or text == "-" or (text in _NAMED_NUMBERS and following == ":"):
            return self.literal()
        if kind == "word" and following == "(":
            return self.call()
        if kind == "word" and text.startswith("%"):
            name = self.bound()
            if name not in self.dtypes:
                raise self.error(f"{name} is used before it is bound")
            return Var(self.dtypes[name], name)
        return self.load()

    def literal(self) -> Literal:
        negative = self.accept("-")
        kind, text = self.peek()
        self.position += 1
        value: float | int | bool
        if kind == "number":
            value = int(text) if text.isdigit() else float(text)
        elif text in _NAMED_NUMBERS:
            value = _NAMED_NUMBERS[text]
        else:
            raise self.error(f"expected a number, found {text}")
        return Literal(self.dtype(), -value if negative else value)

    def call(self) -> Expr:
        function = self.take("word")
        self.expect("(")
        if function == "index":
            index = self.index()
            self.expect(")")
            return IndexValue("int64", index)
        args = self.sequence(")", self.expr)
        head, *numbers = function.split(".")
        if head == "philox" and len(numbers) == 2 and len(args) == 2:
            word, stream = map(int, numbers)
            return Philox("uint32", word, stream, *args)
        if function in ITEM_BYTES and len(args) == 1:
            return Convert(function, *args)
        if function not in SCALAR_FUNCTIONS:
            raise self.error(f"no elementary function is called {function}")
        return Apply(self.result_type(function, args), function, args)

    def result_type(self, function: str, args: tuple[Expr, ...]) -> str:
        types = tuple(TensorType(arg.dtype, ()) for arg in args)
        try:
            return infer_type(ops.Map(function), types, None).dtype
        except (ValueError, TypeError) as error:
            raise self.error(str(error)) from None

    def load(self) -> Load:
        buffer, offset = self.place()
        dtype = self.dtype()
        return Load(dtype, buffer, offset, self.expr() if self.accept("if") else None)

    def place(self) -> tuple[str, Index]:
        buffer = self.name()
        self.expect("[")
        offset = self.index()
        self.expect("]")
        return buffer, offset

    def operand(self) -> Operand:
        buffer = self.name()
        if self.accept("("):
            inner = self.operand()
            number = self.literal() if self.accept(",") else None
            self.expect(")")
            return replace(inner, prologue=(*inner.prologue, (buffer, number)))
        self.expect("[")
        offset = self.index()
        self.expect(";")
        row = self.step()
        self.expect(";")
        column = self.step()
        self.expect("]")
        return Operand(buffer, offset, row, column)

    def step(self) -> Index | str:
        """Read a stride, or the name of a table after ``at``."""
        if self.peek()[1] == "at" and self.peek(1)[0] in {"word", "text"}:
            self.expect("at")
            return self.name()
        return self.index()


class _Block:
    """Lines of a kernel, consumed as statements nest."""

    def __init__(self, lines: list[_Line], position: int) -> None:
        self.lines = lines
        self.position = position

    def statements(
        self, indent: int
    ) -> tuple[tuple[Stmt, ...], tuple[Fold, ...], tuple[Carry, ...]]:
        """Read the lines at ``indent``: statements, with what the loop around them carries."""
        stmts: list[Stmt] = []
        folds: list[Fold] = []
        starts: dict[str, Expr] = {}
        carries: list[Carry] = []
        while self.position < len(self.lines) and self.lines[self.position].indent >= indent:
            line = self.lines[self.position]
            if line.indent != indent:
                raise line.error(f"is indented by {line.indent} spaces, not {indent}")
            self.position += 1
            word = line.peek()[1] if line.peek(1)[1] != "[" else ""
            if word == "fold":
                folds.append(_read_fold(line))
                line.end()
            elif word == "carry":
                name, value = _read_carried(line)
                if stmts or name in starts:
                    raise line.error(f"{name} is carried from here on, and must not be yet")
                starts[name] = value
                line.dtypes[name] = value.dtype
            elif word == "next":
                name, value = _read_carried(line)
                if name not in starts:
                    raise line.error(f"{name} is not carried")
                carries.append(Carry(name, starts.pop(name), value))
            elif folds or carries:
                raise line.error("a statement follows a fold or what is carried on")
            else:
                stmts.append(self.statement(line))
        if starts:
            raise self.lines[self.position - 1].error(f"{', '.join(starts)} is not carried on")
        return tuple(stmts), tuple(folds), tuple(carries)

    def statement(self, line: _Line) -> Stmt:
        head, following = line.peek()[1], line.peek(1)[1]
        if following == "[" or line.peek()[0] == "text":
            buffer, offset = line.place()
            accumulate = line.accept("+=")
            if not accumulate:
                line.expect("=")
            stmt: Stmt = Store(buffer, offset, line.expr(), accumulate)
        elif head.startswith("%"):
            name = line.bound()
            line.expect("=")
            value = line.expr()
            line.dtypes[name] = value.dtype
            stmt = Let(name, value)
        elif line.accept("check"):
            site = line.integer()
            line.expect(":")
            condition = line.expr()
            line.expect("else")
            stmt = Check(condition, site, line.expr())
        elif line.accept("for"):
            return self.loop(line)
        elif line.accept("contract"):
            return self.contraction(line)
        elif line.accept("sort"):
            stmt = _read_sort(line)
        else:
            raise line.error(f"no statement starts with {head}")
        line.end()
        return stmt

    def loop(self, line: _Line) -> Loop:
        index = line.bound()
        line.expect("in")
        extent, kind, shared = line.index(), line.take("word"), line.accept("shared")
        line.expect(":")
        line.end()
        body, folds, carries = self.statements(line.indent + 2)
        line.dtypes.update((fold.name, fold.dtype) for fold in folds)
        return Loop(index, extent, kind, body, folds, shared, carries)

    def contraction(self, line: _Line) -> Contraction:
        result = line.bound()
        dtype = line.dtype()
        line.expect("for")
        row = line.bound()
        line.expect("in")
        rows = line.index()
        line.expect(",")
        column = line.bound()
        line.expect("in")
        columns = line.index()
        line.expect(",", "depth", "in")
        depth = line.index()
        line.expect(":")
        left = line.operand()
        line.expect("*")
        right = line.operand()
        line.end()
        line.dtypes[result] = dtype
        epilogue, folds, carries = self.statements(line.indent + 2)
        if folds or carries:
            raise line.error("a contraction folds nothing but its sum")
        return Contraction(dtype, rows, columns, depth, left, right, result, row, column, epilogue)


def _read_fold(line: _Line) -> Fold:
    line.expect("fold")
    name = line.bound()
    line.expect("=")
    kind = line.take("word")
    line.expect("(")
    value = line.expr()
    position = line.index() if line.accept("at") else 0
    line.expect(")")
    return Fold(name, kind, value, position)


def _read_carried(line: _Line) -> tuple[str, Expr]:
    line.position += 1
    name = line.bound()
    line.expect("=")
    value = line.expr()
    line.end()
    return name, value


def _read_sort(line: _Line) -> Sort:
    dtype = line.take("word")
    descending = line.accept("descending")
    line.expect("of")
    extent = line.index()
    line.expect("at")
    offset = line.index()
    line.expect(":")
    keys = line.name()
    line.expect("->")
    order = line.name()
    line.expect(",")
    return Sort(keys, order, line.name(), offset, extent, dtype, descending)


def _read_kernel(lines: list[_Line], start: int) -> tuple[Kernel, int]:
    head = lines[start]
    name = head.name()
    head.expect("(")

    def use() -> BufferUse:
        buffer = head.name()
        return BufferUse(buffer, head.dtype(), head.accept("!"))

    buffers = head.sequence(")", use)

    def cost(word: str) -> Index:
        head.expect(word)
        return head.index()

    flops, size, work = cost("flops"), cost("bytes"), cost("work")
    label = head.optional_text()
    head.expect(":")
    head.end()
    block = _Block(lines, start + 1)
    body, folds, carries = block.statements(2)
    if folds or carries:
        raise head.error("a fold or a carried value stands outside a loop")
    return Kernel(name, buffers, body, flops, size, work, label), block.position


def _read_items(lines: list[_Line], start: int, indent: int) -> tuple[tuple[Item, ...], int]:
    """Read the items that are indented by ``indent``; return them and where they end."""
    items: list[Item] = []
    position = start

    def block(head: _Line) -> tuple[Item, ...]:
        nonlocal position
        head.expect(":")
        head.end()
        inner, position = _read_items(lines, position + 1, indent + 2)
        return inner

    def following(word: str) -> _Line:
        if position == len(lines) or lines[position].indent != indent:
            raise lines[position - 1].error(f"expected {word!r} behind it")
        lines[position].expect(word)
        return lines[position]

    while position < len(lines) and lines[position].indent >= indent:
        line = lines[position]
        if line.indent != indent:
            raise line.error(f"is indented by {line.indent}, not {indent}")
        barrier = line.peek(1)[0] != "end" and line.accept("barrier")
        alone = line.peek(1)[0] == "end"
        if not alone and line.accept("repeat"):
            index = line.name()
            line.expect("in")
            extent = line.index()
            items.append(Repeat(index, extent, block(line)))
        elif not alone and line.accept("if"):
            condition = line.name()
            line.expect("[")
            offset = line.index()
            line.expect("]")
            then = block(line)
            items.append(Choice(condition, offset, barrier, then, block(following("else"))))
        elif not alone and line.accept("test"):
            test = block(line)
            line = following("while")
            items.append(While(test, line.name(), block(line)))
        else:
            items.append(Step(line.name(), barrier))
            line.end()
            position += 1
    return tuple(items), position


def _read_storage(line: _Line, kind: str, constants: Mapping[str, ops.Value]) -> Storage:
    name, dtype = line.name(), line.dtype()
    line.expect("[")
    size = line.index()
    line.expect("]")
    digest = line.take("digest")[1:] if line.accept("=") else ""
    label = line.optional_text() or name
    return Storage(name, dtype, size, kind, label, constants.get(digest), digest)


def _read_site(line: _Line) -> CheckSite:
    message, source = line.text(), None
    if line.accept("@"):
        filename = line.text()
        line.expect(":")
        lineno = line.integer()
        source = SourceLine(filename, lineno, line.text())
    return CheckSite(message, source)


def parse_loop_program(text: str, constants: Mapping[str, ops.Value] | None = None) -> LoopProgram:
    """Return the program that ``text``, as printed by `format_loop_program`, stands for.

    Parameters
    ----------
    text
        The printed program.
    constants
        Values by digest.  Without its value a constant keeps its digest alone, and the program
        prints and verifies but does not run.

    Raises
    ------
    GraphError
        A line, which the message names, is not of the grammar.
    """
    dtypes: dict[str, str] = {}
    lines = [
        _Line(number, line, dtypes)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    symbols: tuple[str, ...] = ()
    storage: list[Storage] = []
    sites: list[CheckSite] = []
    items: tuple[Item, ...] = ()
    kernels: list[Kernel] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        word = line.take("word")
        position += 1
        if word == "symbols":
            names = []
            while line.peek()[0] != "end":
                names.append(line.name())
            symbols = tuple(names)
        elif word in STORAGE_KINDS:
            storage.append(_read_storage(line, word, constants or {}))
        elif word == "site":
            sites.append(_read_site(line))
        elif word == "steps":
            items, position = _read_items(lines, position, 2)
        elif word == "kernel":
            dtypes.clear()
            kernel, position = _read_kernel(lines, position - 1)
            kernels.append(kernel)
        else:
            raise line.error(f"unexpected {word}")
        line.end()
    return LoopProgram(tuple(kernels), items, tuple(storage), symbols, tuple(sites))
