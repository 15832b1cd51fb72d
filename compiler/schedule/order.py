"""Order the kernel groups, decide what each stores, and where threads must meet.

A state's update is stored into the state itself where every other reader of the old value can run
before; otherwise it goes to the arena and is copied at the end.  A barrier stands before a kernel
only where it conflicts with one since the last barrier.
"""

from __future__ import annotations

from ..analysis.scheduling import lexicographical_order
from ..ir import ops
from ..ir.graph import Node, Program
from .access import LEAVES, Access, is_small_constant, memory_reads, strip_aliases
from .fusion import compact_axes
from .plan import BufferPlan, KernelGroup, Schedule, ScheduledGroup


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
        same_index = (
            own
            and value.shape == state.shape
            and group.axes[value] == _axes_of_leaf(group, state, value, access)
        )
        movable = not any(reach.path(writer, reader) for reader in readers)
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
) -> tuple[int | None, ...] | None:
    """Return the group axes over which every member reads ``leaf``, or None where they differ."""
    found: set[tuple[int | None, ...]] = set()
    for member in group.members:
        for source, mapping in access.pointwise_reads(member):
            if source is leaf:
                known = group.axes[member]
                if isinstance(member.op, ops.Reduce):
                    return None
                found.add(tuple(None if axis is None else known[axis] for axis in mapping))
    if not found:
        return group.axes[value]
    return found.pop() if len(found) == 1 else None


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


def order_groups(program: Program, groups: list[KernelGroup]) -> Schedule:
    """Return the schedule of ``groups``."""
    access = Access(program)
    group_of = {node: group.number for group in groups for node in group.members}
    reads = _Reads(groups, access)
    in_place, copied, extra = _plan_updates(program, groups, group_of, reads, access)
    update_of = dict(program.updates)

    first_copy = len(groups)
    for state in copied:
        value = strip_aliases(update_of[state])
        group = KernelGroup(len(groups), compact_axes(value)[0], copies=True)
        group.members.append(value)
        group.axes[value] = compact_axes(value)[1]
        groups.append(group)
        reads.leaves.append({})
        reads.values.append({value})

    buffers: dict[str, BufferPlan] = {}
    home: dict[Node, str] = {}
    targets: dict[Node, list[str]] = {}

    in_memory = {source for node in program.nodes() for source in memory_reads(node, access.stored)}

    def declare(name: str, node: Node, kind: str, label: str = "") -> str:
        buffers.setdefault(
            name, BufferPlan(name, node.dtype, node.type.size, kind, node, label or name)
        )
        return name

    for node in program.nodes():
        match node.op:
            case ops.Input(label):
                home[node] = declare(f"in.{label}", node, "input", label)
            case ops.State(label):
                home[node] = declare(f"state.{len(buffers)}", node, "state", label)
            case ops.Constant() if node in in_memory or not is_small_constant(node):
                home[node] = declare(f"const.{len(buffers)}", node, "constant")
    for values in reads.values:
        for value in values:
            targets.setdefault(value, [])
    for name, root in program.outputs:
        node = strip_aliases(root)
        buffer = declare(f"out.{name}", root, "output", name)
        targets.setdefault(node, []).append(buffer)
        home.setdefault(node, buffer)
    for value, states in in_place.items():
        for state in states:
            targets.setdefault(value, []).append(home[state])
    snapshots: dict[Node, str] = {}
    position = {node: number for number, node in enumerate(access.nodes)}
    readable = {value for values in reads.values for value in values}
    for number, value in enumerate(sorted(readable, key=position.__getitem__)):
        if value not in home or isinstance(value.op, LEAVES):
            snapshot = declare(f"t{number}", value, "arena")
            targets[value].insert(0, snapshot)
            if isinstance(value.op, LEAVES):
                snapshots[value] = snapshot
            else:
                home[value] = snapshot

    edges = {(group_of[v], n) for n, values in enumerate(reads.values) for v in values}
    edges |= set(extra)
    for number, state in enumerate(copied, start=first_copy):
        edges |= {(n, number) for n in range(first_copy) if state in reads.leaves[n]}
    order = lexicographical_order(range(len(groups)), edges)

    steps: list[ScheduledGroup] = []
    phase = 0
    written: set[str] = set()
    read: set[str] = set()
    for number in order:
        group = groups[number]
        if number >= first_copy:
            node = group.members[0]
            stores = ((node, (home[copied[number - first_copy]],)),)
        else:
            stores = tuple((n, tuple(targets[n])) for n in group.members if targets.get(n))
        writes = {name for _, names in stores for name in names}
        loads = {home[leaf] for leaf in reads.leaves[number] if leaf in home}
        loads |= {snapshots.get(value, home[value]) for value in reads.values[number]}
        barrier = bool(writes & (written | read) or loads & written)
        if barrier:
            phase += 1
            written, read = set(), set()
        written |= writes
        read |= loads
        steps.append(ScheduledGroup(group, stores, barrier, phase))
    return Schedule(program, tuple(steps), buffers, home, snapshots)
