"""Lower loops and branches: the buffers of a body are parts of the buffers around it.

A carry is one buffer, which every step updates like a program its states.  The item of a step is a
part of its sequence, a stacked result goes to a part of its stack; both begin at a multiple of the
step's index.  Nothing is copied, and nothing allocated from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..ir import ops
from ..ir.dims import SymbolicDim
from ..schedule.plan import Schedule, ScheduledLoop
from .ir import Choice, Index, Item, Repeat, While, step_index

#: A storage, and where in it a buffer begins.
Place = tuple[str, Index]
Places = Mapping[str, Place]
#: Lowers a body: its schedule, places, depth of repetitions, prefix of names, and whether threads
#: meet before its first kernel.
LowerBody = Callable[[Schedule, Places, int, str, bool], tuple[Item, ...]]


def lower_loop(
    loop: ScheduledLoop, places: Places, depth: int, prefix: str, lower_body: LowerBody
) -> list[Item]:
    """Return the items of a loop or branch that stands inside ``depth`` repetitions."""

    def outside(name: str) -> Place:
        return places.get(name, (name, 0))

    match loop.op:
        case ops.Scan() as op:
            index = step_index(depth)
            step: Index = SymbolicDim.of(index)
            if op.reverse:
                step = op.length - 1 - step
            inside = _carries(loop, 0, outside)
            inside |= _formals(loop, 0, loop.inputs, outside, step)
            inside |= _results(loop, 0, outside, step)
            items = lower_body(loop.bodies[0], inside, depth + 1, prefix, True)
            return [Repeat(index, op.length, items)] if items else []
        case ops.Cond():
            branches = []
            for which, letter in enumerate("ab"):
                inside = _formals(loop, which, loop.inputs[1:], outside)
                inside |= _results(loop, which, outside)
                schedule = loop.bodies[which]
                branches.append(lower_body(schedule, inside, depth, f"{prefix}{letter}", False))
            return [Choice(*outside(loop.inputs[0]), True, *branches)]
        case _:
            assert loop.condition is not None
            parts = []
            for which, letter in enumerate("ab"):
                inside = _carries(loop, which, outside)
                inside |= _formals(loop, which, loop.inputs, outside)
                if which == 0:
                    inside[_output_name(loop.bodies[0], 0)] = outside(loop.condition)
                parts.append(
                    lower_body(loop.bodies[which], inside, depth, f"{prefix}{letter}", True)
                )
            return [While(parts[0], outside(loop.condition)[0], parts[1])]


def _carries(loop: ScheduledLoop, which: int, outside: Callable[[str], Place]) -> dict[str, Place]:
    home = loop.bodies[which].home
    pairs = zip(loop.states[which], loop.carries, strict=True)
    return {home[state]: outside(carry) for state, carry in pairs if state in home}


def _formals(
    loop: ScheduledLoop,
    which: int,
    inputs: tuple[str, ...],
    outside: Callable[[str], Place],
    step: Index = 0,
) -> dict[str, Place]:
    """Return the places of the formals that a body reads: whole inputs, or a step's items."""
    op, home = loop.op, loop.bodies[which].home
    first_whole = op.carries + op.sequences if isinstance(op, ops.Scan) else 0
    found: dict[str, Place] = {}
    formals = op.bodies[which].formals
    for position, (formal, buffer) in enumerate(zip(formals, inputs, strict=True)):
        if formal in home:
            storage, start = outside(buffer)
            if position < first_whole:
                start = start + step * formal.type.size
            found[home[formal]] = storage, start
    return found


def _results(
    loop: ScheduledLoop, which: int, outside: Callable[[str], Place], step: Index = 0
) -> dict[str, Place]:
    found: dict[str, Place] = {}
    for k, buffer in loop.outputs.items():
        storage, start = outside(buffer)
        size = loop.op.bodies[which].results[k].type.size
        found[_output_name(loop.bodies[which], k)] = storage, start + step * size
    return found


def _output_name(schedule: Schedule, k: int) -> str:
    """Return the buffer of a body's output, which is called by its number."""
    return next(
        plan.name
        for plan in schedule.buffers.values()
        if plan.kind == "output" and plan.label == str(k)
    )
