"""The rules of a sound loop program: names, element types, buffers, loops and the order of kernels.

A program that passes is one that a backend can emit as it stands.  What depends on sizes (offsets
inside their buffers, memory written before it is read) is checked by the loop interpreter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..errors import VerificationError
from ..ir import ops
from ..ir.dims import symbols
from ..ir.infer import infer_type
from ..ir.scalars import SCALAR_FUNCTIONS
from ..ir.types import FLOATS, INTEGERS, ITEM_BYTES, TensorType
from .ir import (
    Apply,
    BufferUse,
    Check,
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
    step_index,
    walk,
)
from .text import format_expr, format_kernel, format_statement

_KINDS = frozenset({"input", "output", "state", "constant", "arena"})
_READ_ONLY = frozenset({"input", "constant"})


def verify_loops(program: LoopProgram) -> LoopProgram:
    """Return ``program``; raises VerificationError, with the kernel and statement at fault."""
    storage = _verify_storage(program)
    kernels = {kernel.name: kernel for kernel in program.kernels}
    if len(kernels) != len(program.kernels):
        raise VerificationError("two kernels share a name")
    for kernel in program.kernels:
        _KernelRules(kernel, program, storage).verify()
    _StepRules(program, kernels, storage).verify(program.items)
    return program


def _verify_storage(program: LoopProgram) -> dict[str, Storage]:
    storage: dict[str, Storage] = {}
    for name in program.symbols:
        if name.startswith("%") or "." in name:
            raise VerificationError(f"dimension {name} is called as only names in kernels are")
    for place in program.storage:
        if place.name in storage:
            raise VerificationError(f"two buffers are called {place.name}")
        storage[place.name] = place
        if place.kind not in _KINDS or place.dtype not in ITEM_BYTES:
            raise VerificationError(f"buffer {place.name} is a {place.kind} of {place.dtype}")
        missing = _symbols(place.size) - set(program.symbols)
        if missing:
            raise VerificationError(f"the size of {place.name} needs {', '.join(sorted(missing))}")
        if (place.kind == "constant") != bool(place.digest):
            raise VerificationError(f"{place.kind} {place.name}: constants alone have digests")
        if place.value is not None and (
            place.value.digest != place.digest
            or place.value.array.size != place.size
            or place.value.array.dtype.name != place.dtype
        ):
            raise VerificationError(f"constant {place.name} is not what its value is")
    return storage


class _StepRules:
    """Steps run known kernels; within a phase none touches what another writes."""

    def __init__(
        self, program: LoopProgram, kernels: dict[str, Kernel], storage: dict[str, Storage]
    ) -> None:
        self.program = program
        self.kernels = kernels
        self.storage = storage
        self.written: set[str] = set()
        self.phase_reads: dict[str, str] = {}
        self.phase_writes: dict[str, str] = {}

    def meet(self) -> None:
        self.phase_reads, self.phase_writes = {}, {}

    def verify(self, items: tuple[Item, ...], depth: int = 0) -> None:
        for item in items:
            match item:
                case Step():
                    self.step(item)
                case Repeat():
                    self.repeat(item, depth)
                case Choice():
                    if item.barrier:
                        self.meet()
                    self.predicate(item.condition)
                    self.branches(item, depth)
                case While():
                    self.again(item.test, depth)
                    self.meet()
                    self.predicate(item.condition)
                    self.again(item.items, depth)

    def step(self, step: Step) -> None:
        kernel = self.kernels.get(step.kernel)
        if kernel is None:
            raise VerificationError(f"a step runs {step.kernel}, which is no kernel")
        if step.barrier:
            self.meet()
        for use in kernel.buffers:
            other = self.phase_writes.get(use.name)
            if other is None and use.written:
                other = self.phase_reads.get(use.name)
            if other is not None:
                raise VerificationError(
                    f"{kernel.name} and {other} share {use.name} without a barrier between them"
                )
            place = self.storage[use.name]
            if place.kind == "arena" and not use.written and use.name not in self.written:
                raise VerificationError(f"{kernel.name} reads {use.name} before any kernel writes")
        for use in kernel.buffers:
            (self.phase_writes if use.written else self.phase_reads)[use.name] = kernel.name
            if use.written:
                self.written.add(use.name)

    def repeat(self, item: Repeat, depth: int) -> None:
        if item.index != step_index(depth):
            raise VerificationError(f"{item.index} repeats at depth {depth}")
        missing = _symbols(item.extent) - set(self.program.symbols)
        if missing:
            raise VerificationError(f"{item.index} runs up to unknown {', '.join(sorted(missing))}")
        self.again(item.items, depth + 1)

    def again(self, items: tuple[Item, ...], depth: int) -> None:
        """Items that follow themselves: threads meet before the first of them."""
        if items and not _begins_with_meeting(items):
            raise VerificationError("threads do not meet between the steps of a loop")
        self.verify(items, depth)

    def branches(self, item: Choice, depth: int) -> None:
        before = set(self.written)
        reads, writes = dict(self.phase_reads), dict(self.phase_writes)
        ends = []
        for branch in (item.then, item.other):
            self.written = set(before)
            self.phase_reads, self.phase_writes = dict(reads), dict(writes)
            self.verify(branch, depth)
            ends.append((self.written, self.phase_reads, self.phase_writes))
        self.written = ends[0][0] & ends[1][0]
        self.phase_reads = ends[0][1] | ends[1][1]
        self.phase_writes = ends[0][2] | ends[1][2]

    def predicate(self, name: str) -> None:
        place = self.storage.get(name)
        if place is None or place.dtype != "bool":
            raise VerificationError(f"{name} decides and is no bool buffer")
        if name in self.phase_writes:
            raise VerificationError(f"{name} decides without a barrier behind its kernel")
        self.phase_reads[name] = "a decision"


def _begins_with_meeting(items: tuple[Item, ...]) -> bool:
    match items[0]:
        case Step() | Choice() as item:
            return item.barrier
        case Repeat() as item:
            return _begins_with_meeting(item.items)
        case While() as item:
            return _begins_with_meeting(item.test)


@dataclass
class _Scope:
    """Names in reach: values with their element types, and indices."""

    values: dict[str, str] = field(default_factory=dict)
    indices: frozenset[str] = frozenset()
    vector: str | None = None
    in_loop: bool = False

    def inner(self, index: Iterable[str], vector: str | None = None) -> _Scope:
        indices = self.indices | set(index)
        return _Scope(dict(self.values), indices, vector or self.vector, in_loop=True)


class _KernelRules:
    """The rules of one kernel."""

    def __init__(self, kernel: Kernel, program: LoopProgram, storage: dict[str, Storage]) -> None:
        self.kernel = kernel
        self.storage = storage
        self.symbols = frozenset(program.names)
        self.sites = len(program.sites)
        self.uses: dict[str, BufferUse] = {}
        self.bound: set[str] = set()
        self.statement: Stmt | None = None

    def fail(self, message: str) -> VerificationError:
        at = f"\nat {format_statement(self.statement)}" if self.statement is not None else ""
        return VerificationError(
            f"{self.kernel.name}: {message}{at}\nin {format_kernel(self.kernel)}"
        )

    @contextmanager
    def at(self, stmt: Stmt) -> Iterator[None]:
        before, self.statement = self.statement, stmt
        yield
        self.statement = before

    def verify(self) -> None:
        for use in self.kernel.buffers:
            place = self.storage.get(use.name)
            if place is None:
                raise self.fail(f"buffer {use.name} has no storage")
            if place.dtype != use.dtype:
                raise self.fail(f"buffer {use.name} holds {place.dtype}, not {use.dtype}")
            if use.written and place.kind in _READ_ONLY:
                raise self.fail(f"{place.kind} {use.name} is written")
            if use.name in self.uses:
                raise self.fail(f"buffer {use.name} is listed twice")
            self.uses[use.name] = use
        for cost in (self.kernel.flops, self.kernel.bytes, self.kernel.work):
            self.index(cost, _Scope())
        self.block(self.kernel.body, _Scope())
        parts = [
            stmt
            for stmt in self.kernel.body
            if isinstance(stmt, Contraction) or (isinstance(stmt, Loop) and stmt.shared)
        ]
        if parts and len(self.kernel.body) > 1:
            raise self.fail("threads share a statement that is not the kernel's only one")

    # -- statements ----------------------------------------------------------------------------

    def block(self, stmts: tuple[Stmt, ...], scope: _Scope) -> None:
        for stmt in stmts:
            with self.at(stmt):
                match stmt:
                    case Let():
                        self.expr(stmt.value, scope)
                        self.bind(stmt.name, stmt.value.dtype, scope)
                    case Store():
                        self.store(stmt, scope)
                    case Check():
                        self.check(stmt, scope)
                    case Loop():
                        self.loop(stmt, scope)
                    case Contraction():
                        self.contraction(stmt, scope)
                    case Sort():
                        self.sort(stmt, scope)
                    case _:
                        raise VerificationError(f"{self.kernel.name}: {stmt!r} is no statement")

    def bind(self, name: str, dtype: str, scope: _Scope) -> None:
        """Values are bound once in a kernel; an integer one may also be used as an index."""
        if not name.startswith("%"):
            raise self.fail(f"{name} is bound in a kernel and does not start with '%'")
        if name in self.bound or name in scope.indices:
            raise self.fail(f"{name} is bound twice")
        self.bound.add(name)
        scope.values[name] = dtype

    def bind_index(self, name: str, scope: _Scope) -> None:
        """Loops one after another may share the name of an index, nested ones may not."""
        if not name.startswith("%"):
            raise self.fail(f"{name} is bound in a kernel and does not start with '%'")
        if name in scope.indices or name in self.bound:
            raise self.fail(f"{name} is bound twice")

    def store(self, stmt: Store, scope: _Scope) -> None:
        use = self.uses.get(stmt.buffer)
        if use is None:
            raise self.fail(f"buffer {stmt.buffer} is not listed")
        if not use.written:
            raise self.fail(f"buffer {stmt.buffer} is not marked as written")
        self.expr(stmt.value, scope)
        if stmt.value.dtype != use.dtype:
            raise self.fail(f"{stmt.value.dtype} is stored in a buffer of {use.dtype}")
        if stmt.accumulate and use.dtype == "bool":
            raise self.fail("bools do not add up")
        self.index(stmt.offset, scope)
        names = _symbols(stmt.offset)
        if scope.vector is not None and scope.vector not in names and not names & self.bound:
            raise self.fail(f"every {scope.vector} stores to the same element")

    def check(self, stmt: Check, scope: _Scope) -> None:
        if not 0 <= stmt.site < self.sites:
            raise self.fail(f"check site {stmt.site} is not one of {self.sites}")
        self.want(stmt.condition, "bool", scope)
        self.want(stmt.value, "int64", scope)

    def loop(self, stmt: Loop, scope: _Scope) -> None:
        if stmt.kind not in {"serial", "vector"}:
            raise self.fail(f"a loop is serial or vector, not {stmt.kind}")
        if stmt.kind == "vector" and scope.vector is not None:
            raise self.fail(f"a vector loop stands inside that over {scope.vector}")
        if stmt.shared and scope.in_loop:
            raise self.fail("a shared loop stands inside another loop")
        if stmt.shared and stmt.folds:
            raise self.fail("a shared loop folds: its parts run on different threads")
        self.index(stmt.extent, scope)
        self.bind_index(stmt.index, scope)
        several = stmt.extent not in (0, 1)
        inner = scope.inner([stmt.index], stmt.index if stmt.kind == "vector" and several else None)
        if stmt.carries and (stmt.shared or stmt.kind == "vector"):
            raise self.fail("iterations that run at once hand nothing on")
        for carry in stmt.carries:
            self.expr(carry.start, scope)
            self.bind(carry.name, carry.start.dtype, inner)
        self.block(stmt.body, inner)
        for carry in stmt.carries:
            self.want(carry.value, carry.start.dtype, inner)
        for fold in stmt.folds:
            self.fold(fold, inner)
        if stmt.shared and several:
            self.separate_stores(stmt.index, stmt.body)
        for fold in stmt.folds:
            self.bind(fold.name, fold.dtype, scope)

    def separate_stores(self, index: str, stmts: tuple[Stmt, ...]) -> None:
        """Iterations of a shared loop run at the same time: no element may belong to two."""
        for stmt in stmts:
            if isinstance(stmt, Loop) and stmt.extent != 0:
                self.separate_stores(index, stmt.body)
            elif isinstance(stmt, Contraction):
                self.separate_stores(index, stmt.epilogue)
            elif isinstance(stmt, (Store, Sort)) and index not in _symbols(stmt.offset):
                with self.at(stmt):
                    raise self.fail(f"every {index}, on any thread, stores to this element")

    def fold(self, fold: Fold, scope: _Scope) -> None:
        self.expr(fold.value, scope)
        self.index(fold.position, scope)
        if fold.kind not in ops.REDUCTIONS:
            raise self.fail(f"no fold is called {fold.kind}")
        if fold.value.dtype == "bool" and fold.kind not in {"max", "min"}:
            raise self.fail(f"bools do not fold by {fold.kind}")

    def sort(self, stmt: Sort, scope: _Scope) -> None:
        if scope.vector is not None:
            raise self.fail(f"a sort stands inside the vector loop over {scope.vector}")
        if len({stmt.keys, stmt.order, stmt.spare}) != 3:
            raise self.fail("a sort needs three buffers")
        for name, dtype, written in (
            (stmt.keys, stmt.dtype, False),
            (stmt.order, "int64", True),
            (stmt.spare, "int64", True),
        ):
            use = self.uses.get(name)
            if use is None:
                raise self.fail(f"buffer {name} is not listed")
            if use.dtype != dtype:
                raise self.fail(f"{name} holds {use.dtype}, not {dtype}")
            if written and not use.written:
                raise self.fail(f"buffer {name} is not marked as written")
        self.index(stmt.offset, scope)
        self.index(stmt.extent, scope)

    def contraction(self, stmt: Contraction, scope: _Scope) -> None:
        if stmt.dtype not in FLOATS:
            raise self.fail(f"a contraction is of floats, not {stmt.dtype}")
        if scope.vector is not None:
            raise self.fail(f"a contraction stands inside the vector loop over {scope.vector}")
        for extent in (stmt.rows, stmt.columns, stmt.depth):
            self.index(extent, scope)
        for operand in (stmt.left, stmt.right):
            self.operand(operand, stmt, scope)
        self.bind_index(stmt.row, scope)
        self.bind_index(stmt.column, scope)
        if stmt.row == stmt.column:
            raise self.fail(f"{stmt.row} is bound twice")
        inner = scope.inner([stmt.row, stmt.column], None if stmt.columns == 1 else stmt.column)
        self.bind(stmt.result, stmt.dtype, inner)
        self.block(stmt.epilogue, inner)

    def operand(self, operand: Operand, stmt: Contraction, scope: _Scope) -> None:
        use = self.uses.get(operand.buffer)
        if use is None:
            raise self.fail(f"buffer {operand.buffer} is not listed")
        if use.dtype != stmt.dtype:
            raise self.fail(f"operand {operand.buffer} holds {use.dtype}, not {stmt.dtype}")
        if any(isinstance(s, Store) and s.buffer == use.name for s in walk(self.kernel.body)):
            raise self.fail(f"operand {operand.buffer} is overwritten while it is read")
        for index in (operand.offset, *operand.strides):
            self.index(index, scope)
        if len(operand.tables) == 1:
            raise self.fail(f"operand {operand.buffer} has a table for one axis alone")
        for name in operand.tables:
            table = self.uses.get(name)
            if table is None or table.dtype != "int64" or table.written:
                raise self.fail(f"{name} is no table of offsets of {operand.buffer}")
        for function, number in operand.prologue:
            row = SCALAR_FUNCTIONS.get(function)
            if row is None or row.arity != (1 if number is None else 2):
                raise self.fail(f"{function} is no prologue of {operand.buffer}")
            if number is not None and number.dtype != stmt.dtype:
                raise self.fail(f"{function} of {stmt.dtype} takes a {number.dtype}")

    # -- expressions ---------------------------------------------------------------------------

    def index(self, index: Index, scope: _Scope) -> None:
        for name in sorted(_symbols(index) - self.symbols - scope.indices):
            dtype = scope.values.get(name)
            if dtype is None:
                raise self.fail(f"{name} is not bound in {index}")
            if dtype not in INTEGERS:
                raise self.fail(f"{name} is a {dtype}, no index")

    def want(self, expr: Expr, dtype: str, scope: _Scope) -> None:
        self.expr(expr, scope)
        if expr.dtype != dtype:
            raise self.fail(f"{format_expr(expr)} is {expr.dtype}, not {dtype}")

    def expr(self, expr: Expr, scope: _Scope) -> None:
        if expr.dtype not in ITEM_BYTES:
            raise self.fail(f"unknown element type {expr.dtype}")
        match expr:
            case Literal(dtype, value):
                whole = isinstance(value, int)
                if dtype not in FLOATS and not (whole and (dtype != "bool" or value in (0, 1))):
                    raise self.fail(f"{value!r} is no {dtype}")
            case Load():
                use = self.uses.get(expr.buffer)
                if use is None:
                    raise self.fail(f"buffer {expr.buffer} is not listed")
                if use.dtype != expr.dtype:
                    raise self.fail(f"{expr.dtype} is read from a buffer of {use.dtype}")
                self.index(expr.offset, scope)
                if expr.guard is not None:
                    self.want(expr.guard, "bool", scope)
            case Var(dtype, name):
                if name not in scope.values:
                    raise self.fail(f"{name} is used before it is bound")
                if scope.values[name] != dtype:
                    raise self.fail(f"{name} is {scope.values[name]}, not {dtype}")
            case IndexValue(dtype, index):
                if dtype != "int64":
                    raise self.fail(f"an index is an int64, not {dtype}")
                self.index(index, scope)
            case Convert():
                self.expr(expr.arg, scope)
            case Philox():
                if expr.dtype != "uint32" or expr.word not in (0, 1) or expr.stream < 0:
                    raise self.fail(f"{format_expr(expr)} is no random word")
                self.want(expr.element, "int64", scope)
                self.want(expr.state, "int64", scope)
            case Apply():
                self.apply(expr, scope)
            case _:
                raise VerificationError(f"{self.kernel.name}: {expr!r} is no expression")

    def apply(self, expr: Apply, scope: _Scope) -> None:
        for arg in expr.args:
            self.expr(arg, scope)
        types = tuple(TensorType(arg.dtype, ()) for arg in expr.args)
        try:
            dtype = infer_type(ops.Map(expr.function), types, None).dtype
        except (ValueError, TypeError) as error:
            raise self.fail(str(error)) from None
        if expr.dtype != dtype:
            raise self.fail(f"{format_expr(expr)} is {dtype}, not {expr.dtype}")


def _symbols(index: Index) -> frozenset[str]:
    return frozenset() if isinstance(index, int) else symbols(index)
