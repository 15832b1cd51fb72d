"""The schedule as text: which operators became which kernel, and where their values go."""

from __future__ import annotations

from collections.abc import Sequence

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


def _name_buffer(plan: BufferPlan) -> str:
    """Return the buffer as a reader of the program knows it."""
    if plan.kind == "state":
        op = plan.node.op
        return f"{op.label} in place" if isinstance(op, ops.State) else plan.name
    return plan.name if plan.kind == "arena" else f"{plan.kind} {plan.label}"


def format_step(step: ScheduledGroup, schedule: Schedule) -> str:
    """Return a group, the buffers that it writes, and whether threads meet before it."""
    names = [_name_buffer(schedule.buffers[n]) for _, buffers in step.stores for n in buffers]
    barrier = " after a barrier" if step.barrier else ""
    return f"{format_group(step.group)} -> {', '.join(names)}{barrier}"


def format_schedule(schedule: Schedule) -> str:
    """Return one line for each kernel, in the order in which they run."""
    return "".join(f"{format_step(step, schedule)}\n" for step in schedule.steps)


def format_slots(slots: Sequence[ArenaSlot]) -> str:
    """Return one line for each temporary: its bytes, and the phases in which it is alive."""
    return "".join(
        f"{slot.buffer} {slot.bytes} bytes, phases {slot.first} to {slot.last}\n" for slot in slots
    )
