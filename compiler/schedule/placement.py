"""Where values live: the buffers of a schedule, and those of its loops."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..ir import ops
from ..ir.graph import Node, Program
from .access import LEAVES, Access, is_small_constant, memory_reads, strip_aliases
from .loops import carry_count
from .plan import BufferPlan, KernelGroup


@dataclass(frozen=True)
class Copy:
    """A value that moves from one buffer to another: to begin the loop of a group, or to stay."""

    value: Node
    source: str
    target: str
    begins: int | None = None
    state: Node | None = None


@dataclass(frozen=True)
class LoopBuffers:
    """The buffers of a loop; see `plan.ScheduledLoop`."""

    inputs: tuple[str, ...]
    carries: tuple[str, ...]
    outputs: dict[int, str]
    condition: str | None


class Placement:
    """The buffers of a schedule: ``home[node]`` holds a node's value, ``targets[node]`` are all
    buffers that its kernel stores it to, ``snapshots[leaf]`` keeps a leaf for a copy at the end."""

    def __init__(self, program: Program, access: Access, prefix: str) -> None:
        self.prefix = prefix
        self.plans: dict[str, BufferPlan] = {}
        self.home: dict[Node, str] = {}
        self.targets: dict[Node, list[str]] = {}
        self.snapshots: dict[Node, str] = {}
        self.copies: list[Copy] = []
        self.position = {node: number for number, node in enumerate(access.nodes)}
        self.declare_leaves(access)
        for name, root in program.outputs:
            node = strip_aliases(root)
            buffer = self.declare(f"out.{name}", root, "output", name)
            self.targets.setdefault(node, []).append(buffer)
            self.home.setdefault(node, buffer)

    def declare(self, name: str, node: Node, kind: str, label: str = "") -> str:
        name = f"{self.prefix}{name}"
        self.plans.setdefault(
            name, BufferPlan(name, node.dtype, node.type.size, kind, node, label or name)
        )
        return name

    def declare_leaves(self, access: Access) -> None:
        in_memory = {s for node in access.nodes for s in memory_reads(node, access.stored)}
        for node in access.nodes:
            match node.op:
                case ops.Input(label):
                    self.home[node] = self.declare(f"in.{label}", node, "input", label)
                case ops.State(label):
                    name = f"state.{len(self.plans)}"
                    self.home[node] = self.declare(name, node, "state", label)
                case ops.Constant() if node in in_memory or not is_small_constant(node):
                    self.home[node] = self.declare(f"const.{len(self.plans)}", node, "constant")

    def declare_temporaries(self, readable: Iterable[Node]) -> None:
        """Give every value that other kernels read a buffer; a leaf among them gets a snapshot."""
        for number, value in enumerate(sorted(readable, key=self.position.__getitem__)):
            if value not in self.home or isinstance(value.op, LEAVES):
                name = self.declare(f"t{number}", value, "arena")
                self.targets.setdefault(value, []).insert(0, name)
                if isinstance(value.op, LEAVES):
                    self.snapshots[value] = name
                else:
                    self.home[value] = name

    def place_loops(
        self, groups: Iterable[KernelGroup], reads: Collection[Collection[Node]]
    ) -> dict[int, LoopBuffers]:
        """Return the buffers of every loop, and note the copies before and after it.

        ``reads`` are the values that each group, and each copy to a state, reads.  A carry lives
        where its first value does if nothing else reads that; otherwise that is copied.
        """
        uses: dict[Node, int] = {}
        for values in reads:
            for value in values:
                uses[value] = uses.get(value, 0) + 1
        found = {}
        loops = [group for group in groups if group.bodies]
        for group in sorted(loops, key=lambda g: min(self.position[n] for n in g.members)):
            found[group.number] = self.place_loop(group, uses)
        return found

    def place_loop(self, group: KernelGroup, uses: dict[Node, int]) -> LoopBuffers:
        node = group.anchor
        assert node is not None and isinstance(node.op, ops.Nested)
        count = carry_count(node.op)
        values = [strip_aliases(x) for x in node.inputs]
        carries: list[str] = []
        for k, value in enumerate(values[:count]):
            if uses.get(value) == 1 and values.count(value) == 1 and self.is_temporary(value):
                carries.append(self.home[value])
                continue
            name = self.declare(f"c{group.number}.{k}", node.inputs[k], "arena")
            self.copies.append(Copy(value, self.home[value], name, begins=group.number))
            carries.append(name)
        outputs: dict[int, str] = {}
        for member in group.members:
            k = member.op.output  # type: ignore[attr-defined]
            wanted = self.targets.pop(member, [])
            if k < count:
                self.home[member] = carries[k]
            else:
                outputs[k] = self.home[member]
            home = self.home[member]
            self.copies += [Copy(member, home, name) for name in wanted if name != home]
        condition = None
        if isinstance(node.op, ops.While):
            decides = node.op.condition.results[0]
            condition = self.declare(f"p{group.number}", decides, "arena")
        homes = tuple(self.home[value] for value in values)
        return LoopBuffers(homes, tuple(carries), outputs, condition)

    def is_temporary(self, value: Node) -> bool:
        """Whether a value lives in one temporary and nowhere else."""
        home = self.home[value]
        return (
            self.plans[home].kind == "arena"
            and self.targets.get(value, [home]) == [home]
            and not any(copy.value is value for copy in self.copies)
        )
