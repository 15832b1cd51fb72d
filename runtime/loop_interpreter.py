"""The loop interpreter: the meaning of kernels, with every access checked.

It runs what lowering made, before any backend: where its results differ from the graph
interpreter's, lowering is wrong; where machine code differs from it, emission is.  Vector loops,
and loops that store only what they do not read, run as NumPy vectors over their whole extent;
everything else runs one iteration after another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..compiler.artifact import Artifact
from ..compiler.errors import CheckFailed, IndexRangeError, InputError, locate
from ..compiler.ir import ops
from ..compiler.ir.dims import Symbol, evaluate
from ..compiler.ir.graph import Node
from ..compiler.loops.ir import (
    Apply,
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
    Store,
    Var,
    While,
    children,
    expressions,
    walk,
)
from .binding import InputBinder
from .buffer import place_slots
from .loop_memory import Buffer, poison
from .philox import MASK, WEYL, philox_2x32
from .scalar_functions import NUMPY_FUNCTIONS

#: Loops whose iterations cannot see each other run at once while there are at most so many lanes.
_MOST_LANES = 1 << 20
_NO_POSITION = np.iinfo(np.int64).max


@dataclass
class _Scope:
    """What names mean, and the shape of the lanes that statements run over.

    ``iteration`` numbers the parts that may run on different threads, lane by lane.  While lanes
    are ``ordered`` they stand for iterations one after another, and several may add to one element.
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)
    lanes: tuple[int, ...] = ()
    iteration: np.ndarray | None = None
    ordered: bool = True

    def inner(self, **changes: Any) -> _Scope:
        return replace(self, **{"values": dict(self.values), **changes})

    def widened(self, extent: int, ordered: bool) -> _Scope:
        """Return a scope with one more axis of lanes, along which nothing varies yet."""

        def widen(value: np.ndarray) -> np.ndarray:
            return value[..., None] if value.ndim else value

        values = {name: widen(value) for name, value in self.values.items()}
        iteration = None if self.iteration is None else widen(self.iteration)
        return _Scope(values, (*self.lanes, extent), iteration, self.ordered and ordered)


def run_loop_program(
    program: LoopProgram,
    buffers: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    places: Mapping[str, int] | None = None,
) -> None:
    """Run every kernel of ``program`` in order; outputs and states are written in place.

    Parameters
    ----------
    buffers
        The C-contiguous array of every input, output and state, by buffer name.
    sizes
        The value of every dimension symbol.
    places
        Byte offsets of temporaries in one arena, as `runtime.buffer.place_slots` gives them: tests
        the memory plan as well.  None: every temporary has memory of its own.

    Raises
    ------
    CheckFailed
        A kernel leaves a buffer, reads what nothing has written, or races with itself.
    IndexRangeError
        A check of the user's data fails.
    """
    memory = _Memory(program, buffers, sizes, places or {})
    kernels = {kernel.name: kernel for kernel in program.kernels}
    with np.errstate(all="ignore"):
        _run_items(program.items, kernels, program, memory.buffers, sizes)


def _run_items(
    items: tuple[Item, ...],
    kernels: Mapping[str, Kernel],
    program: LoopProgram,
    buffers: dict[str, Buffer],
    sizes: Mapping[str, int],
) -> None:
    def run(items: tuple[Item, ...], names: Mapping[str, int] = sizes) -> None:
        _run_items(items, kernels, program, buffers, names)

    def holds(name: str, offset: Index = 0) -> bool:
        return bool(buffers[name].read(np.asarray(evaluate(offset, sizes)), None))

    for item in items:
        match item:
            case Step():
                try:
                    _KernelRun(kernels[item.kernel], program, buffers, sizes).run()
                except CheckFailed as error:
                    raise CheckFailed(f"{item.kernel}: {error}") from None
            case Repeat():
                for number in range(evaluate(item.extent, sizes)):
                    run(item.items, {**sizes, item.index: number})
            case Choice():
                run(item.then if holds(item.condition, item.offset) else item.other)
            case While():
                run(item.test)
                while holds(item.condition):
                    run(item.items)
                    run(item.test)


class _Memory:
    """The buffers of one run."""

    def __init__(
        self,
        program: LoopProgram,
        given: Mapping[str, np.ndarray],
        sizes: Mapping[str, int],
        places: Mapping[str, int],
    ) -> None:
        self.buffers: dict[str, Buffer] = {}
        measured = {s.name: (evaluate(s.size, sizes), np.dtype(s.dtype)) for s in program.storage}
        total = max(
            (at + measured[name][0] * measured[name][1].itemsize for name, at in places.items()),
            default=0,
        )
        arena = np.full(total, 0xFF, dtype=np.uint8)
        owners = np.zeros(total, dtype=np.int32)
        for storage in program.storage:
            name = storage.name
            size, dtype = measured[name]
            bytes_ = size * dtype.itemsize
            if storage.kind == "arena" and name in places:
                part = slice(places[name], places[name] + bytes_)
                array, owner = arena[part].view(dtype), owners[part]
            elif storage.kind == "arena":
                array = poison(np.empty(size, dtype))
                owner = np.zeros(bytes_, dtype=np.int32)
            elif storage.kind == "constant":
                if storage.value is None:
                    raise InputError(f"constant {name} has a digest and no value")
                array, owner = storage.value.array, None
            else:
                array = given[name]
                if array.size != size or array.dtype != dtype or not array.flags.c_contiguous:
                    raise InputError(f"buffer {name} is no contiguous {dtype}[{size}]")
                owner = np.zeros(bytes_, np.int32) if storage.kind == "output" else None
            self.buffers[name] = Buffer(name, array, owner)


class _KernelRun:
    """One run of one kernel."""

    def __init__(
        self,
        kernel: Kernel,
        program: LoopProgram,
        buffers: Mapping[str, Buffer],
        sizes: Mapping[str, int],
    ) -> None:
        self.kernel = kernel
        self.program = program
        self.sizes = sizes
        self.buffers = {use.name: buffers[use.name] for use in kernel.buffers}
        self.independent: dict[int, tuple[bool, bool]] = {}
        self.written = {name for s in walk(kernel.body) for name in _buffers_written(s)}

    def run(self) -> None:
        dims = {name: np.asarray(size, np.int64) for name, size in self.sizes.items()}
        self.block(self.kernel.body, _Scope(dims))

    # -- values --------------------------------------------------------------------------------

    def index(self, index: Index, scope: _Scope) -> np.ndarray:
        """Return an index as int64, an array where it varies from lane to lane."""
        if isinstance(index, int):
            return np.asarray(index, np.int64)
        total = np.asarray(0, np.int64)
        for monomial, coefficient in index.terms:
            term = np.asarray(coefficient, np.int64)
            for atom in monomial:
                if isinstance(atom, Symbol):
                    term = term * scope.values[atom.name]
                else:
                    term = term * (self.index(atom.numerator, scope) // atom.denominator)
            total = total + term
        return np.asarray(total)

    def size(self, index: Index, scope: _Scope) -> int:
        return int(self.index(index, scope))

    def expr(self, expr: Expr, scope: _Scope) -> np.ndarray:
        match expr:
            case Literal(dtype, value):
                return np.asarray(value, dtype)
            case Var(_, name):
                return scope.values[name]
            case IndexValue(_, index):
                return self.index(index, scope)
            case Load():
                return self.load(expr, scope)
            case Apply(dtype, function, args):
                values = [self.expr(arg, scope) for arg in args]
                return np.asarray(NUMPY_FUNCTIONS[function](*values), dtype)
            case Convert(dtype, arg):
                return self.expr(arg, scope).astype(dtype)
            case Philox(_, word, stream, element, state):
                return self.random(word, stream, element, state, scope)
        raise TypeError(f"no meaning for {expr!r}")

    def random(
        self, word: int, stream: int, element: Expr, state: Expr, scope: _Scope
    ) -> np.ndarray:
        states = self.expr(state, scope)
        number = int(states.flat[0]) if states.size else 0
        if (states != number).any():
            raise CheckFailed("the lanes of random bits have different states")
        key = ((stream * WEYL) & MASK) ^ ((number >> 32) & MASK)
        counter = self.expr(element, scope).astype(np.uint64)
        return philox_2x32(counter, number & MASK, key)[word]

    def load(self, load: Load, scope: _Scope) -> np.ndarray:
        buffer = self.buffers[load.buffer]
        offset = self.index(load.offset, scope)
        if load.guard is None:
            return buffer.read(*self.touched(offset, scope))
        guard = np.broadcast_to(self.expr(load.guard, scope), scope.lanes)
        result = np.zeros(scope.lanes, buffer.array.dtype)
        offset, iteration = self.touched(np.broadcast_to(offset, scope.lanes), scope)
        if iteration is not None:
            iteration = np.broadcast_to(iteration, scope.lanes)[guard]
        result[guard] = buffer.read(offset[guard], iteration)
        return result

    def touched(self, offset: np.ndarray, scope: _Scope) -> tuple[np.ndarray, np.ndarray | None]:
        """Return offsets, and which iteration touches each, in one shape."""
        if scope.iteration is None:
            return offset, None
        if scope.iteration.ndim:
            offset = np.broadcast_to(offset, scope.lanes)
        return offset, np.broadcast_to(scope.iteration, offset.shape)

    # -- statements ----------------------------------------------------------------------------

    def block(self, stmts: tuple[Stmt, ...], scope: _Scope) -> None:
        for stmt in stmts:
            match stmt:
                case Let():
                    scope.values[stmt.name] = self.expr(stmt.value, scope)
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
                    raise TypeError(f"no meaning for {stmt!r}")

    def store(self, stmt: Store, scope: _Scope) -> None:
        buffer = self.buffers[stmt.buffer]
        offset = np.broadcast_to(self.index(stmt.offset, scope), scope.lanes)
        value = np.broadcast_to(self.expr(stmt.value, scope), scope.lanes)
        offset, iteration = self.touched(offset, scope)
        if stmt.accumulate and scope.ordered:
            buffer.add(offset, value, iteration)
        elif stmt.accumulate:
            buffer.write(offset, buffer.read(offset, iteration) + value, iteration)
        else:
            buffer.write(offset, value, iteration)

    def check(self, stmt: Check, scope: _Scope) -> None:
        good = np.broadcast_to(self.expr(stmt.condition, scope), scope.lanes)
        if not good.all():
            value = np.broadcast_to(self.expr(stmt.value, scope), scope.lanes)
            site = self.program.sites[stmt.site]
            shown = int(value[~good].max())
            raise IndexRangeError(locate(site.message.format(value=shown), site.source))

    def loop(self, loop: Loop, scope: _Scope) -> None:
        if loop.shared:
            self.watch(True)
        extent = self.size(loop.extent, scope)
        lanes = extent * math.prod(scope.lanes)
        if loop.kind == "vector" or (
            lanes <= _MOST_LANES and self.is_independent(loop, scope.ordered)
        ):
            self.vector_loop(loop, scope, extent)
        else:
            self.serial_loop(loop, scope, extent)
        if loop.shared:
            self.watch(False)

    def is_independent(self, loop: Loop, ordered: bool) -> bool:
        """Whether no iteration can see another's work, so that all may run at once.

        Sums that are only added to do not count as seen while lanes are ``ordered``.
        """
        known = self.independent.get(id(loop))
        if known is None:
            stmts = [loop, *walk(loop.body)]
            stored = {name for s in stmts for name in _buffers_written(s)}
            read = {name for stmt in stmts for name in _buffers_read(stmt)}
            whole = any(isinstance(s, (Contraction, Sort)) for s in stmts)
            adds = any(isinstance(s, Store) and s.accumulate for s in stmts)
            known = not (loop.folds or loop.carries or whole or stored & read), adds
            self.independent[id(loop)] = known
        free, adds = known
        return free and (ordered or not adds) and not (adds and loop.shared)

    def watch(self, parallel: bool) -> None:
        for name in self.written:
            buffer = self.buffers[name]
            (buffer.begin_parallel if parallel else buffer.end_parallel)()

    def serial_loop(self, loop: Loop, scope: _Scope, extent: int) -> None:
        carried = [_fold_start(fold, scope.lanes) for fold in loop.folds]
        handed = {carry.name: self.expr(carry.start, scope) for carry in loop.carries}
        for number in range(extent):
            here = np.asarray(number, np.int64)
            inner = scope.inner()
            inner.values[loop.index] = here
            inner.values.update(handed)
            if loop.shared:
                inner.iteration = here
            self.block(loop.body, inner)
            for position, fold in enumerate(loop.folds):
                carried[position] = _combine(
                    fold.kind, carried[position], self.candidate(fold, inner)
                )
            handed = {carry.name: self.expr(carry.value, inner) for carry in loop.carries}
        for fold, best in zip(loop.folds, carried, strict=True):
            scope.values[fold.name] = best[-1]

    def vector_loop(self, loop: Loop, scope: _Scope, extent: int) -> None:
        """Run all iterations at once, along a new last axis of lanes."""
        here = np.arange(extent, dtype=np.int64).reshape(*[1] * len(scope.lanes), extent)
        inner = scope.widened(extent, loop.kind == "serial" and not loop.shared)
        inner.values[loop.index] = here
        if loop.shared:
            inner.iteration = here
        self.block(loop.body, inner)
        for fold in loop.folds:
            start = _fold_start(fold, scope.lanes)
            best = _across_lanes(fold.kind, self.candidate(fold, inner)) if extent else start
            scope.values[fold.name] = best[-1]

    def candidate(self, fold: Fold, scope: _Scope) -> tuple[np.ndarray, ...]:
        """Return the value that a fold takes in, with its position where that is what counts."""
        value = np.broadcast_to(self.expr(fold.value, scope), scope.lanes)
        if not fold.kind.startswith("arg"):
            return (value,)
        return value, np.broadcast_to(self.index(fold.position, scope), scope.lanes)

    def sort(self, stmt: Sort, scope: _Scope) -> None:
        """Order one row; every buffer of the statement is touched as a whole."""
        start, extent = self.size(stmt.offset, scope), self.size(stmt.extent, scope)
        row, iteration = self.touched(start + np.arange(extent), scope)
        keys = self.buffers[stmt.keys].read(row, iteration)
        if stmt.descending:
            order = extent - 1 - np.argsort(keys[::-1], kind="stable")[::-1]
        else:
            order = np.argsort(keys, kind="stable")
        self.buffers[stmt.order].write(row, order, iteration)
        poisoned = np.full(extent, np.iinfo(np.int64).min)
        self.buffers[stmt.spare].write(row, poisoned, iteration)

    # -- contractions --------------------------------------------------------------------------

    def contraction(self, stmt: Contraction, scope: _Scope) -> None:
        rows, columns, depth = (self.size(i, scope) for i in (stmt.rows, stmt.columns, stmt.depth))
        left = self.operand(stmt.left, rows, depth, scope)
        right = self.operand(stmt.right, depth, columns, scope)
        inner = scope.inner(lanes=(rows, columns))
        inner.values[stmt.row] = np.arange(rows, dtype=np.int64)[:, None]
        inner.values[stmt.column] = np.arange(columns, dtype=np.int64)[None, :]
        inner.values[stmt.result] = np.matmul(left, right)
        alone = scope.iteration is None
        if alone:
            inner.iteration = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
            self.watch(True)
        self.block(stmt.epilogue, inner)
        if alone:
            self.watch(False)

    def operand(self, operand: Operand, rows: int, columns: int, scope: _Scope) -> np.ndarray:
        def along(step: Index | str, count: int) -> np.ndarray:
            numbers = np.arange(count)
            if isinstance(step, str):
                return self.buffers[step].read(*self.touched(numbers, scope))
            return numbers * self.index(step, scope)

        offset = self.index(operand.offset, scope) + along(operand.row, rows)[:, None]
        offset = offset + along(operand.column, columns)
        values = self.buffers[operand.buffer].read(*self.touched(offset, scope))
        for function, number in operand.prologue:
            second = () if number is None else (np.asarray(number.value, values.dtype),)
            values = NUMPY_FUNCTIONS[function](values, *second)
        return values


def _buffers_written(stmt: Stmt) -> tuple[str, ...]:
    match stmt:
        case Store():
            return (stmt.buffer,)
        case Sort():
            return stmt.order, stmt.spare
        case _:
            return ()


def _buffers_read(stmt: Stmt) -> Iterator[str]:
    if isinstance(stmt, Sort):
        yield stmt.keys
    if isinstance(stmt, Contraction):
        for operand in (stmt.left, stmt.right):
            yield from (operand.buffer, *operand.tables)
    stack = list(expressions(stmt))
    while stack:
        expr = stack.pop()
        if isinstance(expr, Load):
            yield expr.buffer
        stack.extend(children(expr))


# -- folds ----------------------------------------------------------------------------------------


def _fold_start(fold: Fold, lanes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return what a fold of nothing holds in every lane."""
    dtype = np.dtype(fold.value.dtype)
    value: float | int | bool
    if fold.kind in {"sum", "prod"}:
        value = int(fold.kind == "prod")
    else:
        highest = fold.kind in {"min", "argmin"}
        if dtype.kind == "f":
            value = np.inf if highest else -np.inf
        elif dtype.kind == "b":
            value = highest
        else:
            limits = np.iinfo(dtype)
            value = int(limits.max if highest else limits.min)
    start = np.full(lanes, value, dtype)
    if fold.kind.startswith("arg"):
        return start, np.full(lanes, _NO_POSITION, np.int64)
    return (start,)


_COMBINE = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _combine(
    kind: str, old: tuple[np.ndarray, ...], new: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, ...]:
    """Return a fold that has taken one more value in; NaN beats all, the first wins a tie."""
    if not kind.startswith("arg"):
        return (np.asarray(_COMBINE[kind](old[0], new[0]), old[0].dtype),)
    (best, at), (value, position) = old, new
    ahead = value > best if kind == "argmax" else value < best
    both_nan = (value != value) & (best != best)
    take = (ahead | ((value != value) & (best == best))) | (
        ((value == best) | both_nan) & (position < at)
    )
    return np.where(take, value, best), np.where(take, position, at)


def _across_lanes(kind: str, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return the fold of all lanes, along the last axis."""
    value = values[0]
    if not kind.startswith("arg"):
        return (np.asarray(_COMBINE[kind].reduce(value, axis=-1, dtype=value.dtype)),)
    best = (np.max if kind == "argmax" else np.min)(value, axis=-1, keepdims=True)
    level = (value == best) | ((value != value) & (best != best))
    return best[..., 0], np.asarray(np.where(level, values[1], _NO_POSITION).min(axis=-1))


# -- a compiled program, interpreted --------------------------------------------------------------


class LoopExecutable:
    """An artifact whose kernels are interpreted; called like a native executable.

    Parameters
    ----------
    artifact
        What the compiler made of the program; its modules are never emitted.
    states
        The array of every state; calls update them in place.
    planned
        Put temporaries where the memory plan puts them, so that a fault in the plan is seen.
    """

    def __init__(
        self, artifact: Artifact, states: Mapping[Node, np.ndarray], planned: bool = True
    ) -> None:
        self.artifact = artifact
        self.states = dict(states)
        self.planned = planned
        program = artifact.program
        self.inputs = [node for node in program.nodes() if isinstance(node.op, ops.Input)]
        self.binder = InputBinder(
            [(n.op.label, n.type, n.source) for n in self.inputs if isinstance(n.op, ops.Input)]
        )

    def __call__(self, arrays: Mapping[str, object]) -> dict[str, Any]:
        """Run once; return the outputs by name.

        Raises what `run_loop_program` raises, and InputError for inputs that do not fit.
        """
        artifact = self.artifact
        bound, numbers = self.binder.bind(arrays)
        sizes = dict(zip(self.binder.symbols, numbers, strict=True))
        for rule in artifact.size_rules:
            if evaluate(rule.positive, sizes) <= 0 and evaluate(rule.unless, sizes) != 0:
                raise InputError(rule.message)
        buffers = {
            artifact.homes[node]: array
            for node, array in zip(self.inputs, bound, strict=True)
            if node in artifact.homes
        }
        buffers.update(
            (name, self.states[node])
            for node, name in artifact.homes.items()
            if isinstance(node.op, ops.State)
        )
        outputs: dict[str, Any] = {}
        for name, root in artifact.program.outputs:
            shape = tuple(evaluate(dim, sizes) for dim in root.shape)
            outputs[name] = buffers[f"out.{name}"] = poison(np.empty(shape, root.dtype))
        places = place_slots(artifact.arena, sizes)[0] if self.planned else None
        run_loop_program(artifact.loops, buffers, sizes, places)
        return outputs


def run_artifact(
    artifact: Artifact,
    inputs: Mapping[str, object],
    states: Mapping[Node, np.ndarray] | None = None,
) -> tuple[dict[str, Any], dict[Node, np.ndarray]]:
    """Return the outputs by name and the states' new values, like `interpreter.run_program`.

    Neither ``inputs`` nor ``states`` is written to.
    """
    held = {node: np.array(array, node.dtype, order="C") for node, array in (states or {}).items()}
    executable = LoopExecutable(artifact, held)
    outputs = executable(inputs)
    return outputs, {state: executable.states[state] for state, _ in artifact.program.updates}
