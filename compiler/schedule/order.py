"""Order the kernel groups, decide what each stores, and where threads must meet.

A state's update is stored into the state itself where every other reader of the old value can run
before; otherwise it goes to the arena and is copied at the end.  A barrier stands before a kernel
only where it conflicts with one since the last barrier.  A loop begins with one, and so does every
step of it.
"""

from __future__ import annotations

from ..analysis.scheduling import lexicographical_order
from ..ir import ops
from ..ir.graph import Node, Program
from ..ir.types import Dim
from .access import LEAVES, Access, leaf_behind, strip_aliases
from .fusion import compact_axes
from .loops import carry_count
from .placement import Copy, LoopBuffers, Placement
from .plan import KernelGroup, Schedule, ScheduledGroup, ScheduledLoop


class _Reads:
    """What every group reads from memory: leaves, and values of other groups."""

    def __init__(self, groups: list[KernelGroup], access: Access) -> None:
        self.leaves: list[dict[Node, bool]] = []
        self.values: list[set[Node]] = []
        for group in groups:
            leaves: dict[Node, bool] = {}
            values: set[Node] = set()
            members = set(group.members)
            for node in group.members:
                for leaf, pointwise in access.leaf_reads(node).items():
                    leaves[leaf] = leaves.get(leaf, True) and pointwise
                values |= set(access.kernel_sources(node)) - members
            self.leaves.append(leaves)
            self.values.append(values)


def _plan_updates(
    program: Program,
    groups: list[KernelGroup],
    group_of: dict[Node, int],
    reads: _Reads,
    access: Access,
) -> tuple[dict[Node, list[Node]], list[Node], list[tuple[int, int]]]:
    """Return in-place stores (value -> states), states updated by copy, and added order edges."""
    edges = [
        (group_of[value], number) for number, values in enumerate(reads.values) for value in values
    ]
    reach = _Reachability(len(groups), edges)
    readers_elsewhere = {value for values in reads.values for value in values}
    in_place: dict[Node, list[Node]] = {}
    copied: list[Node] = []
    extra: list[tuple[int, int]] = []
    for state, update in program.updates:
        value = strip_aliases(update)
        writer = group_of[value]
        readers = [n for n, leaves in enumerate(reads.leaves) if state in leaves and n != writer]
        group = groups[writer]
        own = reads.leaves[writer].get(state, True)
        same_index = own and _spanned(group, value) == _axes_of_leaf(group, state, value, access)
        movable = not group.bodies and not any(reach.path(writer, reader) for reader in readers)
        if movable and same_index and value not in readers_elsewhere:
            in_place.setdefault(value, []).append(state)
            for reader in readers:
                extra.append((reader, writer))
                reach.add(reader, writer)
        else:
            copied.append(state)
    return in_place, copied, extra


def _axes_of_leaf(
    group: KernelGroup, leaf: Node, value: Node, access: Access
) -> tuple[int, ...] | None:
    """Return the group axes over which every member reads ``leaf``, or None where they differ.

    Axes of size 1 aside.  Read as an array of another shape than ``value``, the elements of the
    leaf would come in another order.
    """
    found: set[tuple[int, ...]] = set()
    for member in group.members:
        for source, mapping in access.pointwise_reads(member):
            if leaf_behind(source) is leaf:
                known = group.axes[member]
                if isinstance(member.op, ops.Reduce) or _wide(source) != _wide(value):
                    return None
                axes = [known[axis] for axis in mapping if axis is not None]
                found.add(tuple(axis for axis in axes if axis is not None))
    if not found:
        return _spanned(group, value)
    return found.pop() if len(found) == 1 else None


def _wide(node: Node) -> list[Dim]:
    return [dim for dim in node.shape if dim != 1]


def _spanned(group: KernelGroup, value: Node) -> tuple[int, ...]:
    """Return the group axes of a member's axes that are larger than 1."""
    return tuple(axis for axis in group.axes[value] if axis is not None)


class _Reachability:
    """Paths between groups, kept as bit masks while edges are added."""

    def __init__(self, count: int, edges: list[tuple[int, int]]) -> None:
        self.after = [1 << n for n in range(count)]
        for source, target in sorted(edges, reverse=True):
            self.add(source, target)

    def path(self, source: int, target: int) -> bool:
        return bool(self.after[source] >> target & 1)

    def add(self, source: int, target: int) -> None:
        new = self.after[target]
        bit = 1 << source
        for number, mask in enumerate(self.after):
            if mask & bit and new & ~mask:
                self.after[number] = mask | new


def order_groups(program: Program, groups: list[KernelGroup], prefix: str = "") -> Schedule:
    """Return the schedule of ``groups``; ``prefix`` tells a body's buffers from all others."""
    access = Access(program)
    group_of = {node: group.number for group in groups for node in group.members}
    reads = _Reads(groups, access)
    in_place, copied, extra = _plan_updates(program, groups, group_of, reads, access)
    update_of = dict(program.updates)

    places = Placement(program, access, prefix)
    for value, states in in_place.items():
        places.targets.setdefault(value, []).extend(places.home[state] for state in states)
    finals = {node for group in groups if group.bodies for node in carried_results(group)}
    kept = [{strip_aliases(update_of[state])} for state in copied]
    places.declare_temporaries({v for values in (*reads.values, *kept) for v in values} - finals)
    loops = places.place_loops(groups, [*reads.values, *kept])
    for state in copied:
        value = strip_aliases(update_of[state])
        source = places.snapshots.get(value) or places.home[value]
        places.copies.append(Copy(value, source, places.home[state], state=state))

    first_copy = len(groups)
    edges = {(group_of[v], n) for n, values in enumerate(reads.values) for v in values}
    edges |= set(extra)
    for number, copy in enumerate(places.copies, start=first_copy):
        group = KernelGroup(number, compact_axes(copy.value)[0], copies=True)
        group.members.append(copy.value)
        group.axes[copy.value] = compact_axes(copy.value)[1]
        groups.append(group)
        if copy.value in group_of and not _is_leaf_itself(copy, places):
            edges.add((group_of[copy.value], number))
        if copy.begins is not None:
            edges.add((number, copy.begins))
        if copy.state is not None:
            edges |= {(n, number) for n in range(first_copy) if copy.state in reads.leaves[n]}
    order = lexicographical_order(range(len(groups)), edges)

    steps: list[ScheduledGroup] = []
    phase = 0
    written: set[str] = set()
    read: set[str] = set()
    for number in order:
        group = groups[number]
        loop = None
        source = None
        if number >= first_copy:
            copy = places.copies[number - first_copy]
            source = copy.source
            stores = ((copy.value, (copy.target,)),)
            writes, loads = {copy.target}, {source}
        elif group.bodies:
            loop = _schedule_loop(group, loops[number], prefix)
            stores = tuple((n, (places.home[n],)) for n in group.members)
            writes, loads = _loop_conflicts(loop)
        else:
            stores = tuple(
                (n, tuple(places.targets[n])) for n in group.members if places.targets.get(n)
            )
            writes = {name for _, names in stores for name in names}
            loads = {places.home[leaf] for leaf in reads.leaves[number] if leaf in places.home}
            loads |= {places.home[value] for value in reads.values[number]}
        barrier = loop is not None or bool(writes & (written | read) or loads & written)
        if barrier:
            phase += 1
            written, read = set(), set()
        written |= writes
        read |= loads
        steps.append(ScheduledGroup(group, stores, barrier, phase, source, loop))
    return Schedule(program, tuple(steps), places.plans, places.home)


def _is_leaf_itself(copy: Copy, places: Placement) -> bool:
    """Whether a copy reads a leaf, rather than what a kernel has made of it."""
    return isinstance(copy.value.op, LEAVES) and copy.source != places.snapshots.get(copy.value)


def carried_results(group: KernelGroup) -> list[Node]:
    """Return the results of a loop that are carries after its last step."""
    assert group.anchor is not None and isinstance(group.anchor.op, ops.Nested)
    count = carry_count(group.anchor.op)
    return [node for node in group.members if node.op.output < count]  # type: ignore[attr-defined]


def _schedule_loop(group: KernelGroup, buffers: LoopBuffers, prefix: str) -> ScheduledLoop:
    assert group.anchor is not None and isinstance(group.anchor.op, ops.Nested)
    bodies = tuple(
        order_groups(body.program, body.groups, f"{prefix}L{group.number}{letter}.")
        for letter, body in zip("ab", group.bodies, strict=False)
    )
    carries = tuple(body.carries for body in group.bodies)
    return ScheduledLoop(
        group.anchor.op,
        bodies,
        carries,
        buffers.inputs,
        buffers.carries,
        buffers.outputs,
        buffers.condition,
    )


def _loop_conflicts(loop: ScheduledLoop) -> tuple[set[str], set[str]]:
    """Return the buffers that a loop writes and those that it reads."""
    writes = {*loop.carries, *loop.outputs.values()}
    if loop.condition is not None:
        writes.add(loop.condition)
    return writes, {*loop.inputs[len(loop.carries) :], *loop.carries}
