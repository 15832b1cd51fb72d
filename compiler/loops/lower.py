"""Lower a schedule to kernels: every group becomes loops over its axes.

Values are *pulled*: the value of a node at an index is its operator applied to the values of its
inputs at the indices that the operator reads.  Views only change the index.  A group with
reductions runs one loop over its inner axes per *level*: a value that needs a reduction's result
belongs to a later level.  Costly values that several levels need are kept in a row of scratch
memory; cheap ones are computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..errors import VerificationError
from ..ir import ops
from ..ir.affine import offset_of, split_linear
from ..ir.dims import SymbolicDim, product, symbols
from ..ir.graph import Node, scalar_value, with_bodies
from ..ir.scalars import COSTLY
from ..ir.types import FLOATS, ITEM_BYTES, greatest_value, least_value
from ..schedule.plan import BufferPlan, KernelGroup, Schedule, ScheduledGroup
from .bodies import Place, lower_loop
from .ir import (
    Apply,
    BufferUse,
    Carry,
    Check,
    CheckSite,
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
    Sort,
    Step,
    Stmt,
    Storage,
    Store,
    Var,
    walk,
)
from .pull import Pull, Sites
from .tiling import arrange_loops, axis_name

#: About how many operations an element costs to sort: the passes over rows of thousands.
SORT_WORK = 64


class _Homes:
    """Where a group finds values in memory: at their homes, but for what it computes itself."""

    def __init__(self, schedule: Schedule, step: ScheduledGroup) -> None:
        self.schedule = schedule
        self.group = step.group
        self.source = step.source

    def get(self, node: Node) -> str | None:
        if self.group.copies:
            return self.source
        if node in self.group.axes and not isinstance(
            node.op, (ops.Input, ops.State, ops.Constant)
        ):
            return None
        return self.schedule.home.get(node)

    def __contains__(self, node: Node) -> bool:
        return self.get(node) is not None

    def __getitem__(self, node: Node) -> str:
        name = self.get(node)
        if name is None:
            raise KeyError(node)
        return name


class _GroupLowering:
    """Lowers one scheduled group to a kernel."""

    def __init__(
        self,
        step: ScheduledGroup,
        schedule: Schedule,
        number: str,
        sites: Sites,
        places: Mapping[str, Place],
    ) -> None:
        self.step = step
        self.schedule = schedule
        self.group: KernelGroup = step.group
        self.number = number
        self.sites = sites
        self.places = places
        self.home = _Homes(schedule, step)
        self.scratch: list[Storage] = []
        self.uses: dict[str, BufferUse] = {}
        self.touched: set[str] = set()
        self.counter = 0

    def fresh(self, prefix: str) -> str:
        self.counter += 1
        return f"%{prefix}{self.counter}"

    def read(self, buffer: str, dtype: str) -> Place:
        self.touched.add(buffer)
        storage, start = self.places.get(buffer, (buffer, 0))
        self.uses.setdefault(storage, BufferUse(storage, dtype, False))
        return storage, start

    def write(self, buffer: str, dtype: str) -> Place:
        self.touched.add(buffer)
        storage, start = self.places.get(buffer, (buffer, 0))
        self.uses[storage] = BufferUse(storage, dtype, True)
        return storage, start

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

    def is_state(self, buffer: str) -> bool:
        plan = self.schedule.buffers.get(buffer)
        return plan is not None and plan.kind == "state"

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
        else:
            body = _ANCHORED[type(anchor.op)](self, anchor)
        return self.finish(body)

    def axis_symbols(self) -> dict[int, Index]:
        return {axis: SymbolicDim.of(axis_name(axis)) for axis in range(len(self.group.domain))}

    def store_values(self, pull: Pull, stores: list[tuple[Node, tuple[str, ...]]]) -> None:
        """Compute all values, then store them: a state may be read and written at one index."""
        values = [(node, names, pull.member(node)) for node, names in stores]
        for node, names, value in values:
            offset = offset_of(node.shape, pull.member_index(node))
            for name in names:
                storage, start = self.write(name, node.dtype)
                pull.body.append(Store(storage, start + offset, value))

    def lower_loops(self) -> tuple[Stmt, ...]:
        group = self.group
        level = self.levels()
        index = self.axis_symbols()
        outer = Pull(self, index)
        folds = [n for n in group.members if self.is_fold(n)]
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
            early = tuple(n for n in names if not self.is_state(n))
            late = tuple(n for n in names if self.is_state(n))
            at = level[node] if loops[level[node]] else last
            if early:
                full_stores[at].append((node, early))
            if late:
                full_stores[last].append((node, late))
        if not group.inner:
            self.store_values(outer, [s for stores in full_stores for s in stores])
            return arrange_loops(group, tuple(outer.body), group.domain)
        kept = self.keep_costly(level, loops, full_stores)
        for number in range(last + 1):
            if not loops[number] and not full_stores[number] and not kept.get(number):
                continue
            pull = Pull(self, index, outer)
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
                stays = [n for n in names if not self.is_state(n)]
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
        assert isinstance(op, ops.CONTRACTIONS)
        shape = anchor.shape
        batch = len(shape) - 2
        names = [f"%b{axis}" for axis in range(batch)]
        indices: list[Index] = [SymbolicDim.of(name) for name in names]
        row, column, depth = (SymbolicDim.of(name) for name in ("%m", "%n", "%k"))
        if isinstance(op, ops.FlatContract):
            tables = list(anchor.inputs[2:])
            left = self.flat_operand(anchor.inputs[0], op.left, indices, tables)
            right = self.flat_operand(anchor.inputs[1], op.right, indices, tables)
        else:
            left = self.operand(anchor.inputs[0], [*indices, row, depth], "%m", "%k")
            right = self.operand(anchor.inputs[1], [*indices, depth, column], "%k", "%n")
        group_index: dict[int, Index] = {}
        for axis, group_axis in enumerate(self.group.axes[anchor]):
            if group_axis is not None:
                group_index[group_axis] = [*indices, row, column][axis]
        pull = Pull(self, group_index)
        place = pull.member_index(anchor)
        pull.known[(anchor, place, id(None))] = Var(anchor.dtype, "%acc")
        pull.check_number(anchor, place, Var(anchor.dtype, "%acc"))
        self.store_values(pull, list(self.step.stores))
        stmt: Stmt = Contraction(
            anchor.dtype,
            shape[-2],
            shape[-1],
            op.sizes[-1],
            left,
            right,
            "%acc",
            "%m",
            "%n",
            tuple(pull.body),
        )
        for number, (name, dim) in enumerate(
            reversed(list(zip(names, shape[:batch], strict=True)))
        ):
            outermost = number == batch - 1
            stmt = Loop(name, dim, "serial", (stmt,), shared=outermost)
        return (stmt,)

    def operand(self, node: Node, index: list[Index], row: str, column: str) -> Operand:
        """Return where a contraction's operand lies in memory."""
        pull = Pull(self, {})
        load, prologue = pull.compute_memory(node, tuple(index))
        (row_stride, column_stride), rest = split_linear(load.offset, (row, column))
        return Operand(load.buffer, rest, row_stride, column_stride, prologue)

    def flat_operand(
        self, node: Node, steps: Sequence[Index], batch: list[Index], tables: list[Node]
    ) -> Operand:
        """Return a `FlatContract`'s operand; its tables are taken from the front of ``tables``."""
        pull = Pull(self, {})
        buffer, start, prologue = pull.flat_memory(node)
        offset, *strides = steps
        offset = start + offset
        for index, stride in zip(batch, strides, strict=False):
            offset = index * stride + offset
        if len(strides) > len(batch):
            return Operand(buffer, offset, strides[-2], strides[-1], prologue)
        (row, first, _), (column, second, _) = (pull.flat_memory(tables.pop(0)) for _ in range(2))
        if first != 0 or second != 0:
            raise VerificationError(f"the tables of {node!r} are parts of other buffers")
        return Operand(buffer, offset, row, column, prologue)

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
            storage, start = self.write(name, dtype)
            place = start + offset_of(anchor.shape, (*before, slot, *after))
            zero = Store(storage, place, Literal(dtype, 0))
            body.append(Loop("%z", op.size, "serial", (zero,)))
        pull = Pull(self, {})
        position = pull.value(indices, tuple(positions))
        picked, _ = pull.checked_index(anchor, position, op.size)
        low = Apply("int64", "maximum", (IndexValue("int64", picked), Literal("int64", 0)))
        top = IndexValue("int64", op.size - 1)
        safe = pull.let_index(Apply("int64", "minimum", (pull.bind(low), top)))
        value = pull.value(updates, (*before, *positions, *after))
        for name in targets:
            storage, start = self.write(name, dtype)
            offset = start + offset_of(anchor.shape, (*before, safe, *after))
            pull.body.append(Store(storage, offset, value, accumulate=True))
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

    def lower_recurrence(self, anchor: Node) -> tuple[Stmt, ...]:
        """Lower a running value: serial along its axis, carried in a register."""
        op, dtype = anchor.op, anchor.dtype
        assert isinstance(op, (ops.LinearRecurrence, ops.RunningExtremum))
        index = self.axis_symbols()
        along = self.group.axes[anchor][op.axis]
        step = 0 if along is None else index[along]
        if op.reverse and along is not None:
            index[along] = anchor.shape[op.axis] - 1 - step
        pull = Pull(self, index)
        place = pull.member_index(anchor)
        value = pull.value(anchor.inputs[-1], place)
        before = Var(dtype, self.fresh("before"))
        if isinstance(op, ops.RunningExtremum):
            start = Literal(
                dtype, least_value(dtype) if op.kind == "max" else greatest_value(dtype)
            )
            function = {"max": "maximum", "min": "minimum"}[op.kind]
            result = pull.bind(Apply(dtype, function, (before, value)))
        else:
            # -0.0 + b is b, and 0 times it is -0.0 again: the first element is exactly b
            start = Literal(dtype, -0.0 if dtype in FLOATS else 0)
            factor = anchor.inputs[0]
            product_: Expr = before
            if scalar_value(factor) != 1:
                first = pull.bind(pull.compare("eq", step, 0))
                known = pull.value(factor, place)
                scale = pull.bind(Apply(dtype, "where", (first, Literal(dtype, 0), known)))
                product_ = pull.bind(Apply(dtype, "mul", (scale, before)))
            result = pull.bind(Apply(dtype, "add", (product_, value)))
        pull.known[(anchor, place, id(None))] = result
        pull.check_number(anchor, place, result)
        self.store_values(pull, list(self.step.stores))
        body = tuple(pull.body)
        if along is not None:
            carry = Carry(before.name, start, result)
            body = (
                Loop(axis_name(along), anchor.shape[op.axis], "serial", body, carries=(carry,)),
            )
        else:
            body = (Let(before.name, start), *body)
        others = [axis for axis in range(len(self.group.domain)) if axis != along]
        last = len(self.group.domain) - 1
        for axis in reversed(others):
            kind = "vector" if axis == last else "serial"
            extent = self.group.domain[axis]
            body = (Loop(axis_name(axis), extent, kind, body, shared=axis == others[0]),)
        return body

    def lower_sort(self, anchor: Node) -> tuple[Stmt, ...]:
        """Lower a sort: each row is copied, ordered, and its order stored where it belongs."""
        op = anchor.op
        assert isinstance(op, ops.ArgSort)
        (x,) = anchor.inputs
        along = self.group.axes[anchor][op.axis]
        assert along is not None, "a row of one element is in order"
        extent = anchor.shape[op.axis]
        others = [axis for axis in range(len(self.group.domain)) if axis != along]
        index = self.axis_symbols()
        step = index[along]
        rows = offset_of(
            tuple(self.group.domain[axis] for axis in others),
            tuple(index[axis] for axis in others),
        )
        keys, order, spare = (
            self.scratch_buffer(dtype, anchor) for dtype in (x.dtype, "int64", "int64")
        )
        copy = Pull(self, index)
        value = copy.value(x, copy.member_index(anchor))
        copy.body.append(Store(keys, rows * extent + step, value))
        finish = Pull(self, index)
        place = finish.member_index(anchor)
        position = finish.bind(Load("int64", order, rows * extent + step))
        finish.known[(anchor, place, id(None))] = position
        self.store_values(finish, list(self.step.stores))
        name = axis_name(along)
        body: tuple[Stmt, ...] = (
            Loop(name, extent, "vector", tuple(copy.body)),
            Sort(keys, order, spare, rows * extent, extent, x.dtype, op.descending),
            Loop(name, extent, "vector", tuple(finish.body)),
        )
        for axis in reversed(others):
            loop = axis_name(axis)
            shared = axis == others[0]
            body = (Loop(loop, self.group.domain[axis], "serial", body, shared=shared),)
        return body

    def scratch_buffer(self, dtype: str, like: Node) -> str:
        """Return a new buffer of this kernel alone, with as many elements as ``like``."""
        name = f"s{self.number}.{len(self.scratch)}"
        self.scratch.append(Storage(name, dtype, like.type.size, "arena", name))
        self.write(name, dtype)
        return name

    # -- the kernel ----------------------------------------------------------------------------

    def finish(self, body: tuple[Stmt, ...]) -> Kernel:
        group = self.group
        elements = product(tuple(group.domain))
        flops: Index = 0
        if group.anchor is not None and isinstance(group.anchor.op, ops.CONTRACTIONS):
            flops = product(group.anchor.op.sizes) * 2
        operations = sum(1 for s in walk(body) if isinstance(s, Let))
        operations += SORT_WORK * any(isinstance(s, Sort) for s in walk(body))
        sizes: Index = 0
        for name in sorted(self.touched):
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


_ANCHORED: dict[type[ops.Op], Callable[[_GroupLowering, Node], tuple[Stmt, ...]]] = {
    ops.Contract: _GroupLowering.lower_contract,
    ops.FlatContract: _GroupLowering.lower_contract,
    ops.ScatterAdd: _GroupLowering.lower_scatter,
    ops.ArgSort: _GroupLowering.lower_sort,
    ops.LinearRecurrence: _GroupLowering.lower_recurrence,
    ops.RunningExtremum: _GroupLowering.lower_recurrence,
}


def lower_requirements(schedule: Schedule, sites: Sites) -> Kernel | None:
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
    return _ProgramLowering(Sites(checks)).lower(schedule)


class _ProgramLowering:
    """Collects the kernels and buffers of a schedule and of the bodies in it."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        self.kernels: list[Kernel] = []
        self.storage: list[Storage] = []

    def lower(self, schedule: Schedule) -> LoopProgram:
        self.storage = [_storage_of(plan) for plan in schedule.buffers.values()]
        items: list[Item] = []
        preflight = lower_requirements(schedule, self.sites)
        if preflight is not None:
            self.kernels.append(preflight)
            items.append(Step(preflight.name, False))
        items += self.items(schedule, {}, 0, "", meet=preflight is not None)
        names: set[str] = set()
        for node in with_bodies(schedule.program.nodes()):
            for dim in (*node.shape, *ops.dims_of(node.op)):
                names |= symbols(dim)
        return LoopProgram(
            tuple(self.kernels),
            tuple(items),
            tuple(self.storage),
            tuple(sorted(names)),
            tuple(self.sites.sites),
        )

    def items(
        self,
        schedule: Schedule,
        places: Mapping[str, Place],
        depth: int,
        prefix: str,
        meet: bool = False,
    ) -> list[Item]:
        """Lower the groups of a schedule; ``meet``: threads do before the first of them."""
        items: list[Item] = []
        for number, step in enumerate(schedule.steps):
            name = f"{prefix}{number}"
            if step.loop is not None:
                items += lower_loop(step.loop, places, depth, f"{name}.", self.body)
                continue
            lowering = _GroupLowering(step, schedule, name, self.sites, places)
            kernel = lowering.lower()
            self.storage.extend(lowering.scratch)
            self.kernels.append(kernel)
            items.append(Step(kernel.name, step.barrier or (meet and not items)))
        return items

    def body(
        self, schedule: Schedule, places: Mapping[str, Place], depth: int, prefix: str, meet: bool
    ) -> tuple[Item, ...]:
        """Lower one body, whose formals and results have their ``places`` already."""
        self.storage += [
            _storage_of(plan)
            for plan in schedule.buffers.values()
            if plan.kind in {"arena", "constant"}
        ]
        return tuple(self.items(schedule, places, depth, prefix, meet))
