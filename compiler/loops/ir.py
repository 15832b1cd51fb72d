"""The kernel IR: loops, loads, stores and scalar expressions.

    Kernel    = Kernel(name, buffers, body)
    Stmt      = Loop(index, extent, kind, body, folds, shared, carries) | Let(name, value)
              | Store(buffer, offset, value) | Contraction(...) | Check(condition, message, value)
              | Sort(keys, order, spare, offset, extent, dtype, descending)
    Fold      = Fold(name, kind, value, position)   binds ``name`` after the loop
    Carry     = Carry(name, start, value)           binds ``name`` in the loop's body
    Expr      = Literal | Load(buffer, offset, guard) | Var(name) | IndexValue(index)
              | Apply(function, args) | Convert(arg) | Philox(word, stream, element, state)
    Index     = int | polynomial in loop indices, integer Vars and dimension symbols

A loop's ``kind`` is ``serial`` or ``vector`` (iterations are lanes); the iterations of a ``shared``
loop are dealt out to the threads.  A kernel without a shared loop or contraction runs on one
thread.

    Item      = Step(kernel, barrier) | Repeat(index, extent, items)
              | Choice(condition, offset, barrier, then, other) | While(test, condition, items)

Items run in order.  An index of a `Repeat` is called by its depth, ``step.0``; kernels inside may
use it like a size.  Everything is immutable and typed by the element type of its values.  A name
that a kernel binds starts with ``%``, and a dimension symbol never does: they cannot be mistaken
for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import SourceLine
from ..ir.dims import SymbolicDim
from ..ir.ops import Value

Index = int | SymbolicDim


@dataclass(frozen=True, eq=False)
class Expr:
    """A value of one element; ``dtype`` is an element type of the graph IR."""

    dtype: str


@dataclass(frozen=True, eq=False)
class Literal(Expr):
    """A number."""

    value: float | int | bool


@dataclass(frozen=True, eq=False)
class Load(Expr):
    """The element of ``buffer`` at ``offset``; zero, and no access, where ``guard`` is false."""

    buffer: str
    offset: Index
    guard: Expr | None = None


@dataclass(frozen=True, eq=False)
class Var(Expr):
    """A value bound by a `Let`, a `Fold` or a `Contraction`."""

    name: str


@dataclass(frozen=True, eq=False)
class IndexValue(Expr):
    """An index as an int64 value."""

    index: Index


@dataclass(frozen=True, eq=False)
class Apply(Expr):
    """An elementary function of `ir.scalars`."""

    function: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Convert(Expr):
    """``arg`` as another element type."""

    arg: Expr


@dataclass(frozen=True, eq=False)
class Philox(Expr):
    """A random word; see `ir.ops.RandomBits`."""

    word: int
    stream: int
    element: Expr
    state: Expr


@dataclass(frozen=True, eq=False)
class Stmt:
    """Base of all statements."""


@dataclass(frozen=True, eq=False)
class Let(Stmt):
    """Bind ``name`` to a value for the rest of the body."""

    name: str
    value: Expr


@dataclass(frozen=True, eq=False)
class Store(Stmt):
    """``buffer[offset] = value``, or ``+=`` with ``accumulate``."""

    buffer: str
    offset: Index
    value: Expr
    accumulate: bool = False


@dataclass(frozen=True, eq=False)
class Check(Stmt):
    """Report ``site`` to the caller and stop the program where ``condition`` is false."""

    condition: Expr
    site: int
    value: Expr


@dataclass(frozen=True)
class Fold:
    """A reduction carried by a loop; ``argmax`` and ``argmin`` bind the first best position."""

    name: str
    kind: str
    value: Expr
    position: Index = 0

    @property
    def dtype(self) -> str:
        return "int64" if self.kind.startswith("arg") else self.value.dtype


@dataclass(frozen=True)
class Carry:
    """A value that an iteration hands to the next: ``start``, then ``value`` of the one before."""

    name: str
    start: Expr
    value: Expr


@dataclass(frozen=True, eq=False)
class Loop(Stmt):
    """Run ``body`` for every ``index`` below ``extent``; only a serial loop, unshared, carries."""

    index: str
    extent: Index
    kind: str
    body: tuple[Stmt, ...]
    folds: tuple[Fold, ...] = ()
    shared: bool = False
    carries: tuple[Carry, ...] = ()


@dataclass(frozen=True, eq=False)
class Sort(Stmt):
    """Store in ``order`` the positions that put the elements of ``keys`` in order.

    Three buffers hold a row of ``extent`` elements each from ``offset`` on; ``order`` and ``spare``
    are of int64, and what ``spare`` holds afterwards is not said.  Positions count from the row's
    start, equal elements keep their order, and NaN is greater than every number.
    """

    keys: str
    order: str
    spare: str
    offset: Index
    extent: Index
    dtype: str
    descending: bool


@dataclass(frozen=True)
class Operand:
    """A matrix in memory: element ``(r, c)`` of ``buffer`` is at ``offset + r*row + c*column``.

    Where ``row`` and ``column`` name buffers of int64, it is at ``offset + row[r] + column[c]``.
    ``prologue`` are elementary functions applied to each element, in order; one of two arguments
    comes with the second.
    """

    buffer: str
    offset: Index
    row: Index | str
    column: Index | str
    prologue: tuple[tuple[str, Literal | None], ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """The buffers that say where rows and columns are: two or none."""
        return tuple(step for step in (self.row, self.column) if isinstance(step, str))

    @property
    def strides(self) -> tuple[Index, ...]:
        """The steps from row to row and from column to column, where no tables stand for them."""
        return tuple(step for step in (self.row, self.column) if not isinstance(step, str))


@dataclass(frozen=True, eq=False)
class Contraction(Stmt):
    """``C[m, n] = sum over k of left[m, k] * right[k, n]`` with a fused epilogue.

    For each finished element, ``result`` is bound to its sum, ``row`` and ``column`` to its
    indices, and ``epilogue`` runs, ``column`` being a vector index.
    """

    dtype: str
    rows: Index
    columns: Index
    depth: Index
    left: Operand
    right: Operand
    result: str
    row: str
    column: str
    epilogue: tuple[Stmt, ...]


@dataclass(frozen=True)
class BufferUse:
    """A buffer as a kernel sees it."""

    name: str
    dtype: str
    written: bool


@dataclass(frozen=True)
class Kernel:
    """One native function: straight loops over named buffers."""

    name: str
    buffers: tuple[BufferUse, ...]
    body: tuple[Stmt, ...]
    flops: Index = 0
    bytes: Index = 0
    work: Index = 0
    label: str = ""


#: How the messages of the checks that a checked build adds begin.
NAN_FOUND, OUT_OF_BOUNDS = "not a number:", "out of bounds:"


@dataclass(frozen=True)
class CheckSite:
    """What a failed `Check` tells the user."""

    message: str
    source: SourceLine | None


@dataclass(frozen=True)
class Step:
    """A kernel call in order; ``barrier`` means that all threads meet before it."""

    kernel: str
    barrier: bool


@dataclass(frozen=True)
class Repeat:
    """Run ``items`` for every ``index`` below ``extent``, in order."""

    index: str
    extent: Index
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Choice:
    """Run ``then`` where the bool at ``offset`` in ``condition`` is true, else ``other``.

    Threads meet before they look where ``barrier``.
    """

    condition: str
    offset: Index
    barrier: bool
    then: tuple[Item, ...]
    other: tuple[Item, ...]


@dataclass(frozen=True)
class While:
    """Run ``test``, meet, and as long as ``condition`` then is true, ``items`` and all again."""

    test: tuple[Item, ...]
    condition: str
    items: tuple[Item, ...]


Item = Step | Repeat | Choice | While


@dataclass(frozen=True)
class Storage:
    """Where a buffer lives: ``input``, ``output``, ``state``, ``constant`` or ``arena``.

    ``digest`` identifies a constant's value, also where the value itself is not at hand.
    """

    name: str
    dtype: str
    size: Index
    kind: str
    label: str = ""
    value: Value | None = None
    digest: str = ""


@dataclass(frozen=True)
class LoopProgram:
    """Kernels, the order in which they run, and the buffers that they share."""

    kernels: tuple[Kernel, ...]
    items: tuple[Item, ...]
    storage: tuple[Storage, ...]
    symbols: tuple[str, ...]
    sites: tuple[CheckSite, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every kernel call in the order of the text, those in loops and branches once."""
        return tuple(leaves(self.items))

    @property
    def names(self) -> tuple[str, ...]:
        """The integers that kernels get as arguments: symbols, and the indices of repetitions."""
        return (*self.symbols, *(step_index(depth) for depth in range(repeat_depth(self.items))))


def step_index(depth: int) -> str:
    """Return the index of repetitions inside ``depth`` others; no dimension has a dot."""
    return f"step.{depth}"


def parts(item: Item) -> tuple[tuple[Item, ...], ...]:
    """Return the lists of items inside ``item``."""
    match item:
        case Repeat():
            return (item.items,)
        case Choice():
            return item.then, item.other
        case While():
            return item.test, item.items
        case _:
            return ()


def leaves(items: tuple[Item, ...]) -> Iterator[Step]:
    """Yield every step, in order."""
    for item in items:
        if isinstance(item, Step):
            yield item
        for part in parts(item):
            yield from leaves(part)


def repeat_depth(items: tuple[Item, ...]) -> int:
    """Return how many repetitions stand inside one another, at most."""
    return max(
        (isinstance(item, Repeat) + repeat_depth(part) for item in items for part in parts(item)),
        default=0,
    )


def is_shared(kernel: Kernel) -> bool:
    """Whether threads have parts of the kernel to do; else one thread does it all."""
    return any(
        isinstance(stmt, Contraction) or (isinstance(stmt, Loop) and stmt.shared)
        for stmt in kernel.body
    )


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the expressions that ``expr`` is made of."""
    match expr:
        case Apply():
            return expr.args
        case Convert():
            return (expr.arg,)
        case Philox():
            return (expr.element, expr.state)
        case Load() if expr.guard is not None:
            return (expr.guard,)
        case _:
            return ()


def walk(stmts: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Yield every statement, outer before inner."""
    for stmt in stmts:
        yield stmt
        if isinstance(stmt, Loop):
            yield from walk(stmt.body)
        elif isinstance(stmt, Contraction):
            yield from walk(stmt.epilogue)


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """Return the expressions that ``stmt`` itself evaluates."""
    match stmt:
        case Let() | Store():
            return (stmt.value,)
        case Check():
            return (stmt.condition, stmt.value)
        case Loop():
            carried = [expr for carry in stmt.carries for expr in (carry.start, carry.value)]
            return (*(fold.value for fold in stmt.folds), *carried)
        case _:
            return ()
