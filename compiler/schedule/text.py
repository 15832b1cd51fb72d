"""The schedule as text: which operators became which kernel, and where their values go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..artifact import ArenaSlot
from ..ir import ops
from ..ir.dims import format_shape
from ..ir.graph import Node
from .plan import BufferPlan, KernelGroup, Schedule, ScheduledGroup, ScheduledLoop


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
    if group.bodies:
        return f"loop {group.number} {group.kind}"
    names = " ".join(_kind_of(node) for node in group.members)
    around = "" if group.anchor is None else f"{group.kind} "
    return f"kernel {group.number} {around}{loops}: {names}"


def format_groups(groups: Sequence[KernelGroup]) -> str:
    """Return one line for each group; those of bodies are indented."""
    return "".join(f"{line}\n" for line in _format_groups(groups))


def _format_groups(groups: Sequence[KernelGroup], indent: str = "") -> list[str]:
    lines: list[str] = []
    for group in groups:
        lines.append(indent + format_group(group))
        for body in group.bodies:
            lines += _format_groups(body.groups, f"{indent}    ")
    return lines


def _name_buffers(schedule: Schedule) -> dict[str, str]:
    """Return what a reader calls every buffer: states by label, numbered where several agree."""
    states = [p for p in schedule.buffers.values() if p.kind == "state"]
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
    """Return one line for each kernel, in the order in which they run; bodies are indented."""
    return "".join(f"{line}\n" for line in _format_steps(schedule))


def _format_steps(schedule: Schedule, indent: str = "") -> list[str]:
    names = _name_buffers(schedule)
    lines: list[str] = []
    for step in schedule.steps:
        lines.append(indent + format_step(step, names))
        if step.loop is not None:
            for title, body in zip(_body_titles(step.loop), step.loop.bodies, strict=True):
                lines += [f"{indent}  {title}:", *_format_steps(body, f"{indent}    ")]
    return lines


def _body_titles(loop: ScheduledLoop) -> tuple[str, ...]:
    match loop.op:
        case ops.Scan():
            return (f"{loop.op.length} steps{' in reverse' if loop.op.reverse else ''} of",)
        case ops.Cond():
            return "if it holds", "else"
        case _:
            return "while", "do"


def format_slots(slots: Sequence[ArenaSlot]) -> str:
    """Return one line for each temporary: its bytes, and the phases in which it is alive."""
    return "".join(
        f"{slot.buffer} {slot.bytes} bytes, phases {slot.first} to {slot.last}\n" for slot in slots
    )
