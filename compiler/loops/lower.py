"""Lower a schedule to kernels: every group becomes loops over its axes.

Values are *pulled*: the value of a node at an index is its operator applied to the values of its
inputs at the indices that the operator reads.  Views only change the index.  A group with
reductions runs one loop over its inner axes per *level*: a value that needs a reduction's result
belongs to a later level.  Costly values that several levels need are kept in a row of scratch
memory; cheap ones are computed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import VerificationError
from ..ir import ops
from ..ir.affine import offset_of, pointwise_index, split_linear
from ..ir.dims import SymbolicDim, product, symbols
from ..ir.graph import Node, scalar_value
from ..ir.scalars import COSTLY
from ..ir.types import ITEM_BYTES
from ..schedule.plan import BufferPlan, KernelGroup, Schedule, ScheduledGroup
from .ir import (
    Apply,
    BufferUse,
    Check,
    CheckSite,
    Contraction,
    Convert,
    Expr,
    Fold,
    Index,
    IndexValue,
    Kernel,
    Let,
    Literal,
    Load,
    Loop,
    LoopProgram,
    Operand,
    Philox,
    Step,
    Stmt,
    Storage,
    Store,
    Var,
    walk,
)
from .tiling import arrange_loops, axis_name

#: How the messages of checked builds begin.
NAN_FOUND, OUT_OF_BOUNDS = "not a number:", "out of bounds:"


@dataclass
class _Sites:
    """Places where a kernel can report bad input, and the ``checks`` that a checked build adds."""

    checks: frozenset[str] = frozenset()
    sites: list[CheckSite] = field(default_factory=list)

    def add(self, message: str, node: Node) -> int:
        self.sites.append(CheckSite(message, node.source))
        return len(self.sites) - 1


class _Pull:
    """Builds the statements of one loop body: the values of a group's nodes at one index."""

    def __init__(
        self,
        lowering: _GroupLowering,
        index: dict[int, Index],
        outer: _Pull | None = None,
    ) -> None:
        self.lowering = lowering
        self.index = index
        self.outer = outer
        self.body: list[Stmt] = []
        self.known: dict[tuple[Node, tuple[Index, ...], int], Expr] = {}
        self.loaded: dict[Node, str] = {} if outer is None else outer.loaded

    def lookup(self, key: tuple) -> Expr | None:
        scope: _Pull | None = self
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
            if isinstance(node.op, ops.Contract) or lowering.is_fold(node):
                raise VerificationError(f"{node!r} is read before it is computed, in {group}")
            if index != self.member_index(node):
                raise VerificationError(f"{node!r} is read at another index inside {group}")
        elif node in lowering.home:
            return self.load(lowering.home[node], node, index, guard)
        return self.apply(node, index, guard)

    def compute_memory(self, node: Node, index: tuple[Index, ...]) -> Load:
        """Return the load of ``node`` at ``index``; only views stand between it and memory."""
        home = self.lowering.home
        while node not in home:
            index = tuple(0 if dim == 1 else i for i, dim in zip(index, node.shape, strict=True))
            (x,) = node.inputs
            match node.op:
                case ops.Broadcast():
                    index = pointwise_index(x.shape, index)
                case ops.Transpose(permutation):
                    moved: list[Index] = [0] * len(index)
                    for axis, origin in enumerate(permutation):
                        moved[origin] = index[axis]
                    index = tuple(moved)
                case ops.Reshape() if [d for d in node.shape if d != 1] == [
                    d for d in x.shape if d != 1
                ]:
                    wide = iter([i for i, dim in zip(index, node.shape, strict=True) if dim != 1])
                    index = tuple(0 if dim == 1 else next(wide) for dim in x.shape)
                case ops.Reshape():
                    load = self.reshape(node, index, None)
                    assert isinstance(load, Load)
                    return load
                case _:
                    raise VerificationError(f"{node!r} is needed in memory and is not there")
            node = x
        load = self.load(home[node], node, index, None)
        assert isinstance(load, Load)
        return load

    def load(self, buffer: str, node: Node, index: tuple[Index, ...], guard: Expr | None) -> Load:
        self.lowering.read(buffer, node.dtype)
        offset = offset_of(node.shape, index)
        self.check_bounds(buffer, node, offset, guard)
        return Load(node.dtype, buffer, offset, guard)

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
            case ops.Broadcast():
                (x,) = node.inputs
                return self.value(x, pointwise_index(x.shape, index), guard)
            case ops.Transpose(permutation):
                (x,) = node.inputs
                moved: list[Index] = [0] * len(index)
                for axis, origin in enumerate(permutation):
                    moved[origin] = index[axis]
                return self.value(x, tuple(moved), guard)
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
        (x,) = node.inputs
        kept = [dim for dim in node.shape if dim != 1]
        if kept == [dim for dim in x.shape if dim != 1]:
            wide = iter([i for i, dim in zip(index, node.shape, strict=True) if dim != 1])
            moved = tuple(0 if dim == 1 else next(wide) for dim in x.shape)
            return self.value(x, moved, guard)
        source = x
        while isinstance(source.op, ops.Reshape) and source not in self.lowering.home:
            source = source.inputs[0]
        number = scalar_value(source)
        if number is not None:
            return self.guarded(Literal(node.dtype, number), guard)
        buffer = self.lowering.home[source]
        self.lowering.read(buffer, node.dtype)
        return Load(node.dtype, buffer, offset_of(node.shape, index), guard)

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


class _GroupLowering:
    """Lowers one scheduled group to a kernel."""

    def __init__(
        self, step: ScheduledGroup, schedule: Schedule, number: int, sites: _Sites
    ) -> None:
        self.step = step
        self.schedule = schedule
        self.group: KernelGroup = step.group
        self.number = number
        self.sites = sites
        self.home = {
            node: name
            for node, name in schedule.home.items()
            if node not in self.group.axes or self.group.copies
        }
        if self.group.copies:
            self.home.update(schedule.snapshots)
        self.home.update(
            (node, name)
            for node, name in schedule.home.items()
            if isinstance(node.op, (ops.Input, ops.State, ops.Constant))
            and not (self.group.copies and node in schedule.snapshots)
        )
        self.scratch: list[Storage] = []
        self.uses: dict[str, BufferUse] = {}
        self.counter = 0

    def fresh(self, prefix: str) -> str:
        self.counter += 1
        return f"%{prefix}{self.counter}"

    def read(self, buffer: str, dtype: str) -> None:
        self.uses.setdefault(buffer, BufferUse(buffer, dtype, False))

    def wrote(self, buffer: str, dtype: str) -> None:
        self.uses[buffer] = BufferUse(buffer, dtype, True)

    # -- levels --------------------------------------------------------------------------------

    def in_group_sources(self, node: Node) -> list[Node]:
        """Return the members whose values ``node`` pulls, through views."""
        found: list[Node] = []
        stack = list(node.inputs)
        seen: set[Node] = set()
        while stack:
            x = stack.pop()
            if x in seen:
                continue
            seen.add(x)
            if x in self.group.axes:
                found.append(x)
            elif x not in self.home:
                stack.extend(x.inputs)
        return found

    def levels(self) -> dict[Node, int]:
        level: dict[Node, int] = {}
        for node in self.group.members:
            level[node] = max(
                (
                    level[s] + (1 if self.is_fold(s) else 0)
                    for s in self.in_group_sources(node)
                    if s in level
                ),
                default=0,
            )
        return level

    def is_fold(self, node: Node) -> bool:
        return isinstance(node.op, ops.Reduce) and any(
            node.inputs[0].shape[axis] != 1 for axis in node.op.axes
        )

    def is_row_value(self, node: Node) -> bool:
        """Whether ``node`` is a member that has one value for each iteration of the outer loops."""
        return node in self.group.axes and not self.spans_inner(node)

    def spans_inner(self, node: Node) -> bool:
        return self.group.inner <= {a for a in self.group.axes[node] if a is not None}

    # -- bodies --------------------------------------------------------------------------------

    def lower(self) -> Kernel:
        anchor = self.group.anchor
        if anchor is None or self.group.copies:
            body = self.lower_loops()
        elif isinstance(anchor.op, ops.Contract):
            body = self.lower_contract(anchor)
        else:
            body = self.lower_scatter(anchor)
        return self.finish(body)

    def axis_symbols(self) -> dict[int, Index]:
        return {axis: SymbolicDim.of(axis_name(axis)) for axis in range(len(self.group.domain))}

    def store_values(self, pull: _Pull, stores: list[tuple[Node, tuple[str, ...]]]) -> None:
        """Compute all values, then store them: a state may be read and written at one index."""
        values = [(node, names, pull.member(node)) for node, names in stores]
        for node, names, value in values:
            offset = offset_of(node.shape, pull.member_index(node))
            for name in names:
                self.wrote(name, node.dtype)
                pull.body.append(Store(name, offset, value))

    def lower_loops(self) -> tuple[Stmt, ...]:
        group = self.group
        level = self.levels()
        index = self.axis_symbols()
        outer = _Pull(self, index)
        folds = [n for n in group.members if self.is_fold(n)]
        states = {plan.name for plan in self.schedule.buffers.values() if plan.kind == "state"}
        last = max(level.values(), default=0)
        if any(level[n] == last for n in folds):
            last += 1
        loops: list[list[Node]] = [[] for _ in range(last + 1)]
        for node in folds:
            loops[level[node]].append(node)
        full_stores: list[list[tuple[Node, tuple[str, ...]]]] = [[] for _ in range(last + 1)]
        row_stores: list[tuple[Node, tuple[str, ...]]] = []
        for node, names in self.step.stores:
            if group.inner and not self.spans_inner(node):
                row_stores.append((node, names))
                continue
            early = tuple(n for n in names if n not in states)
            late = tuple(n for n in names if n in states)
            at = level[node] if loops[level[node]] else last
            if early:
                full_stores[at].append((node, early))
            if late:
                full_stores[last].append((node, late))
        if not group.inner:
            inner = outer
            self.store_values(inner, [s for stores in full_stores for s in stores])
            return arrange_loops(group, tuple(outer.body), self.step.group.domain)
        kept = self.keep_costly(level, loops, full_stores)
        for number in range(last + 1):
            if not loops[number] and not full_stores[number] and not kept.get(number):
                continue
            pull = _Pull(self, index, outer)
            results: list[Fold] = []
            for node in loops[number]:
                (x,) = node.inputs
                op = node.op
                assert isinstance(op, ops.Reduce)
                value = pull.value(x, self.reduction_index(node, index))
                name = self.fresh("r")
                position: Index = 0
                if op.kind.startswith("arg"):
                    (axis,) = group.inner
                    position = index[axis]
                results.append(Fold(name, op.kind, value, position))
            kept_here = kept.get(number, [])
            self.store_values(pull, [*full_stores[number], *kept_here])
            outer.body.append(Loop("inner", 0, "serial", tuple(pull.body), tuple(results)))
            for node, names in [*full_stores[number], *kept_here]:
                stays = [n for n in names if n not in states]
                if stays:
                    outer.loaded[node] = stays[0]
            for node, fold in zip(loops[number], results, strict=True):
                key = (node, outer.member_index(node), id(None))
                outer.known[key] = Var(fold.dtype, fold.name)
        self.store_values(outer, row_stores)
        return arrange_loops(group, tuple(outer.body), group.domain)

    def reduction_index(self, node: Node, index: dict[int, Index]) -> tuple[Index, ...]:
        """Return the index at which a reduction reads its input."""
        op, (x,) = node.op, node.inputs
        assert isinstance(op, ops.Reduce)
        known = iter(self.group.axes[node])
        inner = iter(sorted(self.group.inner))
        result: list[Index] = []
        for axis, dim in enumerate(x.shape):
            if axis in op.axes:
                result.append(0 if dim == 1 else index[next(inner)])
            else:
                group_axis = next(known)
                result.append(0 if group_axis is None else index[group_axis])
        return tuple(result)

    def keep_costly(
        self,
        level: dict[Node, int],
        loops: list[list[Node]],
        full_stores: list[list[tuple[Node, tuple[str, ...]]]],
    ) -> dict[int, list[tuple[Node, tuple[str, ...]]]]:
        """Choose costly values that several loops need, and give each a scratch buffer."""
        used_in: dict[Node, list[int]] = {}
        stored_at: dict[Node, int] = {}
        for number, stores in enumerate(full_stores):
            for node, _ in stores:
                stored_at.setdefault(node, number)
        for number in range(len(loops)):
            stack = [s for node in loops[number] for s in self.in_group_sources(node)]
            stack += [node for node, _ in full_stores[number]]
            seen: set[Node] = set()
            while stack:
                node = stack.pop()
                if node in seen or self.is_fold(node) or not self.spans_inner(node):
                    continue
                seen.add(node)
                used_in.setdefault(node, []).append(number)
                if stored_at.get(node, number) < number:
                    continue
                stack.extend(self.in_group_sources(node))
        kept: dict[int, list[tuple[Node, tuple[str, ...]]]] = {}
        for node in self.group.members:
            uses = used_in.get(node, [])
            costly = isinstance(node.op, ops.Map) and node.op.function in COSTLY
            if len(uses) > 1 and costly and stored_at.get(node, uses[0] + 1) > uses[0]:
                name = f"s{self.number}.{len(self.scratch)}"
                self.scratch.append(Storage(name, node.dtype, node.type.size, "arena", name))
                kept.setdefault(uses[0], []).append((node, (name,)))
        return kept

    def lower_contract(self, anchor: Node) -> tuple[Stmt, ...]:
        op = anchor.op
        assert isinstance(op, ops.Contract)
        batch = len(op.output_shape) - 2
        names = [f"%b{axis}" for axis in range(batch)]
        indices: list[Index] = [SymbolicDim.of(name) for name in names]
        row, column, depth = (SymbolicDim.of(name) for name in ("%m", "%n", "%k"))
        left = self.operand(anchor.inputs[0], [*indices, row, depth], "%m", "%k")
        right = self.operand(anchor.inputs[1], [*indices, depth, column], "%k", "%n")
        group_index: dict[int, Index] = {}
        for axis, group_axis in enumerate(self.group.axes[anchor]):
            if group_axis is not None:
                group_index[group_axis] = [*indices, row, column][axis]
        pull = _Pull(self, group_index)
        place = pull.member_index(anchor)
        pull.known[(anchor, place, id(None))] = Var(anchor.dtype, "%acc")
        pull.check_number(anchor, place, Var(anchor.dtype, "%acc"))
        self.store_values(pull, list(self.step.stores))
        stmt: Stmt = Contraction(
            anchor.dtype,
            op.output_shape[-2],
            op.output_shape[-1],
            op.sizes[-1],
            left,
            right,
            "%acc",
            "%m",
            "%n",
            tuple(pull.body),
        )
        for number, (name, dim) in enumerate(
            reversed(list(zip(names, op.output_shape[:batch], strict=True)))
        ):
            outermost = number == batch - 1
            stmt = Loop(name, dim, "serial", (stmt,), shared=outermost)
        return (stmt,)

    def operand(self, node: Node, index: list[Index], row: str, column: str) -> Operand:
        """Return where a contraction's operand lies in memory."""
        pull = _Pull(self, {})
        load = pull.compute_memory(node, tuple(index))
        (row_stride, column_stride), rest = split_linear(load.offset, (row, column))
        return Operand(load.buffer, rest, row_stride, column_stride)

    def lower_scatter(self, anchor: Node) -> tuple[Stmt, ...]:
        op = anchor.op
        assert isinstance(op, ops.ScatterAdd)
        updates, indices = anchor.inputs
        before = [SymbolicDim.of(f"%p{axis}") for axis in range(op.axis)]
        after_dims = anchor.shape[op.axis + 1 :]
        after = [SymbolicDim.of(f"%q{axis}") for axis in range(len(after_dims))]
        positions = [SymbolicDim.of(f"%i{axis}") for axis in range(indices.type.rank)]
        ((_, targets),) = self.step.stores
        dtype = anchor.dtype

        body: list[Stmt] = []
        slot = SymbolicDim.of("%z")
        for name in targets:
            self.wrote(name, dtype)
            zero = Store(name, offset_of(anchor.shape, (*before, slot, *after)), Literal(dtype, 0))
            body.append(Loop("%z", op.size, "serial", (zero,)))
        pull = _Pull(self, {})
        position = pull.value(indices, tuple(positions))
        picked, _ = pull.checked_index(anchor, position, op.size)
        low = Apply("int64", "maximum", (IndexValue("int64", picked), Literal("int64", 0)))
        top = IndexValue("int64", op.size - 1)
        safe = pull.let_index(Apply("int64", "minimum", (pull.bind(low), top)))
        value = pull.value(updates, (*before, *positions, *after))
        for name in targets:
            offset = offset_of(anchor.shape, (*before, safe, *after))
            pull.body.append(Store(name, offset, value, accumulate=True))
        accumulate: tuple[Stmt, ...] = tuple(pull.body)
        for axis in reversed(range(indices.type.rank)):
            accumulate = (Loop(f"%i{axis}", indices.shape[axis], "serial", accumulate),)
        stmts: tuple[Stmt, ...] = (*body, *accumulate)
        loops = [(f"%p{axis}", anchor.shape[axis], "serial") for axis in range(op.axis)]
        loops += [
            (f"%q{axis}", dim, "vector" if axis == len(after_dims) - 1 else "serial")
            for axis, dim in enumerate(after_dims)
        ]
        for number, (name, dim, kind) in enumerate(reversed(loops)):
            stmts = (Loop(name, dim, kind, stmts, shared=number == len(loops) - 1),)
        return stmts

    # -- the kernel ----------------------------------------------------------------------------

    def finish(self, body: tuple[Stmt, ...]) -> Kernel:
        group = self.group
        elements = product(tuple(group.domain))
        flops: Index = 0
        if group.anchor is not None and isinstance(group.anchor.op, ops.Contract):
            flops = product(group.anchor.op.sizes) * 2
        operations = sum(1 for s in walk(body) if isinstance(s, Let))
        sizes: Index = 0
        for name in self.uses:
            plan = self.schedule.buffers.get(name)
            if plan is not None:
                sizes = plan.size * ITEM_BYTES[plan.dtype] + sizes
        names = [n.op.name for n in group.members]
        label = " ".join(names[:6]) + (" …" if len(names) > 6 else "")
        return Kernel(
            name=f"k{self.number}_{group.kind}",
            buffers=tuple(self.uses.values()),
            body=body,
            flops=flops,
            bytes=sizes,
            work=elements * max(1, operations) + flops,
            label=label,
        )


def lower_requirements(schedule: Schedule, sites: _Sites) -> Kernel | None:
    """Return a kernel that checks the inputs before anything else runs, if any need it."""
    body: list[Stmt] = []
    uses: dict[str, BufferUse] = {}
    for number, requirement in enumerate(schedule.program.requirements):
        node = requirement.input
        buffer = schedule.home.get(node)
        if buffer is None:
            continue
        index = f"%i{number}"
        uses[buffer] = BufferUse(buffer, node.dtype, False)
        load = Load(node.dtype, buffer, SymbolicDim.of(index))
        value = Var("int64", f"%x{number}")
        low = Apply("bool", "ge", (value, IndexValue("int64", requirement.low)))
        high = Apply("bool", "lt", (value, IndexValue("int64", requirement.high)))
        condition = Apply("bool", "logical_and", (low, high))
        if requirement.ignore is not None:
            ignored = Apply("bool", "eq", (value, Literal("int64", requirement.ignore)))
            condition = Apply("bool", "logical_or", (condition, ignored))
        sites.sites.append(CheckSite(requirement.message, requirement.source))
        stmts = (
            Let(value.name, Convert("int64", load)),
            Check(condition, len(sites.sites) - 1, value),
        )
        body.append(Loop(index, node.type.size, "vector", stmts))
    if not body:
        return None
    return Kernel("check_inputs", tuple(uses.values()), tuple(body), label="input ranges")


def _storage_of(plan: BufferPlan) -> Storage:
    op = plan.node.op
    value = op.value if isinstance(op, ops.Constant) and plan.kind == "constant" else None
    digest = value.digest if value else ""
    return Storage(plan.name, plan.dtype, plan.size, plan.kind, plan.label, value, digest)


def lower_schedule(schedule: Schedule, checks: frozenset[str] = frozenset()) -> LoopProgram:
    """Return the kernels of ``schedule``, in order, with the buffers they use.

    ``checks``: ``nan`` reports the first operator that makes a NaN, ``bounds`` an access outside
    its buffer.
    """
    sites = _Sites(checks)
    kernels: list[Kernel] = []
    steps: list[Step] = []
    storage = [_storage_of(plan) for plan in schedule.buffers.values()]
    preflight = lower_requirements(schedule, sites)
    if preflight is not None:
        kernels.append(preflight)
        steps.append(Step(preflight.name, False))
    for number, step in enumerate(schedule.steps):
        lowering = _GroupLowering(step, schedule, number, sites)
        kernel = lowering.lower()
        storage.extend(lowering.scratch)
        kernels.append(kernel)
        first = preflight is not None and number == 0
        steps.append(Step(kernel.name, step.barrier or first))
    names: set[str] = set()
    for node in schedule.program.nodes():
        for dim in (*node.shape, *ops.dims_of(node.op)):
            names |= symbols(dim)
    return LoopProgram(
        tuple(kernels), tuple(steps), tuple(storage), tuple(sorted(names)), tuple(sites.sites)
    )
