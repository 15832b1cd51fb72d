"""The schedule as text: which operators became which kernel, and where their values go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..artifact import ArenaSlot
from ..ir import ops
from ..ir.dims import format_shape
from ..ir.graph import Node
from .plan import BufferPlan, KernelGroup, Schedule, ScheduledGroup


def name_node(node: Node) -> str:
    """Return ``sum (batch,) at net.py:12``: what a note calls a node."""
    if isinstance(node.op, (ops.Input, ops.State)):
        return repr(node.op.label)
    kind = getattr(node.op, "kind", node.op.name)
    where = f" at {node.source.short}" if node.source else ""
    return f"{kind} {format_shape(node.shape)}{where}"


def _kind_of(node: Node) -> str:
    return str(getattr(node.op, "kind", node.op.name))


def format_group(group: KernelGroup) -> str:
    """Return one line: number, what it is built around, the loops, the operators."""
    loops = format_shape(tuple(group.domain))
    if group.copies:
        return f"kernel {group.number} copies {loops}"
    names = " ".join(_kind_of(node) for node in group.members)
    around = "" if group.anchor is None else f"{group.kind} "
    return f"kernel {group.number} {around}{loops}: {names}"


def format_groups(groups: Sequence[KernelGroup]) -> str:
    """Return one line for each group."""
    return "".join(f"{format_group(group)}\n" for group in groups)


def _name_buffers(schedule: Schedule) -> dict[str, str]:
    """Return what a reader calls every buffer: states by label, numbered where several agree."""
    states = [p for p in schedule.buffers.values() if isinstance(p.node.op, ops.State)]
    states.sort(key=_age)
    labels = [plan.label for plan in states]
    seen = dict.fromkeys(labels, 0)
    names: dict[str, str] = {}
    for plan in states:
        seen[plan.label] += 1
        number = f"#{seen[plan.label]}" if labels.count(plan.label) > 1 else ""
        names[plan.name] = f"{plan.label}{number} in place"
    for plan in schedule.buffers.values():
        if plan.name not in names:
            names[plan.name] = plan.name if plan.kind == "arena" else f"{plan.kind} {plan.label}"
    return names


def _age(plan: BufferPlan) -> int:
    return plan.node.op.key if isinstance(plan.node.op, ops.State) else 0


def format_step(step: ScheduledGroup, names: Mapping[str, str]) -> str:
    """Return a group, the buffers that it writes, and whether threads meet before it."""
    written = ", ".join(names[name] for _, buffers in step.stores for name in buffers)
    barrier = " after a barrier" if step.barrier else ""
    return f"{format_group(step.group)} -> {written}{barrier}"


def format_schedule(schedule: Schedule) -> str:
    """Return one line for each kernel, in the order in which they run."""
    names = _name_buffers(schedule)
    return "".join(f"{format_step(step, names)}\n" for step in schedule.steps)


def format_slots(slots: Sequence[ArenaSlot]) -> str:
    """Return one line for each temporary: its bytes, and the phases in which it is alive."""
    return "".join(
        f"{slot.buffer} {slot.bytes} bytes, phases {slot.first} to {slot.last}\n" for slot in slots
    )
