"""Pull: the value of a node at an index, as statements of one loop body.

The value of a node is its operator applied to the values of its inputs at the indices that the
operator reads.  Views only change the index.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..errors import VerificationError
from ..ir import ops
from ..ir.affine import offset_of, pointwise_index
from ..ir.dims import SymbolicDim
from ..ir.graph import Node, scalar_value
from ..ir.prologue import prologue_step
from ..ir.views import is_trivial_reshape, through_view
from ..schedule.plan import KernelGroup, Schedule
from .ir import (
    NAN_FOUND,
    OUT_OF_BOUNDS,
    Apply,
    Check,
    CheckSite,
    Convert,
    Expr,
    Index,
    IndexValue,
    Let,
    Literal,
    Load,
    Philox,
    Stmt,
    Var,
)


@dataclass
class Sites:
    """Places where a kernel can report bad input, and the ``checks`` that a checked build adds."""

    checks: frozenset[str] = frozenset()
    sites: list[CheckSite] = field(default_factory=list)

    def add(self, message: str, node: Node) -> int:
        self.sites.append(CheckSite(message, node.source))
        return len(self.sites) - 1


class Homes(Protocol):
    """Where a group finds values in memory."""

    def __contains__(self, node: Node) -> bool: ...

    def __getitem__(self, node: Node) -> str: ...


class Group(Protocol):
    """What a body needs of the lowering of its group."""

    group: KernelGroup
    schedule: Schedule
    sites: Sites

    @property
    def home(self) -> Homes:
        """The buffers of the values that the group does not compute itself."""
        ...

    def is_fold(self, node: Node) -> bool:
        """Whether a member is a reduction over more than one element."""
        ...

    def fresh(self, prefix: str) -> str:
        """Return a name that the kernel has not used."""
        ...

    def read(self, buffer: str, dtype: str) -> tuple[str, Index]:
        """Note that the kernel reads ``buffer``; return its storage and where in it it begins."""
        ...

    def is_row_value(self, node: Node) -> bool:
        """Whether a member has one value for each iteration of the outer loops."""
        ...


class Pull:
    """Builds the statements of one loop body: the values of a group's nodes at one index."""

    def __init__(
        self,
        lowering: Group,
        index: dict[int, Index],
        outer: Pull | None = None,
    ) -> None:
        self.lowering = lowering
        self.index = index
        self.outer = outer
        self.body: list[Stmt] = []
        self.known: dict[tuple[Node, tuple[Index, ...], int], Expr] = {}
        self.loaded: dict[Node, str] = {} if outer is None else outer.loaded

    def lookup(self, key: tuple) -> Expr | None:
        scope: Pull | None = self
        while scope is not None:
            if key in scope.known:
                return scope.known[key]
            scope = scope.outer
        return None

    def member_index(self, node: Node) -> tuple[Index, ...]:
        axes = self.lowering.group.axes[node]
        return tuple(0 if axis is None else self.index[axis] for axis in axes)

    def member(self, node: Node) -> Expr:
        return self.value(node, self.member_index(node))

    def value(self, node: Node, index: tuple[Index, ...], guard: Expr | None = None) -> Expr:
        """Return the value of ``node`` at ``index`` (zero, unread, where ``guard`` is false)."""
        index = tuple(0 if dim == 1 else i for i, dim in zip(index, node.shape, strict=True))
        if self.outer is not None and self.lowering.is_row_value(node):
            return self.outer.value(node, index, guard)
        key = (node, index, id(guard))
        found = self.lookup(key)
        if found is None:
            found = self.bind(self.compute(node, index, guard))
            self.known[key] = found
            if guard is None and node in self.lowering.group.axes:
                self.check_number(node, index, found)
        return found

    def check_number(self, node: Node, index: tuple[Index, ...], value: Expr) -> None:
        """In a build that checks for NaN, report the first operator that makes one, and where."""
        if "nan" not in self.lowering.sites.checks or not node.type.is_float:
            return
        message = f"{NAN_FOUND} {node.op.name} gives nan at element {{value}} of {node.type}"
        site = self.lowering.sites.add(message, node)
        bad = self.bind(Apply("bool", "isnan", (value,)))
        good = self.bind(Apply("bool", "logical_not", (bad,)))
        self.body.append(Check(good, site, IndexValue("int64", offset_of(node.shape, index))))

    def check_bounds(self, buffer: str, node: Node, offset: Index, guard: Expr | None) -> None:
        """In a build that checks bounds, report an access outside its buffer."""
        plan = self.lowering.schedule.buffers.get(buffer)
        if "bounds" not in self.lowering.sites.checks or plan is None:
            return
        message = f"{OUT_OF_BOUNDS} {node.op.name} reads {{value}} of {plan.size} in {buffer}"
        site = self.lowering.sites.add(message, node)
        low = self.bind(self.compare("ge", offset, 0))
        high = self.bind(self.compare("lt", offset, plan.size))
        inside = self.bind(Apply("bool", "logical_and", (low, high)))
        if guard is not None:
            outside = self.bind(Apply("bool", "logical_not", (guard,)))
            inside = self.bind(Apply("bool", "logical_or", (inside, outside)))
        self.body.append(Check(inside, site, IndexValue("int64", offset)))

    def bind(self, expr: Expr) -> Expr:
        """Give ``expr`` a name in this body, unless it is one already."""
        if isinstance(expr, (Var, Literal)):
            return expr
        name = self.lowering.fresh("v")
        self.body.append(Let(name, expr))
        return Var(expr.dtype, name)

    def let_index(self, expr: Expr) -> Index:
        """Bind an integer value and return it as an index."""
        name = self.lowering.fresh("g")
        self.body.append(Let(name, expr))
        return SymbolicDim.of(name)

    def compute(self, node: Node, index: tuple[Index, ...], guard: Expr | None) -> Expr:
        lowering = self.lowering
        group = lowering.group
        if isinstance(node.op, ops.Constant) and scalar_value(node) is not None:
            return self.apply(node, index, guard)
        if node in self.loaded:
            return self.load(self.loaded[node], node, index, guard)
        is_leaf = isinstance(node.op, (ops.Input, ops.State, ops.Constant))
        if node in group.axes and not group.copies and not is_leaf:
            if isinstance(node.op, ops.CONTRACTIONS) or lowering.is_fold(node):
                raise VerificationError(f"{node!r} is read before it is computed, in {group}")
            if index != self.member_index(node):
                raise VerificationError(f"{node!r} is read at another index inside {group}")
        elif node in lowering.home:
            return self.load(lowering.home[node], node, index, guard)
        return self.apply(node, index, guard)

    def compute_memory(
        self, node: Node, index: tuple[Index, ...]
    ) -> tuple[Load, tuple[tuple[str, Literal | None], ...]]:
        """Return the load behind ``node`` at ``index``, and the prologue steps after it, in order.

        Only pointwise views and prologue steps stand between ``node`` and memory.
        """
        home = self.lowering.home
        steps: list[tuple[str, Literal | None]] = []
        while node not in home:
            index = tuple(0 if dim == 1 else i for i, dim in zip(index, node.shape, strict=True))
            before = self.before_prologue(node, steps)
            if before is not None:
                node = before
            elif isinstance(node.op, ops.Reshape) and not is_trivial_reshape(node):
                load = self.reshape(node, index, None)
                assert isinstance(load, Load)
                return load, tuple(steps)
            elif isinstance(node.op, (ops.Broadcast, ops.Transpose, ops.Reshape)):
                index = through_view(node, index, 0)
                (node,) = node.inputs
            else:
                raise VerificationError(f"{node!r} is needed in memory and is not there")
        return self.load(home[node], node, index, None), tuple(steps)

    def flat_memory(self, node: Node) -> tuple[str, Index, tuple[tuple[str, Literal | None], ...]]:
        """Return the storage that holds ``node`` in order from where, and the prologue steps."""
        home = self.lowering.home
        steps: list[tuple[str, Literal | None]] = []
        while node not in home:
            before = self.before_prologue(node, steps)
            if before is not None:
                node = before
            elif isinstance(node.op, ops.Reshape):
                (node,) = node.inputs
            else:
                raise VerificationError(f"{node!r} is needed in memory and is not there")
        return *self.lowering.read(home[node], node.dtype), tuple(steps)

    @staticmethod
    def before_prologue(node: Node, steps: list[tuple[str, Literal | None]]) -> Node | None:
        """Put a prologue step in front of ``steps`` and return what it is a function of, if any."""
        step = prologue_step(node)
        if step is None:
            return None
        x, function, number = step
        steps.insert(0, (function, None if number is None else Literal(node.dtype, number)))
        return x

    def load(self, buffer: str, node: Node, index: tuple[Index, ...], guard: Expr | None) -> Load:
        storage, start = self.lowering.read(buffer, node.dtype)
        offset = offset_of(node.shape, index)
        self.check_bounds(buffer, node, offset, guard)
        return Load(node.dtype, storage, start + offset, guard)

    def guarded(self, expr: Expr, guard: Expr | None) -> Expr:
        if guard is None:
            return expr
        zero = Literal(expr.dtype, 0)
        return Apply(expr.dtype, "where", (guard, expr, zero))

    def apply(self, node: Node, index: tuple[Index, ...], guard: Expr | None) -> Expr:
        op = node.op
        match op:
            case ops.Constant():
                number = scalar_value(node)
                if number is None:
                    raise VerificationError(f"constant {node!r} has no buffer")
                return self.guarded(Literal(node.dtype, number), guard)
            case ops.Map(function):
                assert isinstance(function, str), "formulas are expanded before lowering"
                args = tuple(
                    self.value(x, pointwise_index(x.shape, index), guard) for x in node.inputs
                )
                expr: Expr = Apply(node.dtype, function, args)
                return self.guarded(self.bind(expr), guard) if guard is not None else expr
            case ops.Cast():
                arg = self.value(node.inputs[0], index, guard)
                return Convert(node.dtype, arg)
            case ops.Extent(dim):
                return self.guarded(Convert(node.dtype, IndexValue("int64", dim)), guard)
            case ops.Iota():
                position = IndexValue("int64", index[op.axis])
                return self.guarded(Convert(node.dtype, position), guard)
            case ops.RandomBits():
                state = self.value(node.inputs[0], ())
                element = IndexValue("int64", offset_of(node.shape, index))
                return self.guarded(
                    self.bind(Philox("uint32", op.word, op.stream, element, state)), guard
                )
            case ops.Broadcast() | ops.Transpose():
                return self.value(node.inputs[0], through_view(node, index, 0), guard)
            case ops.Reshape():
                return self.reshape(node, index, guard)
            case ops.Slice():
                moved = [
                    start + i * step
                    for start, i, step in zip(op.starts, index, op.steps, strict=True)
                ]
                return self.value(node.inputs[0], tuple(moved), guard)
            case ops.Flip(axes):
                (x,) = node.inputs
                moved = [
                    x.shape[axis] - 1 - i if axis in axes else i for axis, i in enumerate(index)
                ]
                return self.value(x, tuple(moved), guard)
            case ops.Window(_, index_map):
                moved = []
                for affine in index_map:
                    place: Index = affine.offset
                    for number, coefficient in affine.terms:
                        place = index[number] * coefficient + place
                    moved.append(place)
                return self.value(node.inputs[0], tuple(moved), guard)
            case ops.Pad():
                return self.pad(node, index, guard)
            case ops.Concat(axis):
                return self.concat(node, index, guard, axis)
            case ops.Gather(axis):
                return self.gather(node, index, axis)
            case ops.Reduce(kind):  # over axes of size 1
                if kind.startswith("arg"):
                    return Literal(node.dtype, 0)
                (x,) = node.inputs
                rest = iter(index)
                full = tuple(0 if axis in op.axes else next(rest) for axis in range(x.type.rank))
                return self.value(x, full, guard)
        raise VerificationError(f"{node!r} cannot be read element by element")

    def reshape(self, node: Node, index: tuple[Index, ...], guard: Expr | None) -> Expr:
        (source,) = node.inputs
        if is_trivial_reshape(node):
            return self.value(source, through_view(node, index, 0), guard)
        while isinstance(source.op, ops.Reshape) and source not in self.lowering.home:
            source = source.inputs[0]
        number = scalar_value(source)
        if number is not None:
            return self.guarded(Literal(node.dtype, number), guard)
        buffer = self.lowering.home[source]
        storage, start = self.lowering.read(buffer, node.dtype)
        return Load(node.dtype, storage, start + offset_of(node.shape, index), guard)

    def conjunction(self, conditions: list[Expr], guard: Expr | None) -> Expr | None:
        result = guard
        for condition in conditions:
            bound = self.bind(condition)
            if result is None:
                result = bound
            else:
                result = self.bind(Apply("bool", "logical_and", (result, bound)))
        return result

    def compare(self, function: str, left: Index, right: Index) -> Expr:
        pair = (IndexValue("int64", left), IndexValue("int64", right))
        return Apply("bool", function, pair)

    def pad(self, node: Node, index: tuple[Index, ...], guard: Expr | None) -> Expr:
        op, (x,) = node.op, node.inputs
        assert isinstance(op, ops.Pad)
        moved: list[Index] = []
        conditions: list[Expr] = []
        for axis, i in enumerate(index):
            low, high, interior = op.low[axis], op.high[axis], op.interior[axis]
            inner = i - low
            if interior:
                quotient = inner // (interior + 1)
                conditions.append(self.compare("eq", quotient * (interior + 1), inner))
                inner = quotient
            if low != 0 or interior:
                conditions.append(self.compare("ge", inner, 0))
            if high != 0 or interior:
                conditions.append(self.compare("lt", inner, x.shape[axis]))
            moved.append(inner)
        return self.value(x, tuple(moved), self.conjunction(conditions, guard))

    def concat(self, node: Node, index: tuple[Index, ...], guard: Expr | None, axis: int) -> Expr:
        start: Index = 0
        pieces: list[tuple[Expr, Expr]] = []
        for position, x in enumerate(node.inputs):
            end = start + x.shape[axis]
            conditions = []
            if position:
                conditions.append(self.compare("ge", index[axis], start))
            if position < len(node.inputs) - 1:
                conditions.append(self.compare("lt", index[axis], end))
            inside = self.conjunction(conditions, guard)
            moved = (*index[:axis], index[axis] - start, *index[axis + 1 :])
            value = self.value(x, moved, inside)
            pieces.append((inside or Literal("bool", True), value))
            start = end
        result = pieces[-1][1]
        for inside, value in reversed(pieces[:-1]):
            result = self.bind(Apply(node.dtype, "where", (inside, value, result)))
        return result

    def gather(self, node: Node, index: tuple[Index, ...], axis: int) -> Expr:
        x, indices = node.inputs
        rank = indices.type.rank
        position = self.value(indices, index[axis : axis + rank])
        picked, inside = self.checked_index(node, position, x.shape[axis])
        moved = (*index[:axis], picked, *index[axis + rank :])
        return self.value(x, moved, inside)

    def checked_index(self, node: Node, value: Expr, size: Index) -> tuple[Index, Expr]:
        """Bind an index read from data, with a check that it lies in ``[0, size)``."""
        if value.dtype != "int64":
            value = self.bind(Convert("int64", value))
        picked = self.let_index(value)
        lower = self.bind(self.compare("ge", picked, 0))
        upper = self.bind(self.compare("lt", picked, size))
        inside = self.bind(Apply("bool", "logical_and", (lower, upper)))
        message = f"{node.op.name}: index {{value}} is outside an axis of size {{size}}"
        site = self.lowering.sites.add(message.replace("{size}", str(size)), node)
        self.body.append(Check(inside, site, IndexValue("int64", picked)))
        return picked, inside
